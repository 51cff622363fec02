"""The report of a comparison, made from the rows of its ledger alone: report.md, report.html, summary.csv, figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bistable_rl.compare import statistics
from bistable_rl.compare.comparison import Comparison
from bistable_rl.compare.document import Block, Figure, Heading, Paragraph, Table, markdown, page
from bistable_rl.compare.figures import draw_curves, draw_final, draw_horizons, metric_name
from bistable_rl.compare.groups import Panel, Series, final_value, horizon_metric, panels
from bistable_rl.compare.ledger import Row
from bistable_rl.compare.statistics import Estimate
from bistable_rl.runs.files import write_text

REPORT, PAGE, SUMMARY = "report.md", "report.html", "summary.csv"
CURVES, FINAL, HORIZONS = "curves.png", "final.png", "horizons.png"
FEW_SEEDS = (
    f"Of fewer than {statistics.MIN_SEEDS} seeds there is no interval: they cannot tell a difference between two cells "
    "from chance, whatever they show. Three seeds each are all apart by chance alone in 10% of all cases, two in 33%, "
    "four in 3%, five in 1%."
)
SURE = (
    "These are shares of the pairs of runs that were seen. 1.00 (1.00 to 1.00) says that every run of the one ended "
    "better than every run of the other, not that the next one will."
)


def write_report(
    folder: Path, comparison: Comparison, rows: Sequence[Row], failed: Mapping[str, str], *, unit: str, command: str
) -> tuple[Path, list[Path]]:
    """Write the report into a folder; return its Markdown file, and the figures.

    Args:
        folder: Where to; it exists.
        comparison: What was compared.
        rows: The finished runs, at least one.
        failed: Why others failed, by their names.
        unit: What the runs' steps are: "environment steps" or "updates".
        command: What made the report.

    Raises:
        UserError: A run does not report the metric, matplotlib is not installed, or a file cannot be written.
    """
    metric = comparison.metric
    found = panels(rows, metric)
    horizons = horizon_metric(found)
    draw_curves(folder / CURVES, found, metric, unit)
    draw_final(folder / FINAL, found, metric)
    blocks: list[Block] = [
        Heading(comparison.name),
        Paragraph(
            f"{len(rows)} finished runs; {metric_name(metric)} by evaluations during training. Thick lines are "
            "interquartile means over the seeds (the mean of the middle half; of fewer than four seeds, of all), bands "
            "and brackets their 95% bootstrap intervals, thin lines and marks the seeds, whose number stands behind "
            f"each name. Made by {command}."
        ),
    ]
    if any(len(series.rows) < statistics.MIN_SEEDS for one in found for series in one.series):
        blocks.append(Paragraph(FEW_SEEDS))
    if failed:
        blocks += [Heading("Failed"), Table(("run", "why"), list(failed.items()))]
    blocks += [
        Heading("Learning curves"),
        Figure(folder / CURVES, f"{metric_name(metric)} over {unit}"),
        Heading("At the end of training"),
        Figure(folder / FINAL, f"{metric_name(metric)} at the end of training"),
        _final_table(found),
    ]
    if metric.threshold is not None:
        blocks += [Heading(f"Until {metric_name(metric)} {metric.threshold:g}"), _threshold_table(found, unit)]
    for one in found:
        if len(one.series) > 1:
            title = f", {one.title}" * bool(one.title)
            blocks += [
                Heading(f"Probability that a run of the row ends better than one of the column{title}"),
                _improvement_table(one),
                Paragraph(SURE),
            ]
    if horizons is not None:
        draw_horizons(folder / HORIZONS, found, horizons)
        blocks += [
            Heading("At other horizons, without training there"),
            Figure(folder / HORIZONS, f"{horizons} over the horizon"),
            *(_horizon_table(one, horizons) for one in found),
        ]
    blocks += [Heading("What it cost"), _cost_table(found, unit), Heading("Runs"), _runs_table(rows, metric.name)]
    blocks.append(Paragraph(f"On {'; '.join(sorted({row.facts['hardware'] for row in rows}))}."))
    write_text(folder / REPORT, markdown(blocks))
    write_text(folder / PAGE, page(blocks))
    write_text(folder / SUMMARY, _summary(found))
    return folder / REPORT, [block.file for block in blocks if isinstance(block, Figure)]


# --- tables ------------------------------------------------------------------------------------------------


def _every(found: Sequence[Panel]) -> list[tuple[list[str], Series]]:
    """Return every series behind its first cells: its panel's title, where there are several, and its name."""
    return [([one.title] * (len(found) > 1) + [series.name], series) for one in found for series in one.series]


def _first(found: Sequence[Panel]) -> list[str]:
    return ["task", "what"] if len(found) > 1 else ["what"]


