"""Which steps belong together, and how they are minibatch, against plain loops over copies and steps."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bistable_rl.agents.sequences import Sequences

Starts = npt.NDArray[np.bool_]
Piece = list[tuple[int, int]]
"""The (step, copy) of each step of a piece of an episode."""

shapes = st.tuples(st.integers(1, 20), st.integers(1, 5))
rollouts = shapes.flatmap(lambda shape: arrays(np.bool_, shape))
limits = st.none() | st.integers(1, 25)


def pieces_by_hand(episode_starts: Starts, bptt_length: int | None) -> list[Piece]:
    """Walk through every copy, and start a new piece where an episode does, or where a cut is due."""
    T, n = episode_starts.shape
    pieces: list[Piece] = []
    for copy in range(n):
        for step in range(T):
            if step == 0 or episode_starts[step, copy] or (bptt_length and step % bptt_length == 0):
                pieces.append([])
            pieces[-1].append((step, copy))
    return pieces


@given(rollouts, limits)
def test_pieces_begin_with_episodes_with_the_rollout_and_at_cuts(starts: Starts, limit: int | None) -> None:
    sequences = Sequences(starts, limit)
    expected = pieces_by_hand(starts, limit)
    found = [
        [(int(step) + t, int(copy)) for t in range(length)]
        for step, copy, length in zip(sequences.step, sequences.copy, sequences.length, strict=True)
    ]
    assert found == expected
    assert sequences.fresh.tolist() == [bool(starts[piece[0]]) for piece in expected]
    assert len(sequences) == len(expected)


@settings(max_examples=60)
@given(rollouts, limits, st.integers(1, 120), st.integers(0, 9))
def test_an_epoch_has_every_step_once_and_cuts_no_piece(
    starts: Starts, limit: int | None, batch_size: int, seed: int
) -> None:
    sequences = Sequences(starts, limit)
    pieces = pieces_by_hand(starts, limit)
    n = starts.shape[1]
    packs = list(sequences.minibatches(batch_size, np.random.default_rng(seed)))
    assert sorted(row for minibatch in packs for row in minibatch.rows.tolist()) == list(range(starts.size))
    assert sorted(k for minibatch in packs for k in minibatch.sequences.tolist()) == list(range(len(pieces)))
    for minibatch in packs:
        assert len(minibatch.rows)
        lengths = sequences.length[minibatch.sequences]
        assert (np.diff(lengths) <= 0).all()
        assert minibatch.batch_sizes.tolist() == [int((lengths > t).sum()) for t in range(lengths[0])]
        by_hand = [
            pieces[k][t][0] * n + pieces[k][t][1]
            for t in range(lengths[0])
            for k in minibatch.sequences
            if t < len(pieces[k])
        ]
        assert minibatch.rows.tolist() == by_hand


@settings(max_examples=60)
@given(rollouts, limits, st.integers(1, 120), st.integers(0, 9))
def test_a_minibatch_has_about_batch_size_steps(starts: Starts, limit: int | None, batch_size: int, seed: int) -> None:
    """No more than a sequence off, so that a minibatch is neither tiny nor a rollout."""
    sequences = Sequences(starts, limit)
    packs = list(sequences.minibatches(batch_size, np.random.default_rng(seed)))
    wanted = max(1, round(starts.size / batch_size))
    assert len(packs) <= wanted
    longest = sequences.length.max()
    assert all(abs(len(minibatch.rows) - starts.size / wanted) <= longest for minibatch in packs)


@given(rollouts, limits, st.integers(1, 60))
def test_in_order_every_sequence_comes_once(starts: Starts, limit: int | None, steps: int) -> None:
    sequences = Sequences(starts, limit)
    packs = list(sequences.in_order(steps))
    assert np.sort(np.concatenate([p.sequences for p in packs])).tolist() == list(range(len(sequences)))
    assert all(max(p.sequences) < min(q.sequences) for p, q in pairwise(packs))
    longest = sequences.length.max()
    assert all(len(p.rows) < steps + longest for p in packs)


def test_minibatches_are_dealt_anew_every_epoch_and_alike_for_equal_seeds() -> None:
    starts = np.random.default_rng(0).random((64, 8)) < 0.1
    sequences = Sequences(starts)

    def deal(generator: np.random.Generator) -> list[list[int]]:
        return [minibatch.rows.tolist() for minibatch in sequences.minibatches(128, generator)]

    one, other = np.random.default_rng(7), np.random.default_rng(7)
    first = deal(one)
    assert first == deal(other)
    assert first != deal(one)


@pytest.mark.parametrize("batch_size", [32, 128, 1024])
def test_no_episode_is_cut_however_small_the_minibatches(batch_size: int) -> None:
    """Minibatches that are slices of the rollout cut a quarter of the episodes at 128 of 1024 steps."""
    starts = np.zeros((128, 8), np.bool_)
    rng = np.random.default_rng(0)
    for copy in range(8):
        ends = np.cumsum(rng.integers(10, 61, 20))
        starts[np.append(0, ends[ends < 128]), copy] = True
    whole = pieces_by_hand(starts, None)
    for minibatch in Sequences(starts).minibatches(batch_size, np.random.default_rng(0)):
        steps = {(row // 8, row % 8) for row in minibatch.rows.tolist()}
        assert all(steps.issuperset(piece) or steps.isdisjoint(piece) for piece in whole)
