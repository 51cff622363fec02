"""An environment whose allowed actions change at every step, which refuses others; and copies of it of every kind."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorWrapper
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([3, 2, 4]),
    "multi-binary": spaces.MultiBinary(3),
}

SIZES = {"discrete": [4], "multi-discrete": [3, 2, 4], "multi-binary": [2, 2, 2]}


class Rules(gymnasium.Env[Any, Any]):
    """Shows its mask, so that a mask of another observation is found out; once an episode has ended nothing is allowed.

    Args:
        kind: A key of `SPACES`.
    """

    def __init__(self, kind: str = "discrete") -> None:
        self.action_space, self.sizes = SPACES[kind], SIZES[kind]
        self.observation_space = spaces.Box(0, 1, (sum(self.sizes),), np.float32)
        self.mask = np.zeros(sum(self.sizes), np.bool_)

    def _draw(self) -> None:
        parts = []
        for size in self.sizes:
            part = self.np_random.random(size) < 0.4
            part[self.np_random.integers(size)] = True
            parts.append(part)
        self.mask = np.concatenate(parts)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._draw()
        return self.mask.astype(np.float32), self.info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        begin = 0
        for size, value in zip(self.sizes, np.atleast_1d(action), strict=True):
            assert self.mask[begin + int(value)], f"{action} is forbidden by {self.mask}"
            begin += size
        chance = self.np_random.random()
        self._draw()
        if chance < 0.3:
            self.mask[:] = False
        return self.mask.astype(np.float32), chance, bool(chance < 0.2), bool(0.2 <= chance < 0.3), self.info()

    def info(self) -> dict[str, Any]:
        return {}


class Method(Rules):
    """Offers its masks by the method."""

    def action_masks(self) -> np.ndarray:
        return self.mask


class Info(Rules):
    """Offers its masks in the info, as numbers, as gymnasium's Taxi does."""

    def info(self) -> dict[str, Any]:
        return {"action_mask": self.mask.astype(np.int8)}


class Batch(VectorWrapper):
    """Offers the masks of all copies at once, in an array of its own that the next step changes."""

    def __init__(self, env: SyncVectorEnv) -> None:
        super().__init__(env)
        self.masks = np.zeros(self.observation_space.shape or (), np.bool_)

    def action_masks(self) -> np.ndarray:
        return self.masks

    def reset(self, **arguments: Any) -> Any:
        observations, infos = self.env.reset(**arguments)
        self.masks[:] = observations > 0.5
        return observations, infos

    def step(self, actions: Any) -> Any:
        result = self.env.step(actions)
        self.masks[:] = result[0] > 0.5
        return result


def copies_of(how: str, make: type[Rules], kind: str = "discrete") -> Any:
    """Return three copies, or one alone, made in one of the ways that RecurrentPPO takes."""
    copies: Any = [lambda: make(kind)] * 3
    if how == "single":
        return make(kind)
    if how == "ActionMasker":
        return ActionMasker(make(kind), lambda env: env.unwrapped.mask)
    if how == "dummy":
        return DummyVecEnv(copies)
    if how == "normalize":
        return VecNormalize(DummyVecEnv(copies), norm_obs=False)
    if how == "subproc":
        return SubprocVecEnv(copies, start_method="fork")
    if how == "async":
        return AsyncVectorEnv(copies, autoreset_mode=AutoresetMode.SAME_STEP, context="fork")
    sync = SyncVectorEnv(copies, autoreset_mode=AutoresetMode.SAME_STEP)
    return Batch(sync) if how == "batch" else sync
