"""The figures of a comparison: learning curves, final values, and values at other horizons. All show every seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bistable_rl.compare import statistics
from bistable_rl.compare.comparison import MetricConfig
from bistable_rl.compare.groups import Group, Panel, stream_names
from bistable_rl.figure_style import cell_colour, drawing, horizon_ticks, mark_steps, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D")
"""Line styles and markers of the first, second, ... group of the same cell, which share its colour."""
WIDTH, HEIGHT = 6.4, 3.6
FINAL_WIDTH = 28
"""The most characters in a line of a variant's name beside the final values; a longer name is wrapped."""
TASK_WIDTH = 34
"""The most characters in a line of a task's name above its learning curves."""
METRIC_LABELS = {"success_rate": "success rate", "mean_reward": "return", "mean_ep_length": "episode length"}

TASKS_OWN = ("mean_reward", "mean_ep_length")
"""Metrics whose scale depends on the task: each panel has its own."""


def metric_name(metric: MetricConfig) -> str:
    """Return the display name of a metric; it says so if lower is better."""
    words = METRIC_LABELS.get(metric.name, metric.name.replace("_", " "))
    return words if metric.better == "higher" else f"{words} (lower is better)"


def draw_curves(path: Path, panels: Sequence[Panel], metric: MetricConfig, unit: str) -> None:
    """Draw the learning curves, one row of axes per panel.

    The first axes show the interquartile means of all groups. Then each cell's axes show its groups' means, their 95%
    bands, and every seed.

    Raises:
        UserError: If matplotlib is not installed, or the file cannot be written.
    """
    cells = list(dict.fromkeys(group.cell for panel in panels for group in panel.groups))
    ratios = [1.7] + [1.0] * len(cells)
    size = (max(WIDTH, 1.75 * sum(ratios)), 1.0 + 2.3 * len(panels))
    shape = {
        "sharex": True,
        "sharey": "row" if metric.name in TASKS_OWN else True,
        "gridspec_kw": {"width_ratios": ratios},
    }
    with drawing(path, len(panels), len(ratios), size=size, **shape) as (figure, all_axes):
        for row, panel in zip(all_axes, panels, strict=True):
            of_cell = dict(zip(cells, row[1:], strict=True))
            for group, dash, marker in _styled(panel):
                band, line = group.band(), {"color": cell_colour(group.cell), "linestyle": dash}
                axes = of_cell[group.cell]
                axes.fill_between(band.steps, band.low, band.high, color=line["color"], alpha=0.18, linewidth=0)
                for steps, values in group.curves():
                    axes.plot(
                        steps, values, marker=_alone(steps, marker), **line, linewidth=0.7, alpha=0.5, markersize=4
                    )
                axes.plot(band.steps, band.middle, marker=_alone(band.steps, marker), **line)
                row[0].plot(band.steps, band.middle, marker=_alone(band.steps, marker), **line, label=_counted(group))
            if metric.threshold is not None:
                for axes in row:
                    axes.axhline(metric.threshold, color="black", linewidth=0.8, linestyle=":")
            row[0].set(title=plain(panel.title, TASK_WIDTH), ylabel=plain(metric_name(metric)))
        for axes, cell in zip(all_axes[0][1:], cells, strict=True):
            axes.set_title(plain(cell))
        all_axes[-1][0].set_xlabel(unit)
        mark_steps(all_axes[-1][0])
        all_axes[-1][0].locator_params(axis="x", nbins=3)  # all share it
        _legend(figure, list(all_axes[:, 0]))


def _alone(steps: np.ndarray, marker: str) -> str:
    """Return the marker for a curve of a single evaluation, which has no visible line."""
    return marker if len(steps) == 1 else ""


def draw_final(path: Path, panels: Sequence[Panel], metric: MetricConfig) -> None:
    """Draw the final values: one mark per seed, the interquartile mean and its 95% interval.

    Raises:
        UserError: If matplotlib is not installed, or the file cannot be written.
    """
    names = [[plain(group.name, FINAL_WIDTH) for group in panel.groups] for panel in panels]
    lines = max((name.count("\n") + 1 for of_panel in names for name in of_panel), default=1)
    once = all(of_panel == names[0] for of_panel in names)
    height = 0.9 + max(0.36, 0.2 * lines) * max(map(len, names))
    with _panels(path, panels, height=height, sharex=metric.name not in TASKS_OWN) as (_, all_axes):
        for axes, panel, of_panel in zip(all_axes, panels, names, strict=True):
            for y, (group, _, marker) in enumerate(_styled(panel)):
                colour, values = cell_colour(group.cell), group.final()
                found = statistics.interquartile_mean_with_interval(values)
                axes.plot([found.low, found.high], [y, y], color=colour, linewidth=7, alpha=0.25, solid_capstyle="butt")
                axes.plot([found.value] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2.5)
                axes.plot(values, np.full(len(values), y), marker, color=colour, markersize=5, alpha=0.8)
            axes.set(xlabel=plain(metric_name(metric)), ylim=(len(panel.groups) - 0.4, -0.6))
            shown = [] if once and axes is not all_axes[0] else of_panel
            axes.set_yticks(range(len(of_panel)), shown or [""] * len(of_panel))


