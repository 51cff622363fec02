"""The ledger of a grid: what its finished runs gave, in two CSV files that outlive the run folders.

    runs.csv      a row a run: what it was, where, when and how it ran, its final metrics
    curves.csv    a row an evaluation during training

Rows are known again by their config hash. Rows committed with the package count as finished wherever the grid is run,
so that a table can grow over days and machines.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bistable_rl
from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.files import inside, write_text
from bistable_rl.runs.run import Run

RESULTS = Path(bistable_rl.__file__).parent / "results"
"""Folders of rows that are committed; an installed package has none."""

RUNS = "runs.csv"
CURVES = "curves.csv"
FACTS = ("label", "seed", "hash", "cell", "date", "commit", "hardware", "threads", "steps", "seconds", "memory_mb")
"""The first columns of runs.csv; then come grid.<key> and final.<metric>."""

POINT = ("label", "seed", "hash", "steps", "seconds")
"""The first columns of curves.csv; then come the metrics."""

POINTS = 100
"""Points of a curve that are kept."""


@dataclass(frozen=True)
class Row:
    """A finished run.

    Attributes:
        label: What is compared; its seeds share it.
        seed: Its seed.
        hash: Its config hash.
        facts: The other columns of `FACTS`, as text; empty where the run did not say.
        keys: The grid's keys and this run's values, as text.
        final: Its final metrics; horizon generalisation as `success@500`.
        curve: Its evaluations, {"steps": 1000.0, "seconds": 2.5, "success_rate": 0.5, ...} each; of a supervised
            training also its losses, "train_loss".
    """

    label: str
    seed: int
    hash: str
    facts: Mapping[str, str]
    keys: Mapping[str, str]
    final: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...] = field(default=(), repr=False)

    def number(self, fact: str) -> float:
        """Return a fact such as seconds as a number, NaN where the run did not say."""
        return float(self.facts.get(fact) or "nan")


def of_run(job: Job) -> Row | None:
    """Return the row of a job's run folder, None if the run has not finished.

    Raises:
        UserError: The run says that it finished, but its files are broken.
    """
    try:
        run = Run(job.folder)
        result = run.result
        if result is None or result["status"] != "finished":
            return None
        made = run.environment
        curve = [point for point in map(_point, run.metrics.rows()) if point]
        facts = {
            "cell": job.config.cell,
            "date": made["date"],
            "commit": made["commit"],
            "hardware": f"{made['processor']}, {made['cores']} cores, {made['device']}",
            "threads": made["threads"],
            "steps": result["steps"],
            "seconds": result["seconds"],
            "memory_mb": result.get("peak_memory_mb"),
        }
        final = {name: float(value) for name, value in result["evaluation"].items() if value is not None}
        for at in result.get("horizons", ()):
            numbers = {name: value for name, value in at.items() if isinstance(value, (int, float))}
            final.update({f"{name}@{at['horizon']}": float(v) for name, v in numbers.items() if name != "horizon"})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise UserError(f"{job.folder}: its files are broken ({one_sentence(error)})") from None
    row = Row(
        label=job.label,
        seed=job.config.seed,
        hash=job.hash,
        facts={name: "" if value is None else str(value) for name, value in facts.items()},
        keys=_keys(job),
        final=final,
        curve=_thinned(curve),
    )
    try:
        _check_numbers(row)
    except ValueError as error:
        raise UserError(f"{job.folder}: its files are broken ({one_sentence(error)})") from None
    return row


def _keys(job: Job) -> dict[str, str]:
    """Return the grid's keys and a job's values as text that a file can hold."""
    return {name: str(value).encode(errors="replace").decode() for name, value in job.keys.items()}


def _check_numbers(row: Row) -> None:
    """Check the numbers of a row that are counted with; its metrics may be infinite or NaN.

    Raises:
        ValueError: One is missing or no number, or the curve does not go forward.
    """
    for fact in ("steps", "seconds", "memory_mb"):
        value = row.number(fact)
        if not (0 <= value < math.inf or (fact == "memory_mb" and math.isnan(value))):
            raise ValueError(f"{fact} of {row.label}, seed {row.seed} is {row.facts.get(fact)!r}")
    before = -math.inf
    for point in row.curve:
        steps = point.get("steps", math.nan)
        if not (before < steps < math.inf and 0 <= point.get("seconds", 0.0) < math.inf):
            raise ValueError(f"the curve of {row.label}, seed {row.seed} does not go forward at {steps:g} steps")
        before = steps
    for name in row.final:
        if "@" in name and not re.fullmatch(r"[1-9][0-9]{0,17}", name.partition("@")[2]):
            raise ValueError(f"final.{name} names no horizon")


def _point(row: Mapping[str, str]) -> dict[str, float]:
    """Return a point of the curve: a row with an evaluation, or of a supervised training; nothing for other rows.

    The first columns of metrics.csv are steps and seconds.
    """
    steps, seconds = list(row.values())[:2]
    values = {name[5:]: float(value) for name, value in row.items() if name.startswith("eval/") and value}
    if "time/updates" in row:
        values["train_loss"] = float(row["train/loss"])
    return {"steps": float(steps), "seconds": float(seconds), **values} if values else {}


def _thinned(curve: list[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """Return at most `POINTS` of a curve's points, evenly spread, the last among them."""
    every = -(-len(curve) // POINTS)
    return tuple(point for i, point in enumerate(reversed(curve)) if i % every == 0)[::-1]


class Ledger:
    """The rows of finished runs, by config hash.

    Args:
        folder: Holds runs.csv and curves.csv; made when the first row is added.
        committed: A folder with rows that count as finished too, never written to; it need not exist.

    Raises:
        UserError: A file is broken, or a link or a pipe is in the place of one.
    """

    def __init__(self, folder: Path, committed: Path | None = None) -> None:
        self.folder = folder
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
            inside(folder, name)
        self._rows: dict[str, Row] = {}
        for source in (committed, folder):
            if source is not None and (source / RUNS).exists():
                self._rows.update((row.hash, row) for row in read(source))

    def row(self, job: Job) -> Row | None:
        """Return a job's row, with the label and the keys that the job has now."""
        row = self._rows.get(job.hash)
        if row is None:
            return None
        return Row(job.label, row.seed, row.hash, row.facts, _keys(job), row.final, row.curve)

    @property
    def seeds(self) -> list[int]:
        """The seeds that have a row."""
        return sorted({row.seed for row in self._rows.values()})

    def values(self, key: str) -> list[str]:
        """The values that a key of the grid has in the rows."""
        return sorted({row.keys[key] for row in self._rows.values() if key in row.keys})

    def add(self, row: Row) -> None:
        """Add a row and write both files.

        Raises:
            UserError: They cannot be written.
        """
        self._rows[row.hash] = row
        write(self.folder, self._rows.values())


def write(folder: Path, rows: Iterable[Row]) -> None:
    """Write runs.csv and curves.csv, sorted, each whole or not at all.

    Raises:
        UserError: They cannot be written.
    """
    rows = sorted(rows, key=lambda row: (row.label, row.seed, row.hash))
    table = [
        {"label": row.label, "seed": row.seed, "hash": row.hash}
        | dict(row.facts)
        | {f"grid.{name}": value for name, value in row.keys.items()}
        | {f"final.{name}": f"{value:.6g}" for name, value in row.final.items()}
        for row in rows
    ]
    points = [
        {"label": row.label, "seed": row.seed, "hash": row.hash}
        | {name: f"{value:.10g}" if name == "steps" else f"{value:.6g}" for name, value in point.items()}
        for row in rows
        for point in row.curve
    ]
    # the rows of a run without its curve would be taken for a whole run, so runs.csv is written last
    _write_csv(folder / CURVES, POINT, points)
    _write_csv(folder / RUNS, FACTS, table)


def _write_csv(path: Path, first: Iterable[str], rows: list[dict[str, Any]]) -> None:
    columns = dict.fromkeys(first)
    for row in rows:
        columns.update(dict.fromkeys(row))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read(folder: Path) -> list[Row]:
    """Return the rows of runs.csv with their curves.

    Raises:
        UserError: A file is missing or broken.
    """
    curves: dict[str, list[dict[str, float]]] = {}
    try:
        for point in _lines(folder / CURVES, POINT):
            numbers = {k: float(v) for k, v in point.items() if v and k not in ("label", "seed", "hash")}
            curves.setdefault(point["hash"], []).append(numbers)
        rows = [
            Row(
                label=row["label"],
                seed=int(row["seed"]),
                hash=row["hash"],
                facts={name: row[name] for name in FACTS[3:]},
                keys={name[5:]: value for name, value in row.items() if name.startswith("grid.") and value},
                final={name[6:]: float(v) for name, v in row.items() if name.startswith("final.") and v},
                curve=tuple(curves.get(row["hash"], ())),
            )
            for row in _lines(folder / RUNS, FACTS)
        ]
        seen: set[str] = set()
        for row in rows:
            _check_numbers(row)
            if row.hash in seen:
                raise ValueError(f"two rows of {RUNS} have the hash {row.hash!r}")
            seen.add(row.hash)
        return rows
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}.") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{folder}: {RUNS} or {CURVES} is broken ({one_sentence(error)})") from None


def _lines(path: Path, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Give the lines of a CSV file that has these columns, each of them whole."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path.name} has no column {missing[0]}")
        for line in reader:
            if None in line or None in line.values():
                raise ValueError(f"a line of {path.name} is not as long as its header")
            yield line
