"""Sequences: the pieces of episodes in a rollout, and minibatches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Minibatch:
    """Sequences of unequal length, the longest first, step by step: the rows of a `PackedSequence`, without padding.

    Attributes:
        sequences: (B,) the indices of the sequences, the longest first.
        rows: (N,) the row of the flattened rollout (step · copies + copy) at each place.
        batch_sizes: (T,) the number of sequences that have each step.
    """

    sequences: Indices
    rows: Indices
    batch_sizes: Indices


class Sequences:
    """The sequences of a rollout of T steps of n copies.

    A sequence begins where an episode starts, at the rollout's first step, and at every `bptt_length` steps after it;
    it ends before the next sequence.

    Args:
        episode_starts: (T, n) whether an episode starts with that step.
        bptt_length: The longest sequence, in steps; None for no limit.

    Attributes:
        step: (S,) the first step of each sequence.
        copy: (S,) the copy of each sequence.
        length: (S,) the number of steps of each sequence.
        fresh: (S,) whether a sequence begins an episode.
    """

    def __init__(self, episode_starts: npt.NDArray[np.bool_], bptt_length: int | None = None) -> None:
        T, self.copies = episode_starts.shape
        begins = episode_starts.copy()
        begins[:: bptt_length or T] = True
        self.copy, self.step = np.nonzero(begins.T)  # copy by copy, in time
        ends = np.append(self.step[1:], T)
        ends[np.append(self.copy[1:] != self.copy[:-1], True)] = T
        self.length = ends - self.step
        self.fresh = episode_starts[self.step, self.copy]

    def __len__(self) -> int:
        return len(self.step)

    def pack(self, sequences: Indices) -> Minibatch:
        """Return a minibatch of the given sequences; equally long ones keep their order."""
        order = sequences[np.argsort(-self.length[sequences], kind="stable")]
        lengths = self.length[order]
        # (T,) the number of sequences longer than t
        batch_sizes = len(order) - np.searchsorted(lengths[::-1], np.arange(lengths[0]), side="right")
        t = np.repeat(np.arange(lengths[0]), batch_sizes)
        b = np.arange(len(t)) - np.repeat(np.cumsum(batch_sizes) - batch_sizes, batch_sizes)
        rows = (self.step[order][b] + t) * self.copies + self.copy[order][b]
        return Minibatch(order, rows, batch_sizes)

    def minibatches(self, batch_size: int, generator: np.random.Generator) -> Iterator[Minibatch]:
        """Yield all sequences in random order, in minibatches of about `batch_size` steps; no sequence is cut.

        The number of minibatches is the rollout's steps divided by `batch_size`, rounded, and at least one. It is
        smaller if single sequences are longer than `batch_size`.
        """
        order = generator.permutation(len(self))
        ends = np.cumsum(self.length[order])
        count = max(1, round(int(ends[-1]) / batch_size))
        # a sequence belongs to the minibatch that holds its middle
        middle = ends - self.length[order] / 2
        minibatch = np.minimum((middle * count / ends[-1]).astype(np.int64), count - 1)
        for k in np.unique(minibatch):
            yield self.pack(order[minibatch == k])

    def in_order(self, steps: int) -> Iterator[Minibatch]:
        """Yield all sequences in order, in minibatches of about `steps` steps."""
        minibatch = (np.cumsum(self.length) - self.length) // steps
        for k in np.unique(minibatch):
            yield self.pack(np.flatnonzero(minibatch == k))
