"""Does the memory outlast its training? One agent, evaluated at several horizons and streams without retraining."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.evaluation import Evaluation, Predicts, evaluate
from bistable_rl.agents.vec_envs import close, make_evaluation_env
from bistable_rl.compare.statistics import percentile_interval
from bistable_rl.envs import ENVIRONMENTS
from bistable_rl.envs.base import BatchedEnv
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.registry import check_argument, default_of, find_spec
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.streams import KINDS
from bistable_rl.errors import UserError, unknown, user_errors
from bistable_rl.runs.schema import EnvConfig

RESAMPLES = 9999
FIGURES = ("success", "return", "normalized_score")


@dataclass(frozen=True)
class Point:
    """One combination of horizon and stream at which an agent is evaluated.

    Attributes:
        horizon: A value of the environment's horizon argument.
        stream: A kind of stream of distractors; None for the environment's own.
    """

    horizon: int
    stream: str | None = None

    @property
    def tag(self) -> str:
        """The name of the point in metrics and TensorBoard."""
        return f"horizon_{self.horizon}" + (f"_{self.stream}" if self.stream else "")


def points(env: EnvConfig, horizons: Sequence[int], streams: Sequence[str] = ()) -> list[Point]:
    """Return every horizon with every kind of stream; with streams only, the environment's own (longest) horizon.

    Raises:
        UserError: If the environment has no horizon, shows no distractors, or a kind is unknown.
    """
    if streams:
        check_streams(env, streams)
    elif not horizons:
        return []
    _, trained = horizon_argument(env)
    if not streams:
        return [Point(horizon) for horizon in dict.fromkeys(horizons)]
    return [
        Point(horizon, kind)
        for horizon in dict.fromkeys(horizons or [int(np.max(trained))])
        for kind in dict.fromkeys(streams)
    ]


class Horizons:
    """Copies of an environment at several horizons and with several kinds of streams.

    Args:
        env: The environment; the argument that sets its horizon, and `distractors`, are replaced.
        horizons: Values of that argument.
        episodes: Episodes at each point with deterministic actions, and as many with sampled ones.
        seed: Seeds the episodes and the sampled actions, so that every evaluation has the same.
        streams: Kinds of streams, of `bistable_rl.envs.streams.KINDS`; if empty, the environment's own stream.
        max_episode_steps: Steps within which an episode must end, as in `bistable_rl.agents.evaluation.evaluate`;
            episodes of our environments end by themselves.

    Raises:
        UserError: If `points` raises it, `env.horizon_kwarg` names no argument of the environment, or the environment
            refuses one of the values.
    """

    def __init__(
        self,
        env: EnvConfig,
        horizons: Sequence[int],
        episodes: int,
        seed: int,
        streams: Sequence[str] = (),
        max_episode_steps: int | None = None,
    ) -> None:
        check_horizon_kwarg(env)
        self.episodes = episodes
        self.seed = seed
        self.envs: dict[Point, VecEnv] = {}
        asked = points(env, horizons, streams)
        self._name = horizon_argument(env)[0] if asked else ""
        self._longest = None if asked and is_ours(env) else max_episode_steps
        for point in asked:
            changes: dict[str, Any] = {self._name: point.horizon}
            changes |= {"distractors": point.stream} if point.stream else {}
            at = replace(env, kwargs={**env.kwargs, **changes})
            self.envs[point] = make_evaluation_env(at, episodes, seed)

    def check_spaces(self, env: VecEnv) -> None:
        """Check that the copies at every point have the spaces of an environment.

        Raises:
            UserError: If the spaces of a copy differ.
        """
        for point, at in self.envs.items():
            for kind in ("observation_space", "action_space"):
                here, there = getattr(env, kind), getattr(at, kind)
                if here != there:
                    raise UserError(
                        f"horizons: at {self._name} {point.horizon} the {kind.replace('_', ' ')} is {there}, but in "
                        f"training it is {here}; one network cannot serve both."
                    )

    def evaluate(self, agent: Predicts, stop: Callable[[], bool] = lambda: False) -> list[dict[str, Any]]:
        """Play at every point.

        Args:
            agent: Has SB3's recurrent `predict`.
            stop: As in `bistable_rl.agents.evaluation.evaluate`; if it returns true, the evaluation ends with the
                points completed so far.

        Returns:
            One row of plain values per point: `horizon`, and `stream` if kinds of streams were given. For deterministic
            actions it holds the number of `episodes`, the mean `length` in steps, and the means `success`, `return` and
            `normalized_score` (None if the environment does not give them), each with a 95% bootstrap interval over the
            episodes as `<name>_interval`. `sampled` holds the same names for sampled actions.
        """
        return list(self.rows(agent, stop))

    def rows(self, agent: Predicts, stop: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
        """Yield the rows of `evaluate`, each once it is complete."""
        for point, env in self.envs.items():
            ways = []
            for deterministic in (True, False):
                env.seed(self.seed)
                with torch.random.fork_rng():  # an evaluation must not change the training
                    torch.manual_seed(self.seed)
                    played = evaluate(
                        agent,
                        env,
                        self.episodes,
                        deterministic=deterministic,
                        stop=stop,
                        max_episode_steps=self._longest,
                    )
                if stop():
                    return
                ways.append(_figures(played, env.get_attr("unwrapped")[0]))
            stream = {"stream": point.stream} if point.stream else {}
            yield {"horizon": point.horizon, **stream, **ways[0], "sampled": ways[1]}

    def close(self) -> None:
        """Close the copies."""
        for env in self.envs.values():
            close(env)


def horizon_argument(env: EnvConfig) -> tuple[str, Any]:
    """Return the name of the argument that sets an environment's horizon, and its value.

    Returns:
        The name, which `env.horizon_kwarg` gives for an environment that is not ours. The value, one number or several;
        None if the environment's default is unknown or not a number.

    Raises:
        UserError: If there is no such argument, or `env.horizon_kwarg` names another one.
    """
    spec = _known(env)
    name = env.horizon_kwarg
    if spec.id in ENVIRONMENTS:
        ours = ENVIRONMENTS[spec.id].horizon
        if name not in (None, ours):
            raise UserError(f"env.horizon_kwarg: the horizon of {spec.id} is set by {ours}, not by {name}.")
        return ours, _value(env, spec.id, ours)
    if name is None:
        raise UserError(
            f"horizons: which argument sets the horizon is known for our environments only, not for {spec.id}. Set "
            "env.horizon_kwarg to its name, such as length or gymnasium's max_episode_steps."
        )
    value = env.kwargs[name] if name in env.kwargs else default_of(spec, name)
    numbers = value if isinstance(value, list | tuple) else [value]
    known = numbers and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    return name, value if known else None


def check_horizon_kwarg(env: EnvConfig) -> None:
    """Check `env.horizon_kwarg`, also where no horizons are asked for yet: an evaluation after the training needs it.

    Raises:
        UserError: If it names no argument of the environment, or another one than that which sets the horizon of ours.
    """
    if env.horizon_kwarg is not None:
        horizon_argument(env)
        with user_errors("env.horizon_kwarg", ValueError):
            check_argument(env.id, env.horizon_kwarg)


def is_ours(env: EnvConfig) -> bool:
    """Whether an environment is one of this package.

    Raises:
        UserError: If there is no such environment.
    """
    return _known(env).id in ENVIRONMENTS


def check_streams(env: EnvConfig, streams: Sequence[str]) -> None:
    """Check that an agent of an environment can be evaluated with the given kinds of streams.

    Raises:
        UserError: If the environment has no argument `distractors`, its observation holds none, or a kind is unknown.
    """
    for kind in streams:
        if kind not in KINDS:
            raise UserError("streams: " + unknown("kind of stream", kind, KINDS))
    env_id = _known(env).id
    able = [name for name, entry in ENVIRONMENTS.items() if issubclass(entry.batched, DistractedEnv)]
    if env_id not in able:
        raise UserError(
            f"streams: {env_id} has no argument distractors; the environments that have it are {', '.join(able)}."
        )
    if _value(env, env_id, "distractors") is None:
        raise UserError(
            f"streams: the observation of {env_id} holds distractors only if env.kwargs.distractors is a kind of "
            "stream, but here it is null; train an agent with distractors first."
        )


def _known(env: EnvConfig) -> EnvSpec:
    with user_errors("env", ValueError):
        return find_spec(env.id)


def _value(env: EnvConfig, env_id: str, name: str) -> Any:
    """Return the value of an argument of one of our environments: the given one, or its default."""
    entry = ENVIRONMENTS[env_id]
    default = inspect.signature(entry.batched).parameters[name].default
    return {name: default, **entry.kwargs, **env.kwargs}[name]


def interval(values: np.ndarray) -> list[float] | None:
    """Return the 95% percentile bootstrap interval of a mean, or None for a single value.

    Args:
        values: (n,) finite numbers.
    """
    if len(values) < 2:
        return None
    low, high = percentile_interval((values,), np.mean, resamples=RESAMPLES)
    return [float(low), float(high)]


def _figures(played: Evaluation, env: Any) -> dict[str, Any]:
    """Return means and intervals over the episodes of an evaluation."""
    samples: dict[str, np.ndarray | None] = dict.fromkeys(FIGURES)
    samples["return"] = played.returns
    if played.successes is not None:
        samples["success"] = played.successes.astype(float)
    if isinstance(env, SingleEnv | BatchedEnv):  # in other environments an attribute of that name may be anything
        scores: Any = env.normalized_score
        samples["normalized_score"] = scores(played.returns)
    figures: dict[str, Any] = {"episodes": len(played.returns), "length": float(played.lengths.mean())}
    for name, values in samples.items():
        figures[name] = None if values is None else float(values.mean())
        figures[f"{name}_interval"] = None if values is None else interval(values)
    return figures
