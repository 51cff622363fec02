"""Figure 3 of Vecoven et al. 2021: the error on copy-first during training, from the finished runs behind Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bistable_rl import figure_style
from bistable_rl.benchmarks.reproduce import grids
from bistable_rl.cells import CELLS
from bistable_rl.compare import ledger
from bistable_rl.compare.ledger import Ledger, Row
from bistable_rl.compare.origin import of_committed
from bistable_rl.errors import UserError

PICTURE = "fig3.png"
LOSS = "train_loss"
DASHES = ("-", (0, (3, 2)))
"""Alternating line styles, so that one line does not hide another that it lies on."""


def finished_rows(preset: str, out: Path) -> list[Row]:
    """Return the finished runs of Table 1 with any cell and seed: the committed ones and those in `out`.

    Raises:
        UserError: If a file is broken.
    """
    name = grids.folder_name("fig3", preset)
    book = Ledger(out / name, ledger.RESULTS / name)
    jobs = grids.make_jobs(grids.find_grid(preset, "table1"), out / name, tuple(CELLS), book.seeds)
    return [row for row in map(book.row, jobs) if row is not None]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the error during training: mean and range over seeds, one panel per setting with a scale of its own.

    Raises:
        UserError: If a run has no curve, matplotlib is not installed, or the file cannot be written.
    """
    settings = _settings(rows)
    size = (1.2 + 2.8 * len(settings), 3.4)
    with figure_style.drawing(path, 1, len(settings), size=size) as (figure, [panels]):
        for axes, (setting, cells) in zip(panels, settings.items(), strict=True):
            for i, (cell, group) in enumerate(cells.items()):
                steps, losses = _curves(group)
                style = {"color": figure_style.cell_colour(cell), "linestyle": DASHES[i % 2]}
                axes.plot(steps, losses.mean(0), **style, label=figure_style.cell_names(cell))
                axes.fill_between(steps, losses.min(0), losses.max(0), color=figure_style.cell_colour(cell), alpha=0.2)
            axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
            axes.set(title=setting, xlabel="updates", yscale="log")
            figure_style.mark_steps(axes)
        panels[0].set_ylabel("mean squared error in training")
        entries = {label: handle for a in panels for handle, label in zip(*a.get_legend_handles_labels(), strict=True)}
        figure.legend(entries.values(), entries.keys(), ncols=len(entries), loc="outside lower center")


def caption(rows: Sequence[Row]) -> str:
    """Return the caption of the figure, in one line.

    Raises:
        UserError: If a run has no curve.
    """
    last = (
        f"{setting}: " + ", ".join(f"{cell} {_curves(group)[1][:, -1].mean():.3f}" for cell, group in cells.items())
        for setting, cells in _settings(rows).items()
    )
    return (
        "A network that remembers nothing has an error of 1 (dotted); a cell learns when it leaves that line. "
        f"{len(rows)} runs{of_committed(rows)}. Final errors, mean over seeds: {'; '.join(last)}."
    )


def _settings(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Return the runs by setting and cell."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row.keys["setting"], {}).setdefault(row.keys["cell"], []).append(row)
    return found


def _curves(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Return the updates (n,) and the losses (seeds, n) of runs that differ only in their seed."""
    for row in rows:
        if not row.curve or not all(LOSS in point for point in row.curve):
            raise UserError(
                f"{ledger.CURVES} has no {LOSS} of {row.label}, seed {row.seed}; "
                f"delete the row of this run in the {ledger.RUNS} beside it and run the command again."
            )
    n = min(len(row.curve) for row in rows)
    steps = np.array([point["steps"] for point in rows[0].curve[:n]])
    return steps, np.array([[point[LOSS] for point in row.curve[:n]] for row in rows])
