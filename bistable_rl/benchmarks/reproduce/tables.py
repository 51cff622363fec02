"""Tables of our results next to the published ones: as CSV, Markdown and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bistable_rl import figure_style
from bistable_rl.benchmarks.reproduce.grids import Grid, has_published_size
from bistable_rl.benchmarks.reproduce.published import PUBLISHED, UPDATES, Result
from bistable_rl.benchmarks.tasks.task import DataProtocol
from bistable_rl.compare import document
from bistable_rl.compare.document import Block, Paragraph, Table
from bistable_rl.compare.ledger import RUNS, Row
from bistable_rl.compare.origin import of_committed, origin
from bistable_rl.errors import UserError
from bistable_rl.runs.files import write_text
from bistable_rl.runs.tables import write_csv

CSV = "table.csv"
MARKDOWN = "table.md"
PICTURE = "table.png"
ROUNDING = 0.0005
"""Half the last digit of the published tables, which have three."""
MARK = "≠"
OTHER_SIZE = "another size"
NOT_JUDGED = (
    "Another size: not judged, because the published runs had another task, training set or training (updates, step "
    "size, clipping)."
)
SOURCES: dict[DataProtocol, str] = {"paper": "the paper's text", "authors_code": "the code that its authors published"}


@dataclass(frozen=True)
class Entry:
    """One metric of one cell in one setting.

    Attributes:
        setting: Its row, such as `T=300`.
        cell: The recurrent cell, its column.
        metric: The metric.
        rows: Our runs, one per seed.
        values: (n,) their values.
        published: The published mean, None where there is none.
        published_std: Its standard deviation, None where none was printed.
        published_updates: The updates of a published run, None where there is none.
        comparable: Whether ours has the published size: the same task, network and training.
    """

    setting: str
    cell: str
    metric: str
    rows: Sequence[Row]
    values: np.ndarray
    published: float | None
    published_std: float | None
    published_updates: float | None
    comparable: bool

    @property
    def mean(self) -> float | None:
        """The mean over seeds."""
        return float(np.mean(self.values)) if len(self.values) else None

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds, None with fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def updates(self) -> float | None:
        """The updates of a run, their mean over seeds if these differ."""
        return float(np.mean([row.number("steps") for row in self.rows])) if self.rows else None

    @property
    def differs(self) -> bool:
        """Whether our mean differs from a published one of the same size by more than both deviations together."""
        if self.mean is None or self.published is None or not self.comparable:
            return False
        return abs(self.mean - self.published) > (self.std or 0.0) + (self.published_std or 0.0) + ROUNDING

    def as_row(self) -> dict[str, Any]:
        """Return the entry's row of table.csv."""
        return {
            "setting": self.setting,
            "cell": self.cell,
            "metric": self.metric,
            "mean": self.mean,
            "std": self.std,
            "n_seeds": len(self.values),
            "published_mean": self.published,
            "published_std": self.published_std,
            "committed_seeds": sum(row.committed for row in self.rows),
            "updates": self.updates,
            "published_updates": self.published_updates,
        }


def write_table(folder: Path, name: str, grid: Grid, cells: Sequence[str], rows: Sequence[Row], command: str) -> str:
    """Write table.csv, table.md and table.png, and return the Markdown.

    Args:
        folder: The folder, which exists.
        name: The table, such as `table1`.
        grid: Its grid.
        cells: Its columns.
        rows: Its finished runs, with the keys `setting` and `cell`.
        command: The command that the Markdown names.

    Raises:
        UserError: If a row lacks a metric, matplotlib is not installed, or a file cannot be written.
    """
    found = entries(name, grid, cells, rows)
    page = markdown(found, rows, grid.protocol, command)
    write_csv(folder / CSV, ({"table": name} | entry.as_row() for entry in found))
    write_text(folder / MARKDOWN, page)
    draw(found, folder / PICTURE)
    return page


def entries(name: str, grid: Grid, cells: Sequence[str], rows: Sequence[Row]) -> list[Entry]:
    """Return the entries of a table; see `write_table`.

    Raises:
        UserError: If a row lacks a metric.
    """
    found = []
    for setting in grid.settings:
        published = PUBLISHED.get(name, {}).get(setting.published or setting.name, {})
        comparable = has_published_size(setting, name, grid.protocol)
        for cell in cells:
            ours = [row for row in rows if (row.keys["setting"], row.keys["cell"]) == (setting.name, cell)]
            for metric in grid.metrics:
                values = np.array([_value(row, metric) for row in ours])
                mean, std = published.get(cell, {}).get(metric, (None, None))
                updates = _published_updates(name, grid.protocol, published.get(cell, {}))
                found.append(Entry(setting.name, cell, metric, ours, values, mean, std, updates, comparable))
    return found


