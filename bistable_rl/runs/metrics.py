"""metrics.csv of a run: fixed columns, about one row per update."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bistable_rl.errors import UserError
from bistable_rl.runs.files import inside, remove_file, write_text
from bistable_rl.runs.tables import short


class Metrics:
    """The metrics.csv of a run folder.

    Args:
        folder: The run folder.
        name: The name of the file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    @property
    def path(self) -> Path:
        """The path of the file.

        Raises:
            UserError: If the file is a link.
        """
        return inside(self._folder, self._name)

    def rows(self) -> list[dict[str, str]]:
        """Return the rows, each as values by column.

        Raises:
            OSError: If there is no such file, or it cannot be read.
            csv.Error: If it is not a CSV file.
        """
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def last(self) -> dict[str, str]:
        """Return the last row as values by column; a run that is still writing may have written only part of it.

        Raises:
            LookupError: If there is no row yet.
            OSError, csv.Error: If `rows` raises them.
        """
        with self.path.open(newline="", encoding="utf-8") as file:
            return deque(csv.DictReader(file), maxlen=1)[0]

    def cut(self, column: str, last: int) -> None:
        """Drop the rows that a resumed run writes again: rows whose `column` is above `last`, and a broken last row.

        Raises:
            UserError: If the file is broken or cannot be written.
        """
        path = self.path
        if not path.exists():
            return
        if last < 1 or not path.stat().st_size:  # it starts over, or was killed before the header was on the disk
            remove_file(path)
            return
        try:
            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file)
            place = header.index(column)
            kept = [row for row in rows if len(row) == len(header) and int(row[place]) <= last]
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{path} is broken ({error}); delete it, or start a new run.") from None
        write_text(path, "".join(",".join(row) + "\r\n" for row in [header, *kept]))

    def writer(self, columns: Sequence[str]) -> MetricsWriter:
        """Return a writer that appends rows of these columns."""
        return MetricsWriter(self.path, columns)


class MetricsWriter:
    """Appends rows to a CSV file with fixed columns, and flushes each row.

    Args:
        path: The file; a new file gets a header.
        columns: The names of the columns, in order.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        new = not path.exists()
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns, extrasaction="ignore", restval="")
        if new:
            self._writer.writeheader()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row. Missing columns stay empty; names that are not columns are ignored."""
        self._writer.writerow({key: short(value) for key, value in row.items()})
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
