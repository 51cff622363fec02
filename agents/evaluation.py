"""Evaluate an agent: play whole episodes and count returns, lengths and successes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from bistable_rl.agents.env_masks import EnvMasks, takes_masks
from bistable_rl.agents.look_ahead import LookAhead, Predicts
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.vec_envs import attribute_of, first_copy
from bistable_rl.cells.base import fixed_weights
from bistable_rl.checks import check_int
from bistable_rl.envs.base import BatchedEnv
from bistable_rl.envs.info import is_success, to_float
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.errors import NonFiniteError, RunFailedError, UserError, one_sentence

LONGEST_EPISODE = 100_000
"""Default number of steps after which an episode counts as endless."""


@dataclass(frozen=True)
class Evaluation:
    """The episodes of an evaluation.

    Attributes:
        returns: Undiscounted return of each episode, (episodes,).
        lengths: Steps of each episode, (episodes,).
        successes: Whether each succeeded, (episodes,): from `info["is_success"]`, else whether the return reached the
            environment's reward threshold; None if the environment has neither.
        errors: Mean squared error of each episode's answers, (episodes,), from `info["mse"]`; None if it has none.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None
    errors: np.ndarray | None

    def summary(self) -> dict[str, float | int | None]:
        """Return the number of episodes, means and standard deviation as plain numbers."""
        return {
            "episodes": len(self.returns),
            "success_rate": None if self.successes is None else float(self.successes.mean()),
            "mse": None if self.errors is None else float(self.errors.mean()),
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "length_mean": float(self.lengths.mean()),
        }


def evaluate(
    agent: Predicts,
    env: VecEnv,
    episodes: int,
    *,
    deterministic: bool = True,
    stop: Callable[[], bool] = lambda: False,
    max_episode_steps: int | None = None,
) -> Evaluation:
    """Play exactly `episodes` episodes on the copies of `env`.

    Each copy plays a fixed share: taking the episodes that end first would favour short ones. A network acts with the
    weights that it has at the start, see `fixed_weights`.

    Args:
        agent: Has SB3's recurrent `predict`. It gets action masks if `predict` has an argument for them.
        env: The copies; reset first.
        episodes: The number of episodes to count, at least 1.
        deterministic: Take the most likely action instead of sampling one; gSDE's noise is drawn once for each copy.
        stop: Called before every step, and once for steps that are passed together. If it returns true, the evaluation
            ends with the episodes completed so far.
        max_episode_steps: Steps within which every episode must end; None for `LONGEST_EPISODE`, or for the `horizon`
            of one of our environments if that is longer.

    Raises:
        RunFailedError: If an episode does not end, an info reports an invalid success or error, or an action mask does
            not fit.
        NonFiniteError: If a reward or an observation is NaN or infinite.
    """
    network = _network(agent)
    if not deterministic and isinstance(network, RecurrentPolicy) and network.use_sde:
        network.reset_noise(env.num_envs)
    with fixed_weights(network):
        return _play(agent, env, episodes, deterministic, stop, longest_episode(env, max_episode_steps))


def _network(agent: Predicts) -> nn.Module:
    """Return the network of an agent, or a module without cells if none is found."""
    for found in (agent, getattr(agent, "policy", None)):
        if isinstance(found, nn.Module):
            return found
    return nn.Module()


def _play(
    agent: Predicts, env: VecEnv, episodes: int, deterministic: bool, stop: Callable[[], bool], longest: int
) -> Evaluation:
    n = env.num_envs
    share = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    played = np.zeros(n, dtype=int)
    ended: list[tuple[Any, ...]] = []  # the step and the copy of each episode's end, and what `Evaluation` holds of it
    total, length, clock = np.zeros(n), np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    threshold = reward_threshold(env)

    def when(copy: int) -> str:
        return f"in step {length[copy]} of an episode"

    obs: Any = env.reset()
    masks = EnvMasks(env if takes_masks(agent) else None)
    ahead = LookAhead(agent, env, deterministic, masks)
    check_finite(obs, "observation", when)
    state, dones = None, np.ones(n, dtype=bool)
    while (played < share).any() and not stop():
        passed, actions, state = ahead.act(obs, state, dones, played < share)
        obs, rewards, dones, infos = env.step(actions)
        masks.see(dones, infos)
        total += rewards
        length += passed + 1
        clock += passed + 1
        check_finite(obs, "observation", when)
        check_finite(rewards, "reward", when)
        if (length - dones >= longest)[played < share].any():
            raise never_ends(longest)
        for i in np.flatnonzero(dones):
            if played[i] < share[i]:
                success = success_of(infos[i])
                if success is None and threshold is not None:
                    success = bool(total[i] >= threshold)
                ended.append((clock[i], i, total[i], length[i], success, error_of(infos[i])))
            played[i] += 1
            total[i], length[i] = 0.0, 0
    _, _, returns, lengths, successes, errors = zip(*sorted(ended), strict=True) if ended else [()] * 6
    return Evaluation(np.array(returns, float), np.array(lengths, int), _known(successes), _known(errors))


