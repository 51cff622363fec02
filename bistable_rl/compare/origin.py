"""Where the rows of a page come from: the grid's own folder, or the results committed with the package."""

from __future__ import annotations

from collections.abc import Sequence

from bistable_rl.compare.ledger import Row


def origin(row: Row) -> str:
    """Return the origin of a row, for a table."""
    return "committed" if row.committed else "this folder"


def of_committed(rows: Sequence[Row], form: str = " ({})") -> str:
    """Return the note that follows a number of rows, such as " (2 committed)"; "" if none is committed."""
    count = sum(row.committed for row in rows)
    return form.format(f"{count} committed") if count else ""
