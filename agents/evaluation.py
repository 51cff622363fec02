"""Play whole episodes with an agent and count."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from bistable_rl.agents.checks import check_whole
from bistable_rl.cells.base import fixed_weights
from bistable_rl.envs.base import BatchedEnv
from bistable_rl.envs.checks import told_number, told_success
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.errors import NonFiniteError, RunFailedError, UserError, one_sentence

LONGEST_EPISODE = 100_000
"""Steps after which an episode counts as one that never ends, unless told otherwise."""


class Predicts(Protocol):
    """Anything with SB3's recurrent `predict`."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Return actions and the next state."""


@dataclass(frozen=True)
class Evaluation:
    """The episodes of an evaluation.

    Attributes:
        returns: Undiscounted return of each episode, (episodes,).
        lengths: Steps of each episode, (episodes,).
        successes: Whether each succeeded, (episodes,): what `info["is_success"]` says, else whether the return reached
            the environment's reward threshold; None where it has neither.
        errors: Mean squared error of each episode's answers, (episodes,): what `info["mse"]` says; None where it says
            nothing.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None
    errors: np.ndarray | None

    def summary(self) -> dict[str, float | int | None]:
        """Return the number of episodes, mean and spread as plain numbers."""
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

    Each copy plays a share fixed beforehand: taking whichever episodes end first would favour the short ones. A network
    acts with the weights that it has at first, see `fixed_weights`.

    Args:
        agent: Has SB3's recurrent `predict`.
        env: Is reset first.
        episodes: How many episodes to count, at least 1.
        deterministic: Take the most likely action instead of sampling one.
        stop: Asked at every step; true ends the evaluation with the episodes that are over.
        max_episode_steps: Steps in which every episode must end; None for `LONGEST_EPISODE`, or the `horizon`
            of an environment of ours where that is more.

    Raises:
        RunFailedError: An episode does not end, or an info says nothing sensible of a success or an error.
        NonFiniteError: A reward or an observation is NaN or infinite.
    """
    with fixed_weights(_network(agent)):
        return _play(agent, env, episodes, deterministic, stop, longest_episode(env, max_episode_steps))


def _network(agent: Predicts) -> nn.Module:
    """Return what an agent acts with; where that cannot be known, a module without cells."""
    for found in (agent, getattr(agent, "policy", None)):
        if isinstance(found, nn.Module):
            return found
    return nn.Module()


def _play(
    agent: Predicts, env: VecEnv, episodes: int, deterministic: bool, stop: Callable[[], bool], longest: int
) -> Evaluation:
    n = env.num_envs
    share = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    done = np.zeros(n, dtype=int)
    returns: list[float] = []
    lengths: list[int] = []
    successes: list[bool | None] = []
    errors: list[float | None] = []
    total, length = np.zeros(n), np.zeros(n, dtype=int)
    threshold = reward_threshold(env)

    def when(copy: int) -> str:
        return f"in step {length[copy]} of an episode"

    observation: Any = env.reset()
    check_finite(observation, "observation", when)
    state, starts = None, np.ones(n, dtype=bool)
    while (done < share).any() and not stop():
        action, state = agent.predict(observation, state, starts, deterministic)
        observation, reward, starts, infos = env.step(action)
        total += reward
        length += 1
        check_finite(observation, "observation", when)
        check_finite(reward, "reward", when)
        for i in np.flatnonzero(starts):
            if done[i] < share[i]:
                returns.append(float(total[i]))
                lengths.append(int(length[i]))
                success = success_of(infos[i])
                reached = None if threshold is None else bool(total[i] >= threshold)
                successes.append(reached if success is None else success)
                errors.append(error_of(infos[i]))
            done[i] += 1
            total[i], length[i] = 0.0, 0
        if (length[done < share] >= longest).any():
            raise never_ends(longest)
    return Evaluation(np.array(returns), np.array(lengths), _known(successes), _known(errors))


def _known(values: list[Any]) -> np.ndarray | None:
    """Return what every episode has said, or None."""
    return None if any(value is None for value in values) else np.array(values)


