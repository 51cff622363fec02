"""Does the memory outlast its training? One agent, played at one horizon after the other, without retraining."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.evaluation import Evaluation, Predicts, evaluate
from bistable_rl.agents.vec_envs import close, make_evaluation_env
from bistable_rl.envs import ENVIRONMENTS
from bistable_rl.envs.registry import find_spec
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.schema import EnvConfig

CONFIDENCE = 0.95
RESAMPLES = 9999
FIGURES = ("success", "return", "normalized_score")


class Horizons:
    """Copies of an environment at several horizons.

    Args:
        env: The environment; its one argument that sets the horizon is replaced.
        horizons: Values of that argument.
        episodes: Episodes at each horizon, acting deterministically, and as many sampling.
        seed: Seeds the episodes and the sampled actions, which so are the same at every evaluation.

    Raises:
        UserError: The environment has no horizon, or refuses one of the values.
    """

    def __init__(self, env: EnvConfig, horizons: Sequence[int], episodes: int, seed: int) -> None:
        self.episodes = episodes
        self.seed = seed
        self.envs: dict[int, VecEnv] = {}
        for horizon in horizons:
            at = replace(env, kwargs={**env.kwargs, horizon_argument(env)[0]: horizon})
            self.envs[horizon] = make_evaluation_env(at, episodes, seed)

    def evaluate(self, agent: Predicts, stop: Callable[[], bool] = lambda: False) -> list[dict[str, Any]]:
        """Play at every horizon.

        Args:
            agent: Has SB3's recurrent `predict`.
            stop: Asked at every step; true ends the evaluation with the horizons that are done.

        Returns:
            A row of plain values for each horizon: `horizon`, and acting deterministically the number of `episodes`,
            the mean `length` in steps, and the means `success`, `return` and `normalized_score` (None where the
            environment does not tell), each with a 95% bootstrap interval over the episodes as `<name>_interval`.
            The same names under `sampled`, acting by chance.
        """
        rows: list[dict[str, Any]] = []
        for horizon, env in self.envs.items():
            ways = []
            for deterministic in (True, False):
                env.seed(self.seed)
                with torch.random.fork_rng():  # a training that is evaluated goes on as if it had not been
                    torch.manual_seed(self.seed)
                    played = evaluate(agent, env, self.episodes, deterministic=deterministic, stop=stop)
                if stop():
                    return rows
                ways.append(_figures(played, env.get_attr("unwrapped")[0]))
            rows.append({"horizon": horizon, **ways[0], "sampled": ways[1]})
        return rows

    def close(self) -> None:
        """Close the copies."""
        for env in self.envs.values():
            close(env)


def horizon_argument(env: EnvConfig) -> tuple[str, Any]:
    """Return the name of the argument that sets an environment's horizon, and the value it has.

    Raises:
        UserError: There is none.
    """
    try:
        env_id = find_spec(env.id).id
    except ValueError as error:
        raise UserError(f"env: {one_sentence(error)}") from None
    if env_id not in ENVIRONMENTS:
        raise UserError(
            f"horizons: {env_id} has no argument that sets its horizon; the environments that have one are "
            f"{', '.join(ENVIRONMENTS)}."
        )
    entry = ENVIRONMENTS[env_id]
    default = inspect.signature(entry.batched).parameters[entry.horizon].default
    return entry.horizon, {entry.horizon: default, **entry.kwargs, **env.kwargs}[entry.horizon]


def interval(values: np.ndarray) -> list[float] | None:
    """Return the 95% percentile bootstrap interval of a mean (Efron 1979), None of a single value.

    Args:
        values: (n,) finite numbers.
    """
    if len(values) < 2:
        return None
    found = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def _figures(played: Evaluation, env: Any) -> dict[str, Any]:
    """Return means and intervals of some episodes of an environment."""
    samples: dict[str, np.ndarray | None] = dict.fromkeys(FIGURES)
    samples["return"] = played.returns
    if played.successes is not None:
        samples["success"] = played.successes.astype(float)
    if hasattr(env, "normalized_score"):
        samples["normalized_score"] = env.normalized_score(played.returns)
    figures: dict[str, Any] = {"episodes": len(played.returns), "length": float(played.lengths.mean())}
    for name, values in samples.items():
        figures[name] = None if values is None else float(values.mean())
        figures[f"{name}_interval"] = None if values is None else interval(values)
    return figures
