"""MemoryLength and MemorySize: bits are shown once, and one of them is asked for after `length` steps."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_size, check_symbols
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchedEnv, BatchOptions, Copies, StepResult
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv


class MemoryChainVectorEnv(BatchedEnv):
    """Name one of the bits that were shown `length` steps ago.

    Between the cue and the question the observation holds only a clock, so there is nothing to ignore. `MemoryLength`
    has one bit and tests how long it is kept; `MemorySize` has several and tests how many are kept.

    The experiments are memory_len and memory_size of Osband et al. (2020), "Behaviour Suite for Reinforcement
    Learning", ICLR. There the cue is shown in the first two observations; here only in the first.

    ## Action Space
    `Discrete(2)`: the bit that the player names.

    ## Observation Space
    `Box((2 + num_bits,))`: the share of the time that is left, 1 - t / `length`; the index of the bit asked for at the
    last step, 0 before; the bits, -1 or 1, at the first step, 0 after. All entries are zero after the last step.

    ## Rewards
    At the last step 1 for the bit asked for and -1 for the other one; 0 before. `optimal_return` is 1. The clock and
    the question are independent of the bits, so without memory every answer is right with probability 1/2, and
    `memoryless_return` is 0.

    ## Starting State
    The bits and the question are drawn uniformly. `options={"cue": bits}` sets the bits, each 0 or 1.

    ## Episode End
    The episode terminates after `length` + 1 steps: the bits are seen at the first, the answer is the action at the
    last. `info["is_success"]` says whether the answer was right.

    ## Arguments
    - `length`: the number of steps from the cue to the question, at least 1.
    - `num_bits`: the number of bits, at least 1.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("cue", "question")
    CUE_NDIM: ClassVar[int] = 1

    def __init__(
        self,
        *,
        length: int = 10,
        num_bits: int = 1,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.length = check_size("length", length)
        self.num_bits = check_size("num_bits", num_bits)
        low = np.r_[0, 0, -np.ones(num_bits)].astype(np.float32)
        high = np.r_[1, max(1, num_bits - 1), np.ones(num_bits)].astype(np.float32)
        super().__init__(
            observation_space=Box(low, high, dtype=np.float32),
            action_space=Discrete(2),
            **options,
        )
        self.cue = np.zeros((self.num_envs, num_bits), np.int64)
        self.question = np.zeros(self.num_envs, np.int64)
        self.horizon = length + 1
        self.optimal_return = 1.0
        self.memoryless_return = 0.0

    def _begin(self, i: Copies) -> None:
        self.cue[i] = rng.integers(self.keys[i, None], np.arange(self.num_bits), 2)
        self.question[i] = rng.integers(self.keys[i], rng.ONCE, self.num_bits)

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.cue[i] = check_symbols("cue", cue, 2)

    def _advance(self, actions: np.ndarray) -> StepResult:
        answered = self.t == self.length
        right = actions == self.cue[self.copies, self.question]
        reward = np.where(answered, np.where(right, 1.0, -1.0), 0.0)
        return reward, answered, np.zeros(self.num_envs, np.bool_), {"is_success": right}

    def _observe(self, i: Copies) -> Any:
        t = self.t[i]
        observations = self._blank(i)
        observations[:, 0] = np.maximum(1 - t / self.length, 0)
        observations[:, 1] = np.where(t == self.length, self.question[i], 0)
        observations[:, 2:] = np.where((t == 0)[:, None], 2 * self.cue[i] - 1, 0)
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        if self.t[k] == self.length:
            return f"bit {self.question[k]}?  ANSWER NOW"
        return self.memory_text(k) if self.t[k] == 0 else "nothing"

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return "".join(map(str, self.cue[k]))

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        seen = self._observe(np.array([k]))[0]
        asked = np.arange(self.num_bits) == self.question[k]
        return heat(seen[2:], 2 * self.cue[k] - 1, asked * (self.t[k] == self.length))


class MemoryChainEnv(SingleEnv):
    """One copy of `MemoryChainVectorEnv`."""

    vector_class = MemoryChainVectorEnv
