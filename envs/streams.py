"""Streams of distractors: the symbols or numbers of a task that carry no information about its cue.

A distractor is one of the random numbers of an episode (see `bistable_rl.envs.rng`). The kind of stream determines
which one is shown at each step: a new one at every step, or the same one for a while. In every kind, each single
distractor has the task's distribution and is drawn independently of the cue.
"""

from math import log

import numpy as np
import numpy.typing as npt

from bistable_rl.checks import check_choice
from bistable_rl.envs import rng
from bistable_rl.envs.batching import Copies

Steps = npt.NDArray[np.int64]

KINDS: dict[str, str] = {
    "uniform": "a new one at every step, as in the papers",
    "constant": "one for the whole episode",
    "blocks": "each held for L steps, L log-uniform from 1 to 200, drawn for each episode",
    "periodic": "a pattern of P steps, repeated, P log-uniform from 1 to 200, drawn for each episode",
    "sticky": "a Markov chain: a new one with probability 1/L at every step, L as for blocks",
    "mixture": "one of the five above, drawn for each episode with its L or P",
}
"""The kinds of streams."""

LONGEST = 200
"""The greatest L and P."""

APART = 1 << 43
"""The index of the first random number of a stream that must share no numbers with the task's own draws."""

_UNIFORM, _, _BLOCKS, _PERIODIC, _STICKY = range(5)
_DRAW_KIND = rng.ONCE + (1 << 20)
_DRAW_LENGTH = _DRAW_KIND + 1
_DRAW_CHANGE = rng.ONCE + (1 << 30)  # one for each step
_HELD = 1 << 41  # random numbers that are shown for more than one step
_FOREVER = 1 << 62


class Stream:
    """The stream of each of n copies.

    Args:
        kind: One of `KINDS`.
        num_envs: n, the number of copies.
        first: The first step of an episode that shows a distractor.
        start: The index of the first random number that a uniform stream may show.

    Raises:
        ValueError: If the kind is unknown.
    """

    def __init__(self, kind: str, num_envs: int, first: int, start: int = 0) -> None:
        self.kind = check_choice("distractors", kind, KINDS)
        self.first = first
        self.start = start
        self.state = np.zeros((4, num_envs), np.int64)
        """Start, hold, period and stay of each copy: at step t it shows number start + (t - first) // hold % period. A
        sticky stream starts again at each step with probability 1 / stay."""
        self.begin(np.arange(num_envs), np.zeros(num_envs, np.uint64))

    @property
    def changes(self) -> bool:
        """Whether `state` changes during an episode or between episodes."""
        return self.kind not in ("uniform", "constant")

    def begin(self, i: Copies, keys: rng.Keys) -> None:
        """Start an episode in the copies `i`, whose keys are given."""
        kind = rng.integers(keys, _DRAW_KIND, 5) if self.kind == "mixture" else np.array(list(KINDS).index(self.kind))
        length = np.exp(rng.uniform(keys, _DRAW_LENGTH) * log(LONGEST + 1)).astype(np.int64)  # L or P
        self.state[0, i] = np.where(kind == _UNIFORM, self.start + self.first, _HELD)
        self.state[1, i] = np.select([kind == _BLOCKS, (kind == _UNIFORM) | (kind == _PERIODIC)], [length, 1], _FOREVER)
        self.state[2, i] = np.where(kind == _PERIODIC, length, _FOREVER)
        self.state[3, i] = np.where(kind == _STICKY, length, 0)

    def advance(self, keys: rng.Keys, t: Steps) -> None:
        """Advance through the steps `t`, (T, n), from the current step or the next one; a step may be repeated."""
        if self.kind in ("sticky", "mixture"):
            self.state[0] = self._starts(keys, t)[-1]

    def ahead(self, keys: rng.Keys, t: Steps) -> Steps:
        """Return the index of the random number that each copy will show at the steps `t`, (T, n), as in `advance`."""
        if self.kind == "uniform":
            return self.start + t
        start, hold, period, _ = self.state
        if self.kind in ("sticky", "mixture"):
            start = self._starts(keys, t)
        return start + (t - self.first) // hold % period

    def _starts(self, keys: rng.Keys, t: Steps) -> Steps:
        start, _, _, stay = self.state
        changes = (rng.uniform(keys, _DRAW_CHANGE + t) * stay < 1) & (t > self.first) & (stay > 0)
        return np.maximum.accumulate(np.where(changes, _HELD + t, start))

    def indices(self, i: Copies, t: Steps) -> Steps:
        """Return the index of the random number that each of the copies `i` shows at its current step `t`."""
        if self.kind == "uniform":
            return self.start + t
        start, hold, period, _ = self.state[:, i]
        return start + (t - self.first) // hold % period
