"""The theorem of latches: threshold, invariance, and the sequences that break what it does not promise."""

import numpy as np
import pytest

from bistable_rl.dynamics.latch import kept_from, threshold


def step(h: np.ndarray, u: np.ndarray, a: float, c: float) -> np.ndarray:
    return c * h + (1 - c) * np.tanh(u + a * h)


def settled(h: float, u: float, a: float) -> float:
    for _ in range(20_000):
        h = float(step(np.float64(h), np.float64(u), a, 0.0))
    return h


def test_the_threshold_at_known_gains() -> None:
    assert threshold(1.9) == pytest.approx(0.463052, abs=1e-6)
    assert threshold(1.0) == 0.0
    assert threshold(0.3) == 0.0
    assert (np.diff(threshold(np.linspace(1, 2, 100))) > 0).all()


@pytest.mark.parametrize("a", [1.05, 1.3, 1.9, 2.0])
def test_both_states_exist_below_the_threshold_and_one_above(a: float) -> None:
    below, above = 0.999 * float(threshold(a)), 1.001 * float(threshold(a))
    assert settled(1, -below, a) > 0 > settled(-1, -below, a)
    assert settled(1, -above, a) < 0


@pytest.mark.parametrize("a", [1.1, 1.5, 1.9])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_the_interval_is_never_left(a: float, share: float) -> None:
    generator, u = np.random.default_rng(0), share * float(threshold(a))
    low = kept_from(a, u)
    assert np.tanh(a * low - u) == pytest.approx(low, abs=1e-12)
    h = np.linspace(low, 1, 100)
    for _ in range(500):
        gain = generator.uniform(a, 2)
        u_t = np.where(generator.random(100) < 0.5, -u, generator.uniform(-u, 1, 100))
        h = step(h, u_t, a if generator.random() < 0.5 else gain, generator.random())
        assert (h >= low - 1e-12).all()
        assert (h <= 1).all()


@pytest.mark.parametrize("u", [-0.1, 0.47])
def test_inputs_beyond_the_threshold_are_refused(u: float) -> None:
    with pytest.raises(ValueError, match="u must be at least 0 and below"):
        kept_from(1.9, u)
