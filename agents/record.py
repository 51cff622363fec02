"""Episodes as a policy's memory sees them: the features of every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from bistable_rl.agents.evaluation import check_finite, success_of
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.cells.base import fixed_weights


@dataclass(frozen=True)
class Episodes:
    """n episodes of up to T steps.

    Attributes:
        features: (T, n, F) what the recurrent layers were given, zeros after an episode's end.
        lengths: (n,) steps of each episode.
        successes: (n,) whether each succeeded; None where the environment does not say, or an episode was cut.
        cut: How many episodes were cut, not having ended.
    """

    features: Tensor
    lengths: Tensor
    successes: np.ndarray | None
    cut: int = 0


def record(
    env: VecEnv, policy: RecurrentPolicy, choose: Callable[[Any, np.ndarray], np.ndarray], longest: int
) -> Episodes:
    """Play one episode in every copy of an environment, with the weights that the policy has at first.

    Args:
        env: The copies, seeded; is reset first.
        policy: Whose features are recorded.
        choose: Takes the observations and where an episode has just begun, and returns the actions.
        longest: Steps after which an episode is cut.

    Raises:
        NonFiniteError: An observation is NaN or infinite.
        RunFailedError: An info says nothing sensible of a success.
    """
    with torch.no_grad(), fixed_weights(policy):
        return _record(env, policy, choose, longest)


def _record(
    env: VecEnv, policy: RecurrentPolicy, choose: Callable[[Any, np.ndarray], np.ndarray], longest: int
) -> Episodes:
    n = env.num_envs
    observation: Any = env.reset()
    starts = np.ones(n, np.bool_)
    lengths = np.zeros(n, np.int64)
    going = np.ones(n, np.bool_)
    successes: list[Any] = [None] * n
    features: list[Tensor] = []
    while going.any() and len(features) < longest:
        check_finite(observation, "observation", lambda _: f"in step {len(features)} of an episode")
        seen = policy.extract_features(policy.obs_to_tensor(observation)[0])
        features.append(torch.where(torch.from_numpy(going).to(seen.device).unsqueeze(1), seen, 0.0))
        lengths[going] += 1
        observation, _, starts, infos = env.step(choose(observation, starts))
        for i in np.flatnonzero(starts & going):
            successes[i] = success_of(infos[i])
        going &= ~starts
    known = None if any(success is None for success in successes) else np.array(successes, np.bool_)
    return Episodes(torch.stack(features), torch.from_numpy(lengths), known, int(going.sum()))


def random_actions(env: VecEnv, seed: int) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Return a `choose` that acts at random."""
    env.action_space.seed(seed)
    return lambda observation, starts: np.stack([env.action_space.sample() for _ in starts])
