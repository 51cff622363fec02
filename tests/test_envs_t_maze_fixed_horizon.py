"""The T-mazes of Ni et al. (2023), by hand and against a second implementation from the paper's rules."""

from typing import Any

import numpy as np
import pytest

from bistable_rl.envs import make_batched_env, make_env
from bistable_rl.envs.t_maze import DOWN, LEFT, RIGHT, UP
from bistable_rl.envs.t_maze_fixed_horizon import FixedHorizonTMazeEnv, FixedHorizonTMazeVectorEnv


class Plain:
    """One copy, from the rules: a set of free squares, walls elsewhere."""

    def __init__(self, length: int, oracle: int) -> None:
        self.length, self.oracle = length, oracle
        self.junction = (oracle + length, 0)
        corridor = {(x, 0) for x in range(oracle + length + 1)}
        self.free = corridor | {(oracle + length, 1), (oracle + length, -1)}

    def reset(self, goal: int) -> list[int]:
        self.place, self.goal, self.t, self.told = (self.oracle, 0), goal, 0, False
        return self.see()

    def see(self) -> list[int]:
        x, y = self.place
        if x == self.junction[0]:
            return [1, y]
        tells = x == 0 and not self.told
        self.told = self.told or tells
        return [0, self.goal if tells else 0]

    def step(self, action: int) -> tuple[list[int], float, bool]:
        dx, dy = {RIGHT: (1, 0), UP: (0, 1), LEFT: (-1, 0), DOWN: (0, -1)}[action]
        x, y = self.place
        if (x + dx, y + dy) in self.free:
            self.place = (x + dx, y + dy)
        self.t += 1
        over = self.t == self.length + 2 * self.oracle + 1
        if over:
            reward = float(self.place == (self.junction[0], self.goal))
        else:
            reward = -1 / self.length if self.place[0] < self.t - self.oracle else 0.0
        return self.see(), reward, over


@pytest.mark.parametrize("oracle", [0, 1, 2])
@pytest.mark.parametrize("length", [2, 3, 7])
def test_it_is_the_same_as_a_second_implementation(length: int, oracle: int) -> None:
    rng = np.random.default_rng(0)
    for episode in range(100):
        cue = episode % 2
        ours, plain = FixedHorizonTMazeEnv(length=length, oracle=oracle), Plain(length, oracle)
        observation, _ = ours.reset(seed=0, options={"cue": cue})
        assert observation.tolist() == plain.reset(1 - 2 * cue)
        over = False
        skill = rng.choice([0.25, 0.6, 0.9])
        while not over:
            action = RIGHT if rng.random() < skill and plain.place != plain.junction else int(rng.integers(4))
            seen, reward, over = plain.step(action)
            observation, *rest, info = ours.step(action)
            assert observation.tolist() == seen
            assert rest == [reward, over, False]
        assert info == {"is_success": reward == 1}


def steps(env: Any, cue: int, actions: list[int]) -> list[tuple[Any, ...]]:
    observation, _ = env.reset(seed=0, options={"cue": cue})
    played = [(observation.tolist(),)]
    for action in actions:
        observation, *rest, _ = env.step(action)
        played.append((observation.tolist(), *rest))
    return played


def test_the_passive_maze_tells_the_goal_at_the_start_and_pays_at_the_last_step() -> None:
    env = FixedHorizonTMazeEnv(length=2)
    assert steps(env, 0, [RIGHT, RIGHT, UP]) == [
        ([0, 1],),
        ([0, 0], 0, False, False),
        ([1, 0], 0, False, False),
        ([1, 1], 1, True, False),
    ]
    assert steps(env, 1, [RIGHT, RIGHT, UP])[-1] == ([1, 1], 0, True, False)
    assert steps(env, 1, [RIGHT, LEFT, LEFT]) == [
        ([0, -1],),
        ([0, 0], 0, False, False),
        ([0, 0], -0.5, False, False),  # the oracle tells once
        ([0, 0], 0, True, False),  # the last step costs nothing
    ]


def test_the_active_maze_tells_the_goal_to_a_player_who_first_goes_back() -> None:
    env = FixedHorizonTMazeEnv(length=2, oracle=1)
    assert steps(env, 1, [LEFT, RIGHT, RIGHT, RIGHT, DOWN]) == [
        ([0, 0],),
        ([0, -1], 0, False, False),
        ([0, 0], 0, False, False),
        ([0, 0], 0, False, False),
        ([1, 0], 0, False, False),
        ([1, -1], 1, True, False),
    ]
    assert steps(env, 1, [LEFT, LEFT, RIGHT, RIGHT, RIGHT])[2:] == [
        ([0, 0], -0.5, False, False),
        ([0, 0], -0.5, False, False),
        ([0, 0], -0.5, False, False),
        ([1, 0], 0, True, False),
    ]


def test_the_goal_must_be_where_the_player_is_at_the_end() -> None:
    env = FixedHorizonTMazeEnv(length=1, oracle=1)
    assert steps(env, 0, [RIGHT, UP, DOWN, DOWN])[-1] == ([1, -1], 0, True, False)
    assert steps(env, 0, [RIGHT, UP, UP, RIGHT])[-1] == ([1, 1], 1, True, False)


@pytest.mark.parametrize(("name", "oracle"), [("Passive", 0), ("Active", 1)])
def test_perfect_and_memoryless_players_get_what_is_declared(name: str, oracle: int) -> None:
    env: Any = make_batched_env(f"bistable_rl/TMaze{name}-v0", num_envs=4000, kwargs={"length": 10})
    assert isinstance(env, FixedHorizonTMazeVectorEnv)
    assert env.horizon == 10 + 2 * oracle + 1
    for remembers in (True, False):
        observations, _ = env.reset(seed=0)
        goal, total = np.zeros(4000), np.zeros(4000)
        for t in range(env.horizon):
            goal = np.where(observations[:, 0] == 0, goal + observations[:, 1], goal)
            turn = np.where(goal > 0, UP, DOWN) if remembers else UP
            actions = np.where(observations[:, 0] > 0, turn, LEFT if remembers and t < oracle else RIGHT)
            observations, rewards, terminated, _, infos = env.step(actions)
            total += rewards
        assert terminated.all()
        assert total.mean() == pytest.approx(env.optimal_return if remembers else env.memoryless_return, abs=0.03)
        assert infos["final_info"]["is_success"].mean() == total.mean()


def test_standing_still_costs_a_whole_reward() -> None:
    for name, steps_that_cost in (("Passive", 50), ("Active", 50)):
        env: Any = make_env(f"bistable_rl/TMaze{name}-v0").unwrapped
        env.reset(seed=0)
        rewards = [env.step(UP)[1] for _ in range(env.horizon)]
        assert np.count_nonzero(rewards) == steps_that_cost
        assert sum(rewards) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 0}, "length must be an integer above 0, got 0"),
        ({"oracle": -1}, "oracle must be an integer from 0 to 50, got -1"),
    ],
)
def test_bad_arguments_get_a_sentence(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedHorizonTMazeEnv(**kwargs)
