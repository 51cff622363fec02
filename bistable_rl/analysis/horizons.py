"""The agent of a run at horizons and with streams other than in training: a table, a JSON file and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from bistable_rl.agents.evaluate_run import evaluate_run_at
from bistable_rl.agents.horizons import FIGURES, points
from bistable_rl.figure_style import cell_colour, cell_names, drawing, horizon_ticks
from bistable_rl.runs.files import named, write_json
from bistable_rl.runs.run import Run


def evaluate_horizons(
    run: Run | Path,
    horizons: Sequence[int],
    *,
    streams: Sequence[str] = (),
    episodes: int,
    overrides: Sequence[str] = (),
    best: bool = False,
    max_episode_steps: int | None = None,
    json: Path | None = None,
    figure: Path | None = None,
) -> list[dict[str, Any]]:
    """Play the agent of a run at some horizons and with some streams, print a table, and write the requested files.

    Args:
        run: The run folder.
        horizons: Values of its environment's horizon argument; none is that of the training, where there are streams.
        streams: Kinds of streams of distractors; none leaves that of the training.
        episodes: Episodes at each horizon and stream with the most likely actions, and as many with sampled ones.
        overrides: Changes to its environment, such as `--env.kwargs.num_symbols`, `4`.
        best: Take the best checkpoint instead of the last one.
        max_episode_steps: Steps in which an episode must end, in an environment that is not ours; None for those of the
            run's config.
        json: A file for all numbers.
        figure: A PNG, PDF or SVG file for the success, or else the score or the return, against the horizon, or at each
            horizon by the kind of stream.

    Returns:
        The rows of `bistable_rl.agents.horizons.Horizons.evaluate`.

    Raises:
        UserError: If there is no run, its environment has no horizon, shows no distractors or refuses one of the
            values, its spaces differ from those in training, or a file cannot be written.
    """
    run = Run.open(run)
    experiment = run.experiment(overrides)
    cell = experiment.cell
    columns = len({point.horizon for point in points(experiment.env, horizons, streams)}) if streams else 1
    size = (max(6.4, 0.6 + 3.2 * columns), 3.6)
    picture = drawing(named(figure), 1, columns, size=size, sharey=True) if figure else nullcontext((None, None))
    with picture as (_, axes):
        result = evaluate_run_at(
            run,
            overrides,
            horizons=horizons,
            streams=streams,
            episodes=episodes,
            best=best,
            max_episode_steps=max_episode_steps,
            watch=_watched,
        )
        rows, name, trained = result["horizons"], result["argument"], result["trained"]
        if axes is not None and streams:
            draw_streams(axes[0], rows, cell, name, trained)
        elif axes is not None:
            draw(axes[0, 0], rows, cell, name, trained)
    at = "" if trained is None else f" at {name} {trained}"
    print(f"{run}, trained for {result['steps']:,} steps{at}")
    print_table(rows, name)
    if json is not None:
        write_json(named(json), result)
    return rows


def _watched(rows: Iterator[dict[str, Any]], total: int) -> Iterable[dict[str, Any]]:
    """Show a progress bar if there is a terminal."""
    return tqdm(rows, total=total, unit=" evaluation", disable=None, leave=False)


def print_table(rows: Sequence[dict[str, Any]], argument: str) -> None:
    """Print means and their 95% intervals, two lines per horizon and stream.

    Of several streams at a horizon, the mean over them and the worst one follow.
    """
    title = f"mean [95% bootstrap interval] over {rows[0]['episodes']} episodes"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), title_justify="left")
    streams = "stream" in rows[0]
    # with streams, three columns would be too wide: the score is the return on another scale
    shown = [name for name in FIGURES if not (streams and name == "normalized_score")]
    known = [name for name in shown if rows[0][name] is not None]
    table.add_column(argument, justify="right", no_wrap=True)
    for name in ("stream", "actions")[not streams :]:
        table.add_column(name, no_wrap=True)
    for name in known:
        table.add_column(name.replace("_", " "), justify="right")
    for horizon, group in groupby(rows, lambda row: row["horizon"]):
        for i, (stream, actions, *figures) in enumerate(_lines(list(group), known)):
            table.add_row("" if i else f"{horizon:,}", *([stream] if streams else []), actions, *figures)
    Console().print(table)


def _lines(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the lines of the table for one horizon: stream, actions and figures."""
    for row in rows:
        yield [row.get("stream", ""), "likely", *(_mean(row, name) for name in names)]
        yield ["", "sampled", *(_mean(row["sampled"], name) for name in names)]
    if len(rows) == 1:
        return
    ways = {"likely": list(rows), "sampled": [{"stream": row["stream"], **row["sampled"]} for row in rows]}
    for actions, of_streams in ways.items():
        means = (f"{np.mean([row[name] for row in of_streams]):.3f}" for name in names)
        yield ["mean" if actions == "likely" else "", actions, *means]
    for actions, of_streams in ways.items():
        worst = min(of_streams, key=lambda row: row[names[0]])
        alike = all(row[names[0]] == worst[names[0]] for row in of_streams)
        which = "all equal" if alike else worst["stream"]
        yield [f"worst: {which}", actions, *(_mean(worst, name) for name in names)]


