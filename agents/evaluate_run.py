"""Evaluate the agent of a run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bistable_rl.agents import evaluation
from bistable_rl.agents.agent import load
from bistable_rl.agents.horizons import Horizons, horizon_argument, is_ours, points
from bistable_rl.agents.vec_envs import close, make_evaluation_env
from bistable_rl.errors import UserError
from bistable_rl.runs.config import Overrides
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment
from bistable_rl.runs.seeds import FINAL_EVALUATION, derived_seed


def evaluate_run(
    run: Run | str | os.PathLike[str],
    overrides: Overrides = (),
    *,
    best: bool = False,
    episodes: int = 100,
    max_episode_steps: int | None = None,
) -> dict[str, Any]:
    """Play episodes with a checkpoint of a run.

    Args:
        run: The run or its folder.
        overrides: Changes of the run's environment, as of `bistable_rl.runs.config.build`.
        best: Whether to load the best checkpoint instead of the last one.
        episodes: The number of episodes.
        max_episode_steps: Steps in which an episode must end; None for the number in the run's config.

    Returns:
        The run, the steps of the training, the environment, and the summary of the evaluation.

    Raises:
        UserError: If the run cannot be read, or the environment does not fit the agent.
        RunFailedError: If the environment fails during an episode.
    """
    opened = Run.open(run)
    experiment = opened.experiment(overrides)
    agent = load(opened, best=best)
    env = make_evaluation_env(experiment.env, episodes, derived_seed(experiment.seed, FINAL_EVALUATION))
    agent.check_spaces(env)
    longest = max_episode_steps or experiment.evaluation.max_episode_steps
    with evaluation.playing():
        try:
            summary = evaluation.evaluate(agent, env, episodes, max_episode_steps=longest).summary()
        finally:
            close(env)
    return {**_about(opened, experiment, agent.steps), **summary}


def evaluate_run_at(
    run: Run | str | os.PathLike[str],
    overrides: Overrides = (),
    *,
    horizons: Sequence[int],
    streams: Sequence[str] = (),
    episodes: int = 100,
    best: bool = False,
    max_episode_steps: int | None = None,
    watch: Callable[[Iterator[dict[str, Any]], int], Iterable[dict[str, Any]]] = lambda rows, total: rows,
) -> dict[str, Any]:
    """Evaluate the agent of a run at several horizons and with several streams.

    Args:
        run: The run or its folder.
        overrides: Changes of the run's environment, as of `bistable_rl.runs.config.build`.
        horizons: Values of its environment's horizon argument; if empty, with streams, the training's own horizon.
        streams: Kinds of streams of distractors; if empty, the training's own stream.
        episodes: Episodes at each horizon and stream with the most likely actions, and as many with sampled ones.
        best: Load the best checkpoint instead of the last one.
        max_episode_steps: Steps in which an episode must end, in an environment that is not ours; None for the number
            in the run's config.
        watch: Shows the progress of an iterator over a number of rows.

    Returns:
        The run, the steps of the training, the environment, the name of its horizon argument and its value in training,
        and under `horizons` the rows of `bistable_rl.agents.horizons.Horizons.evaluate`.

    Raises:
        UserError: If there is no run, its environment has no horizon, shows no distractors or refuses one of the
            values, or its spaces differ from those in training.
        RunFailedError: If the environment fails during an episode.
    """
    opened = Run.open(run)
    experiment = opened.experiment(overrides)
    seed = derived_seed(experiment.seed, FINAL_EVALUATION)
    points(experiment.env, horizons, streams)  # refuses impossible horizons and streams
    name, trained = horizon_argument(experiment.env)
    _check_options(experiment, overrides, name, horizons, streams, max_episode_steps)
    agent = load(opened, best=best)
    longest = max_episode_steps or experiment.evaluation.max_episode_steps
    played = Horizons(experiment.env, horizons, episodes, seed, streams, longest)
    try:
        for env in played.envs.values():
            agent.check_spaces(env)
        with evaluation.playing():
            rows = list(watch(played.rows(agent), len(played.envs)))
    finally:
        played.close()
    return {**_about(opened, experiment, agent.steps), "argument": name, "trained": trained, "horizons": rows}


def _check_options(
    experiment: Experiment,
    overrides: Overrides,
    name: str,
    horizons: Sequence[int],
    streams: Sequence[str],
    max_episode_steps: int | None,
) -> None:
    """Refuse options that are given twice or have no effect."""
    changed = {token.partition("=")[0].removeprefix("--") for token in overrides}
    for option, values, argument in (("--horizons", horizons, name), ("--streams", streams, "distractors")):
        if values and f"env.kwargs.{argument}" in changed:
            raise UserError(f"command line: {option} sets env.kwargs.{argument} already; give one of the two.")
    if max_episode_steps is not None and is_ours(experiment.env):
        option = "--horizons" if horizons else "--streams"
        raise UserError(
            f"evaluate: leave out --max-episode-steps with {option}; episodes of our environments end by themselves."
        )


def _about(run: Run, experiment: Experiment, steps: int) -> dict[str, Any]:
    """Return the run, the steps of its training and the environment of the evaluation."""
    env = experiment.env
    config = {"id": env.id, "kwargs": env.kwargs, "wrappers": env.wrappers}
    return {"run": str(run), "steps": steps, "env": config}
