"""The tables of the pages, from the committed results.

Each table of a page is printed by code in a comment above it. `cog -r -I .site PAGE` writes the tables again, and
tests/test_pages.py fails where a page and the results differ.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "bistable_rl" / "results"

Show = Callable[[float], str]


def whole(value: float) -> str:
    """Show a return: 500, -218."""
    return f"{value:.0f}"


def tenth(value: float) -> str:
    """Show a return to one digit: 92.9."""
    return f"{value:.1f}"


def share(value: float) -> str:
    """Show a success rate: 1, .985."""
    return f"{value:.3f}".rstrip("0").rstrip(".").removeprefix("0") or "0"


def read(folder: str, name: str = "runs") -> list[dict[str, Any]]:
    """Return the rows of a committed result."""
    with (RESULTS / folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def measured(name: str) -> tuple[list[dict[str, Any]], str]:
    """Return what `bistable-rl speed` measured, and on what and when."""
    data = json.loads((RESULTS / f"speed_{name}.json").read_text(encoding="utf-8"))
    where = data["environment"]
    return data["measured"], f"{where['processor']}, torch {where['versions']['torch']}, {where['date'][:10]}"


def final(folder: str, label: str, column: str) -> list[float]:
    """Return a column of the runs with this label, by seed."""
    rows = [row for row in read(folder) if row["label"] == label]
    return [float(row[f"final.{column}"]) for row in sorted(rows, key=lambda row: int(row["seed"]))]


def best(folder: str, label: str, column: str) -> list[float]:
    """Return the highest of a column over the evaluations of each run with this label, by seed."""
    rows = [row for row in read(folder, "curves") if row["label"] == label]
    runs = sorted({int(row["seed"]) for row in rows})
    return [max(float(row[column]) for row in rows if int(row["seed"]) == seed) for seed in runs]


def seeds(values: Iterable[float], show: Show = whole) -> str:
    """Return all seeds of a cell; a dash where nothing was run."""
    return " ".join(map(show, values)) or "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of Markdown between the page's marks."""
    import cog  # exists only while cog fills a page; .site/front.py reads rows without it

    for row in (header, ["---"] * len(header), *rows):
        cog.outl("| " + " | ".join(row) + " |" if row[0] != "---" else "|" + "|".join(row) + "|")


def processors(rows: Iterable[Mapping[str, str]]) -> str:
    """Return the machines of some runs."""
    return "; ".join(sorted({row["hardware"].rsplit(",", 1)[0] for row in rows}))


def days(rows: Iterable[Mapping[str, str]]) -> str:
    """Return the first and the last day of some runs."""
    found = sorted(row["date"][:10] for row in rows)
    return found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def hardware(*folders: str) -> str:
    """Return on what the runs of these folders were made, with how many threads, and when."""
    rows = [row for folder in folders for row in read(folder)]
    threads = sorted({row["threads"] for row in rows})
    each = "one thread per run" if threads == ["1"] else f"{' or '.join(threads)} threads per run"
    return f"{processors(rows)}; {each}; {days(rows)}"


def ppo_speed() -> tuple[dict[tuple[Any, ...], float], str]:
    """Return environment steps per second by (algorithm, copies, batch size, epochs), and on what and when."""
    rows, where = measured("ppo")
    return {(row["algorithm"], *row["setting"].values()): row["steps_per_second"] for row in rows}, where


def worst(row: Mapping[str, str], horizon: int) -> float:
    """Return the success of a run in the stream in which it does worst, of all that it was evaluated with."""
    return min(float(value) for name, value in row.items() if name.startswith(f"final.success@{horizon}/"))
