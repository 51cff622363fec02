"""The tables of results on others' tasks; a dash stands where nothing was run yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cog
from tables import RESULTS, Show, final, hardware, seeds, share, table

Column = Callable[[str, str, str], list[float]]
"""`tables.final` or `tables.best`."""

CELLS = {"default": "default", "nBRC": "nbrc", "BRC": "brc", "GRU": "gru", "LSTM": "lstm"}


def hundredth(value: float) -> str:
    """Show a return of POPGym's: 1.00, 0.87."""
    return f"{value:.2f}"


def cells(rows: Sequence[tuple[str, str, str, str]], show: Show = share, of: Column = final) -> None:
    """Print a row of all cells for each (text, folder, label with a place for the cell, column)."""
    lines = []
    for text, folder, label, column in rows:
        made = (RESULTS / folder).is_dir()
        given = [of(folder, label.format(cell), column) if made else [] for cell in CELLS.values()]
        lines.append([text, *(seeds(values, show) for values in given)])
    table(["each seed", *CELLS], lines)
    folders = dict.fromkeys(folder for _, folder, _, _ in rows if (RESULTS / folder).is_dir())
    if folders:
        cog.outl(f"\n{hardware(*folders)}.")
