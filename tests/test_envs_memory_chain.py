from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bistable_rl.envs.memory_chain import MemoryChainEnv, MemoryChainVectorEnv


def play(env: MemoryChainVectorEnv, *, remembers: bool) -> float:
    """Mean return of one episode in each copy."""
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    bits = observations[:, 2:] > 0
    for _ in range(env.length):
        observations, rewards, *_ = env.step(rng.integers(2, size=env.num_envs))
        assert (rewards == 0).all()
    answers = bits[np.arange(env.num_envs), observations[:, 1].astype(int)].astype(int)
    actions = answers if remembers else rng.integers(2, size=env.num_envs)
    _, rewards, terminated, _, infos = env.step(actions)
    assert terminated.all()
    assert ((rewards == 1) == infos["final_info"]["is_success"]).all()
    return float(rewards.mean())


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 40), num_bits=st.integers(1, 40))
def test_a_perfect_player_reaches_the_optimum(length: int, num_bits: int) -> None:
    env = MemoryChainVectorEnv(num_envs=100, length=length, num_bits=num_bits)
    assert play(env, remembers=True) == env.optimal_return


@pytest.mark.parametrize("num_bits", [1, 7])
def test_a_player_without_memory_gets_nothing(num_bits: int) -> None:
    env = MemoryChainVectorEnv(num_envs=20_000, length=3, num_bits=num_bits)
    assert play(env, remembers=False) == pytest.approx(env.memoryless_return, abs=0.03)


def test_the_last_observation_says_nothing_of_the_bits() -> None:
    env = MemoryChainVectorEnv(num_envs=20_000, length=1, num_bits=3)
    first, _ = env.reset(seed=0)
    last, *_ = env.step(np.zeros(env.num_envs, np.int64))
    for question in range(3):
        asked = last[:, 1] == question
        assert asked.mean() == pytest.approx(1 / 3, abs=0.02)
        assert (first[asked, 2 + question] > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_bits_are_seen_once_and_the_clock_runs_down() -> None:
    env = MemoryChainEnv(length=2, num_bits=3)
    observation, _ = env.reset(seed=0, options={"cue": [1, 0, 1]})
    seen = [observation.tolist()] + [env.step(0)[0].tolist() for _ in range(3)]
    assert seen[0] == [1, 0, 1, -1, 1]
    assert seen[1] == [0.5, 0, 0, 0, 0]
    assert seen[2][0] == 0
    assert seen[2][2:] == [0, 0, 0]
    assert seen[3] == [0, 0, 0, 0, 0]


def test_length_and_size_are_registrations_of_one_environment() -> None:
    assert gymnasium.make("bistable_rl/MemoryLength-v0").observation_space.shape == (3,)
    assert gymnasium.make("bistable_rl/MemorySize-v0", num_bits=12).observation_space.shape == (14,)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 0}, "length must be an integer above 0, got 0"),
        ({"num_bits": 0}, "num_bits must be an integer above 0, got 0"),
    ],
)
def test_bad_arguments_get_a_sentence(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryChainEnv(**kwargs)
