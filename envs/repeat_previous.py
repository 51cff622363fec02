"""RepeatPrevious: at every step, name the symbol that was shown k steps ago."""

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


class RepeatPreviousVectorEnv(BatchedEnv):
    """At every step, name the symbol that was shown k steps ago.

    The player sees a stream of symbols, each drawn uniformly from `num_symbols`. The memory must be rewritten at every
    step: the task needs a queue of `k` facts instead of one stored fact, so a latch alone does badly.

    This is RepeatPrevious of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning",
    ICLR, with independent symbols instead of cards drawn from a deck. POPGym's own version is
    `PopgymRepeatPreviousEasy-v0`: it deals the suits of a shuffled deck without replacement, counts the card in view
    among the k (its k = 5 asks for the card of 4 steps ago), and shows one more card after the last answer.

    ## Action Space
    `Discrete(num_symbols)`: the symbol that the player names.

    ## Observation Space
    `Box(0, 1, (num_symbols,))`: the symbol, one-hot. All entries are zero after the last step.

    ## Rewards
    From step k on (counted from 0) 1/(`length` - k) for the symbol of k steps ago and -1/(`length` - k) for another; 0
    before. `optimal_return` is 1. The current symbol is independent of the earlier ones, so without memory every
    answer is right with probability 1/K, and `memoryless_return` is 2/K - 1.

    ## Starting State
    The first symbol is drawn uniformly. `options={"cue": s}` sets it.

    ## Episode End
    The episode terminates after `length` steps. `info["is_success"]` says whether all answers were right.

    ## Arguments
    - `length`: the number of steps in an episode, more than `k`.
    - `k`: the number of steps between a symbol and its answer, at least 1.
    - `num_symbols`: K, the number of symbols, at least 2.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("cue", "right")

    def __init__(
        self,
        *,
        length: int = 50,
        k: int = 4,
        num_symbols: int = 4,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.k = check_size("k", k)
        self.length = check_size("length", length, k + 1, f", more than k ({k})")
        self.num_symbols = check_size("num_symbols", num_symbols, 2)
        super().__init__(
            observation_space=Box(0, 1, (num_symbols,), np.float32),
            action_space=Discrete(num_symbols),
            **options,
        )
        self.cue = np.zeros(self.num_envs, np.int64)
        self.right = np.zeros(self.num_envs, np.int64)  # the number of right answers so far
        self.horizon = length
        self.optimal_return = 1.0
        self.memoryless_return = 2 / num_symbols - 1

    def _symbols(self, i: Copies, t: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.where(t == 0, self.cue[i], rng.integers(self.keys[i], t, self.num_symbols))

    def _begin(self, i: Copies) -> None:
        self.cue[i] = rng.integers(self.keys[i], 0, self.num_symbols)
        self.right[i] = 0

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.cue[i] = check_symbols("cue", cue, self.num_symbols)

    def _advance(self, actions: np.ndarray) -> StepResult:
        asked = self.t >= self.k
        right = actions == self._symbols(self.copies, np.maximum(self.t - self.k, 0))
        self.right = self.right + (asked & right)
        answers = self.length - self.k
        reward = np.where(asked, np.where(right, 1.0, -1.0) / answers, 0.0)
        never = np.zeros(self.num_envs, np.bool_)
        return reward, self.t == self.length - 1, never, {"is_success": self.right == answers}

    def _observe(self, i: Copies) -> Any:
        observations = self._blank(i)
        observations[np.arange(len(i)), self._symbols(i, self.t[i])] = self.t[i] < self.length
        return observations

    def _recent(self, k: int) -> npt.NDArray[np.int64]:
        """Return the symbols shown so far that will still be asked for, the oldest first."""
        t = np.arange(max(0, self.t[k] - self.k), min(self.t[k] + 1, self.length))
        return self._symbols(np.full(len(t), k), t)

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return str(self._recent(k)[-1]) if self.t[k] < self.length else "nothing"

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return str(self._recent(k))

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        recent = np.zeros((self.k + 1, self.num_symbols))
        recent[: len(self._recent(k))] = np.eye(self.num_symbols)[self._recent(k)]
        return heat(self._observe(np.array([k]))[0], *recent)


class RepeatPreviousEnv(SingleEnv):
    """One copy of `RepeatPreviousVectorEnv`."""

    vector_class = RepeatPreviousVectorEnv
