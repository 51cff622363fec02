"""A small memory environment for timing PPO; its episodes do not depend on the actions."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete

from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchedEnv, Copies, StepResult


class Recall(BatchedEnv):
    """Recall one of four symbols 9 to 59 steps after it is shown; an episode takes 10 to 60 steps."""

    STATE: ClassVar[tuple[str, ...]] = ("cue", "length")

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs=num_envs, observation_space=Box(0, 1, (5,), np.float32), action_space=Discrete(4))
        self.cue, self.length = np.zeros((2, num_envs), np.int64)

    def _begin(self, i: Copies) -> None:
        self.cue[i] = rng.integers(self.keys[i], 0, 4)
        self.length[i] = 10 + rng.integers(self.keys[i], 1, 51)

    def _advance(self, actions: np.ndarray) -> StepResult:
        ended = self.t == self.length - 1
        right = actions == self.cue
        return np.where(ended & right, 1.0, 0.0), ended, np.zeros(self.num_envs, np.bool_), {"is_success": right}

    def _observe(self, i: Copies) -> Any:
        observations = self._blank(i)
        observations[np.arange(len(i)), self.cue[i]] = self.t[i] == 0
        observations[:, 4] = self.t[i] == self.length[i] - 1
        return observations
