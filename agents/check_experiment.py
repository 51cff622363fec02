"""Check that an experiment can be trained, and find the metrics of its evaluations, without training it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.agent import make_policy
from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.evaluation import reward_threshold
from bistable_rl.agents.horizons import FIGURES, Horizons, points
from bistable_rl.agents.loggers import check_loggers
from bistable_rl.agents.named import make_callbacks
from bistable_rl.agents.run_spaces import Spaces, spaces_of_env
from bistable_rl.agents.training import without_gate_options
from bistable_rl.agents.vec_envs import make_vec_env
from bistable_rl.errors import RunFailedError, UserError, one_sentence
from bistable_rl.runs.devices import resolve_device
from bistable_rl.runs.schema import Experiment

EPISODE_STEPS, EPISODE_SECONDS = 10_000, 2.0
"""The limits, in steps and seconds, of the episode of random actions that is played to find its metrics."""


class ExperimentCheck:
    """Checks experiments one after the other; an environment that several experiments share is built once.

    Args:
        devices: Whether their devices must be available; False if the runs take place on other machines.
    """

    def __init__(self, *, devices: bool = True) -> None:
        self._devices = devices
        self._seen: dict[str, tuple[Spaces, set[str]]] = {}

    def __call__(self, experiment: Experiment) -> set[str]:
        """Build its network and one copy of its environment, also at each horizon and stream.

        Returns:
            The metrics of its evaluations. `success_rate` and `mse` are among them if an episode of random actions
            reports them, or does not end within `EPISODE_SECONDS`.

        Raises:
            UserError: If the experiment cannot be trained.
        """
        device = resolve_device(experiment.device) if self._devices else torch.device("cpu")
        experiment = without_gate_options(experiment)
        check_loggers(experiment)
        make_callbacks(experiment)
        config = replace(experiment.env, num_envs=1)
        horizons, streams = experiment.evaluation.horizons, experiment.evaluation.streams
        key = repr((config, horizons, streams))
        if key not in self._seen:
            env = make_vec_env(config, 1, seed=0)
            try:
                self._seen[key] = spaces_of_env(env), _reported(env)
                at_horizons = Horizons(config, horizons, episodes=1, seed=0, streams=streams)
                try:
                    at_horizons.check_spaces(env)
                finally:
                    at_horizons.close()
            finally:
                env.close()
        spaces, metrics = self._seen[key]
        make_policy(experiment, spaces, device)
        return metrics


def metric_columns(experiment: Experiment, reported: Iterable[str]) -> dict[str, list[str]]:
    """Return the metrics that can judge a training, and their columns of metrics.csv; the worst of several counts.

    Args:
        experiment: The experiment.
        reported: The metrics of its evaluations.

    Returns:
        `success_rate` and the other metrics; with horizons and streams also `success@500`, `return@500/constant`, and
        `success@500/worst`, over the kinds of streams.
    """
    evaluation = experiment.evaluation
    found = {name: [f"eval/{name}"] for name in reported}
    for point in points(experiment.env, evaluation.horizons, evaluation.streams):
        for name in FIGURES:
            column = f"{point.tag}/{name}"
            found[f"{name}@{point.horizon}" + (f"/{point.stream}" if point.stream else "")] = [column]
            if point.stream:
                found.setdefault(f"{name}@{point.horizon}/worst", []).append(column)
    return found


def _reported(env: VecEnv) -> set[str]:
    """Return the metrics that an episode of random actions reports."""
    space, over = env.action_space, False
    infos: list[dict[str, Any]] = [{}]
    try:
        env.reset()
        masks = EnvMasks(env)
        space.seed(0)
        _, _, dones, infos = env.step(masks.sample(space))
        masks.see(dones, infos)
        over = dones[0]
    except RunFailedError as error:  # from its action masks
        raise UserError(str(error)) from None
    except Exception as error:  # an environment may raise anything
        raise UserError(f"env: it fails at its first step: {type(error).__name__}: {one_sentence(error)}") from None
    metrics = {"mean_reward", "mean_ep_length"}
    try:
        end = time.monotonic() + EPISODE_SECONDS
        for _ in range(EPISODE_STEPS):
            if over or time.monotonic() > end:
                break
            _, _, dones, infos = env.step(masks.sample(space))
            masks.see(dones, infos)
            over = dones[0]
    except Exception:  # the run will meet it too, and report it better
        over = False
    reported = infos[0]
    if not over or reported.get("is_success") is not None or reward_threshold(env) is not None:
        metrics.add("success_rate")
    if not over or reported.get("mse") is not None:
        metrics.add("mse")
    return metrics
