from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bistable_rl.envs.t_maze import DOWN, LEFT, RIGHT, UP, TMazeEnv, TMazeVectorEnv

CASES = [{"length": 1}, {"length": 20}, {"length": 6, "stochasticity": 0.5}, {"length": 3, "stochasticity": 1.0}]


def play(env: TMazeVectorEnv, *, player: str, episodes: int) -> tuple[float, float]:
    """Mean return and success rate of one of three players."""
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    n = env.num_envs
    memory = np.zeros(n, np.int64)
    total, ended, wins = 0.0, 0, 0
    while ended < episodes:
        memory = np.where(observations[:, 0] > 0, UP, np.where(observations[:, 1] > 0, DOWN, memory))
        turn = {"perfect": memory, "memoryless": np.where(rng.random(n) < 0.5, UP, DOWN)}.get(player)
        actions = rng.integers(4, size=n) if turn is None else np.where(observations[:, 3] > 0, turn, RIGHT)
        observations, rewards, terminated, truncated, infos = env.step(actions)
        total += rewards.sum()
        done = terminated | truncated
        if done.any():
            ended += done.sum()
            wins += infos["final_info"]["is_success"].sum()
    return total / ended, wins / ended


@pytest.mark.parametrize("kwargs", CASES)
def test_perfect_and_memoryless_players_get_what_is_declared(kwargs: dict[str, Any]) -> None:
    env = TMazeVectorEnv(num_envs=500, **kwargs)
    mean, success = play(env, player="perfect", episodes=20_000)
    assert mean == pytest.approx(env.optimal_return, abs=0.05)
    assert success == pytest.approx(env.optimal_return / 4, abs=0.015)
    mean, success = play(env, player="memoryless", episodes=20_000)
    assert mean == pytest.approx(env.memoryless_return, abs=0.06)
    assert success == pytest.approx(env.optimal_return / 8, abs=0.015)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 25), stochasticity=st.floats(0, 1), seed=st.integers(0, 2**70))
@example(length=13, stochasticity=0.02734375, seed=0)
def test_whatever_the_arguments_the_rules_hold(length: int, stochasticity: float, seed: int) -> None:
    env = TMazeVectorEnv(num_envs=20, length=length, stochasticity=stochasticity)
    assert 0 <= env.memoryless_return <= env.optimal_return <= 4
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    steps = np.zeros(20, np.int64)
    for _ in range(3 * length):
        before = env.x.copy()
        actions = rng.integers(4, size=20)
        _, rewards, terminated, truncated, infos = env.step(actions)
        steps += 1
        done = terminated | truncated
        assert np.isin(rewards, (0.0, -0.1, 4.0)).all()
        assert (np.abs(env.x - before)[~done] <= 1).all()
        assert ((env.x >= 0) & (env.x <= length)).all()
        assert (steps[truncated] == 3 * length - 1).all()
        assert (steps[terminated] >= length + 1).all()
        if done.any():
            assert (infos["final_info"]["is_success"] == (rewards == 4)).all()
        steps[done] = 0


def test_without_chance_the_optimum_is_certain() -> None:
    env = TMazeVectorEnv(num_envs=10, length=7)
    assert env.optimal_return == 4
    assert play(env, player="perfect", episodes=100) == (4, 1)


def test_a_random_player_is_far_below_the_memoryless_one() -> None:
    env = TMazeVectorEnv(num_envs=100, length=10)
    mean, success = play(env, player="random", episodes=1000)
    assert mean < env.memoryless_return / 2
    assert success < 0.1


def test_the_goal_is_shown_at_the_entrance_only() -> None:
    env = TMazeEnv(length=2)
    observation, _ = env.reset(seed=0, options={"cue": 1})
    seen = [observation.tolist()]
    for action in (RIGHT, LEFT, RIGHT, RIGHT):
        seen.append(env.step(action)[0].tolist())
    assert seen == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(("cue", "action", "reward"), [(0, UP, 4.0), (0, DOWN, -0.1), (1, UP, -0.1), (1, DOWN, 4.0)])
def test_an_arm_ends_the_episode(cue: int, action: int, reward: float) -> None:
    env = TMazeEnv(length=1)
    env.reset(seed=0, options={"cue": cue})
    assert env.step(RIGHT)[1:] == (0.0, False, False, {})
    observation, *rest = env.step(action)
    assert observation.tolist() == [0, 0, 0, 0]
    assert rest == [reward, True, False, {"is_success": reward > 0}]


def test_walls_cost_a_tenth_and_keep_the_player_where_it_is() -> None:
    env = TMazeEnv(length=3)
    env.reset(seed=0)
    rewards = [env.step(action)[1] for action in (UP, LEFT, DOWN, RIGHT, UP, RIGHT, RIGHT, RIGHT)]
    assert rewards == [-0.1, -0.1, -0.1, 0.0, -0.1, 0.0, 0.0, -0.1]


def test_an_episode_is_cut_after_three_lengths_less_one() -> None:
    env = TMazeEnv(length=4)
    env.reset(seed=0)
    ends = [env.step(LEFT)[2:] for _ in range(11)]
    assert [truncated for _, truncated, _ in ends] == [False] * 10 + [True]
    assert ends[-1] == (False, True, {"is_success": False})


def test_a_goal_reached_at_the_last_step_is_no_truncation() -> None:
    env = TMazeEnv(length=1)
    env.reset(seed=0, options={"cue": 0})
    env.step(RIGHT)
    assert env.step(UP)[1:] == (4.0, True, False, {"is_success": True})


def test_a_random_step_is_rewarded_as_the_chosen_action() -> None:
    env = TMazeVectorEnv(num_envs=2000, length=50, stochasticity=1.0)
    env.reset(seed=0)
    _, rewards, *_ = env.step(np.full(2000, RIGHT))
    assert (rewards == 0).all()
    assert np.mean(env.x == 1) == pytest.approx(1 / 4, abs=0.04)
    _, rewards, *_ = env.step(np.full(2000, UP))
    assert (rewards == -0.1).all()
    assert (env.x == 2).any()


def test_the_junction_is_never_random() -> None:
    env = TMazeVectorEnv(num_envs=200, length=1, stochasticity=1.0, autoreset_mode="DISABLED")
    env.reset(seed=0, options={"cue": 0})
    env.step(np.full(200, RIGHT))
    at_junction = env.x == 1
    _, rewards, terminated, _, _ = env.step(np.full(200, UP))
    assert 0 < at_junction.sum() < 200
    assert (terminated == at_junction).all()
    assert (rewards[at_junction] == 4).all()


def test_the_previous_action_and_reward_can_be_seen() -> None:
    env = TMazeEnv(length=2, previous_action_reward=True)
    observation, _ = env.reset(seed=0)
    assert observation[4:].tolist() == [0, 0, 0, 0, 0]
    observation, *_ = env.step(LEFT)
    assert observation[4:].tolist() == pytest.approx([0, 0, 1, 0, -0.1])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 0}, "length must be an integer above 0, got 0"),
        ({"stochasticity": 1.5}, "stochasticity must be a number from 0 to 1, got 1.5"),
        ({"stochasticity": float("nan")}, "stochasticity must be a number from 0 to 1, got nan"),
    ],
)
def test_bad_arguments_get_a_sentence(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TMazeEnv(**kwargs)
