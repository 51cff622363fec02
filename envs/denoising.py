"""Denoising: repeat, in order, the five numbers that were marked in a stream of noise."""

from math import pi, sqrt
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box
from typing_extensions import Unpack

from bistable_rl.checks import check_numbers, check_size
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.copy_first_continuous import LIMIT, SCALE, SUCCESS
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.streams import Steps, Stream

MARKS = 5
"""The number of marked values, and of answers."""

WINDOW = 40
"""The default number of first steps that can be marked; a shorter episode has fewer."""

FLAGS = {1: "  MARKED", 0: "  ANSWER FROM NOW ON"}
"""The flag in words."""


def check_window(length: int, window: int | None) -> tuple[int, int]:
    """Check that `length` and `window` fit together; return the window, and the number of steps that can be marked."""
    check_size("length", length, 2 * MARKS, f", {MARKS} steps for the marks and {MARKS} for the answers")
    if window is None:
        window = min(WINDOW, length)
    check_size("window", window, MARKS, f", a step for each mark (so N = length - window is at most {length - MARKS})")
    if window > length:
        raise ValueError(f"window must be at most length ({length}), not {window}")
    return window, min(window, length - MARKS)


def draw_marks(keys: rng.Keys, steps: int) -> npt.NDArray[np.int64]:
    """Draw `MARKS` different steps uniformly from the first `steps`; return them in order, (len(keys), MARKS)."""
    marks = np.empty((len(keys), MARKS), np.int64)
    for k in range(MARKS):
        # The index of a step among the remaining ones; each earlier mark that is not above it shifts it by one.
        mark = rng.integers(keys, rng.ONCE + k, steps - k)
        for earlier in range(k):
            mark += mark >= marks[:, earlier]
        marks[:, k] = mark
        marks[:, : k + 1].sort(axis=1)
    return marks


def flags(t: npt.NDArray[np.int64], marked: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.float64]:
    """Return the flag at step t: 1 at a mark, 0 at the first answer (and after the end), -1 elsewhere."""
    return np.where(marked, 1.0, np.where((t == length - MARKS) | (t >= length), 0.0, -1.0))


