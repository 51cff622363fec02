"""Statistics of a few seeds: interquartile mean, bootstrap intervals, probability of improvement, steps to a threshold.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice": with a handful of
runs an aggregate means little without its interval. The interquartile mean (the mean of the middle half) is more robust
to one lucky seed than the mean, and uses more of the seeds than the median.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_SEEDS = 4
"""With fewer seeds there is no interval, because resampling cannot look beyond the seeds. The true median lies between
the worst and the best of three in 75% of all cases only, 1 - 2^(1-n). Two groups of three are fully separated by chance
alone in 10%, 2 / C(2n, n) with n seeds each (Mann and Whitney's exact test), so no outcome of theirs is sure to 95%."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95% bootstrap interval.

    The bounds are NaN with fewer than `MIN_SEEDS` seeds, or where a value is infinite or NaN.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """A learning curve over seeds.

    Attributes:
        steps: (n,) environment steps or updates.
        values: (seeds, n) each seed's curve at these steps.
        middle: (n,) interquartile mean over the seeds.
        low: (n,) lower bound of its 95% interval at each step; NaN with fewer than `MIN_SEEDS` seeds.
        high: (n,) upper bound.
    """

    steps: np.ndarray
    values: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean without the lowest and the highest quarter, each rounded down: of 5, the middle 3."""
    return np.asarray(stats.trim_mean(values, 0.25, axis=axis))


def interquartile_mean_with_interval(values: np.ndarray) -> Estimate:
    """Return the interquartile mean of (seeds,) final values."""
    low, high = _interval((values,), interquartile_mean)
    return Estimate(float(interquartile_mean(values)), float(low), float(high))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Return the probability that a run of x is better than a run of y, ties counted half (Mann and Whitney's U / nm).

    Args:
        x: (n,) final values, higher is better.
        y: (m,) final values of the other.
    """
    low, high = _interval((x, y), _share_above)
    return Estimate(float(_share_above(x, y)), float(low), float(high))


def _share_above(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    x, y = np.moveaxis(x, axis, -1)[..., :, None], np.moveaxis(y, axis, -1)[..., None, :]
    return np.asarray(((x > y) + 0.5 * (x == y)).mean((-2, -1)))


def band(steps: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> Band:
    """Return the curve of several seeds, at each evaluated step that lies within the range of every seed.

    Args:
        steps: The steps of each seed, (n,), increasing.
        values: The values of each seed, (n,), interpolated linearly between its steps.
    """
    common = np.unique(np.concatenate(steps))
    common = common[(common >= max(s[0] for s in steps)) & (common <= min(s[-1] for s in steps))]
    curves = np.stack([np.interp(common, s, v) for s, v in zip(steps, values, strict=True)])
    low, high = _interval((curves,), interquartile_mean, axis=0)
    return Band(common, curves, interquartile_mean(curves, axis=0), low, high)


def first_reached(steps: np.ndarray, values: np.ndarray, threshold: float) -> float:
    """Return the step of the first evaluation at or above a threshold; infinity if there is none."""
    reached = np.flatnonzero(values >= threshold)
    return float(steps[reached[0]]) if len(reached) else float("inf")


def _interval(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], axis: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of an interval over seeds, NaN where there can be none."""
    if min(sample.shape[axis] for sample in samples) < MIN_SEEDS or not all(np.isfinite(s).all() for s in samples):
        shape = np.asarray(statistic(*samples, axis=axis)).shape
        return np.full(shape, np.nan), np.full(shape, np.nan)
    return percentile_interval(samples, statistic, resamples=RESAMPLES, axis=axis)


def percentile_interval(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], *, resamples: int, axis: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of a 95% percentile bootstrap interval (Efron 1979), with a fixed seed.

    Args:
        samples: Arrays of at least two finite numbers along the axis.
        statistic: Takes the samples, and `axis`.
        resamples: The number of resamples.
        axis: The axis of the draws.
    """
    found: Any = stats.bootstrap(
        samples,
        statistic,
        vectorized=True,
        axis=axis,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",  # the others divide by a spread that is zero where all samples are equal
        rng=np.random.default_rng(0),
    )
    return np.asarray(found.confidence_interval.low), np.asarray(found.confidence_interval.high)
