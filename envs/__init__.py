"""Environments that test memory, registered with gymnasium as `bistable_rl/<Name>-v0` when this is imported.

Each is written once, batched over n copies in numpy (`gymnasium.make_vec`), and its n = 1 view is the single
environment (`gymnasium.make`). `ENVIRONMENTS` says what there is; `make_env` and `make_batched_env` build one from a
name and plain values, as a config file gives them, whoever's environment it is.
"""

from dataclasses import dataclass, field
from typing import Any

import gymnasium

from bistable_rl.envs.base import BatchedEnv
from bistable_rl.envs.copy_first import CopyFirstVectorEnv
from bistable_rl.envs.copy_first_continuous import CopyFirstContinuousVectorEnv
from bistable_rl.envs.denoising import DenoisingVectorEnv
from bistable_rl.envs.denoising_discrete import DenoisingDiscreteVectorEnv
from bistable_rl.envs.line_digits import LineDigitsVectorEnv
from bistable_rl.envs.memory_chain import MemoryChainVectorEnv
from bistable_rl.envs.minigrid_memory import MiniGridMemoryVectorEnv
from bistable_rl.envs.registry import make_batched_env, make_env
from bistable_rl.envs.repeat_previous import RepeatPreviousVectorEnv
from bistable_rl.envs.t_maze import TMazeVectorEnv

__all__ = ["ENVIRONMENTS", "Entry", "make_batched_env", "make_env"]


@dataclass(frozen=True)
class Entry:
    """One environment of ours.

    Attributes:
        batched: The class of n copies; beside it in its file stands the constructor of one, without "Vector".
        reward_threshold: The return that counts as solved, with the default arguments.
        horizon: The argument that sets how long an episode is.
        kwargs: Arguments whose default is another here.
    """

    batched: type[BatchedEnv]
    reward_threshold: float
    horizon: str = "length"
    kwargs: dict[str, Any] = field(default_factory=dict)


ENVIRONMENTS: dict[str, Entry] = {
    "bistable_rl/CopyFirst-v0": Entry(CopyFirstVectorEnv, reward_threshold=0.825),
    "bistable_rl/CopyFirstContinuous-v0": Entry(CopyFirstContinuousVectorEnv, reward_threshold=0.92),
    "bistable_rl/Denoising-v0": Entry(DenoisingVectorEnv, reward_threshold=0.92),
    "bistable_rl/DenoisingDiscrete-v0": Entry(DenoisingDiscreteVectorEnv, reward_threshold=0.825),
    "bistable_rl/TMaze-v0": Entry(TMazeVectorEnv, reward_threshold=3.795),
    "bistable_rl/MemoryLength-v0": Entry(MemoryChainVectorEnv, reward_threshold=0.9, kwargs={"num_bits": 1}),
    "bistable_rl/MemorySize-v0": Entry(MemoryChainVectorEnv, reward_threshold=0.9, kwargs={"length": 2, "num_bits": 5}),
    "bistable_rl/RepeatPrevious-v0": Entry(RepeatPreviousVectorEnv, reward_threshold=0.85),
    "bistable_rl/LineDigits-v0": Entry(LineDigitsVectorEnv, reward_threshold=0.82),
    "bistable_rl/MiniGridMemory-v0": Entry(MiniGridMemoryVectorEnv, reward_threshold=0.922, horizon="size"),
}

for _id, _entry in ENVIRONMENTS.items():
    _batched = f"{_entry.batched.__module__}:{_entry.batched.__name__}"
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id,
            entry_point=_batched.replace("VectorEnv", "Env"),
            vector_entry_point=_batched,
            reward_threshold=_entry.reward_threshold,
            kwargs=dict(_entry.kwargs),
        )
