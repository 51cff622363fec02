"""The finished runs of a comparison, grouped by variant; groups with the same task share a panel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bistable_rl.compare import statistics
from bistable_rl.compare.comparison import MetricConfig, panel, series
from bistable_rl.compare.ledger import Row
from bistable_rl.errors import UserError

HORIZON_METRICS = ("success", "return")
"""The metrics to show at other horizons; the first of them that all runs report is used."""


@dataclass(frozen=True)
class Group:
    """The seeds of one variant.

    Attributes:
        name: The variant, such as "gru with chrono initialisation".
        cell: Its recurrent cell.
        rows: Its finished runs, by seed.
        metric: The metric that is compared.
    """

    name: str
    cell: str
    rows: tuple[Row, ...]
    metric: MetricConfig

    def final(self) -> np.ndarray:
        """Return the metric at the end of each run, (seeds,)."""
        return np.array([final_value(row, self.metric.name) for row in self.rows])

    def goodness(self) -> np.ndarray:
        """Return `final`, negated where lower is better, (seeds,)."""
        return self._oriented(self.final())

    def curves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the steps and the values of the evaluations of each seed, (n,)."""
        name = self.metric.name
        return [(_column(row, "steps", name), _column(row, name, name)) for row in self.rows]

    def band(self) -> statistics.Band:
        """Return the learning curve with its bootstrap band."""
        steps, values = zip(*self.curves(), strict=True)
        return statistics.band(steps, values)

    def reached(self, axis: str) -> np.ndarray:
        """Return when each seed first met the threshold, in `steps` or `seconds`, (seeds,); infinity if never."""
        assert self.metric.threshold is not None
        threshold = float(self._oriented(np.array(self.metric.threshold)))
        name = self.metric.name
        return np.array(
            [
                statistics.first_reached(_column(row, axis, name), self._oriented(_column(row, name, name)), threshold)
                for row in self.rows
            ]
        )

    def horizons(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the horizons that every seed was evaluated at, (n,), and the metric there, (seeds, n)."""
        found = [
            {horizon: value for (horizon, stream), value in _elsewhere(row, metric).items() if not stream}
            for row in self.rows
        ]
        common = sorted(set.intersection(*(set(values) for values in found)))
        return np.array(common), np.array([[values[h] for h in common] for values in found])

    def streams(self, metric: str) -> dict[int, dict[str, np.ndarray]]:
        """Return the metric, (seeds,), by the horizon and the stream that every seed was evaluated at."""
        found = [_elsewhere(row, metric) for row in self.rows]
        values: dict[int, dict[str, np.ndarray]] = {}
        for horizon, stream in found[0]:
            if stream and all((horizon, stream) in one for one in found):
                values.setdefault(horizon, {})[stream] = np.array([one[horizon, stream] for one in found])
        return dict(sorted(values.items()))

    def mean(self, fact: str) -> float:
        """Return the mean over seeds of a fact such as `seconds`, NaN where a run did not record it."""
        return float(np.mean([row.number(fact) for row in self.rows]))

    def _oriented(self, values: np.ndarray) -> np.ndarray:
        return values if self.metric.better == "higher" else -values


@dataclass(frozen=True)
class Panel:
    """Groups with the same task.

    Attributes:
        title: The task, "" if there is only one.
        groups: The groups that are compared.
    """

    title: str
    groups: tuple[Group, ...]


def panels(rows: Iterable[Row], metric: MetricConfig) -> list[Panel]:
    """Sort rows into panels and groups, in order of first appearance.

    Raises:
        UserError: If a run does not report the metric.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if not any(metric.name in point for point in row.curve):
            known = sorted({name for point in row.curve for name in point} - {"steps", "seconds"})
            raise UserError(
                f"metric.name: the evaluations of {row.label}, seed {row.seed} report no {metric.name}; "
                f"they report {', '.join(known) or 'nothing'}."
            )
        name = series(row.keys) or row.facts["cell"]
        found.setdefault(panel(row.keys), {}).setdefault(name, []).append(row)
    return [
        Panel(
            title,
            tuple(
                Group(name, seeds[0].facts["cell"], tuple(sorted(seeds, key=lambda row: row.seed)), metric)
                for name, seeds in groups.items()
            ),
        )
        for title, groups in found.items()
    ]


def horizon_metric(panels: Iterable[Panel], *, streams: bool = False) -> str | None:
    """Return the metric that every run reports at other horizons, or with kinds of streams; None if there is none."""
    rows = [row for panel in panels for group in panel.groups for row in group.rows]
    for metric in HORIZON_METRICS:
        if rows and all(any(bool(stream) is streams for _, stream in _elsewhere(row, metric)) for row in rows):
            return metric
    return None


def stream_names(panels: Iterable[Panel], metric: str) -> list[str]:
    """Return the kinds of streams that a metric is reported with, in order of first appearance."""
    groups = [group for panel in panels for group in panel.groups]
    return list(dict.fromkeys(kind for group in groups for at in group.streams(metric).values() for kind in at))


def _elsewhere(row: Row, metric: str) -> dict[tuple[int, str], float]:
    """Return a metric by horizon and stream; the stream is "" where none was evaluated."""
    values: dict[tuple[int, str], float] = {}
    for name, value in row.final.items():
        found, at, where = name.partition("@")
        if at and found == metric:
            horizon, _, stream = where.partition("/")
            values[int(horizon), stream] = value
    return values


def final_value(row: Row, metric: str) -> float:
    """Return the metric at the end of a run."""
    return row.final[metric] if metric in row.final else float(_column(row, metric, metric)[-1])


def _column(row: Row, name: str, metric: str) -> np.ndarray:
    """Return a column of the evaluations that report the metric."""
    return np.array([point.get(name, np.nan) for point in row.curve if metric in point])
