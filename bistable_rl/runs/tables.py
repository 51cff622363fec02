"""CSV files written from complete tables."""

from __future__ import annotations

import csv
import io
import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bistable_rl.runs.files import write_text


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Write one line per row, whole or not at all.

    Args:
        path: The file.
        rows: Values by column; columns that a row lacks stay empty.
        columns: The first columns. Other columns follow in order of first appearance.

    Raises:
        UserError: If the file cannot be written.
    """
    rows = list(rows)
    header = dict.fromkeys(columns)
    for row in rows:
        header.update(dict.fromkeys(row))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(header), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: short(value) for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def short(value: Any) -> Any:
    """Return a float, numpy's too, as text with six significant digits; anything else unchanged."""
    return f"{value:.6g}" if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral) else value