def _known(values: tuple[Any, ...]) -> np.ndarray | None:
    """Return the values of all episodes, or None if one is missing."""
    return None if any(value is None for value in values) else np.array(values)


@contextlib.contextmanager
def playing() -> Iterator[None]:
    """Turn any error of an environment in the block, where an agent plays it, into one sentence.

    Raises:
        RunFailedError: If the environment raises an error, or returns NaN or infinity.
    """
    try:
        yield
    except (UserError, RunFailedError, BrokenPipeError):  # BrokenPipeError: the reader of our output has gone
        raise
    except NonFiniteError as error:
        raise RunFailedError(f"env: {one_sentence(error)}") from error
    except (Exception, SystemExit) as error:  # any error: the environment may be anybody's
        raise RunFailedError(
            f"env: it fails during an episode: {type(error).__name__}: {one_sentence(error)}"
        ) from error


def check_finite(values: Any, name: str, when: Callable[[int], str]) -> None:
    """Check that observations or rewards are finite.

    Args:
        values: An array (n, ...) over the copies of an environment, or a dict of such arrays.
        name: Their name in the message.
        when: Returns the time for the message, given the index of a copy.

    Raises:
        NonFiniteError: If a number is NaN or infinite.
    """
    for part in values.values() if isinstance(values, dict) else [values]:
        finite = np.isfinite(part).reshape(len(part), -1).all(1)
        if not finite.all():
            copy = int(finite.argmin())
            raise NonFiniteError(f"the {name} of environment copy {copy} became NaN or infinite {when(copy)}")


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Return whether the episode that ended with this info was a success; None if the info does not say.

    Raises:
        RunFailedError: If the value is neither true nor false.
    """
    try:
        return is_success(info)
    except ValueError as error:
        raise RunFailedError(f"env: {one_sentence(error)}") from None


def error_of(info: Mapping[str, Any]) -> float | None:
    """Return the mean squared error in the info of an episode's end; None if there is none.

    Raises:
        RunFailedError: If it is not a finite number.
    """
    value = info.get("mse")
    if value is None:
        return None
    number = to_float(value)
    if number is None or not math.isfinite(number):
        raise RunFailedError(f"env: info['mse'] must be a finite number, not {str(value)[:60]!r}.")
    return number


def longest_episode(env: VecEnv, max_episode_steps: int | None = None) -> int:
    """Return the steps within which an episode must end: as given, else `LONGEST_EPISODE` or our longer `horizon`."""
    if max_episode_steps is not None:
        return check_int("max_episode_steps", max_episode_steps, 1)
    try:
        ours = isinstance(first_copy(env), SingleEnv | BatchedEnv)  # whose declared horizon is right
    except Exception:  # any error: the copies may be anybody's
        ours = False
    return max(LONGEST_EPISODE, declared_horizon(env) or 0) if ours else LONGEST_EPISODE


def never_ends(longest: int) -> RunFailedError:
    """Return the error for an episode that does not end."""
    return RunFailedError(
        f"env: an episode has not ended after {longest:,} steps; cut episodes with the wrapper time_limit "
        "(env.wrappers: [{name: time_limit, kwargs: {max_episode_steps: 1000}}]), or allow longer ones in evaluations "
        "with evaluation.max_episode_steps."
    )


def declared_horizon(env: VecEnv) -> int | None:
    """Return the largest number of steps of an episode, if the environment declares it as a whole number."""
    horizon = attribute_of(env, "horizon")
    whole = isinstance(horizon, int | np.integer) and not isinstance(horizon, bool)
    return int(horizon) if whole and horizon > 0 else None


def reward_threshold(env: VecEnv) -> float | None:
    """Return the return that counts as solved, if the environment or its registration declares it as a number.

    The registration of a copy in another process is not read: it may not be picklable.
    """
    for declared in (attribute_of(env, "reward_threshold"), _registered_threshold(env)):
        if isinstance(declared, int | float | np.number) and not isinstance(declared, bool) and math.isfinite(declared):
            return float(declared)
    return None


def _registered_threshold(env: VecEnv) -> Any:
    try:
        return first_copy(env).spec.reward_threshold
    except (Exception, SystemExit):  # no such attribute, or a foreign one that raises
        return None
