"""CopyFirstContinuous: at the end of an episode, repeat the numbers that were shown first."""

from math import pi, sqrt
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box
from scipy.stats import norm
from typing_extensions import Unpack

from bistable_rl.checks import check_bool, check_choice, check_numbers, check_size
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.copy_first import check_lengths
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.phases import Phases
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.streams import Steps, Stream

LIMIT = 10.0
"""Observed numbers lie within ±LIMIT."""

SCALE = 4.0
"""An action a stands for the answer SCALE·a. Standard normal numbers beyond ±4 are rare (6 in 100,000)."""

SUCCESS = 0.1
"""An answer is a success if its mean squared error is below this."""

MEMORYLESS: dict[str, float] = {"abs": 1 - sqrt(2 / pi), "exp": 1 / sqrt(3), "mse": -1.0}
"""The expected reward of the answer 0 to standard normal numbers, by the kind of reward."""


def closeness(kind: str, error: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the reward for each error: 1 - |e| ("abs"), exp(-e²) ("exp") or -e² ("mse")."""
    if kind == "abs":
        return 1 - np.abs(error)
    return np.exp(-(error**2)) if kind == "exp" else -(error**2)


class CopyFirstContinuousVectorEnv(DistractedEnv):
    """At the end of an episode, repeat the numbers that were shown first.

    The player sees a stream of vectors of standard normal numbers. The first is the cue; the others are distractors.
    Only the last action counts. The task isolates one question: how exactly does the memory keep a number for `length`
    steps while the input continues?

    This is the copy-first benchmark of Vecoven et al. (2021), "A bio-inspired bistable recurrent cell allows for
    long-lasting memory", PLoS ONE 16(6), section 5, in episodes.

    ## Action Space
    `Box(-1, 1, (dimensions,))`: an action a stands for the answer 4 a; standard normal numbers rarely lie beyond ±4.

    ## Observation Space
    `Box(-10, 10, (dimensions + 2,))`: the numbers; 1 at the first step; 1 at the last step, where the action counts.
    Without `flags` the last two entries are missing. All entries are zero after the last step.

    ## Rewards
    At the last step the mean over the dimensions of 1 - |a - x| (`abs`), exp(-(a - x)²) (`exp`) or -(a - x)² (`mse`),
    where a is the answer and x the cue; 0 before. `optimal_return` is 1, 1 or 0 (cues beyond ±4 cost 1e-5 of it). The
    observation at the last step is independent of the cue, so without memory the best answer is a constant, 0 by
    symmetry. `memoryless_return` is its expected reward for x ~ N(0, 1): 1 - √(2/π), 1/√3 or -1.

    ## Starting State
    The cue is drawn from the standard normal distribution. `options={"cue": x}` sets it.

    ## Episode End
    The episode terminates after `length` steps. The info holds `mse`, the mean squared error of the answer (1 on
    average for the answer 0), and `is_success`, whether it is below 0.1.

    ## Arguments
    - `length`: the number of steps in an episode, at least 2; a pair (shortest, longest) draws it
      uniformly for each episode.
    - `dimensions`: D, the number of numbers to keep, at least 1.
    - `reward`: the kind of reward, "abs", "exp" or "mse".
    - `flags`: whether the observation marks the first and the last step.
    - `distractors`: the kind of stream, one of `bistable_rl.envs.streams.KINDS`. The paper uses "uniform".

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("length", "cue")
    SHORTEST: ClassVar[int] = 2
    ARGUMENTS: ClassVar[tuple[str, ...]] = ("dimensions", "reward", "flags")
    CUE_NDIM: ClassVar[int] = 1

    def __init__(
        self,
        *,
        length: int | tuple[int, int] = 50,
        dimensions: int = 1,
        reward: str = "abs",
        flags: bool = True,
        distractors: str = "uniform",
        **options: Unpack[BatchOptions],
    ) -> None:
        self.shortest, self.longest = check_lengths(length, 2, ", a step for the cue and one for the answer")
        self.dimensions = check_size("dimensions", dimensions)
        self.reward = check_choice("reward", reward, MEMORYLESS)
        self.flags = check_bool("flags", flags)
        low = np.r_[np.full(dimensions, -LIMIT), np.zeros(2 * flags)].astype(np.float32)
        high = np.r_[np.full(dimensions, LIMIT), np.ones(2 * flags)].astype(np.float32)
        super().__init__(
            observation_space=Box(low, high, dtype=np.float32),
            action_space=Box(-1, 1, (dimensions,), np.float32),
            **options,
        )
        self.stream = Stream(distractors, self.num_envs, first=1)
        self.length = np.zeros(self.num_envs, np.int64)
        self.cue = np.zeros((self.num_envs, dimensions))
        self.horizon = self.longest
        self.optimal_return = 0.0 if reward == "mse" else 1.0
        self.memoryless_return = MEMORYLESS[reward]

    def _draw(self, i: Copies, index: Steps) -> npt.NDArray[np.float64]:
        return rng.normal(self.keys[i, None], index[:, None] * self.dimensions + np.arange(self.dimensions))

    def _check_distractors(self, sequence: np.ndarray) -> np.ndarray:
        if sequence.ndim == 1:
            sequence = sequence[:, None]
        if sequence.ndim != 2 or not len(sequence) or sequence.shape[1] not in (1, self.dimensions):
            raise ValueError(f"distractors must be a sequence of {self.dimensions} numbers each, not {sequence}")
        return check_numbers("distractors", sequence, LIMIT)

    def _begin(self, i: Copies) -> None:
        self.length[i] = self.shortest + rng.integers(self.keys[i], rng.ONCE, self.longest - self.shortest + 1)
        self.cue[i] = self._draw(i, self.t[i])

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.cue[i] = check_numbers("cue", cue, LIMIT)

    def _advance(self, actions: np.ndarray) -> StepResult:
        self._next_distractors()
        answered = self.t == self.length - 1
        error = SCALE * actions.astype(np.float64) - self.cue
        mse = (error**2).mean(1)
        reward = np.where(answered, closeness(self.reward, error).mean(1), 0.0)
        return reward, answered, np.zeros(self.num_envs, np.bool_), {"is_success": mse < SUCCESS, "mse": mse}

    def _first_answer(self) -> npt.NDArray[np.int64]:
        return self.length - 1

    def phases(self, t: int | None = None) -> Phases:
        """Return the admissible observations: any numbers within ±10, and the eight octiles of a cue as examples."""
        examples = norm.ppf((np.arange(8) + 0.5) / 8)[:, None].repeat(self.dimensions, 1)
        cue, low = np.zeros((2, 8, self._size), np.float32)
        cue[:, : self.dimensions], low[:, : self.dimensions] = examples, -LIMIT
        low, answer_low = low[:1].copy(), low[:1].copy()
        if self.flags:
            cue[:, -2], answer_low[:, -1] = 1, 1
        high, answer_high = np.abs(low), np.abs(answer_low)
        return Phases(cue, low, high, answer_low, answer_high, examples, examples[:, None] / SCALE, SUCCESS / SCALE**2)

    def _observe_at(self, i: Copies, t: Steps, index: Steps) -> npt.NDArray[np.float32]:
        length = self.length[i]
        numbers = np.where((t == 0)[:, None], self.cue[i], self._distractors(i, t, index))
        observations = self._blank(i)
        observations[:, : self.dimensions] = np.clip(numbers, -LIMIT, LIMIT) * (t < length)[:, None]
        if self.flags:
            observations[:, -2] = t == 0
            observations[:, -1] = t == length - 1
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        observation = self._observe(np.array([k]))[0]
        now = "  ANSWER NOW" if self.flags and observation[-1] else ""
        return str(np.round(observation[: self.dimensions], 2)) + now

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return str(np.round(self.cue[k], 2))

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        seen = self._observe(np.array([k]))[0]
        seen[: self.dimensions] /= SCALE
        return heat(seen, self.cue[k] / SCALE)


class CopyFirstContinuousEnv(SingleEnv):
    """One copy of `CopyFirstContinuousVectorEnv`."""

    vector_class = CopyFirstContinuousVectorEnv