def draw(axes: Any, rows: Sequence[dict[str, Any]], cell: str, argument: str, trained: Any) -> None:
    """Draw the first number that the environment reports against the horizon, with its intervals."""
    name = next(name for name in FIGURES if rows[0][name] is not None)
    horizons = [row["horizon"] for row in rows]
    for style, way, label in (("o-", "", "most likely action"), ("s--", "sampled", "sampled action")):
        figures = [row[way] if way else row for row in rows]
        means, bars = _means_and_bars(figures, name)
        axes.errorbar(
            horizons,
            means,
            bars,
            fmt=style,
            color=cell_colour(cell),
            capsize=3,
            label=label,
            alpha=0.55 if way else 1.0,
        )
    if trained is not None:
        longest = np.max(trained)
        axes.axvline(longest, color="black", linewidth=0.8, linestyle=":", label=f"trained at {longest}")
    horizon_ticks(axes, horizons)
    axes.set(xlabel=f"{argument} of the environment", ylabel=name.replace("_", " "), title=cell_names(cell))
    if name == "success":
        axes.set_ylim(-0.02, 1.02)
    axes.legend()


def draw_streams(
    all_axes: Sequence[Any], rows: Sequence[dict[str, Any]], cell: str, argument: str, trained: Any
) -> None:
    """Draw the first number that the environment reports by the kind of stream, one axes per horizon."""
    name = next(name for name in FIGURES if rows[0][name] is not None)
    for axes, (horizon, group) in zip(all_axes, groupby(rows, lambda row: row["horizon"]), strict=True):
        at = list(group)
        x = np.arange(len(at))
        for shift, marker, way, label in (
            (-0.12, "o", "", "most likely action"),
            (0.12, "s", "sampled", "sampled action"),
        ):
            means, bars = _means_and_bars([row[way] if way else row for row in at], name)
            style: dict[str, Any] = {"color": cell_colour(cell), "alpha": 0.55 if way else 1.0}
            axes.errorbar(x + shift, means, bars, fmt=marker, capsize=3, label=label, **style)
        axes.set_xticks(x, [row["stream"] for row in at], rotation=30, ha="right")
        axes.set(title=f"{argument} {horizon:,}", xlim=(-0.5, len(at) - 0.5))
        if name == "success":
            axes.set_ylim(-0.02, 1.02)
    first = f"{cell_names(cell)} trained at {np.max(trained):,}, {all_axes[0].get_title(loc='left')}"
    all_axes[0].set(title=first, ylabel=name.replace("_", " "))
    all_axes[-1].legend()


def _means_and_bars(figures: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return means (n,), and the lengths (2, n) of the bars of their intervals."""
    means = np.array([figure[name] for figure in figures])
    bounds = np.array([figure[f"{name}_interval"] or [figure[name]] * 2 for figure in figures])
    return means, np.abs(bounds.T - means)


def _mean(figures: dict[str, Any], name: str) -> str:
    bounds = figures[f"{name}_interval"]
    return f"{figures[name]:.3f}" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")
