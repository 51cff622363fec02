"""Gates over time, aligned at events: the cue, a marked step, the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BEFORE = 5
"""Steps before a mark with which the marked step is compared."""


@dataclass(frozen=True)
class Aligned:
    """The mean of a quantity around an event.

    Attributes:
        offset: (W,) steps from the event.
        mean: (L, W) over all events with that step; NaN where there is none.
    """

    offset: np.ndarray
    mean: np.ndarray


def align(values: np.ndarray, lengths: np.ndarray, events: np.ndarray, before: int, after: int) -> Aligned:
    """Average a quantity around events.

    Args:
        values: (L, T, n) by layer, step and sequence.
        lengths: (n,) steps of each sequence; later steps do not count.
        events: (T, n) whether the event happens.
        before: Steps before the event.
        after: Steps after the event.
    """
    offset = np.arange(-before, after + 1)
    t, i = np.nonzero(events)
    steps = t[:, None] + offset  # (E, W)
    inside = (steps >= 0) & (steps < lengths[i][:, None])
    found = np.where(inside, values[:, np.clip(steps, 0, values.shape[1] - 1), i[:, None]], 0.0)  # (L, E, W)
    count = inside.sum(0)
    return Aligned(offset, np.where(count > 0, found.sum(1) / np.maximum(count, 1), np.nan))


def at(steps: np.ndarray, T: int) -> np.ndarray:
    """Return one event per sequence, at the given steps (n,), as (T, n)."""
    events: np.ndarray = np.arange(T)[:, None] == steps
    return events


@dataclass(frozen=True)
class Observations:
    """The observations of the paper's Fig. 4, layer by layer, over all sequences.

    Attributes:
        share_rise: (L,) share of bistable units after the last mark minus that before the first; None without gains.
        c_rise: (L,) mean c after the last mark minus that before the first.
        c_dip: (L,) mean c at the marked steps minus that at the unmarked ones of the 5 steps before each.
    """

    share_rise: np.ndarray | None
    c_rise: np.ndarray
    c_dip: np.ndarray


def observations(share: np.ndarray | None, mean_c: np.ndarray, marked: np.ndarray, answer: np.ndarray) -> Observations:
    """Measure the three observations of Vecoven et al. 2021, Fig. 4.

    Args:
        share: (L, T, n) share of bistable units; None for a cell without gain.
        mean_c: (L, T, n) mean c.
        marked: (T, n) the marked steps; sequences without a mark are left out.
        answer: (n,) the first answered step; the steps after the last mark count up to it.
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
