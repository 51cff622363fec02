"""DenoisingDiscrete: name, in order, the five symbols that were marked in a stream of others."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_size, check_symbols
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.denoising import FLAGS, MARKS, check_window, draw_marks, flags
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.streams import Steps, Stream


class DenoisingDiscreteVectorEnv(DistractedEnv):
    """Name, in order, the five symbols that were marked in a stream of others.

    This is `Denoising` with symbols instead of numbers, so that each answer is either right or wrong.

    ## Action Space
    `Discrete(num_symbols)`: the symbol that the player names.

    ## Observation Space
    `Box(-1, 1, (num_symbols + 1,))`: the symbol, one-hot, or zeros in the last five steps; the flag, 1 at the five
    marked steps, 0 at the first of the last five and -1 elsewhere. Zeros after the last step.

    ## Rewards
    At the k-th of the last five steps 1/5 for the k-th marked symbol and -1/5 for another; 0 before. `optimal_return`
    is 1. The observations at the last five steps are independent of the marked symbols, so without memory every answer
    is right with probability 1/K, and `memoryless_return` is 2/K - 1.

    ## Starting State
    Five different steps are drawn uniformly from the first `window` steps, or from those before the answers if these
    are fewer (N < 5). `options={"cue": [k_1, ..., k_5]}` sets the marked symbols.

    ## Episode End
    The episode terminates after `length` steps. `info["is_success"]` says whether all five answers were right.

    ## Arguments
    - `length`: T, the number of steps in an episode, at least 10.
    - `window`: T - N, the number of first steps that can be marked, at least 5; by default 40, or `length` if that is
      less. With `window` fixed, a greater `length` is a longer forgetting period N = T - `window`.
    - `num_symbols`: K, the number of symbols, at least 2.
    - `distractors`: the kind of stream of the unmarked symbols, one of
      `bistable_rl.envs.streams.KINDS`. The paper uses "uniform".

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("marks", "cue", "right")
    FORMER_STATE: ClassVar[tuple[str, ...]] = ("passed",)
    CUE_NDIM: ClassVar[int] = 1

    def __init__(
        self,
        *,
        length: int = 50,
        window: int | None = None,
        num_symbols: int = 8,
        distractors: str = "uniform",
        **options: Unpack[BatchOptions],
    ) -> None:
        self.window, self.markable = check_window(length, window)
        self.length = length
        self.num_symbols = check_size("num_symbols", num_symbols, 2)
        low = np.zeros(num_symbols + 1, np.float32)
        low[-1] = -1
        super().__init__(
            observation_space=Box(low, np.ones_like(low), dtype=np.float32),
            action_space=Discrete(num_symbols),
            **options,
        )
        self.stream = Stream(distractors, self.num_envs, first=0)
        self.marks = np.full((self.num_envs, MARKS + 1), -1)  # the marked steps, and a last entry that no step reaches
        self.cue = np.zeros((self.num_envs, MARKS), np.int64)
        self.right = np.zeros(self.num_envs, np.int64)  # the number of right answers so far
        self.horizon = length
        self.optimal_return = 1.0
        self.memoryless_return = 2 / num_symbols - 1

    def _begin(self, i: Copies) -> None:
        self.marks[i, :MARKS] = draw_marks(self.keys[i], self.markable)
        self.cue[i] = rng.integers(self.keys[i, None], self.marks[i, :MARKS], self.num_symbols)
        self.right[i] = 0

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.cue[i] = check_symbols("cue", cue, self.num_symbols)

    def _advance(self, actions: np.ndarray) -> StepResult:
        self._next_distractors()
        k = self.t - (self.length - MARKS)  # the index of the answer, negative before the first
        right = actions == self.cue[self.copies, np.maximum(k, 0) % MARKS]
        self.right = self.right + (right & (k >= 0))
        reward = np.where(k >= 0, np.where(right, 1.0, -1.0) / MARKS, 0.0)
        never = np.zeros(self.num_envs, np.bool_)
        return reward, k == MARKS - 1, never, {"is_success": self.right == MARKS}

    def _first_answer(self) -> int:
        return self.length - MARKS

    def _observe_at(self, i: Copies, t: Steps, index: Steps) -> npt.NDArray[np.float32]:
        is_mark = self.marks[i] == t[:, None]
        marked, value = is_mark.any(1), self.cue[i, is_mark.argmax(1)]
        symbols = np.where(marked, value, self._distractors(i, t, index))
        observations = self._blank(i)
        observations[np.arange(len(i)), symbols] = t < self.length - MARKS
        observations[:, -1] = flags(t, marked, self.length)
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        observation = self._observe(np.array([k]))[0]
        symbol, flag = observation[:-1], int(observation[-1])
        return (str(symbol.argmax()) if symbol.any() else "nothing") + FLAGS.get(flag, "")

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return str(self.cue[k][self.marks[k, :MARKS] <= self.t[k]])

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        shown = np.eye(self.num_symbols)[self.cue[k]] * (self.marks[k, :MARKS] <= self.t[k])[:, None]
        return heat(self._observe(np.array([k]))[0], *shown)


class DenoisingDiscreteEnv(SingleEnv):
    """One copy of `DenoisingDiscreteVectorEnv`."""

    vector_class = DenoisingDiscreteVectorEnv