def draw_horizons(path: Path, panels: Sequence[Panel], metric: str) -> None:
    """Draw the metric of the trained agents at several horizons, every seed as a thin line.

    Raises:
        UserError: If matplotlib is not installed, or the file cannot be written.
    """
    with _panels(path, panels, sharey="row") as (figure, all_axes):
        for axes, panel in zip(all_axes, panels, strict=True):
            shown: set[int] = set()
            for group, dash, marker in _styled(panel):
                colour = cell_colour(group.cell)
                horizons, values = group.horizons(metric)
                shown.update(horizons)
                middle = statistics.interquartile_mean(values, axis=0)
                axes.plot(horizons, values.T, color=colour, linestyle=dash, linewidth=0.7, alpha=0.45)
                axes.plot(horizons, middle, marker, color=colour, linestyle=dash, label=_counted(group), markersize=5)
            axes.set(xlabel="horizon")
            horizon_ticks(axes, shown)
        all_axes[0].set_ylabel(f"{metric} after training")
        _legend(figure, all_axes)


def draw_streams(path: Path, panels: Sequence[Panel], metric: str) -> None:
    """Draw the metric of the trained agents by the kind of stream: a row of axes per panel, a column per horizon.

    Small marks are the seeds, large ones their interquartile mean.

    Raises:
        UserError: If matplotlib is not installed, or the file cannot be written.
    """
    horizons = sorted({horizon for panel in panels for group in panel.groups for horizon in group.streams(metric)})
    kinds = stream_names(panels, metric)
    size = (max(WIDTH, 0.6 + 3.2 * len(horizons)), 0.8 + 2.8 * len(panels))
    with drawing(path, len(panels), len(horizons), size=size, sharex=True, sharey=True) as (figure, all_axes):
        for row, panel in zip(all_axes, panels, strict=True):
            shifts = np.linspace(-0.3, 0.3, len(panel.groups)) if len(panel.groups) > 1 else [0.0]
            for (group, _, marker), shift in zip(_styled(panel), shifts, strict=True):
                style: dict[str, Any] = {"color": cell_colour(group.cell), "marker": marker, "linestyle": ""}
                for horizon, values in group.streams(metric).items():
                    axes = row[horizons.index(horizon)]
                    x = np.array([kinds.index(kind) for kind in values]) + shift
                    middles = [statistics.interquartile_mean(of_seeds) for of_seeds in values.values()]
                    axes.plot(x, list(values.values()), **style, markersize=3, alpha=0.45)
                    axes.plot(x, middles, **style, markersize=7, label=_counted(group))
            for axes, horizon in zip(row, horizons, strict=True):
                axes.set_title(plain(", ".join(part for part in (panel.title, f"horizon {horizon:,}") if part)))
                axes.set_xticks(range(len(kinds)), kinds, rotation=30, ha="right")
            row[0].set_ylabel(f"{metric} after training")
            if metric == "success":
                row[0].set_ylim(-0.03, 1.03)
        _legend(figure, list(all_axes.ravel()))


@contextmanager
def _panels(
    path: Path, panels: Sequence[Panel], height: float = HEIGHT, **subplots: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Give a figure with one titled axes per panel, side by side."""
    size = (WIDTH if len(panels) == 1 else 4.4 * len(panels), height)
    with drawing(path, 1, len(panels), size=size, **subplots) as (figure, axes):
        for one, panel in zip(axes[0], panels, strict=True):
            one.set_title(plain(panel.title))
        yield figure, list(axes[0])


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Name every group once, below the axes, in as many columns as fit the figure's width."""
    entries = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    for columns in (4, 2, 1):
        legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _counted(group: Group) -> str:
    return plain(f"{group.name} ({len(group.rows)})")


def _styled(panel: Panel) -> Iterator[tuple[Group, Any, str]]:
    """Yield each group with the dash and the marker that distinguish it from others of its cell."""
    seen: Counter[str] = Counter()
    for group in panel.groups:
        i = seen[group.cell]
        seen[group.cell] += 1
        yield group, DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]
