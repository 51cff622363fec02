"""The previous action and reward as observations, for one environment and for a batch of copies."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.spaces.utils import flatdim
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorWrapper
from gymnasium.vector.utils import batch_space

from bistable_rl.envs.base import BatchedEnv


def widened(space: gymnasium.Space[Any], actions: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """Return the space of observations that hold the previous action and reward too.

    Raises:
        ValueError: The actions are neither Discrete, MultiDiscrete, MultiBinary nor Box.
    """
    if isinstance(actions, Box):
        action = Box(actions.low.ravel(), actions.high.ravel(), dtype=np.float32)
    elif isinstance(actions, Discrete | MultiDiscrete | MultiBinary):
        action = Box(0, 1, (flatdim(actions),), np.float32)
    else:
        raise ValueError(
            f"previous_action_reward is for Discrete, MultiDiscrete, MultiBinary and Box actions, not for {actions}"
        )
    reward = Box(-np.inf, np.inf, (1,), np.float32)
    if isinstance(space, Box) and len(space.shape) == 1:
        low = np.concatenate([space.low, action.low, reward.low])
        high = np.concatenate([space.high, action.high, reward.high])
        return Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
    entries = dict(space) if isinstance(space, Dict) else {"observation": space}
    return Dict({**entries, "previous_action": action, "previous_reward": reward})


def encoded(actions: np.ndarray, space: gymnasium.Space[Any]) -> npt.NDArray[np.float32]:
    """Return n actions (n, ...) as new numbers (n, k): each discrete one one-hot, others flat."""
    if isinstance(space, Discrete | MultiDiscrete):
        sizes = np.atleast_1d(space.n if isinstance(space, Discrete) else space.nvec).ravel()
        chosen = (np.asarray(actions) - space.start).reshape(-1, len(sizes))
        return np.concatenate([chosen[:, [k]] == np.arange(size) for k, size in enumerate(sizes)], 1, dtype=np.float32)
    return np.array(actions, np.float32).reshape(len(actions), -1)


def joined(observations: Any, actions: npt.NDArray[np.float32], rewards: npt.NDArray[np.float32], vector: bool) -> Any:
    """Return observations that hold actions (..., k) and rewards (..., 1) too."""
    if vector:
        return np.concatenate([observations, actions, rewards], axis=-1).astype(np.float32)
    entries = observations if isinstance(observations, dict) else {"observation": observations}
    return {**entries, "previous_action": actions.copy(), "previous_reward": rewards.copy()}


class PreviousActionReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Show the previous action and reward, zeros at the first step.

    They follow the entries of a vector. A Dict gets the keys `previous_action` and `previous_reward`; any other
    observation becomes such a Dict, and is itself under `observation`.

    Args:
        env: An environment with discrete or vector actions.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self.observation_space = widened(env.observation_space, env.action_space)
        self._vector = isinstance(self.observation_space, Box)
        self._nothing = np.zeros(flatdim(env.action_space), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return joined(observation, self._nothing, np.zeros(1, np.float32), self._vector), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Apply an action and show it with the observation that follows."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        previous = encoded(np.asarray(action)[None], self.env.action_space)[0]
        observation = joined(observation, previous, np.array([reward], np.float32), self._vector)
        return observation, reward, terminated, truncated, info


class PreviousActionRewardVector(VectorWrapper[Any, Any, Any, Any, Any]):
    """`PreviousActionReward` for a batch of copies.

    What it shows comes of the step itself, so its state is the environment's.

    Args:
        env: A batch of ours, with discrete or vector actions, in autoreset mode SAME_STEP.

    Raises:
        ValueError: The actions are of another kind, or the mode is.
    """

    env: BatchedEnv

    def __init__(self, env: BatchedEnv) -> None:
        super().__init__(env)
        mode = env.metadata["autoreset_mode"]
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"previous_action_reward needs autoreset_mode SAME_STEP, not {mode.name}")
        self.single_observation_space = widened(env.single_observation_space, env.single_action_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._vector = isinstance(self.single_observation_space, Box)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every copy.

        Raises:
            ValueError: `options` say to reset some copies only.
        """
        if "reset_mask" in (options or {}):
            raise ValueError("with previous_action_reward all copies are reset together, so leave reset_mask out")
        observations, infos = self.env.reset(seed=seed, options=options)
        n = self.num_envs
        nothing = np.zeros((n, flatdim(self.single_action_space)), np.float32)
        return joined(observations, nothing, np.zeros((n, 1), np.float32), self._vector), infos

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Apply the actions and show them with the observations that follow; new episodes are shown none."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        previous = encoded(actions, self.single_action_space)
        received = rewards.astype(np.float32).reshape(-1, 1)
        ended = terminated | truncated
        if ended.any():
            final = infos["final_obs"]
            for copy in np.flatnonzero(ended).tolist():
                final[copy] = joined(final[copy], previous[copy], received[copy], self._vector)
            previous[ended], received[ended] = 0.0, 0.0
        return joined(observations, previous, received, self._vector), rewards, terminated, truncated, infos

    def get_state(self) -> dict[str, np.ndarray]:
        """Return copies of the arrays from which `set_state` goes on bit for bit."""
        return self.env.get_state()

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `get_state` returned."""
        self.env.set_state(state)
