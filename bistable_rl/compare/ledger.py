"""The ledger of a grid: the finished runs, in two CSV files that outlive the run folders.

    runs.csv      one row per run: its keys, where, when and how it ran, its final metrics
    curves.csv    one row per evaluation during training

A run's row is found by its config hash. With `--reuse-committed`, rows that are committed with the package count as
finished too, and are marked; they are never written into the folder of another grid.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import bistable_rl
from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.environment import machine
from bistable_rl.runs.files import inside
from bistable_rl.runs.run import Run
from bistable_rl.runs.tables import write_csv

RESULTS = Path(bistable_rl.__file__).parent / "results"
"""Folders of committed rows; an installed package has none."""

RUNS = "runs.csv"
CURVES = "curves.csv"
FACTS = ("label", "seed", "hash", "cell", "date", "commit", "hardware", "threads", "steps", "seconds", "memory_mb")
"""The first columns of runs.csv; then come grid.<key> and final.<metric>."""

POINT = ("label", "seed", "hash", "steps", "seconds")
"""The first columns of curves.csv; then come the metrics."""

MAX_POINTS = 100
"""The most points of a curve that are kept."""


@dataclass(frozen=True)
class Row:
    """A finished run.

    Attributes:
        label: The name of the job without its seed.
        seed: Its seed.
        hash: Its config hash.
        facts: The other columns of `FACTS`, as text; empty where the run did not record them.
        keys: The grid's keys and this run's values, as text.
        final: Its final metrics; at other horizons they are named `success@500`, and with a kind of stream of
            distractors `success@500/constant`.
        curve: Its evaluations, {"steps": 1000.0, "seconds": 2.5, "success_rate": 0.5, ...} each; those of a supervised
            training have its loss too, "train_loss".
        committed: Whether it is committed with the package, rather than a row of the grid's own folder.
    """

    label: str
    seed: int
    hash: str
    facts: Mapping[str, str]
    keys: Mapping[str, str]
    final: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...] = field(default=(), repr=False)
    committed: bool = field(default=False, compare=False)

    def number(self, fact: str) -> float:
        """Return a fact such as seconds as a number, NaN where the run did not record it."""
        return float(self.facts.get(fact) or "nan")


def row_of_job(job: Job) -> Row | None:
    """Return the row of a job from its run folder, None if the run has not finished.

    Raises:
        UserError: If the run is marked as finished, but its files are broken.
    """
    try:
        run = Run(job.folder)
        result = run.result
        if result is None or result["status"] != "finished":
            return None
        curve = [point for point in map(_point, run.metrics.rows()) if point]
        row = Row(
            label=job.label,
            seed=job.config.seed,
            hash=job.hash,
            facts=_facts(job, result, run.environment),
            keys=_keys(job),
            final=_final(result),
            curve=_thinned(curve),
        )
        _check_numbers(row)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise UserError(f"{job.folder}: its files are broken ({one_sentence(error)})") from None
    return row


def _facts(job: Job, result: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "cell": job.config.cell,
        "date": environment["date"],
        "commit": environment["commit"],
        "hardware": f"{machine(environment)}, {environment['device']}",
        "threads": environment["threads"],
        "steps": result["steps"],
        "seconds": result["seconds"],
        "memory_mb": result.get("peak_memory_mb"),
    }
    return {name: "" if value is None else str(value) for name, value in facts.items()}


def _final(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of the final evaluation, and those at other horizons and streams, see `Row`."""
    final = {name: float(value) for name, value in result["evaluation"].items() if value is not None}
    for at in result.get("horizons", ()):
        numbers = {name: value for name, value in at.items() if isinstance(value, (int, float))}
        where = f"{at['horizon']}/{at['stream']}" if "stream" in at else at["horizon"]
        final.update({f"{name}@{where}": float(v) for name, v in numbers.items() if name != "horizon"})
    return final


def _keys(job: Job) -> dict[str, str]:
    """Return the grid's keys and a job's values as text that a file can hold."""
    return {name: str(value).encode(errors="replace").decode() for name, value in job.keys.items()}


