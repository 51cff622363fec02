"""Draw the picture of the front page from the committed rows: `python .site/front.py` writes results/front.png."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from tables import RESULTS, read, worst

from bistable_rl.figure_style import OTHER_COLOUR, cell_colour, cell_names, drawing

CELLS = ("brc", "nbrc", "gru", "lstm")
SHORT, LONG = (50, 500, 5000, 50000), (50, 5000, 100000)


def draw(ax: Axes, rows: Sequence[Mapping[str, Any]], values: np.ndarray, horizons: Sequence[int], style: str) -> None:
    """Draw each run thinly and the mean of each cell."""
    for cell in reversed(CELLS):
        mine = values[[row["cell"] == cell for row in rows]]
        if len(mine):
            ax.plot(horizons, mine.T, style, color=cell_colour(cell), linewidth=0.7, alpha=0.45)
            ax.plot(horizons, mine.mean(0), style, color=cell_colour(cell), marker="o", markersize=5, linewidth=2.4)


def main(path: Path) -> None:
    """Draw both panels."""
    with drawing(path, 1, 2, size=(9.5, 3.8), sharey=True) as (_, [[left, right]]):
        rows = [row for row in read("horizons_copy_first") if row["label"] in CELLS]  # not those trained twice as long
        draw(left, rows, np.array([[float(row[f"final.success@{h}"]) for h in SHORT] for row in rows]), SHORT, "-")
        for folder, style in (("any_stream_copy_first", "--"), ("certified_copy_first", "-")):
            rows = read(folder)
            draw(right, rows, np.array([[worst(row, h) for h in LONG] for row in rows]), LONG, style)
        left.set(title="new random distractors at every step", ylabel="success (chance: 0.125)", ylim=(0, 1.04))
        right.set(title="the worst of five streams of distractors")
        for ax, ticks in ((left, SHORT), (right, LONG)):
            ax.set(xscale="log", xlabel="steps to remember (trained at 50)")
            ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            ax.minorticks_off()
        for cell in CELLS:
            left.plot([], [], color=cell_colour(cell), marker="o", label=cell_names(cell))
        right.plot([], [], "-", color=OTHER_COLOUR, label="with the certified loss: BRC, nBRC")
        right.plot([], [], "--", color=OTHER_COLOUR, label="without it: all four")
        left.legend(loc="lower left", ncols=4, columnspacing=1.2)
        right.legend(loc="lower left")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "front.png")
