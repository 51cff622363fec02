"""Draw the picture of the front page from the committed rows: `python .site/front.py` writes results/front.png."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bistable_rl.compare.ledger import RESULTS
from bistable_rl.figure_style import CELL_COLOURS, CELL_NAMES, DEFAULTS

STREAMS = ("uniform", "constant", "blocks", "periodic", "sticky")


def read(folder: str) -> list[dict[str, str]]:
    """Return the rows of a committed comparison."""
    with (RESULTS / folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def worst(row: Mapping[str, Any], horizon: int) -> float:
    """Return the success of a run in the stream in which it does worst."""
    return min(float(row[f"final.success@{horizon}/{stream}"]) for stream in STREAMS)


def draw(ax: Axes, rows: Sequence[Mapping[str, Any]], values: np.ndarray, horizons: Sequence[int], style: str) -> None:
    """Draw each run thinly and the mean of each cell."""
    for cell in ("lstm", "gru", "nbrc", "brc"):
        mine = values[[row["cell"] == cell for row in rows]]
        if not len(mine):
            continue
        ax.plot(horizons, mine.T, style, color=CELL_COLOURS[cell], linewidth=0.7, alpha=0.45)
        ax.plot(horizons, mine.mean(0), style, color=CELL_COLOURS[cell], marker="o", markersize=5, linewidth=2.4)


def main() -> None:
    """Draw both panels."""
    plt.rcParams.update(DEFAULTS)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True, layout="constrained")
    rows, horizons = [r for r in read("horizons_copy_first") if "1.2M" not in r["label"]], (50, 500, 5000, 50000)
    draw(left, rows, np.array([[float(r[f"final.success@{h}"]) for h in horizons] for r in rows]), horizons, "-")
    long = (50, 5000, 100000)
    for folder, style in (("any_stream_copy_first", "--"), ("certified_copy_first", "-")):
        rows = read(folder)
        draw(right, rows, np.array([[worst(r, h) for h in long] for r in rows]), long, style)
    left.set(title="new random distractors at every step", ylabel="success (chance: 0.125)", ylim=(0, 1.04))
    right.set(title="the worst of five streams of distractors")
    for ax, ticks in ((left, horizons), (right, long)):
        ax.set(xscale="log", xlabel="steps to remember (trained at 50)")
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        ax.minorticks_off()
    for cell in ("brc", "nbrc", "gru", "lstm"):
        left.plot([], [], color=CELL_COLOURS[cell], marker="o", label=CELL_NAMES[cell])
    right.plot([], [], "-", color="#555555", label="with the certified loss: BRC, nBRC")
    right.plot([], [], "--", color="#555555", label="without it: all four")
    left.legend(loc="lower left", ncols=4, columnspacing=1.2)
    right.legend(loc="lower left")
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else RESULTS / "front.png", dpi=150)


if __name__ == "__main__":
    main()
