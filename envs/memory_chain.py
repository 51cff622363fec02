"""MemoryLength and MemorySize: bits are shown once, and one of them is asked for after `length` steps."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_size, check_symbols
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.phases import Phases
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.streams import APART, Steps, Stream
from bistable_rl.errors import UserError

MOST_BITS = 12
"""The most bits whose values are all listed as cues."""


class MemoryChainVectorEnv(DistractedEnv):
    """Name one of the bits that were shown `length` steps ago.

    Between the cue and the question the observation holds only a clock, so there is nothing to ignore. `MemoryLength`
    has one bit and tests how long it is kept; `MemorySize` has several and tests how many are kept. With `distractors`
    there is something to ignore: a symbol that is independent of the bits.

    The experiments are memory_len and memory_size of Osband et al. (2020), "Behaviour Suite for Reinforcement
    Learning", ICLR. There the cue is shown in the first two observations; here it is shown only in the first.

    ## Action Space
    `Discrete(2)`: the bit that the player names.

    ## Observation Space
    `Box((2 + num_bits,))`: the share of the time that is left, 1 - t / `length`; the index of the bit asked for at the
    last step, 0 before; the bits, -1 or 1, at the first step, 0 after. All entries are zero after the last step.
    With `distractors` it is `Box((2 + num_bits + num_symbols,))`: the distractor, one-hot, follows; zeros at the first
    step.

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
    - `distractors`: the kind of stream of the distractors, one of `bistable_rl.envs.streams.KINDS`; None for none.
    - `num_symbols`: K, the number of symbols of the distractors, at least 2.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("cue", "question")
    SHORTEST: ClassVar[int] = 1
    ARGUMENTS: ClassVar[tuple[str, ...]] = ("num_bits", "num_symbols")
    CUE_NDIM: ClassVar[int] = 1

    def __init__(
        self,
        *,
        length: int = 10,
        num_bits: int = 1,
        distractors: str | None = None,
        num_symbols: int = 8,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.length = check_size("length", length)
        self.num_bits = check_size("num_bits", num_bits)
        self.num_symbols = check_size("num_symbols", num_symbols, 2)
        shown = 0 if distractors is None else num_symbols
        low = np.r_[0, 0, -np.ones(num_bits), np.zeros(shown)].astype(np.float32)
        high = np.r_[1, max(1, num_bits - 1), np.ones(num_bits + shown)].astype(np.float32)
        super().__init__(
            observation_space=Box(low, high, dtype=np.float32),
            action_space=Discrete(2),
            **options,
        )
        if distractors is not None:
            self.stream = Stream(distractors, self.num_envs, first=1, start=APART)
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
        self._next_distractors()
        answered = self.t == self.length
        right = actions == self.cue[self.copies, self.question]
        reward = np.where(answered, np.where(right, 1.0, -1.0), 0.0)
        return reward, answered, np.zeros(self.num_envs, np.bool_), {"is_success": right}

    def _first_answer(self) -> int:
        return self.length

    def phases(self, t: int | None = None) -> Phases:
        """Return the admissible observations: the clock of step `t` or any, and every distractor.

        Raises:
            UserError: If there are more than `MOST_BITS` bits: each of their values is a cue.
        """
        if self.num_bits > MOST_BITS:
            raise UserError(
                f"env: {self.num_bits} bits make 2^{self.num_bits} cues, too many to try each; "
                f"set env.kwargs.num_bits to {MOST_BITS} or less."
            )
        symbols = self.num_symbols if self.stream is not None else 1
        bits = np.indices((2,) * self.num_bits).reshape(self.num_bits, -1).T
        size = self._size
        cue = np.zeros((len(bits), size), np.float32)
        cue[:, 0], cue[:, 2 : 2 + self.num_bits] = 1, 2 * bits - 1
        low = np.eye(symbols, size, 2 + self.num_bits, dtype=np.float32)
        answer = np.tile(low, (self.num_bits, 1))
        answer[:, 1] = np.arange(self.num_bits).repeat(symbols)
        high = low.copy()
        low[:, 0], high[:, 0] = (0, 1) if t is None else (max(1 - t / self.length, 0),) * 2
        return Phases(cue, low, high, answer, answer, bits, bits.repeat(symbols, 1))

    def _observe_at(self, i: Copies, t: Steps, index: Steps) -> npt.NDArray[np.float32]:
        observations = self._blank(i)
        observations[:, 0] = np.maximum(1 - t / self.length, 0)
        observations[:, 1] = np.where(t == self.length, self.question[i], 0)
        end = 2 + self.num_bits
        observations[:, 2:end] = np.where((t == 0)[:, None], 2 * self.cue[i] - 1, 0)
        if self.stream is not None:
            observations[:, end:] = self._one_hot(i, t, index, (t > 0) & (t <= self.length))
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        seen = f"bit {self.question[k]}?  ANSWER NOW" if self.t[k] == self.length else "nothing"
        return (self.memory_text(k) if self.t[k] == 0 else seen) + self._distractor_text(k)

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
