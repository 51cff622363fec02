from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bistable_rl.envs.copy_first import CopyFirstEnv, CopyFirstVectorEnv

CASES = [{"length": 2, "num_symbols": 2}, {"length": 20, "num_symbols": 8}, {"length": (5, 9), "num_symbols": 5}]


def play(env: CopyFirstVectorEnv, *, remembers: bool, episodes: int, seed: int = 0) -> tuple[float, float]:
    """Mean return and success rate of a player who names the first symbol, or one drawn at random."""
    rng = np.random.default_rng(seed)
    observations, _ = env.reset(seed=seed)
    memory = observations[:, : env.num_symbols].argmax(1)
    total, wins, ended = 0.0, 0, 0
    while ended < episodes:
        answers = memory if remembers else rng.integers(env.num_symbols, size=env.num_envs)
        observations, rewards, terminated, truncated, infos = env.step(answers)
        assert not truncated.any()
        total += rewards.sum()
        if terminated.any():
            ended += terminated.sum()
            wins += infos["final_info"]["is_success"].sum()
            memory = np.where(terminated, observations[:, : env.num_symbols].argmax(1), memory)
    return total / ended, wins / ended


@pytest.mark.parametrize("kwargs", CASES)
def test_a_perfect_player_reaches_the_optimum(kwargs: dict[str, Any]) -> None:
    env = CopyFirstVectorEnv(num_envs=50, **kwargs)
    assert play(env, remembers=True, episodes=1000) == (env.optimal_return, 1.0)


@settings(max_examples=25, deadline=None)
@given(shortest=st.integers(2, 30), more=st.integers(0, 10), num_symbols=st.integers(2, 20), seed=st.integers(0, 2**70))
def test_whatever_the_arguments_remembering_is_enough(shortest: int, more: int, num_symbols: int, seed: int) -> None:
    env = CopyFirstVectorEnv(num_envs=20, length=(shortest, shortest + more), num_symbols=num_symbols)
    assert play(env, remembers=True, episodes=40, seed=seed) == (1, 1)


@pytest.mark.parametrize("kwargs", CASES)
def test_a_player_without_memory_gets_the_memoryless_return(kwargs: dict[str, Any]) -> None:
    env = CopyFirstVectorEnv(num_envs=200, **kwargs)
    mean, success = play(env, remembers=False, episodes=20_000)
    assert mean == pytest.approx(env.memoryless_return, abs=0.04)
    assert success == pytest.approx(1 / env.num_symbols, abs=0.02)


def test_the_last_observation_says_nothing_of_the_cue() -> None:
    """No answer read off the last observation beats guessing: the best such answer, found afterwards, doesn't."""
    env = CopyFirstVectorEnv(num_envs=20_000, length=4, num_symbols=4)
    first, _ = env.reset(seed=0)
    for _ in range(3):
        last, *_ = env.step(np.zeros(env.num_envs, np.int64))
    assert (last[:, -1] == 1).all()
    together = np.zeros((4, 4))
    np.add.at(together, (last[:, :4].argmax(1), first[:, :4].argmax(1)), 1)
    assert together.max(1).sum() / together.sum() == pytest.approx(1 / 4, abs=0.02)


def test_the_cue_is_at_the_first_step_and_the_answer_at_the_last() -> None:
    env = CopyFirstEnv(length=4, num_symbols=3)
    observation, _ = env.reset(seed=0, options={"cue": 2})
    assert observation.tolist() == [0, 0, 1, 1, 0]
    flags, rewards, ends = [], [], []
    for _ in range(4):
        observation, reward, terminated, _, info = env.step(2)
        flags.append(observation[3:].tolist())
        rewards.append(reward)
        ends.append(terminated)
    assert flags == [[0, 0], [0, 0], [0, 1], [0, 0]]
    assert rewards == [0, 0, 0, 1]
    assert ends == [False, False, False, True]
    assert observation.tolist() == [0, 0, 0, 0, 0]
    assert info == {"is_success": True}


def test_without_flags_only_the_symbol_is_seen() -> None:
    env = CopyFirstEnv(length=3, num_symbols=3, flags=False)
    observation, _ = env.reset(seed=0, options={"cue": 1})
    assert observation.tolist() == [0, 1, 0]


def test_a_cue_is_forced_in_each_copy() -> None:
    env = CopyFirstVectorEnv(num_envs=3, num_symbols=4)
    observations, _ = env.reset(options={"cue": [3, 0, 2]})
    assert observations[:, :4].argmax(1).tolist() == [3, 0, 2]
    mask = np.array([False, True, False])
    observations, _ = env.reset(options={"cue": [1, 1, 1], "reset_mask": mask})
    assert observations[:, :4].argmax(1).tolist() == [3, 1, 2]


def test_lengths_are_drawn_from_the_whole_range() -> None:
    env = CopyFirstVectorEnv(num_envs=500, length=(3, 6))
    env.reset(seed=0)
    assert np.unique(env.length).tolist() == [3, 4, 5, 6]
    assert env.horizon == 6


def test_symbols_are_uniform_at_every_step() -> None:
    env = CopyFirstVectorEnv(num_envs=8000, length=4, num_symbols=4)
    observations, _ = env.reset(seed=0)
    for _ in range(3):
        assert np.abs(observations[:, :4].mean(0) - 1 / 4).max() < 0.025
        observations, *_ = env.step(np.zeros(env.num_envs, np.int64))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 1}, "length must be an integer of at least 2, a step for the cue and one for the answer, got 1"),
        ({"length": 2.5}, "length must be an integer of at least 2.*got 2.5"),
        ({"length": [5, 4]}, r"the longest length must be an integer of at least 5, the shortest \(5\), got 4"),
        ({"length": [5]}, "length must be a number or a pair"),
        ({"num_symbols": 1}, "num_symbols must be an integer of at least 2, got 1"),
    ],
)
def test_bad_arguments_get_a_sentence(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CopyFirstEnv(**kwargs)


def test_a_cue_that_is_no_symbol_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="cue must be an integer from 0 to 7, got 8"):
        CopyFirstEnv().reset(options={"cue": 8})
