"""The report of a comparison, from the rows of its ledger alone: report.md, report.html, summary.csv and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bistable_rl.compare import document, statistics
from bistable_rl.compare.comparison import Comparison
from bistable_rl.compare.document import Block, Heading, Image, Paragraph, Table
from bistable_rl.compare.figures import draw_curves, draw_final, draw_horizons, draw_streams, metric_name
from bistable_rl.compare.groups import Group, Panel, final_value, horizon_metric, panels, stream_names
from bistable_rl.compare.ledger import Row
from bistable_rl.compare.origin import of_committed, origin
from bistable_rl.compare.statistics import Estimate
from bistable_rl.runs.files import write_text
from bistable_rl.runs.tables import write_csv

REPORT, PAGE, SUMMARY = "report.md", "report.html", "summary.csv"
CURVES, FINAL, HORIZONS = "curves.png", "final.png", "horizons.png"
READING = (
    "Thick lines are interquartile means over the seeds (the mean of the middle half; of fewer than four seeds, the "
    "mean of all). Bands and bars are their 95% bootstrap intervals. Thin lines and marks are the seeds, whose number "
    "follows each name."
)
FEW_SEEDS = (
    f"With fewer than {statistics.MIN_SEEDS} seeds there is no interval: so few runs cannot tell a difference between "
    "two cells from chance. Two groups of three seeds are fully separated by chance alone in 10% of all cases, groups "
    "of two in 33%, of four in 3%, of five in 1%."
)
OBSERVED = (
    "These are shares of the observed pairs of runs. 1.00 means that every run of the row ended better "
    "than every run of the column. It does not promise that the next run will."
)


def write_report(
    folder: Path, comparison: Comparison, rows: Sequence[Row], failed: Mapping[str, str], *, unit: str, command: str
) -> tuple[Path, list[Path]]:
    """Write the report into a folder, and return its Markdown file and its figures.

    Args:
        folder: The folder, which exists.
        comparison: The comparison.
        rows: Its finished runs, at least one.
        failed: The reason why each other run failed, by its name.
        unit: The unit of the runs' steps: "environment steps" or "updates".
        command: The command that made the report.

    Raises:
        UserError: If a run does not report the metric, matplotlib is not installed, or a file cannot be written.
    """
    metric = comparison.metric
    found = panels(rows, metric)
    horizons, streams = horizon_metric(found), horizon_metric(found, streams=True)
    draw_curves(folder / CURVES, found, metric, unit)
    draw_final(folder / FINAL, found, metric)
    if streams is not None:
        draw_streams(folder / HORIZONS, found, streams)
    elif horizons is not None:
        draw_horizons(folder / HORIZONS, found, horizons)
    blocks = list(_blocks(folder, comparison, rows, failed, found, unit))
    write_text(folder / REPORT, document.markdown(blocks, command))
    write_text(folder / PAGE, document.html(blocks, command))
    write_csv(folder / SUMMARY, (_summary(one, group) for one in found for group in one.groups))
    return folder / REPORT, [block.file for block in blocks if isinstance(block, Image)]


def _blocks(
    folder: Path,
    comparison: Comparison,
    rows: Sequence[Row],
    failed: Mapping[str, str],
    found: Sequence[Panel],
    unit: str,
) -> Iterator[Block]:
    metric, name = comparison.metric, metric_name(comparison.metric)
    yield Heading(comparison.name)
    yield Paragraph(f"{len(rows)} finished runs{of_committed(rows)}; {name} by evaluations during training. {READING}")
    if any(len(group.rows) < statistics.MIN_SEEDS for one in found for group in one.groups):
        yield Paragraph(FEW_SEEDS)
    if failed:
        yield Heading("Failed")
        yield Table(("run", "reason"), list(failed.items()))
    yield Heading("Learning curves")
    yield Image(folder / CURVES, f"{name} over {unit}")
    yield Heading("At the end of training")
    yield Image(folder / FINAL, f"{name} at the end of training")
    yield _final_table(found)
    if metric.threshold is not None:
        yield Heading(f"Until {name} {metric.threshold:g}")
        yield _threshold_table(found, unit)
    for one in found:
        if len(one.groups) > 1:
            title = f", {one.title}" * bool(one.title)
            yield Heading(f"Probability that a run of the row ends better than one of the column{title}")
            yield _improvement_table(one)
            yield Paragraph(OBSERVED)
    horizons, streams = horizon_metric(found), horizon_metric(found, streams=True)
    if streams is not None:
        yield Heading("By kind of stream and horizon, without retraining")
        yield Image(folder / HORIZONS, f"{streams} by kind of stream and horizon")
        yield from (_stream_table(one, streams) for one in found)
    elif horizons is not None:
        yield Heading("At other horizons, without retraining")
        yield Image(folder / HORIZONS, f"{horizons} over the horizon")
        yield from (_horizon_table(one, horizons) for one in found)
    yield Heading("Cost")
    yield _cost_table(found, unit)
    yield Heading("Runs")
    yield _runs_table(rows, metric.name)
    yield Paragraph(f"On {'; '.join(sorted({row.facts['hardware'] for row in rows}))}.")


# --- tables ------------------------------------------------------------------------------------------------


def _groups(found: Sequence[Panel]) -> Iterator[tuple[list[str], Group]]:
    """Yield every group, preceded by its first cells: its panel's title, if there are several, and its name."""
    for one in found:
        for group in one.groups:
            yield [one.title] * (len(found) > 1) + [group.name], group


def _first(found: Sequence[Panel]) -> list[str]:
    return ["task", "variant"] if len(found) > 1 else ["variant"]


