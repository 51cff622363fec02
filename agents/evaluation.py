"""Play whole episodes with an agent and count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from bistable_rl.cells.base import fixed_weights


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
    """
    with fixed_weights(_network(agent)):
        return _play(agent, env, episodes, deterministic, stop)


def _network(agent: Predicts) -> nn.Module:
    """Return what an agent acts with; where that cannot be known, a module without cells."""
    for found in (agent, getattr(agent, "policy", None)):
        if isinstance(found, nn.Module):
            return found
    return nn.Module()


def _play(agent: Predicts, env: VecEnv, episodes: int, deterministic: bool, stop: Callable[[], bool]) -> Evaluation:
    n = env.num_envs
    share = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    done = np.zeros(n, dtype=int)
    returns: list[float] = []
    lengths: list[int] = []
    successes: list[bool | None] = []
    errors: list[float | None] = []
    total, length = np.zeros(n), np.zeros(n, dtype=int)
    threshold = reward_threshold(env)
    observation: Any = env.reset()
    state, starts = None, np.ones(n, dtype=bool)
    while (done < share).any() and not stop():
        action, state = agent.predict(observation, state, starts, deterministic)
        observation, reward, starts, infos = env.step(action)
        total += reward
        length += 1
        for i in np.flatnonzero(starts):
            if done[i] < share[i]:
                returns.append(float(total[i]))
                lengths.append(int(length[i]))
                reached = None if threshold is None else total[i] >= threshold
                success = infos[i].get("is_success", reached)
                successes.append(None if success is None else bool(success))
                errors.append(infos[i].get("mse"))
            done[i] += 1
            total[i], length[i] = 0.0, 0
    return Evaluation(np.array(returns), np.array(lengths), _known(successes), _known(errors))


def _known(values: list[Any]) -> np.ndarray | None:
    """Return what every episode has said, or None."""
    return None if any(value is None for value in values) else np.array(values)


def reward_threshold(env: VecEnv) -> float | None:
    """Return the return that counts as solved, as the environment or else its registration declares it."""
    inner = env.get_attr("unwrapped")[0]
    declared = getattr(inner, "reward_threshold", None)
    return getattr(inner.spec, "reward_threshold", None) if declared is None else declared
