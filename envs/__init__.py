"""Environments that test memory. Importing this package registers them with gymnasium as `bistable_rl/<Name>-v0`.

Each environment is written once, batched over n copies in numpy (`gymnasium.make_vec`); one copy of it is the single
environment (`gymnasium.make`). `ENVIRONMENTS` lists them. `make_env` and `make_batched_env` build any environment that
gymnasium knows from a name and plain values, as a config gives them.
"""

from dataclasses import dataclass, field
from typing import Any

import gymnasium

from bistable_rl.envs.base import BatchedEnv
from bistable_rl.envs.copy_first import CopyFirstEnv
from bistable_rl.envs.copy_first_continuous import CopyFirstContinuousEnv
from bistable_rl.envs.denoising import DenoisingEnv
from bistable_rl.envs.denoising_discrete import DenoisingDiscreteEnv
from bistable_rl.envs.line_digits import LineDigitsEnv
from bistable_rl.envs.memory_chain import MemoryChainEnv
from bistable_rl.envs.minigrid_memory import MiniGridMemoryEnv
from bistable_rl.envs.nested import FlattenNested
from bistable_rl.envs.popgym import LEVELS, TASKS
from bistable_rl.envs.registry import make_batched_env, make_env
from bistable_rl.envs.repeat_previous import RepeatPreviousEnv
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.t_maze import TMazeEnv
from bistable_rl.envs.t_maze_fixed_horizon import FixedHorizonTMazeEnv
from bistable_rl.envs.t_maze_masked import MaskedTMazeEnv

__all__ = ["ENVIRONMENTS", "Entry", "FlattenNested", "make_batched_env", "make_env"]


@dataclass(frozen=True)
class Entry:
    """A registered environment.

    Attributes:
        single: The environment of one copy.
        reward_threshold: The return that counts as solved, with the default arguments.
        horizon: The name of the argument that sets the length of an episode.
        kwargs: Default arguments that replace those of the class.
    """

    single: type[SingleEnv]
    reward_threshold: float
    horizon: str = "length"
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def batched(self) -> type[BatchedEnv]:
        """The environment of n copies."""
        return self.single.vector_class


ENVIRONMENTS: dict[str, Entry] = {
    "bistable_rl/CopyFirst-v0": Entry(CopyFirstEnv, reward_threshold=0.825),
    "bistable_rl/CopyFirstContinuous-v0": Entry(CopyFirstContinuousEnv, reward_threshold=0.92),
    "bistable_rl/Denoising-v0": Entry(DenoisingEnv, reward_threshold=0.92),
    "bistable_rl/DenoisingDiscrete-v0": Entry(DenoisingDiscreteEnv, reward_threshold=0.825),
    "bistable_rl/TMaze-v0": Entry(TMazeEnv, reward_threshold=3.795),
    "bistable_rl/TMazeMasked-v0": Entry(MaskedTMazeEnv, reward_threshold=3.795),
    "bistable_rl/TMazePassive-v0": Entry(FixedHorizonTMazeEnv, reward_threshold=0.95, kwargs={"oracle": 0}),
    "bistable_rl/TMazeActive-v0": Entry(FixedHorizonTMazeEnv, reward_threshold=0.95, kwargs={"oracle": 1}),
    "bistable_rl/MemoryLength-v0": Entry(MemoryChainEnv, reward_threshold=0.9, kwargs={"num_bits": 1}),
    "bistable_rl/MemorySize-v0": Entry(MemoryChainEnv, reward_threshold=0.9, kwargs={"length": 2, "num_bits": 5}),
    "bistable_rl/RepeatPrevious-v0": Entry(RepeatPreviousEnv, reward_threshold=0.85),
    "bistable_rl/LineDigits-v0": Entry(LineDigitsEnv, reward_threshold=0.82),
    "bistable_rl/MiniGridMemory-v0": Entry(MiniGridMemoryEnv, reward_threshold=0.922, horizon="size"),
} | {
    f"bistable_rl/Popgym{name}{level}-v0": Entry(task.single, threshold, task.horizon, kwargs)
    for name, task in TASKS.items()
    for level, kwargs, threshold in zip(LEVELS, task.levels, task.reward_thresholds, strict=True)
}
"""The environments of this package by id."""

for _id, _entry in ENVIRONMENTS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id,
            entry_point=f"{_entry.single.__module__}:{_entry.single.__name__}",
            vector_entry_point=f"{_entry.batched.__module__}:{_entry.batched.__name__}",
            reward_threshold=_entry.reward_threshold,
            kwargs=dict(_entry.kwargs),
        )
