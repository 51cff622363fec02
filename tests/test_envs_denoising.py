"""Denoising and DenoisingDiscrete."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bistable_rl.envs.copy_first_continuous import SCALE
from bistable_rl.envs.denoising import MARKS, DenoisingEnv, DenoisingVectorEnv
from bistable_rl.envs.denoising_discrete import DenoisingDiscreteEnv, DenoisingDiscreteVectorEnv

CASES = [{"length": 10, "window": 5}, {"length": 40, "window": 20}, {"length": 12, "window": 12}]


def collect(env: Any, episodes: int, *, remembers: bool) -> tuple[float, dict[str, float]]:
    """Mean return and final infos of a player who reads the flag and answers in order, or does not remember."""
    discrete = isinstance(env, DenoisingDiscreteVectorEnv)
    n, rng = env.num_envs, np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    total, ended, sums = 0.0, 0, dict[str, float]()
    memory, stored, given_back = np.zeros((n, MARKS)), np.zeros(n, int), np.full(n, -1)
    while ended < episodes:
        value = observations[:, :-1].argmax(1) if discrete else observations[:, 0]
        marked = observations[:, -1] == 1
        memory[marked, stored[marked]] = value[marked]
        stored[marked] += 1
        given_back = np.where(observations[:, -1] == 0, 0, np.where(given_back >= 0, given_back + 1, -1))
        asked = memory[np.arange(n), np.clip(given_back, 0, MARKS - 1)]
        if discrete:
            actions = asked.astype(int) if remembers else rng.integers(env.num_symbols, size=n)
        else:
            actions = (asked if remembers else np.zeros(n))[:, None] / SCALE
        observations, rewards, terminated, truncated, infos = env.step(actions)
        assert not truncated.any()
        total += rewards.sum()
        if terminated.any():
            ended += terminated.sum()
            for key, entry in infos["final_info"].items():
                sums[key] = sums.get(key, 0.0) + entry.sum()
            stored[terminated], given_back[terminated] = 0, -1
    return total / ended, {key: entry / ended for key, entry in sums.items()}


@pytest.mark.parametrize("kwargs", CASES)
def test_a_perfect_player_reaches_the_optimum(kwargs: dict[str, Any]) -> None:
    mean, last = collect(DenoisingVectorEnv(num_envs=200, **kwargs), 1000, remembers=True)
    assert mean == pytest.approx(1, abs=1e-3)
    assert last["mse"] == pytest.approx(0, abs=1e-3)
    assert last["is_success"] == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("kwargs", CASES)
def test_answering_zero_gets_the_memoryless_return_and_an_error_of_one(kwargs: dict[str, Any]) -> None:
    env = DenoisingVectorEnv(num_envs=1000, **kwargs)
    mean, last = collect(env, 4000, remembers=False)
    assert mean == pytest.approx(env.memoryless_return, abs=0.03)
    assert last["mse"] == pytest.approx(1, abs=0.04)


def test_discrete_perfect_and_random_players_get_what_is_declared() -> None:
    env = DenoisingDiscreteVectorEnv(num_envs=500, length=20, window=12, num_symbols=4)
    assert collect(env, 1000, remembers=True) == (1, {"is_success": 1, "_is_success": 1})
    mean, last = collect(env, 5000, remembers=False)
    assert mean == pytest.approx(env.memoryless_return, abs=0.03)
    assert last["is_success"] < 0.01


@settings(max_examples=60, deadline=None)
@given(length=st.integers(2 * MARKS, 60), data=st.data())
def test_an_episode_has_the_papers_shape(length: int, data: st.DataObject) -> None:
    window = data.draw(st.integers(MARKS, length))
    env = DenoisingVectorEnv(num_envs=20, length=length, window=window, autoreset_mode="DISABLED")
    observations = [env.reset(seed=data.draw(st.integers(0, 2**32)))[0]]
    rewards = []
    for _ in range(length):
        observation, reward, terminated, _, _ = env.step(np.ones((20, 1), np.float32))
        observations.append(observation)
        rewards.append(reward)
    assert terminated.all()
    numbers, flag = np.moveaxis(np.stack(observations), 2, 0)  # (length + 1, n)
    assert ((flag == 1).sum(0) == MARKS).all()
    assert np.nonzero(flag == 1)[0].max() < min(window, length - MARKS)
    assert (flag[length - MARKS] == 0).all()
    rest = np.ones(len(flag), bool)
    rest[[length - MARKS, length]] = False
    assert np.isin(flag[rest], (-1, 1)).all()
    assert (numbers[length - MARKS :] == 0).all()
    assert (numbers[: length - MARKS] != 0).all()
    assert (np.stack(rewards)[: length - MARKS] == 0).all()
    np.testing.assert_allclose(numbers.T[(flag == 1).T].reshape(20, MARKS), env.cue, rtol=1e-6)


def test_marks_are_uniform_over_the_window() -> None:
    env = DenoisingVectorEnv(num_envs=20_000, length=20, window=9)
    env.reset(seed=0)
    marks = env.marks[:, :MARKS]
    counts = np.bincount(marks.ravel(), minlength=20) / env.num_envs
    assert np.abs(counts[:9] - MARKS / 9).max() < 0.02
    assert counts[9:].sum() == 0
    assert (np.diff(marks, axis=1) > 0).all()
    pairs = np.zeros((9, 9))
    for j in range(MARKS):
        for k in range(j):
            np.add.at(pairs, (marks[:, k], marks[:, j]), 1)
    every = pairs[np.triu_indices(9, 1)] / env.num_envs
    assert np.abs(every - (5 * 4) / (9 * 8)).max() < 0.02


def test_marked_values_can_be_forced() -> None:
    cue = [1.0, -2.0, 3.0, 0.5, 0.25]
    env = DenoisingEnv(length=10, window=5)
    observation, _ = env.reset(seed=0, options={"cue": cue})
    seen = [observation.tolist()] + [env.step(np.zeros(1))[0].tolist() for _ in range(4)]
    assert seen == [[x, 1] for x in cue]
    discrete = DenoisingDiscreteEnv(length=10, window=5, num_symbols=3)
    observation, _ = discrete.reset(seed=0, options={"cue": [2, 1, 0, 2, 1]})
    assert observation.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("make", [DenoisingEnv, DenoisingDiscreteEnv])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 9}, "length must be an integer of at least 10, 5 steps for the marks and 5 for the answers, got 9"),
        ({"length": 50, "window": 4}, r"window must be .* at least 5, .*N = length - window is at most 45\), got 4"),
        ({"length": 50, "window": 51}, r"window must be at most length \(50\), not 51"),
    ],
)
def test_impossible_combinations_are_refused(make: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)
