"""Gates over time, lined up at what happens: the cue, a marked step, the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BEFORE = 5
"""Steps before a mark that its step is compared with."""


@dataclass(frozen=True)
class Aligned:
    """The mean of a quantity around an event.

    Attributes:
        offset: (W,) steps from the event.
        mean: (L, W) over all events that have that step; NaN where there is none.
    """

    offset: np.ndarray
    mean: np.ndarray


def align(values: np.ndarray, lengths: np.ndarray, events: np.ndarray, before: int, after: int) -> Aligned:
    """Average a quantity around events.

    Args:
        values: (L, T, n) by layer, step and sequence.
        lengths: (n,) steps of each sequence; what comes later does not count.
        events: (T, n) where the event happens.
        before: Steps shown before it.
        after: Steps shown after it.
    """
    offset = np.arange(-before, after + 1)
    t, i = np.nonzero(events)
    steps = t[:, None] + offset  # (E, W)
    inside = (steps >= 0) & (steps < lengths[i][:, None])
    found = np.where(inside, values[:, np.clip(steps, 0, values.shape[1] - 1), i[:, None]], 0.0)  # (L, E, W)
    count = inside.sum(0)
    return Aligned(offset, np.where(count > 0, found.sum(1) / np.maximum(count, 1), np.nan))


def at(steps: np.ndarray, T: int) -> np.ndarray:
    """Return one event a sequence, at the given steps (n,), as (T, n)."""
    events: np.ndarray = np.arange(T)[:, None] == steps
    return events


@dataclass(frozen=True)
class Observations:
    """What the paper observed in its Fig. 4, layer by layer, over all sequences.

    Attributes:
        share_rise: (L,) share of bistable units after the last mark less that before the first; None without gains.
        c_rise: (L,) mean c after the last mark less that before the first.
        c_dip: (L,) mean c at the marked steps less that at the unmarked ones of the 5 steps before each.
    """

    share_rise: np.ndarray | None
    c_rise: np.ndarray
    c_dip: np.ndarray


def observations(share: np.ndarray | None, mean_c: np.ndarray, marked: np.ndarray, answer: np.ndarray) -> Observations:
    """Measure the three observations of Vecoven et al. 2021, Fig. 4.

    Args:
        share: (L, T, n) share of bistable units, None for a cell that has none.
        mean_c: (L, T, n) mean c.
        marked: (T, n) the marked steps; those of sequences without a mark are left out.
        answer: (n,) the first step that is answered, after which nothing counts.
    """
    T = len(marked)
    time = np.arange(T)[:, None]
    passed = marked.cumsum(0)
    early = passed == 0
    late = (passed == passed[-1]) & ~marked & (time < answer) & (passed[-1] > 0)
    recent = np.zeros(marked.shape, bool)  # within 5 steps before a mark, and not marked itself
    for k in range(1, BEFORE + 1):
        recent[:-k] |= marked[k:]
    recent &= ~marked

    def over(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        mean: np.ndarray = values[:, where].mean(1)
        return mean

    return Observations(
        None if share is None else over(share, late) - over(share, early),
        over(mean_c, late) - over(mean_c, early),
        over(mean_c, marked) - over(mean_c, recent),
    )