def _check_numbers(row: Row) -> None:
    """Check the numbers of a row that statistics use; its metrics may be infinite or NaN.

    Raises:
        ValueError: If one is missing or not a number, or the curve's steps do not increase.
    """
    for fact in ("steps", "seconds", "memory_mb"):
        value = row.number(fact)
        if not (0 <= value < math.inf or (fact == "memory_mb" and math.isnan(value))):
            raise ValueError(f"{fact} of {row.label}, seed {row.seed} is {row.facts.get(fact)!r}")
    before = -math.inf
    for point in row.curve:
        steps = point.get("steps", math.nan)
        if not (before < steps < math.inf and 0 <= point.get("seconds", 0.0) < math.inf):
            raise ValueError(
                f"the curve of {row.label}, seed {row.seed} is broken at {steps:g} steps: its steps must increase, "
                "and its seconds must be 0 or more"
            )
        before = steps
    for name in row.final:
        if "@" in name and not re.fullmatch(r"[1-9][0-9]{0,17}(/[a-z_]+)?", name.partition("@")[2]):
            raise ValueError(f"final.{name} does not name a horizon")


def _point(row: Mapping[str, str]) -> dict[str, float]:
    """Return the point of a curve from a row of metrics.csv, empty for a row without evaluation.

    Every row of a supervised training is a point. The first two columns of metrics.csv are steps and seconds.
    """
    steps, seconds = list(row.values())[:2]
    values = {name[5:]: float(value) for name, value in row.items() if name.startswith("eval/") and value}
    if "time/updates" in row:
        values["train_loss"] = float(row["train/loss"])
    return {"steps": float(steps), "seconds": float(seconds), **values} if values else {}


def _thinned(curve: list[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """Return at most `MAX_POINTS` points of a curve, evenly spaced and with the last."""
    every = -(-len(curve) // MAX_POINTS)
    return tuple(point for i, point in enumerate(reversed(curve)) if i % every == 0)[::-1]


class Ledger:
    """The rows of finished runs, by config hash.

    Args:
        folder: The folder of runs.csv and curves.csv; the first `add` makes both.
        committed: A folder whose rows count as finished too, unless `folder` has them; it is only read, and need not
            exist.

    Raises:
        UserError: If a file is broken, or is a link or a pipe.
    """

    def __init__(self, folder: Path, committed: Path | None = None) -> None:
        self.folder = folder
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
            inside(folder, name)
        self._rows = _by_hash(folder)
        self._committed = {} if committed is None else _by_hash(committed)

    def row(self, job: Job) -> Row | None:
        """Return a job's row with the job's own label and keys, None if it has none."""
        own = self._rows.get(job.hash)
        row = own or self._committed.get(job.hash)
        return row and replace(row, label=job.label, keys=_keys(job), committed=own is None)

    @property
    def seeds(self) -> list[int]:
        """The seeds that have a row."""
        return sorted({row.seed for row in self._all()})

    def values(self, key: str) -> list[str]:
        """Return the values of one of the grid's keys in the rows."""
        return sorted({row.keys[key] for row in self._all() if key in row.keys})

    def _all(self) -> Iterator[Row]:
        return chain(self._rows.values(), self._committed.values())

    def add(self, row: Row) -> None:
        """Add a row and write both files, without the committed rows.

        Raises:
            UserError: If they cannot be written.
        """
        self._rows[row.hash] = row
        write(self.folder, self._rows.values())


def _by_hash(folder: Path) -> dict[str, Row]:
    """Return the rows of a folder, none if it has no runs.csv."""
    return {row.hash: row for row in read(folder)} if (folder / RUNS).exists() else {}


def write(folder: Path, rows: Iterable[Row]) -> None:
    """Write runs.csv and curves.csv, sorted and atomically.

    Raises:
        UserError: If they cannot be written.
    """
    rows = sorted(rows, key=lambda row: (row.label, row.seed, row.hash))
    table = [
        {"label": row.label, "seed": row.seed, "hash": row.hash}
        | dict(row.facts)
        | {f"grid.{name}": value for name, value in row.keys.items()}
        | {f"final.{name}": value for name, value in row.final.items()}
        for row in rows
    ]
    points = [
        {"label": row.label, "seed": row.seed, "hash": row.hash} | dict(point) | {"steps": f"{point['steps']:.10g}"}
        for row in rows
        for point in row.curve
    ]
    # a row without its curve would be read as a whole run, so runs.csv is written last
    write_csv(folder / CURVES, points, POINT)
    write_csv(folder / RUNS, table, FACTS)


def read(folder: Path) -> list[Row]:
    """Return the rows of runs.csv with their curves.

    Raises:
        OSError: If a file is missing or cannot be read.
        UserError: If one is broken.
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
    except (ValueError, csv.Error) as error:
        raise UserError(f"{folder}: {RUNS} or {CURVES} is broken ({one_sentence(error)})") from None


def _lines(path: Path, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file that has these columns; every row must be as long as the header."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path.name} has no column {missing[0]}")
        for line in reader:
            if None in line or None in line.values():
                raise ValueError(f"a line of {path.name} is not as long as its header")
            yield line
