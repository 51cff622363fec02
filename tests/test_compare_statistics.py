"""Each statistic on synthetic seeds whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from bistable_rl.compare import statistics


def test_the_interquartile_mean_is_the_mean_of_the_middle() -> None:
    assert statistics.interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, -50.0])) == 2.0
    assert statistics.interquartile_mean(np.array([0.0, 1.0, 5.0])) == 2.0  # a quarter of 3, rounded down, is none
    assert statistics.interquartile_mean(np.array([[9.0, 1, 2, -9], [4, 4, 4, 4]])).tolist() == [1.5, 4.0]


def test_the_interval_of_seeds_that_agree_is_a_point_and_a_single_seed_has_none() -> None:
    agree = statistics.interquartile_mean_with_interval(np.full(5, 0.7))
    assert (agree.value, agree.low, agree.high) == pytest.approx((0.7, 0.7, 0.7))
    single = statistics.interquartile_mean_with_interval(np.array([0.7]))
    assert single.value == 0.7
    assert np.isnan([single.low, single.high]).all()


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Normal seeds, whose interquartile mean is 0 in truth; a percentile interval of 20 seeds covers a little less."""
    rng = np.random.default_rng(0)
    covered = [
        found.low <= 0 <= found.high
        for found in (statistics.interquartile_mean_with_interval(rng.normal(size=20)) for _ in range(100))
    ]
    assert 0.85 <= np.mean(covered) <= 1.0
    wide, narrow = (statistics.interquartile_mean_with_interval(rng.normal(size=n)) for n in (8, 800))
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_the_probability_of_improvement_counts_pairs() -> None:
    x, y = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    assert statistics.probability_of_improvement(x, y).value == pytest.approx((2 + 3 - 0.5) / 6)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=7), rng.normal(size=9)
    u = stats.mannwhitneyu(x, y).statistic
    assert statistics.probability_of_improvement(x, y).value == pytest.approx(u / 63)
    above = statistics.probability_of_improvement(y + 100, y)
    assert (above.value, above.low, above.high) == (1.0, 1.0, 1.0)
    same = statistics.probability_of_improvement(np.ones(5), np.ones(5))
    assert (same.value, same.low, same.high) == (0.5, 0.5, 0.5)


def test_the_probability_of_improvement_of_equal_cells_is_uncertain() -> None:
    x = np.linspace(0, 1, 6)
    found = statistics.probability_of_improvement(x, x)
    assert found.value == 0.5
    assert found.low < 0.3
    assert found.high > 0.7


def test_a_band_is_the_interquartile_mean_at_each_common_step() -> None:
    """Five straight lines k * step: their middle is the line of k = 3."""
    steps = [np.array([0, 100, 200]), np.array([0, 50, 200]), np.array([0, 200]), np.array([0, 200, 300])]
    steps.append(np.array([10, 200]))
    curves = statistics.band(steps, [k * s for k, s in zip((1, 3, 100, 2, 4), steps, strict=True)])
    assert curves.steps.tolist() == [10, 50, 100, 200]
    assert curves.middle == pytest.approx(3 * curves.steps)
    assert curves.values[:, 1] == pytest.approx([50, 150, 5000, 100, 200])
    assert (curves.low >= curves.steps).all()
    assert (curves.low < curves.middle).all()
    assert (curves.high > curves.middle).all()
    assert (curves.high <= 100 * curves.steps).all()


def test_a_band_is_the_same_every_time() -> None:
    rng = np.random.default_rng(2)
    steps, values = [np.arange(4.0)] * 5, list(rng.normal(size=(5, 4)))
    first, second = statistics.band(steps, values), statistics.band(steps, values)
    assert first.low.tolist() == second.low.tolist()


def test_the_threshold_is_reached_at_the_first_evaluation_that_shows_it() -> None:
    steps, values = np.array([100, 200, 300, 400]), np.array([0.1, 0.95, 0.5, 1.0])
    assert statistics.first_reached(steps, values, 0.95) == 200
    assert statistics.first_reached(steps, values, 0.99) == 400
    assert statistics.first_reached(steps, values, 1.01) == float("inf")
