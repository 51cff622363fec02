"""Evaluate the agent of a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bistable_rl.agents import evaluation
from bistable_rl.agents.agent import load
from bistable_rl.agents.vec_envs import close, make_evaluation_env
from bistable_rl.runs.run import Run
from bistable_rl.runs.seeds import FINAL_EVALUATION, derived_seed


def evaluate_run(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    best: bool = False,
    episodes: int = 100,
    max_episode_steps: int | None = None,
) -> dict[str, Any]:
    """Play episodes with a checkpoint of a run.

    Args:
        run: The run folder.
        overrides: `--env.KEY value` options that change the run's environment.
        best: Whether to load the best checkpoint instead of the last one.
        episodes: The number of episodes.
        max_episode_steps: Steps in which an episode must end; None for those of the run's config.

    Returns:
        The run, the steps of the training, the environment, and the summary of the evaluation.

    Raises:
        UserError: If the run cannot be read, or the environment does not fit the agent.
        RunFailedError: If the environment fails while it is played.
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
    config = {"id": experiment.env.id, "kwargs": experiment.env.kwargs, "wrappers": experiment.env.wrappers}
    return {"run": str(run), "steps": agent.steps, "env": config, **summary}
