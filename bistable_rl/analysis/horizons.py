"""The agent of a run at horizons other than in training: a table, a JSON file and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from bistable_rl.agents.agent import Agent, load
from bistable_rl.agents.evaluation import playing
from bistable_rl.agents.horizons import FIGURES, Horizons, horizon_argument
from bistable_rl.errors import UserError
from bistable_rl.figure_style import cell_colour, drawing
from bistable_rl.runs.files import named, write_json
from bistable_rl.runs.run import Run
from bistable_rl.runs.seeds import FINAL_EVALUATION, derived_seed


def evaluate_horizons(
    run: Run | Path,
    horizons: Sequence[int],
    *,
    episodes: int,
    overrides: Sequence[str] = (),
    best: bool = False,
    json: Path | None = None,
    figure: Path | None = None,
) -> list[dict[str, Any]]:
    """Play the agent of a run at some horizons, print a table, and write the requested files.

    Args:
        run: The run folder.
        horizons: Values of its environment's horizon argument.
        episodes: Episodes at each horizon with the most likely actions, and as many with sampled ones.
        overrides: Changes to its environment, such as `--env.kwargs.num_symbols`, `4`.
        best: Take the best checkpoint instead of the last one.
        json: A file for all numbers.
        figure: A PNG file for the success, or else the score or the return, against the horizon.

    Returns:
        The rows of `bistable_rl.agents.horizons.Horizons.evaluate`.

    Raises:
        UserError: If there is no run, its environment has no horizon or refuses one of the values, its spaces differ
            from those in training, or a file cannot be written.
    """
    run = Run.open(run)
    experiment = run.experiment(overrides)
    name, trained = horizon_argument(experiment.env)
    if any(token.partition("=")[0] == f"--env.kwargs.{name}" for token in overrides):
        raise UserError(f"command line: --horizons sets env.kwargs.{name} already; give one of the two.")
    agent = load(run, best=best)
    played = Horizons(experiment.env, horizons, episodes, derived_seed(experiment.seed, FINAL_EVALUATION))
    for env in played.envs.values():
        agent.check_spaces(env)
    with drawing(named(figure)) if figure else nullcontext((None, [[None]])) as (_, [[axes]]):
        with playing():
            try:
                rows = _play(played, agent)
            finally:
                played.close()
        if axes is not None:
            draw(axes, rows, experiment.policy.cell, name, trained)
    print(f"{run}, trained for {agent.steps:,} steps at {name} {trained}")
    print_table(rows, name)
    if json is not None:
        env_config = {"id": experiment.env.id, "kwargs": experiment.env.kwargs, "wrappers": experiment.env.wrappers}
        about = {"run": str(run), "steps": agent.steps, "env": env_config, "argument": name, "trained": trained}
        write_json(named(json), {**about, "horizons": rows})
    return rows


def _play(played: Horizons, agent: Agent) -> list[dict[str, Any]]:
    """Evaluate with a progress bar if there is a terminal."""
    with tqdm(unit=" steps", unit_scale=True, disable=None, leave=False) as bar:

        def show() -> bool:
            bar.update()
            return False

        return played.evaluate(agent, show)


def print_table(rows: Sequence[dict[str, Any]], argument: str) -> None:
    """Print means and their 95% intervals, two lines per horizon."""
    title = f"mean [95% bootstrap interval] over {rows[0]['episodes']} episodes"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), title_justify="left")
    known = [name for name in FIGURES if rows[0][name] is not None]
    table.add_column(argument, justify="right", no_wrap=True)
    table.add_column("actions", no_wrap=True)
    for name in known:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(f"{row['horizon']:,}", "likely", *(_mean(row, name) for name in known))
        table.add_row("", "sampled", *(_mean(row["sampled"], name) for name in known))
    Console().print(table)


def draw(axes: Any, rows: Sequence[dict[str, Any]], cell: str, argument: str, trained: Any) -> None:
    """Draw the first number that the environment reports against the horizon, with its intervals."""
    name = next(name for name in FIGURES if rows[0][name] is not None)
    horizons = [row["horizon"] for row in rows]
    for style, way, label in (("o-", "", "most likely action"), ("s--", "sampled", "sampled action")):
        figures = [row[way] if way else row for row in rows]
        means = np.array([figure[name] for figure in figures])
        bounds = np.array(
            [figure[f"{name}_interval"] or [mean, mean] for figure, mean in zip(figures, means, strict=True)]
        )
        axes.errorbar(
            horizons,
            means,
            np.abs(bounds.T - means),
            fmt=style,
            color=cell_colour(cell),
            capsize=3,
            label=label,
            alpha=0.55 if way else 1.0,
        )
    longest = np.max(trained)
    axes.axvline(longest, color="black", linewidth=0.8, linestyle=":", label=f"trained at {longest}")
    axes.set(xscale="log", xlabel=f"{argument} of the environment", ylabel=name.replace("_", " "), title=cell)
    if name == "success":
        axes.set_ylim(-0.02, 1.02)
    axes.legend()


def _mean(figures: dict[str, Any], name: str) -> str:
    bounds = figures[f"{name}_interval"]
    return f"{figures[name]:.3f}" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")
