"""Which steps of a rollout belong together: the pieces of episodes that a rollout holds, and how they are packed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """Sequences of unequal length, the longest first, step by step: what `PackedSequence` needs, without padding.

    Attributes:
        sequences: (B,) which sequences, the longest first.
        rows: (N,) which row of the flattened rollout (step · copies + copy) stands at each place.
        batch_sizes: (T,) how many sequences are that long.
    """

    sequences: Indices
    rows: Indices
    batch_sizes: Indices


class Sequences:
    """The pieces of episodes in a rollout of T steps of n copies.

    A piece begins where an episode starts, at the rollout's first step, and at every `bptt_length` steps from there;
    it ends before the next one.

    Args:
        episode_starts: (T, n) whether an episode starts with that step.
        bptt_length: The longest piece, in steps; None for no limit.

    Attributes:
        step: (S,) the first step of each piece.
        copy: (S,) the copy of each piece.
        length: (S,) its steps.
        fresh: (S,) whether it begins an episode.
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

    def pack(self, sequences: Indices) -> Packed:
        """Pack some of the sequences; of equally long ones the first comes first."""
        order = sequences[np.argsort(-self.length[sequences], kind="stable")]
        lengths = self.length[order]
        # how many are longer than t, for each t: (T,)
        batch_sizes = len(order) - np.searchsorted(lengths[::-1], np.arange(lengths[0]), side="right")
        t = np.repeat(np.arange(lengths[0]), batch_sizes)
        b = np.arange(len(t)) - np.repeat(np.cumsum(batch_sizes) - batch_sizes, batch_sizes)
        rows = (self.step[order][b] + t) * self.copies + self.copy[order][b]
        return Packed(order, rows, batch_sizes)

    def minibatches(self, batch_size: int, generator: np.random.Generator) -> Iterator[Packed]:
        """Deal the sequences out in random order into packs of about `batch_size` steps; no sequence is cut.

        There are as many packs as `batch_size` goes into the rollout's steps, rounded, and at least one; fewer where
        single sequences are longer than that.
        """
        order = generator.permutation(len(self))
        ends = np.cumsum(self.length[order])
        count = max(1, round(int(ends[-1]) / batch_size))
        # a sequence belongs to the pack that holds its middle
        middle = ends - self.length[order] / 2
        pack = np.minimum((middle * count / ends[-1]).astype(np.int64), count - 1)
        for k in np.unique(pack):
            yield self.pack(order[pack == k])

    def in_order(self, steps: int) -> Iterator[Packed]:
        """Pack the sequences as they come, about `steps` steps at a time."""
        pack = (np.cumsum(self.length) - self.length) // steps
        for k in np.unique(pack):
            yield self.pack(np.flatnonzero(pack == k))