def _published_updates(name: str, protocol: DataProtocol, published: Mapping[str, Result]) -> float | None:
    """Return the updates of a published run; for Johns they are the result itself, `iterations`."""
    if "iterations" in published:
        return published["iterations"][0]
    return UPDATES[protocol].get(name) if published else None


def _value(row: Row, metric: str) -> float:
    """Return a metric of a finished run; `iterations` is its number of updates."""
    if metric != "iterations" and metric not in row.final:
        raise UserError(
            f"{RUNS} has no final.{metric} of {row.label}, seed {row.seed}; delete that row and run the command again."
        )
    return row.number("steps") if metric == "iterations" else row.final[metric]


def markdown(found: Sequence[Entry], rows: Sequence[Row], protocol: DataProtocol, command: str) -> str:
    """Return the table of our results next to the published ones, and the origin of ours."""
    table = []
    for entry in found:
        seeds = f" ({len(entry.rows)} seed{'s' * (len(entry.rows) > 1)}{of_committed(entry.rows, ', {}')})"
        ours = _with_spread(entry.mean, entry.std) + seeds if len(entry.values) else "not run"
        published = _with_spread(entry.published, entry.published_std) if entry.published is not None else ""
        other = published and len(entry.values) and not entry.comparable
        note = MARK if entry.differs else OTHER_SIZE if other else ""
        updates = [_count(entry.updates), _count(entry.published_updates)]
        table.append([entry.setting, entry.cell, entry.metric, ours, published, *updates, note])
    blocks: list[Block] = [
        Table(["setting", "cell", "metric", "ours", "published", "our updates", "published updates", ""], table),
        Paragraph(
            f"{MARK}: the means differ by more than both standard deviations together; a missing one counts as 0."
        ),
        *([Paragraph(NOT_JUDGED)] if any(line[-1] == OTHER_SIZE for line in table) else []),
        Paragraph(f"The data and the order of the samples follow {SOURCES[protocol]} (--protocol {protocol})."),
    ]
    own, committed = ([row for row in rows if row.committed is kind] for kind in (False, True))
    if own:
        blocks.append(Paragraph(f"{len(own)} runs, {_effort(own)}."))
    if committed:
        blocks += [
            Paragraph(f"{len(committed)} runs committed with the package, {_effort(committed)}."),
            Table(["run", "seed", "origin", "hardware", "date"], [_facts(row) for row in rows]),
        ]
    return document.markdown(blocks, command)


def _effort(rows: Sequence[Row]) -> str:
    minutes = sum(row.number("seconds") for row in rows) / 60
    hardware = "; ".join(sorted({row.facts["hardware"] for row in rows}))
    dates = sorted(row.facts["date"][:10] for row in rows)
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"{minutes:,.0f} min of training together, on {hardware}, {days}"


def _facts(row: Row) -> list[str]:
    return [row.label, str(row.seed), origin(row), row.facts["hardware"], row.facts["date"][:10]]


def draw(found: Sequence[Entry], path: Path) -> None:
    """Draw the first metric: one panel per setting, one dot per seed, the published mean as a diamond."""
    metric = found[0].metric
    settings = list(dict.fromkeys(entry.setting for entry in found))
    size = (1.2 + 2.8 * len(settings), 3.4)
    with figure_style.drawing(path, 1, len(settings), size=size, sharey=True) as (figure, [panels]):
        for axes, setting in zip(panels, settings, strict=True):
            shown = [entry for entry in found if (entry.setting, entry.metric) == (setting, metric)]
            for x, entry in enumerate(shown):
                colour = figure_style.cell_colour(entry.cell)
                axes.plot([x] * len(entry.values), entry.values, "o", color=colour, alpha=0.7)
                if entry.mean is not None:
                    axes.plot([x - 0.25, x + 0.25], [entry.mean] * 2, color=colour)
                if entry.published is not None:
                    axes.errorbar(
                        x + 0.3, entry.published, entry.published_std, fmt="D", color="black", mfc="white", ms=4
                    )
            axes.set_xticks(range(len(shown)), [figure_style.cell_names(entry.cell) for entry in shown], rotation=30)
            axes.set(title=setting, xlim=(-0.6, len(shown) - 0.2))
        panels[0].set_ylabel(f"{metric} on the test set" if metric != "iterations" else "updates until loss < 0.01")
        panels[-1].plot([], [], "D", color="black", mfc="white", ms=4, label="published")
        panels[-1].plot([], [], "o", color="grey", label="ours, a seed")
        figure.legend(loc="outside lower center", ncols=2)


def _count(updates: float | None) -> str:
    return "" if updates is None else f"{updates:,.0f}"


def _with_spread(mean: float | None, std: float | None) -> str:
    assert mean is not None
    digits = 0 if mean >= 100 else 3
    return f"{mean:,.{digits}f}" + (f" ± {std:,.{digits}f}" if std is not None else "")