class DenoisingVectorEnv(DistractedEnv):
    """Repeat, in order, the five numbers that were marked in a stream of noise.

    The player sees a stream of numbers, and a flag that marks five of them. In the last five steps it repeats these
    five in their order. The task isolates one question: does the memory pick facts out of noise, and keep them apart
    and in order, for the N steps after the last step that can be marked?

    This is the denoising benchmark of Vecoven et al. (2021), "A bio-inspired bistable recurrent cell allows for
    long-lasting memory", PLoS ONE 16(6), section 5, in episodes.

    ## Action Space
    `Box(-1, 1, (1,))`: an action a stands for the answer 4 a; standard normal numbers rarely lie beyond ±4.

    ## Observation Space
    `Box(2)`: the number, within ±10, standard normal and 0 in the last five steps; the flag, 1 at the five marked
    steps, 0 at the first of the last five and -1 elsewhere. Zeros after the last step.

    ## Rewards
    At the k-th of the last five steps (1 - |a - x_k|) / 5 for the answer a and the k-th marked number x_k; 0 before.
    `optimal_return` is 1 (numbers beyond ±4 cost 1e-5 of it). The observations at the last five steps are independent
    of the numbers, so without memory the best answer is a constant: 0, by symmetry. `memoryless_return` is
    1 - E|x| = 1 - √(2/π).

    ## Starting State
    Five different steps are drawn uniformly from the first `window` steps, or from those before the answers if these
    are fewer (N < 5). `options={"cue": [x_1, ..., x_5]}` sets the marked numbers.

    ## Episode End
    The episode terminates after `length` steps. The info holds `mse`, the mean squared error of the five answers (1 on
    average for the answer 0), and `is_success`, whether it is below 0.1.

    ## Arguments
    - `length`: T, the number of steps in an episode, at least 10.
    - `window`: T - N, the number of first steps that can be marked, at least 5; by default 40, or `length` if that is
      less. With `window` fixed, a greater `length` is a longer forgetting period N = T - `window`.
    - `distractors`: the kind of stream of the unmarked numbers, one of
      `bistable_rl.envs.streams.KINDS`. The paper uses "uniform".

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("marks", "cue", "squares")
    FORMER_STATE: ClassVar[tuple[str, ...]] = ("passed",)
    CUE_NDIM: ClassVar[int] = 1

    def __init__(
        self,
        *,
        length: int = 50,
        window: int | None = None,
        distractors: str = "uniform",
        **options: Unpack[BatchOptions],
    ) -> None:
        self.window, self.markable = check_window(length, window)
        self.length = length
        low, high = np.array([-LIMIT, -1], np.float32), np.array([LIMIT, 1], np.float32)
        super().__init__(
            observation_space=Box(low, high, dtype=np.float32),
            action_space=Box(-1, 1, (1,), np.float32),
            **options,
        )
        self.stream = Stream(distractors, self.num_envs, first=0)
        self.marks = np.full((self.num_envs, MARKS + 1), -1)  # the marked steps, and a last entry that no step reaches
        self.cue = np.zeros((self.num_envs, MARKS))
        self.squares = np.zeros(self.num_envs)  # the sum of squared errors so far
        self.horizon = length
        self.optimal_return = 1.0
        self.memoryless_return = 1 - sqrt(2 / pi)

    def _begin(self, i: Copies) -> None:
        self.marks[i, :MARKS] = draw_marks(self.keys[i], self.markable)
        self.cue[i] = rng.normal(self.keys[i, None], self.marks[i, :MARKS])
        self.squares[i] = 0.0

    def _draw(self, i: Copies, index: Steps) -> npt.NDArray[np.float64]:
        return rng.normal(self.keys[i], index)

    def _check_distractors(self, sequence: np.ndarray) -> np.ndarray:
        if sequence.ndim != 1 or not len(sequence):
            raise ValueError(f"distractors must be a sequence of at least one number, not {sequence}")
        return check_numbers("distractors", sequence, LIMIT)

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.cue[i] = check_numbers("cue", cue, LIMIT)

    def _advance(self, actions: np.ndarray) -> StepResult:
        self._next_distractors()
        k = self.t - (self.length - MARKS)  # the index of the answer, negative before the first
        asked = self.cue[self.copies, np.maximum(k, 0) % MARKS]
        error = np.where(k >= 0, SCALE * actions[:, 0].astype(np.float64) - asked, 0.0)
        self.squares = self.squares + error**2
        mse = self.squares / MARKS
        reward = np.where(k >= 0, (1 - np.abs(error)) / MARKS, 0.0)
        never = np.zeros(self.num_envs, np.bool_)
        return reward, k == MARKS - 1, never, {"is_success": mse < SUCCESS, "mse": mse}

    def _first_answer(self) -> int:
        return self.length - MARKS

    def _observe_at(self, i: Copies, t: Steps, index: Steps) -> npt.NDArray[np.float32]:
        is_mark = self.marks[i] == t[:, None]
        marked, value = is_mark.any(1), self.cue[i, is_mark.argmax(1)]
        numbers = np.where(marked, value, self._distractors(i, t, index))
        observations = self._blank(i)
        observations[:, 0] = np.where(t < self.length - MARKS, np.clip(numbers, -LIMIT, LIMIT), 0.0)
        observations[:, 1] = flags(t, marked, self.length)
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        number, flag = self._observe(np.array([k]))[0]
        return f"{number:.2f}" + FLAGS.get(int(flag), "")

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return str(np.round(self.cue[k][self.marks[k, :MARKS] <= self.t[k]], 2))

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        number, flag = self._observe(np.array([k]))[0]
        shown = np.where(self.marks[k, :MARKS] <= self.t[k], self.cue[k], 0.0)
        return heat([number / SCALE, flag], shown / SCALE)


class DenoisingEnv(SingleEnv):
    """One copy of `DenoisingVectorEnv`."""

    vector_class = DenoisingVectorEnv
