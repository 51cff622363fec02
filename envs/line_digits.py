"""LineDigits: read an image line by line, wait through blank lines, then say which digit it was."""

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_size, check_symbols
from bistable_rl.data import digits
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchedEnv, BatchOptions, Copies, StepResult
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv


class LineDigitsVectorEnv(BatchedEnv):
    """Read an image line by line, wait through blank lines, then say which digit it was.

    The player must recognise the fact over many steps before it can keep it. The images are MNIST's training set (28
    lines) if the environment variable `BISTABLE_RL_DATA` names the folder of its files (IDX, plain or gzip), and
    scikit-learn's digits (8 lines) otherwise.

    This is the line-sequential MNIST benchmark of Vecoven et al. (2021), "A bio-inspired bistable recurrent cell allows
    for long-lasting memory", PLoS ONE 16(6), section 5, in episodes and without the permutation of the pixels.

    ## Action Space
    `Discrete(10)`: the digit that the player names.

    ## Observation Space
    `Box(-0.5, 0.5, (columns,))`: a line of the image, from -0.5 (black) to 0.5 (white); then black lines.

    ## Rewards
    At the last step 1 for the right digit and -1 for another; 0 before. `optimal_return` is 1. The last line is blank
    for every image, so without memory the best answer is the most frequent digit. `memoryless_return` is 2 p - 1, where
    p is the share of that digit in the images.

    ## Starting State
    An image is drawn uniformly. `options={"cue": d}` draws it from those of digit d.

    ## Episode End
    The episode terminates after `length` steps. `info["is_success"]` says whether the answer was right.

    ## Arguments
    - `length`: the number of steps in an episode, more than the lines of the image; the rest, N, are blank.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("image",)

    def __init__(
        self,
        *,
        length: int = 50,
        **options: Unpack[BatchOptions],
    ) -> None:
        folder = os.environ.get(digits.FOLDER)
        self.digits = digits.load_any(Path(folder)) if folder else digits.load_small()
        self.lines, columns = self.digits.images.shape[1:]
        self.length = check_size("length", length, self.lines + 1, f", the image's {self.lines} lines and a blank one")
        super().__init__(
            observation_space=Box(-0.5, 0.5, (columns,), np.float32),
            action_space=Discrete(10),
            **options,
        )
        self.image = np.zeros(self.num_envs, np.int64)  # its index in the data
        self.horizon = length
        self.optimal_return = 1.0
        self.memoryless_return = float(2 * np.bincount(self.digits.labels).max() / len(self.digits.labels) - 1)

    def _begin(self, i: Copies) -> None:
        self.image[i] = rng.integers(self.keys[i], rng.ONCE, len(self.digits.labels))

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        for copy, digit in zip(i, np.broadcast_to(check_symbols("cue", cue, 10), len(i)), strict=True):
            images = np.flatnonzero(self.digits.labels == digit)
            self.image[copy] = images[rng.integers(self.keys[copy, None], rng.ONCE + 1, len(images))[0]]

    def _advance(self, actions: np.ndarray) -> StepResult:
        answered = self.t == self.length - 1
        right = actions == self.digits.labels[self.image]
        reward = np.where(answered, np.where(right, 1.0, -1.0), 0.0)
        return reward, answered, np.zeros(self.num_envs, np.bool_), {"is_success": right}

    def _observe(self, i: Copies) -> Any:
        t = self.t[i]
        observations = self._blank(i)
        line = self.digits.images[self.image[i], np.minimum(t, self.lines - 1)]
        observations[:] = line * (t < self.lines)[:, None] / self.digits.white - 0.5
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return "|" + "".join(" .:-=+*#%@"[int(9 * (x + 0.5))] for x in self._observe(np.array([k]))[0]) + "|"

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return str(self.digits.labels[self.image[k]])

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        image = self.digits.images[self.image[k]] / self.digits.white
        return heat(2 * self._observe(np.array([k]))[0], np.zeros(image.shape[1]), *image)


class LineDigitsEnv(SingleEnv):
    """One copy of `LineDigitsVectorEnv`."""

    vector_class = LineDigitsVectorEnv
