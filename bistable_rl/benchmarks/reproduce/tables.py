"""Our figures beside the published ones: as CSV, Markdown and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bistable_rl import figure_style
from bistable_rl.benchmarks.reproduce.grids import Table
from bistable_rl.benchmarks.reproduce.published import PUBLISHED
from bistable_rl.benchmarks.tasks.task import Which
from bistable_rl.compare.ledger import RUNS, Row
from bistable_rl.errors import UserError
from bistable_rl.runs.files import write_text

CSV = "table.csv"
MARKDOWN = "table.md"
PICTURE = "table.png"
COLUMNS = ("table", "setting", "cell", "metric", "mean", "std", "n_seeds", "published_mean", "published_std")
ROUNDING = 0.0005  # the tables are printed with three digits
MARK = "≠"
SOURCES: dict[Which, str] = {"paper": "the paper's text", "authors_code": "the code that its authors published"}


@dataclass(frozen=True)
class Entry:
    """A cell of a table.

    Attributes:
        setting: Its row, such as `T=300`.
        cell: The recurrent cell, its column.
        metric: What was measured.
        values: (n,) ours, a number a seed; empty where it was not run.
        published: The published mean, None where there is none.
        published_std: Its standard deviation, None where none was printed.
        comparable: Whether the published setting is this one, not another size of it.
    """

    setting: str
    cell: str
    metric: str
    values: np.ndarray
    published: float | None
    published_std: float | None
    comparable: bool

    @property
    def mean(self) -> float | None:
        """The mean over seeds."""
        return float(np.mean(self.values)) if len(self.values) else None

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds, of at least two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def differs(self) -> bool:
        """Whether ours and the published figure differ by more than their spreads together."""
        if self.mean is None or self.published is None or not self.comparable:
            return False
        return abs(self.mean - self.published) > (self.std or 0.0) + (self.published_std or 0.0) + ROUNDING


def entries(name: str, table: Table, cells: Sequence[str], rows: Sequence[Row]) -> list[Entry]:
    """Return a table's entries from the rows of its finished runs.

    Args:
        name: The table, such as `table1`.
        table: Its grid.
        cells: Its columns.
        rows: Finished runs, with the keys `setting` and `cell`.

    Raises:
        UserError: A row lacks a metric.
    """
    found = []
    for setting in table.settings:
        shown = setting.published or setting.name
        for cell in cells:
            figures = PUBLISHED.get(name, {}).get(shown, {}).get(cell, {})
            mine = [row for row in rows if (row.keys["setting"], row.keys["cell"]) == (setting.name, cell)]
            for metric in table.metrics:
                values = np.array([value_of(row, metric) for row in mine])
                mean, std = figures.get(metric, (None, None))
                found.append(Entry(setting.name, cell, metric, values, mean, std, not setting.published))
    return found


def value_of(row: Row, metric: str) -> float:
    """Return a metric of a finished run; `iterations` is how many updates it took.

    Raises:
        UserError: Its row lacks it.
    """
    if metric != "iterations" and metric not in row.final:
        raise UserError(
            f"{RUNS} has no final.{metric} of {row.label}, seed {row.seed}; delete that row and reproduce it again."
        )
    return row.number("steps") if metric == "iterations" else row.final[metric]


def write_csv(name: str, found: Sequence[Entry], path: Path) -> None:
    """Write a row for each entry; numbers that there are not stay empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in found:
        numbers = [entry.mean, entry.std, len(entry.values), entry.published, entry.published_std]
        shown = ["" if number is None else f"{number:.6g}" for number in numbers]
        writer.writerow([name, entry.setting, entry.cell, entry.metric, *shown])
    write_text(path, text.getvalue())


def markdown(found: Sequence[Entry], rows: Sequence[Row], protocol: Which, command: str) -> str:
    """Return a table with ours beside the published, and where ours come from."""
    lines = ["| setting | cell | metric | ours | published | |", "|---|---|---|---|---|---|"]
    for entry in found:
        seeds = f" ({len(entry.values)} seed{'s' * (len(entry.values) > 1)})" if len(entry.values) else ""
        ours = _with_spread(entry.mean, entry.std) + seeds if len(entry.values) else "not run"
        published = _with_spread(entry.published, entry.published_std) if entry.published is not None else ""
        other = "" if entry.comparable or not published else "another size"
        lines.append(
            f"| {entry.setting} | {entry.cell} | {entry.metric} | {ours} | {published} "
            f"| {MARK if entry.differs else other} |"
        )
    lines += ["", f"{MARK}: they differ by more than their standard deviations together."]
    lines.append(f"Data and order of samples as in {SOURCES[protocol]} (protocol {protocol}).")
    if rows:
        hours = sum(row.number("seconds") for row in rows) / 3600
        hardware = "; ".join(sorted({row.facts["hardware"] for row in rows}))
        dates = sorted(row.facts["date"][:10] for row in rows)
        days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        lines.append(f"{len(rows)} runs, {hours:.1f} hours of training together, on {hardware}, {days}.")
    lines.append(f"Written by `{command}` from every run that is finished.")
    return "\n".join(lines) + "\n"


def draw(found: Sequence[Entry], path: Path) -> None:
    """Draw the first metric: a panel a setting, every seed a dot, the published figure a diamond."""
    metric = found[0].metric
    settings = list(dict.fromkeys(entry.setting for entry in found))
    size = (1.2 + 2.8 * len(settings), 3.4)
    with figure_style.drawing(path, 1, len(settings), size=size, sharey=True) as (figure, [panels]):
        for axes, setting in zip(panels, settings, strict=True):
            shown = [entry for entry in found if (entry.setting, entry.metric) == (setting, metric)]
            for place, entry in enumerate(shown):
                colour = figure_style.cell_colour(entry.cell)
                axes.plot([place] * len(entry.values), entry.values, "o", color=colour, alpha=0.7)
                if entry.mean is not None:
                    axes.plot([place - 0.25, place + 0.25], [entry.mean] * 2, color=colour)
                if entry.published is not None:
                    axes.errorbar(
                        place + 0.3, entry.published, entry.published_std, fmt="D", color="black", mfc="white", ms=4
                    )
            axes.set_xticks(range(len(shown)), [entry.cell for entry in shown], rotation=30)
            axes.set(title=setting, xlim=(-0.6, len(shown) - 0.2))
        panels[0].set_ylabel(f"{metric} on the test set" if metric != "iterations" else "updates until loss < 0.01")
        panels[-1].plot([], [], "D", color="black", mfc="white", ms=4, label="published")
        panels[-1].plot([], [], "o", color="grey", label="ours, a seed")
        figure.legend(loc="outside lower center", ncols=2)


def _with_spread(mean: float | None, std: float | None) -> str:
    assert mean is not None
    digits = 0 if mean >= 100 else 3
    return f"{mean:,.{digits}f}" + (f" ± {std:,.{digits}f}" if std is not None else "")
