"""CopyFirst: at the end of an episode, name the symbol that was shown first."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_bool, check_size, check_symbols
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.phases import Phases
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.streams import Steps, Stream


def check_lengths(length: int | tuple[int, int], minimum: int, why: str) -> tuple[int, int]:
    """Return the shortest and the longest episode, from a number of steps or a pair of them."""
    if not isinstance(length, list | tuple):
        low = check_size("length", length, minimum, why)
        return low, low
    if len(length) != 2:
        raise ValueError(f"length must be a number or a pair (shortest, longest), not {length!r}")
    low = check_size("the shortest length", length[0], minimum, why)
    return low, check_size("the longest length", length[1], low, f", the shortest ({low})")


class CopyFirstVectorEnv(DistractedEnv):
    """At the end of an episode, name the symbol that was shown first.

    The player sees a stream of symbols, each drawn uniformly from `num_symbols`. The first is the cue; the others are
    distractors. Only the last action counts. The task isolates one question: does the memory keep one of K facts for
    `length` steps while the input continues? `distractors` sets how it continues: a memory that averages noise away
    withstands the uniform stream but fails where a symbol stays.

    This is the copy-first benchmark of Vecoven et al. (2021), "A bio-inspired bistable recurrent cell allows for
    long-lasting memory", PLoS ONE 16(6), section 5, in episodes, with symbols instead of real numbers.

    ## Action Space
    `Discrete(num_symbols)`: the symbol that the player names.

    ## Observation Space
    `Box(0, 1, (num_symbols + 2,))`: the symbol, one-hot; 1 at the first step; 1 at the last step, where the action
    counts. Without `flags` the last two entries are missing. All entries are zero after the last step.

    ## Rewards
    At the last step 1 for the first symbol and -1 for another; 0 before. `optimal_return` is 1. The observation at the
    last step is independent of the cue, so without memory every answer is right with probability 1/K, and
    `memoryless_return` is 1/K - (1 - 1/K) = 2/K - 1.

    ## Starting State
    The cue is drawn uniformly. `options={"cue": k}` sets it.

    ## Episode End
    The episode terminates after `length` steps: the cue is seen at the first, the answer is the action at the last.
    `info["is_success"]` says whether the answer was right.

    ## Arguments
    - `length`: the number of steps in an episode, at least 2; a pair (shortest, longest) draws it
      uniformly for each episode.
    - `num_symbols`: K, the number of symbols, at least 2.
    - `flags`: whether the observation marks the first and the last step.
    - `distractors`: the kind of stream, one of `bistable_rl.envs.streams.KINDS`. The paper uses "uniform".

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("length", "cue")
    SHORTEST: ClassVar[int] = 2
    ARGUMENTS: ClassVar[tuple[str, ...]] = ("num_symbols", "flags")

    def __init__(
        self,
        *,
        length: int | tuple[int, int] = 50,
        num_symbols: int = 8,
        flags: bool = True,
        distractors: str = "uniform",
        **options: Unpack[BatchOptions],
    ) -> None:
        self.shortest, self.longest = check_lengths(length, 2, ", a step for the cue and one for the answer")
        self.num_symbols = check_size("num_symbols", num_symbols, 2)
        self.flags = check_bool("flags", flags)
        super().__init__(
            observation_space=Box(0, 1, (num_symbols + 2 * flags,), np.float32),
            action_space=Discrete(num_symbols),
            **options,
        )
        self.stream = Stream(distractors, self.num_envs, first=1)
        self.length = np.zeros(self.num_envs, np.int64)
        self.cue = np.zeros(self.num_envs, np.int64)
        self.horizon = self.longest
        self.optimal_return = 1.0
        self.memoryless_return = 2 / num_symbols - 1

    def _begin(self, i: Copies) -> None:
        self.length[i] = self.shortest + rng.integers(self.keys[i], rng.ONCE, self.longest - self.shortest + 1)
        self.cue[i] = rng.integers(self.keys[i], 0, self.num_symbols)

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.cue[i] = check_symbols("cue", cue, self.num_symbols)

    def _advance(self, actions: np.ndarray) -> StepResult:
        self._next_distractors()
        answered = self.t == self.length - 1
        right = actions == self.cue
        reward = np.where(answered, np.where(right, 1.0, -1.0), 0.0)
        return reward, answered, np.zeros(self.num_envs, np.bool_), {"is_success": right}

    def _first_answer(self) -> npt.NDArray[np.int64]:
        return self.length - 1

    def phases(self, t: int | None = None) -> Phases:
        """Return the admissible observations: every symbol in every phase."""
        symbols = np.eye(self.num_symbols, self._size, dtype=np.float32)
        cue, answer = symbols.copy(), symbols.copy()
        if self.flags:
            cue[:, -2], answer[:, -1] = 1, 1
        right = np.tile(np.arange(self.num_symbols)[:, None], self.num_symbols)
        return Phases(cue, symbols, symbols, answer, answer, np.arange(self.num_symbols), right)

    def _observe_at(self, i: Copies, t: Steps, index: Steps) -> npt.NDArray[np.float32]:
        length = self.length[i]
        symbol = np.where(t == 0, self.cue[i], self._distractors(i, t, index))
        observations = self._blank(i)
        observations[np.arange(len(i)), symbol] = t < length
        if self.flags:
            observations[:, -2] = t == 0
            observations[:, -1] = t == length - 1
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        observation = self._observe(np.array([k]))[0]
        symbol = observation[: self.num_symbols]
        now = "  ANSWER NOW" if self.flags and observation[-1] else ""
        return (str(symbol.argmax()) if symbol.any() else "nothing") + now

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return str(self.cue[k])

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        return heat(self._observe(np.array([k]))[0], np.eye(self.num_symbols)[self.cue[k]])


class CopyFirstEnv(SingleEnv):
    """One copy of `CopyFirstVectorEnv`."""

    vector_class = CopyFirstVectorEnv