def _final_table(found: Sequence[Panel]) -> Table:
    return Table(
        [*_first(found), "seeds", "interquartile mean", "95% interval", "each seed"],
        [
            [*first, str(len(series.rows)), *_estimate_cells(series), ", ".join(f"{v:.3g}" for v in series.final())]
            for first, series in _every(found)
        ],
    )


def _estimate_cells(series: Series) -> list[str]:
    found = statistics.interquartile_mean_with_interval(series.final())
    return [f"{found.value:.3g}", _interval(found)]


def _interval(found: Estimate) -> str:
    if not np.isfinite(found.value):
        return ""
    return "too few seeds" if np.isnan(found.low) else f"{found.low:.3g} to {found.high:.3g}"


def _threshold_table(found: Sequence[Panel], unit: str) -> Table:
    rows = []
    for first, series in _every(found):
        steps, seconds = series.reached("steps"), series.reached("seconds")
        reached = f"{np.isfinite(steps).sum()} of {len(steps)}"
        each = ", ".join(_number(s) for s in steps)
        rows.append([*first, reached, _number(np.median(steps)), _number(np.median(seconds)), each])
    return Table([*_first(found), "seeds that got there", f"{unit}, median", "seconds, median", f"{unit}, each"], rows)


def _number(value: float) -> str:
    return "never" if value == np.inf else _known(value)


def _known(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else ""


def _improvement_table(one: Panel) -> Table:
    rows = []
    for a in one.series:
        cells = [
            "" if a is b else _improvement(statistics.probability_of_improvement(a.goodness(), b.goodness()))
            for b in one.series
        ]
        rows.append([a.name, *cells])
    return Table(["", *(series.name for series in one.series)], rows)


def _improvement(found: Estimate) -> str:
    return f"{found.value:.2f}" + ("" if np.isnan(found.low) else f" ({found.low:.2f} to {found.high:.2f})")


def _horizon_table(one: Panel, metric: str) -> Table:
    """Return a row a series and horizon, with every seed."""
    rows = []
    for series in one.series:
        for horizon, values in zip(*_by_horizon(series, metric), strict=True):
            middle = statistics.interquartile_mean(values)
            rows.append([series.name, f"{horizon:,}", f"{middle:.3g}", ", ".join(f"{v:.3g}" for v in values)])
    return Table([one.title or "what", "horizon", f"{metric}, interquartile mean", "each seed"], rows)


def _by_horizon(series: Series, metric: str) -> tuple[np.ndarray, np.ndarray]:
    horizons, values = series.horizons(metric)
    return horizons, values.T


def _cost_table(found: Sequence[Panel], unit: str) -> Table:
    rows = []
    for first, series in _every(found):
        seconds, steps, memory = (series.mean(fact) for fact in ("seconds", "steps", "memory_mb"))
        # a run of less than 0.05 s took 0.0 s in its result.json
        cells = [_known(seconds), _known(steps / seconds if seconds else np.nan), _known(memory)]
        rows.append([*first, *cells])
    return Table([*_first(found), "seconds a run", f"{unit} a second", "peak memory, MB"], rows)


def _runs_table(rows: Sequence[Row], metric: str) -> Table:
    header = ("what", "seed", metric, "steps", "seconds", "threads", "date", "commit", "config")
    return Table(
        header,
        [
            [
                row.label,
                str(row.seed),
                f"{final_value(row, metric):.3g}",
                _known(row.number("steps")),
                _known(row.number("seconds")),
                row.facts["threads"],
                row.facts["date"][:10],
                row.facts["commit"][:9] + "+" * row.facts["commit"].endswith("+"),
                row.hash,
            ]
            for row in rows
        ],
    )


def _summary(found: Sequence[Panel]) -> str:
    """Return a row a series, for other programs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = "task,what,cell,seeds,interquartile_mean,low,high,reached,steps_to_threshold,seconds_to_threshold"
    writer.writerow([*names.split(","), "seconds", "memory_mb"])
    for one in found:
        for series in one.series:
            estimate = statistics.interquartile_mean_with_interval(series.final())
            reached: list[float] = []
            if series.metric.threshold is not None:
                steps = series.reached("steps")
                reached = [int(np.isfinite(steps).sum()), np.median(steps), np.median(series.reached("seconds"))]
            numbers = [estimate.value, estimate.low, estimate.high, *(reached or [np.nan] * 3)]
            numbers += [series.mean("seconds"), series.mean("memory_mb")]
            shown = [f"{number:.6g}" if np.isfinite(number) else "" for number in numbers]
            writer.writerow([one.title, series.name, series.cell, len(series.rows), *shown])
    return text.getvalue()