@contextlib.contextmanager
def playing() -> Iterator[None]:
    """Turn whatever an environment does while an agent plays it into one sentence.

    Raises:
        RunFailedError: It raised something, or gave what is no number.
    """
    try:
        yield
    except (UserError, RunFailedError, BrokenPipeError):  # the last: who reads our output has gone away
        raise
    except NonFiniteError as error:
        raise RunFailedError(f"env: {one_sentence(error)}") from error
    except (Exception, SystemExit) as error:  # whatever somebody else's environment does
        raise RunFailedError(
            f"env: it fails while it is played: {type(error).__name__}: {one_sentence(error)}"
        ) from error


def check_finite(values: Any, name: str, when: Callable[[int], str]) -> None:
    """Check what the copies of an environment show, an array (n, ...) or a dict of them.

    Args:
        values: What they show.
        name: What it is called.
        when: Takes the number of a copy, and says when it was shown.

    Raises:
        NonFiniteError: A number is NaN or infinite.
    """
    for part in values.values() if isinstance(values, dict) else [values]:
        finite = np.isfinite(part).reshape(len(part), -1).all(1)
        if not finite.all():
            copy = int(finite.argmin())
            raise NonFiniteError(f"the {name} of environment copy {copy} became NaN or infinite {when(copy)}")


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Return whether the episode that ended with this info was a success, None where the info does not say.

    Raises:
        RunFailedError: It says something that is neither true nor false.
    """
    try:
        return told_success(info)
    except ValueError as error:
        raise RunFailedError(f"env: {one_sentence(error)}") from None


def error_of(info: Mapping[str, Any]) -> float | None:
    """Return the mean squared error that the info of an episode's end tells, None where it tells none.

    Raises:
        RunFailedError: It is no finite number.
    """
    value = info.get("mse")
    if value is None:
        return None
    number = told_number(value)
    if number is None or not math.isfinite(number):
        raise RunFailedError(f"env: info['mse'] must be a finite number, not {str(value)[:60]!r}.")
    return number


def longest_episode(env: VecEnv, max_episode_steps: int | None = None) -> int:
    """Return the steps in which an episode must end: as given, or `LONGEST_EPISODE`, or our own `horizon` if more."""
    if max_episode_steps is not None:
        return check_whole("max_episode_steps", max_episode_steps, 1)
    try:
        ours = isinstance(env.get_attr("unwrapped")[0], SingleEnv | BatchedEnv)  # which keep what they declare
    except Exception:  # somebody else's copies
        ours = False
    return max(LONGEST_EPISODE, declared_horizon(env) or 0) if ours else LONGEST_EPISODE


def never_ends(longest: int) -> RunFailedError:
    """Return the error for an episode that does not end."""
    return RunFailedError(
        f"env: an episode has not ended after {longest:,} steps; cut episodes by the wrapper time_limit "
        "(env.wrappers: [{name: time_limit, kwargs: {max_episode_steps: 1000}}]), or allow longer ones in evaluations "
        "by evaluation.max_episode_steps."
    )


def declared_horizon(env: VecEnv) -> int | None:
    """Return the most steps that an episode takes, if the environment declares it by a whole number."""
    try:
        horizon = env.get_attr("horizon")[0]
    except (Exception, SystemExit):  # no such attribute, or one that is somebody else's and raises
        return None
    whole = isinstance(horizon, int | np.integer) and not isinstance(horizon, bool)
    return int(horizon) if whole and horizon > 0 else None


def reward_threshold(env: VecEnv) -> float | None:
    """Return the return that counts as solved, as the environment or else its registration declares it by a number."""
    for where in ("reward_threshold", "spec.reward_threshold"):
        try:
            declared = operator.attrgetter(where)(env.get_attr("unwrapped")[0])
        except (Exception, SystemExit):  # as above
            continue
        if isinstance(declared, int | float | np.number) and not isinstance(declared, bool) and math.isfinite(declared):
            return float(declared)
    return None
