from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bistable_rl.envs.copy_first_continuous import SCALE, CopyFirstContinuousEnv, CopyFirstContinuousVectorEnv

CASES: list[dict[str, Any]] = [
    {"length": 2},
    {"length": 30, "dimensions": 4},
    {"length": (4, 8), "dimensions": 2, "reward": "exp"},
    {"length": 5, "reward": "mse"},
]


def play(env: CopyFirstContinuousVectorEnv, *, remembers: bool, episodes: int) -> tuple[float, float, float]:
    """Mean return, mean squared error and success rate of a player who repeats the first numbers, or answers 0."""
    observations, _ = env.reset(seed=0)
    memory = observations[:, : env.dimensions]
    total, mse, wins, ended = 0.0, 0.0, 0, 0
    while ended < episodes:
        answers = memory / SCALE if remembers else np.zeros_like(memory)
        observations, rewards, terminated, _, infos = env.step(answers)
        total += rewards.sum()
        if terminated.any():
            ended += terminated.sum()
            mse += infos["final_info"]["mse"].sum()
            wins += infos["final_info"]["is_success"].sum()
            memory = np.where(terminated[:, None], observations[:, : env.dimensions], memory)
    return total / ended, mse / ended, wins / ended


@pytest.mark.parametrize("kwargs", CASES)
def test_a_perfect_player_reaches_the_optimum(kwargs: dict[str, Any]) -> None:
    env = CopyFirstContinuousVectorEnv(num_envs=500, **kwargs)
    mean, mse, success = play(env, remembers=True, episodes=5000)
    assert mean == pytest.approx(env.optimal_return, abs=1e-3)
    assert mse == pytest.approx(0, abs=1e-3)
    assert success == pytest.approx(1, abs=2e-3)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(2, 30), dimensions=st.integers(1, 20), reward=st.sampled_from(["abs", "exp", "mse"]))
def test_whatever_the_arguments_remembering_is_enough(length: int, dimensions: int, reward: str) -> None:
    env = CopyFirstContinuousVectorEnv(num_envs=50, length=length, dimensions=dimensions, reward=reward)
    mean, _, success = play(env, remembers=True, episodes=50)
    assert mean == pytest.approx(env.optimal_return, abs=0.02)
    assert success == 1


@pytest.mark.parametrize("kwargs", CASES)
def test_answering_zero_gets_the_memoryless_return_and_an_error_of_one(kwargs: dict[str, Any]) -> None:
    env = CopyFirstContinuousVectorEnv(num_envs=1000, **kwargs)
    mean, mse, _ = play(env, remembers=False, episodes=40_000)
    assert mean == pytest.approx(env.memoryless_return, abs=0.03)
    assert mse == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("reward", ["abs", "exp", "mse"])
def test_no_constant_answer_beats_zero(reward: str) -> None:
    returns = {}
    for answer in (-0.5, -0.1, 0.0, 0.1, 0.5):
        env = CopyFirstContinuousVectorEnv(num_envs=40_000, length=2, reward=reward)
        env.reset(seed=0)
        action = np.full((env.num_envs, 1), answer / SCALE, np.float32)
        env.step(action)
        returns[answer] = env.step(action)[1].mean()
    assert max(returns, key=lambda answer: returns[answer]) in (-0.1, 0.0, 0.1)
    assert max(returns.values()) == pytest.approx(env.memoryless_return, abs=0.02)


def test_a_random_player_does_worse_than_answering_zero() -> None:
    env = CopyFirstContinuousVectorEnv(num_envs=2000, length=2)
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    assert env.step(env.action_space.sample())[1].mean() < env.memoryless_return - 0.5


@pytest.mark.parametrize(("reward", "expected"), [("abs", 0.5), ("exp", np.exp(-0.25)), ("mse", -0.25)])
def test_rewards_are_what_they_are_called(reward: str, expected: float) -> None:
    env = CopyFirstContinuousEnv(length=2, reward=reward)
    observation, _ = env.reset(seed=0, options={"cue": [1.5]})
    assert observation.tolist() == [1.5, 1, 0]
    env.step(np.array([0.9]))
    _, value, terminated, truncated, info = env.step(np.array([2.0 / SCALE]))
    assert (terminated, truncated) == (True, False)
    assert value == pytest.approx(expected)
    assert info["mse"] == pytest.approx(0.25)
    assert info["is_success"] is False


def test_the_stream_is_standard_normal() -> None:
    env = CopyFirstContinuousVectorEnv(num_envs=20_000, length=4, dimensions=2, flags=False)
    observations, _ = env.reset(seed=0)
    for _ in range(3):
        assert np.abs(observations.mean(0)).max() < 0.03
        assert np.abs(np.cov(observations.T) - np.eye(2)).max() < 0.05
        observations, *_ = env.step(np.zeros((env.num_envs, 2), np.float32))


def test_observations_stay_within_ten() -> None:
    env = CopyFirstContinuousEnv(length=3)
    observation, _ = env.reset(options={"cue": 10.0})
    assert observation[0] == 10
    with pytest.raises(ValueError, match="cue must be numbers from -10 to 10, got 11"):
        env.reset(options={"cue": 11.0})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 1}, "length must be an integer of at least 2"),
        ({"dimensions": 0}, "dimensions must be an integer above 0, got 0"),
        ({"reward": "absolute"}, "unknown reward 'absolute'; the choices are abs, exp, mse"),
    ],
)
def test_bad_arguments_get_a_sentence(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CopyFirstContinuousEnv(**kwargs)


def test_an_action_that_is_no_number_gets_a_sentence() -> None:
    env = CopyFirstContinuousEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="actions must be finite numbers"):
        env.step(np.array([np.nan], np.float32))
