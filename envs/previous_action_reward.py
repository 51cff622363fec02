"""Add the previous action and reward to the observations of one environment, or of a batch of copies."""

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


def extended_space(space: gymnasium.Space[Any], actions: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """Return the observation space with the previous action and reward.

    Raises:
        ValueError: If the actions are neither Discrete, MultiDiscrete, MultiBinary nor Box.
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


def encode_actions(actions: np.ndarray, space: gymnasium.Space[Any]) -> npt.NDArray[np.float32]:
    """Encode n actions (n, ...) as numbers (n, k), in a new array: discrete actions one-hot, others flat."""
    if isinstance(space, Discrete | MultiDiscrete):
        sizes = np.atleast_1d(space.n if isinstance(space, Discrete) else space.nvec).ravel()
        chosen = (np.asarray(actions) - space.start).reshape(-1, len(sizes))
        return np.concatenate([chosen[:, [k]] == np.arange(size) for k, size in enumerate(sizes)], 1, dtype=np.float32)
    return np.array(actions, np.float32).reshape(len(actions), -1)


def extend(observations: Any, actions: npt.NDArray[np.float32], rewards: npt.NDArray[np.float32], vector: bool) -> Any:
    """Return the observations with actions (..., k) and rewards (..., 1)."""
    if vector:
        return np.concatenate([observations, actions, rewards], axis=-1).astype(np.float32)
    entries = observations if isinstance(observations, dict) else {"observation": observations}
    return {**entries, "previous_action": actions.copy(), "previous_reward": rewards.copy()}


class PreviousActionReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Add the previous action and reward to the observation; both are zero at the first step of an episode.

    A vector is extended by them. A Dict gets the keys `previous_action` and `previous_reward`. Any other observation
    becomes a Dict with these keys and `observation`.

    Args:
        env: An environment with discrete or vector actions.

    Raises:
        ValueError: If the action space is of another kind.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self.observation_space = extended_space(env.observation_space, env.action_space)
        self._vector = isinstance(self.observation_space, Box)
        self._zeros = np.zeros(flatdim(env.action_space), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return extend(observation, self._zeros, np.zeros(1, np.float32), self._vector), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Apply an action, and add it to the observation that follows."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        previous = encode_actions(np.asarray(action)[None], self.env.action_space)[0]
        observation = extend(observation, previous, np.array([reward], np.float32), self._vector)
        return observation, reward, terminated, truncated, info


class PreviousActionRewardVector(VectorWrapper):
    """`PreviousActionReward` for a batch of copies.

    The previous action and reward are those of the step itself, so the wrapper itself has no state.

    Args:
        env: A batched environment with discrete or vector actions, in autoreset mode SAME_STEP.

    Raises:
        ValueError: If the action space or the autoreset mode is of another kind.
    """

    env: BatchedEnv

    def __init__(self, env: BatchedEnv) -> None:
        super().__init__(env)
        mode = env.metadata["autoreset_mode"]
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"previous_action_reward needs autoreset_mode SAME_STEP, not {mode.name}")
        self.single_observation_space = extended_space(env.single_observation_space, env.single_action_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._vector = isinstance(self.single_observation_space, Box)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every copy.

        Raises:
            ValueError: If `options` select some copies only.
        """
        if "reset_mask" in (options or {}):
            raise ValueError("with previous_action_reward all copies are reset together, so leave reset_mask out")
        observations, infos = self.env.reset(seed=seed, options=options)
        n = self.num_envs
        zeros = np.zeros((n, flatdim(self.single_action_space)), np.float32)
        return extend(observations, zeros, np.zeros((n, 1), np.float32), self._vector), infos

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Apply the actions, and add them to the observations that follow; a new episode starts with zeros."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        previous = encode_actions(actions, self.single_action_space)
        received = rewards.astype(np.float32).reshape(-1, 1)
        ended = terminated | truncated
        if ended.any():
            final = infos["final_obs"]
            for copy in np.flatnonzero(ended).tolist():
                final[copy] = extend(final[copy], previous[copy], received[copy], self._vector)
            previous[ended], received[ended] = 0.0, 0.0
        return extend(observations, previous, received, self._vector), rewards, terminated, truncated, infos

    def get_state(self) -> dict[str, np.ndarray]:
        """Return copies of the arrays from which `set_state` continues bit for bit."""
        return self.env.get_state()

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state of `get_state`."""
        self.env.set_state(state)
