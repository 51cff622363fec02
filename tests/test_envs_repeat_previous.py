from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bistable_rl.envs.repeat_previous import RepeatPreviousEnv, RepeatPreviousVectorEnv


def play(env: RepeatPreviousVectorEnv, *, remembers: bool) -> tuple[float, float]:
    """Mean return and success rate of one episode in each copy."""
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    seen, total = [], np.zeros(env.num_envs)
    for t in range(env.length):
        seen.append(observations.argmax(1))
        known = remembers and t >= env.k
        actions = seen[t - env.k] if known else rng.integers(env.num_symbols, size=env.num_envs)
        observations, rewards, terminated, _, infos = env.step(actions)
        assert t >= env.k or (rewards == 0).all()
        total += rewards
    assert terminated.all()
    return float(total.mean()), float(infos["final_info"]["is_success"].mean())


@settings(max_examples=20, deadline=None)
@given(k=st.integers(1, 20), more=st.integers(1, 20), num_symbols=st.integers(2, 9))
def test_a_perfect_player_reaches_the_optimum(k: int, more: int, num_symbols: int) -> None:
    env = RepeatPreviousVectorEnv(num_envs=30, length=k + more, k=k, num_symbols=num_symbols)
    mean, success = play(env, remembers=True)
    assert mean == pytest.approx(env.optimal_return)
    assert success == 1


def test_a_player_without_memory_gets_the_memoryless_return() -> None:
    env = RepeatPreviousVectorEnv(num_envs=2000, length=20, k=3, num_symbols=5)
    mean, success = play(env, remembers=False)
    assert mean == pytest.approx(env.memoryless_return, abs=0.02)
    assert success < 0.001


def test_the_present_symbol_says_nothing_of_the_one_asked_for() -> None:
    env = RepeatPreviousVectorEnv(num_envs=20_000, length=4, k=2, num_symbols=3)
    first, _ = env.reset(seed=0)
    env.step(np.zeros(env.num_envs, np.int64))
    present, *_ = env.step(np.zeros(env.num_envs, np.int64))
    together = np.zeros((3, 3))
    np.add.at(together, (present.argmax(1), first.argmax(1)), 1)
    assert together.max(1).sum() / together.sum() == pytest.approx(1 / 3, abs=0.02)


def test_answers_count_from_step_k_on() -> None:
    env = RepeatPreviousEnv(length=4, k=2, num_symbols=3)
    env.reset(seed=0, options={"cue": 1})
    rewards = [env.step(1)[1] for _ in range(3)]
    assert rewards == [0, 0, 0.5]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"k": 0}, "k must be an integer above 0, got 0"),
        ({"length": 4, "k": 4}, r"length must be an integer of at least 5, more than k \(4\), got 4"),
        ({"num_symbols": 1}, "num_symbols must be an integer of at least 2, got 1"),
    ],
)
def test_bad_arguments_get_a_sentence(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepeatPreviousEnv(**kwargs)
