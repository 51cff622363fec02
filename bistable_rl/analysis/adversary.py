"""The agent of a run against an adversary: a table, a JSON file and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bistable_rl.agents.adversary import Attack, Killed, attack
from bistable_rl.agents.agent import load
from bistable_rl.agents.attack_file import attack_json
from bistable_rl.agents.horizons import horizon_argument
from bistable_rl.envs import ENVIRONMENTS, make_batched_env
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.registry import find_spec
from bistable_rl.errors import UserError, user_errors
from bistable_rl.figure_style import cell_colour, cell_names, drawing
from bistable_rl.runs.files import named, write_json
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig

STEPS = 10_000


def evaluate_adversary(
    run: Run | Path,
    *,
    steps: int = STEPS,
    overrides: Sequence[str] = (),
    best: bool = False,
    json: Path | None = None,
    figure: Path | None = None,
) -> Attack:
    """Search for the distractors that make the agent of a run forget, print a table, and write the requested files.

    The agent is asked after at least as many steps of distraction as in the run's shortest episodes.

    Args:
        run: The run folder.
        steps: The most steps of distraction.
        overrides: Changes to its environment, such as `--env.kwargs.length`, `2`.
        best: Take the best checkpoint instead of the last one.
        json: A file for the sequences, for `bistable-rl play --sequence`.
        figure: A PNG, PDF or SVG file for the number of cues that survive against the number of steps.

    Raises:
        UserError: If there is no run, its environment declares no phases, is wrapped or shows no distractors, its
            spaces differ from those in training, or a file cannot be written.
    """
    run = Run.open(run)
    experiment = run.experiment(overrides)
    env = distracted_env(experiment.env)
    first = min(steps, int(np.min(horizon_argument(experiment.env)[1])) - env.SHORTEST)
    agent = load(run, best=best)
    with drawing(named(figure)) if figure else nullcontext((None, [[None]])) as (_, [[axes]]):
        with user_errors("adversary", ValueError):
            found = attack(agent.policy, env, steps, first)
        if axes is not None:
            _draw(axes, found, experiment.cell)
    print(f"{run}, trained for {agent.steps:,} steps")
    print_table(found)
    if json is not None:
        config = {"id": experiment.env.id, "kwargs": experiment.env.kwargs, "wrappers": experiment.env.wrappers}
        about = {"run": str(run), "steps": agent.steps, "env": config}
        write_json(named(json), {**about, "adversary": attack_json(found)})
    return found


def distracted_env(config: EnvConfig) -> DistractedEnv:
    """Make the environment of a config, one copy.

    Raises:
        UserError: If it is refused, wrapped, or declares no phases.
    """
    env = None
    with user_errors("env", ValueError):
        if find_spec(config.id).id in ENVIRONMENTS and not config.wrappers:
            env = make_batched_env(config.id, num_envs=1, kwargs=config.kwargs).unwrapped
    if not isinstance(env, DistractedEnv) or env.phases() is None:
        name = f"{config.id} in a wrapper" if config.wrappers else config.id
        raise UserError(
            f"adversary: {name} does not declare which observations it can show; those that do are CopyFirst, "
            "CopyFirstContinuous, MemoryLength, MemorySize, and TMaze without stochasticity or previous_action_reward."
        )
    return env


def print_table(found: Attack) -> None:
    """Print the steps after which each cue was forgotten, by search."""
    asked = f"{found.first:,} to {found.steps:,}" if found.first < found.steps else f"{found.steps:,}"
    print(f"Distractors after which the agent forgets ({asked} were tried):")
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("cue", justify="right", no_wrap=True)
    for name in found.searches:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("strongest", no_wrap=True)
    for k, worst in enumerate(found.worst):
        cells = [_steps(kills[k]) for kills in found.searches.values()]
        table.add_row(str(k), *cells, "survives" if worst is None else worst[0])
    Console().print(table)
    print(
        f"{found.survivors()} of {len(found.worst)} cues survive {found.steps:,} steps. This is an upper bound of the "
        "memory, since the searches may have missed a sequence (`bistable-rl certify` gives a lower bound)."
    )


def _steps(kill: Killed | None) -> str:
    return "-" if kill is None else f"{kill.steps:,}"


def _draw(axes: Any, found: Attack, cell: str) -> None:
    """Draw the number of cues that survive against the number of steps, for each search and for all."""
    for name in (*found.searches, None):
        kills = found.searches[name] if name else [worst and worst[1] for worst in found.worst]
        ends = sorted(kill.steps for kill in kills if kill is not None)
        steps = np.maximum([found.first, *ends, found.steps], 1)
        alive = [len(kills), *(len(kills) - 1 - k for k in range(len(ends))), len(kills) - len(ends)]
        style = {"linestyle": ":"} if name else {"color": cell_colour(cell), "linewidth": 2}
        axes.step(steps, alive, where="post", label=name or "all", **style)
    axes.set(xscale="log", xlabel="steps of distraction", ylabel="cues that survive", title=cell_names(cell))
    axes.set_ylim(-0.2, len(found.worst) + 0.2)
    axes.legend()