def _final_table(found: Sequence[Panel]) -> Table:
    rows = []
    for first, group in _groups(found):
        values = group.final()
        estimate = statistics.interquartile_mean_with_interval(values)
        cells = [
            f"{len(values)}{of_committed(group.rows)}",
            f"{estimate.value:.3g}",
            _interval(estimate),
            _each(values),
        ]
        rows.append([*first, *cells])
    return Table([*_first(found), "seeds", "interquartile mean", "95% interval", "each seed"], rows)


def _each(values: np.ndarray) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _interval(estimate: Estimate) -> str:
    if not np.isfinite(estimate.value):
        return ""
    return "too few seeds" if np.isnan(estimate.low) else f"{estimate.low:.3g} to {estimate.high:.3g}"


def _threshold_table(found: Sequence[Panel], unit: str) -> Table:
    rows = []
    for first, group in _groups(found):
        steps, seconds = group.reached("steps"), group.reached("seconds")
        reached = f"{np.isfinite(steps).sum()} of {len(steps)}"
        each = ", ".join(map(_number_or_never, steps))
        rows.append([*first, reached, _number_or_never(np.median(steps)), _number_or_never(np.median(seconds)), each])
    return Table([*_first(found), "seeds that reached it", f"{unit}, median", "seconds, median", f"{unit}, each"], rows)


def _number_or_never(value: float) -> str:
    return "never" if value == np.inf else _number(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else ""


def _improvement_table(one: Panel) -> Table:
    rows = [
        [row.name, *("" if row is column else _improvement(row, column) for column in one.groups)] for row in one.groups
    ]
    return Table(["", *(group.name for group in one.groups)], rows)


def _improvement(row: Group, column: Group) -> str:
    estimate = statistics.probability_of_improvement(row.goodness(), column.goodness())
    interval = "" if np.isnan(estimate.low) else f" ({estimate.low:.2f} to {estimate.high:.2f})"
    return f"{estimate.value:.2f}{interval}"


def _horizon_table(one: Panel, metric: str) -> Table:
    """Return one row per group and horizon, with every seed."""
    rows = []
    for group in one.groups:
        horizons, values = group.horizons(metric)
        for horizon, column in zip(horizons, values.T, strict=True):
            middle = statistics.interquartile_mean(column)
            rows.append([group.name, f"{horizon:,}", f"{middle:.3g}", _each(column)])
    return Table([one.title or "variant", "horizon", f"{metric}, interquartile mean", "each seed"], rows)


def _stream_table(one: Panel, metric: str) -> Table:
    """Return one row per group and horizon: each kind of stream, their mean, the worst one, and every seed's worst."""
    rows, kinds = [], stream_names([one], metric)
    for group in one.groups:
        for horizon, values in group.streams(metric).items():
            middles = {kind: float(statistics.interquartile_mean(of_seeds)) for kind, of_seeds in values.items()}
            worst = min(middles, key=lambda kind: middles[kind])
            each = np.min(list(values.values()), axis=0)
            cells = [f"{middles[kind]:.3g}" if kind in middles else "" for kind in kinds]
            mean = f"{np.mean(list(middles.values())):.3g}"
            rows.append([group.name, f"{horizon:,}", *cells, mean, f"{worst} {middles[worst]:.3g}", _each(each)])
    last = ["mean", f"worst {metric}, interquartile mean", "worst of each seed"]
    return Table([one.title or "variant", "horizon", *kinds, *last], rows)


def _cost_table(found: Sequence[Panel], unit: str) -> Table:
    rows = []
    for first, group in _groups(found):
        seconds, steps, memory = (group.mean(fact) for fact in ("seconds", "steps", "memory_mb"))
        # a run of less than 0.05 s took 0.0 s in its result.json
        cells = [_number(seconds), _number(steps / seconds if seconds else np.nan), _number(memory)]
        rows.append([*first, *cells])
    return Table([*_first(found), "seconds per run", f"{unit} per second", "peak memory, MB"], rows)


def _runs_table(rows: Sequence[Row], metric: str) -> Table:
    mixed = any(row.committed for row in rows)
    header = ("variant", "seed", metric, "steps", "seconds", "threads", "date", "commit", "config hash")
    return Table(
        (*header, *(("origin", "hardware") if mixed else ())),
        [
            [
                row.label,
                str(row.seed),
                f"{final_value(row, metric):.3g}",
                _number(row.number("steps")),
                _number(row.number("seconds")),
                row.facts["threads"],
                row.facts["date"][:10],
                row.facts["commit"][:9] + "+" * row.facts["commit"].endswith("+"),
                row.hash,
                *((origin(row), row.facts["hardware"]) if mixed else ()),
            ]
            for row in rows
        ],
    )


def _summary(one: Panel, group: Group) -> dict[str, Any]:
    """Return the group's row of summary.csv, for other programs; values that are not finite stay empty."""
    estimate = statistics.interquartile_mean_with_interval(group.final())
    numbers = {"interquartile_mean": estimate.value, "low": estimate.low, "high": estimate.high}
    numbers |= dict.fromkeys(("reached", "steps_to_threshold", "seconds_to_threshold"), np.nan)
    if group.metric.threshold is not None:
        steps, seconds = group.reached("steps"), group.reached("seconds")
        numbers["reached"] = float(np.isfinite(steps).sum())
        numbers["steps_to_threshold"], numbers["seconds_to_threshold"] = np.median(steps), np.median(seconds)
    numbers |= {"seconds": group.mean("seconds"), "memory_mb": group.mean("memory_mb")}
    first = {"task": one.title, "variant": group.name, "cell": group.cell, "seeds": len(group.rows)}
    first["committed_seeds"] = sum(row.committed for row in group.rows)
    return first | {name: number if np.isfinite(number) else None for name, number in numbers.items()}
