"""The observations that a task can show in each phase of an episode: cue, distraction, answer.

The observation space also holds observations that never occur, such as two symbols at once. To find out whether *any*
sequence makes an agent forget, a search or a proof must know which sequences exist.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Phases:
    """The admissible observations of D numbers, by phase, and the right actions.

    Attributes:
        cue: (C, D), the first observation for each of C cues (all cues, or examples of continuous ones).
        low: (M, D), the lower corners of M boxes. Every later observation before the answer is in one of them.
        high: (M, D), the upper corners. A box with equal corners is a single observation.
        answer_low: (A, D), the lower corners of A boxes that hold the observation at the answer.
        answer_high: (A, D), the upper corners.
        options: (C,) or (C, n), the option "cue" of `reset` that shows each cue.
        right: The right action for each cue and box of the answer: (C, A) of int, or (C, A, d) of float.
        tolerance: The mean squared error below which a continuous action is right; None for discrete ones.
        meanwhile: The discrete action that is right before the answer; None if any action is.
    """

    cue: Vectors
    low: Vectors
    high: Vectors
    answer_low: Vectors
    answer_high: Vectors
    options: np.ndarray
    right: np.ndarray
    tolerance: float | None = None
    meanwhile: int | None = None
