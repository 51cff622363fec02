"""Advantages for all steps at once, against plain loops in double precision and against SB3's."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor

from bistable_rl.agents import gae


def sums_by_hand(x: np.ndarray, discount: np.ndarray) -> np.ndarray:
    y, following = np.zeros(x.shape), np.zeros(x.shape[1])
    for t in reversed(range(len(x))):
        following = x[t] + discount[t] * following
        y[t] = following
    return y


@given(st.integers(1, 70), st.integers(1, 4), st.integers(0, 999), st.floats(0, 1))
def test_discounted_sums_equal_a_loop(T: int, n: int, seed: int, end: float) -> None:
    rng = np.random.default_rng(seed)
    x, discount = rng.normal(size=(T, n)), rng.random((T, n)) * (rng.random((T, n)) < end)
    got = gae.discounted_sums(torch.from_numpy(x), torch.from_numpy(discount))
    np.testing.assert_allclose(got.numpy(), sums_by_hand(x, discount), rtol=1e-10, atol=1e-10)


def test_discounted_sums_leave_their_arguments_alone() -> None:
    x, discount = torch.randn(9, 2), torch.rand(9, 2)
    kept = x.clone(), discount.clone()
    gae.discounted_sums(x, discount)
    assert torch.equal(x, kept[0])
    assert torch.equal(discount, kept[1])


def test_undiscounted_sums_over_a_long_rollout_stay_exact_in_single_precision() -> None:
    x, ones = torch.full((4096, 1), 0.25), torch.ones(4096, 1)
    expected = torch.arange(4096, 0, -1).unsqueeze(1) * 0.25
    torch.testing.assert_close(gae.discounted_sums(x, ones), expected, rtol=1e-5, atol=0)


def drawn(T: int, n: int, seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "rewards": torch.randn(T, n, generator=rng),
        "values": torch.randn(T, n, generator=rng),
        "next_values": torch.randn(T, n, generator=rng),
        "dones": torch.rand(T, n, generator=rng) < 0.2,
    }


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 999), st.floats(0, 1), st.floats(0, 1))
def test_advantages_equal_a_loop(T: int, n: int, seed: int, gamma: float, gae_lambda: float) -> None:
    drawn_ = drawn(T, n, seed)
    got = gae.advantages(**drawn_, gamma=gamma, gae_lambda=gae_lambda)
    r, v, w, dones = (drawn_[name].double().numpy() for name in ("rewards", "values", "next_values", "dones"))
    expected = np.zeros((T, n))
    for copy in range(n):
        following = 0.0
        for t in reversed(range(T)):
            following = (
                r[t, copy] + gamma * w[t, copy] - v[t, copy] + gamma * gae_lambda * (1 - dones[t, copy]) * following
            )
            expected[t, copy] = following
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_advantages_equal_sb3s(gae_lambda: float) -> None:
    T, n, gamma = 50, 3, 0.97
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(T, n)).astype(np.float32), torch.randn(T, n)
    starts, dones, last = rng.random((T, n)) < 0.1, rng.random(n) < 0.5, torch.randn(n)
    buffer = RolloutBuffer(
        T, spaces.Discrete(2), spaces.Discrete(2), device="cpu", gamma=gamma, gae_lambda=gae_lambda, n_envs=n
    )
    for t in range(T):
        zeros = np.zeros((n, 1))
        buffer.add(zeros, zeros, rewards[t], starts[t], values[t], torch.zeros(n))
    buffer.compute_returns_and_advantage(last, dones)
    ends = torch.from_numpy(np.concatenate([starts[1:], dones[None]]))
    following = torch.cat([values[1:], last[None]])
    got = gae.advantages(
        torch.from_numpy(rewards), values, torch.where(ends, 0.0, following), ends, gamma=gamma, gae_lambda=gae_lambda
    )
    np.testing.assert_allclose(got.numpy(), buffer.advantages, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((got + values).numpy(), buffer.returns, rtol=1e-4, atol=1e-5)
