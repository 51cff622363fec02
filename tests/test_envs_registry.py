"""Environments from names and plain values, and the wrappers that a config can name."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from bistable_rl.envs import make_batched_env, make_env
from bistable_rl.envs.wrappers import WRAPPERS, MiniGrid, one_hot_cells

MEMORY = "MiniGrid-MemoryS7-v0"
THREE = {"name": "minigrid", "kwargs": {"actions": ["left", "right", "forward"]}}
EXTRA = {"name": "previous_action_reward"}


def test_a_third_party_environment_is_made_from_its_id() -> None:
    assert make_env("CartPole-v1").spec.id == "CartPole-v1"  # type: ignore[union-attr]
    assert make_env("minigrid:MiniGrid-Empty-5x5-v0").spec.id == "MiniGrid-Empty-5x5-v0"  # type: ignore[union-attr]


def test_arguments_reach_the_environment() -> None:
    assert make_env("bistable_rl/TMaze-v0", kwargs={"length": 7}).unwrapped.horizon == 20  # type: ignore[attr-defined]
    view = make_env(MEMORY, kwargs={"agent_view_size": 3}).observation_space["image"]  # type: ignore[index]
    assert view.shape == (3, 3, 3)


def test_max_episode_steps_truncates() -> None:
    env = make_env("Pendulum-v1", kwargs={"max_episode_steps": 3})
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[2:4] for _ in range(3)][-1] == (False, True)


def test_the_mission_is_dropped_without_being_asked() -> None:
    env = make_env(MEMORY)
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"image", "direction"} == set(env.observation_space.keys())  # type: ignore[attr-defined]
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("encoding", ["symbolic", "one_hot"])
@pytest.mark.parametrize("env_id", [MEMORY, "MiniGrid-MemoryS13Random-v0", "MiniGrid-RedBlueDoors-6x6-v0"])
@pytest.mark.filterwarnings("ignore:The minimal resolution for an image is 36x36")
@pytest.mark.filterwarnings("error")
def test_minigrid_passes_sb3s_checker(env_id: str, encoding: str, size: int) -> None:
    wrapper = {"name": "minigrid", "kwargs": {"encoding": encoding}}
    sb3_check_env(make_env(env_id, kwargs={"agent_view_size": size}, wrappers=[wrapper, EXTRA]))


@pytest.mark.parametrize("size", ["S7", "S9", "S11", "S13", "S13Random", "S17Random"])
def test_every_minigrid_memory_is_made_from_its_id(size: str) -> None:
    env = make_env(f"MiniGrid-Memory{size}-v0", kwargs={"agent_view_size": 3}, wrappers=[THREE, EXTRA])
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.action_space == Discrete(3)


def test_kept_actions_are_numbered_in_their_order() -> None:
    wrapper = {"name": "minigrid", "kwargs": {"actions": ["forward", "right"]}}
    env, plain = make_env(MEMORY, wrappers=[wrapper]), make_env(MEMORY)
    assert env.action_space == Discrete(2)
    env.reset(seed=3)
    plain.reset(seed=3)
    for ours, theirs in [(1, 1), (0, 2), (1, 1), (0, 2)]:
        np.testing.assert_array_equal(env.step(ours)[0]["image"], plain.step(theirs)[0]["image"])


def test_red_blue_doors_is_solved_with_four_actions() -> None:
    """A player who sees the grid walks to the red door and then to the blue one."""
    names = ["left", "right", "forward", "toggle"]
    env = make_env("MiniGrid-RedBlueDoors-6x6-v0", wrappers=[{"name": "minigrid", "kwargs": {"actions": names}}])
    env.reset(seed=0)
    world: Any = env.unwrapped
    info: dict[str, Any] = {}

    def face(direction: int) -> None:
        while world.agent_dir != direction:
            env.step(1)

    for door in (world.red_door, world.blue_door):
        x, y = door.cur_pos if door.cur_pos is not None else _where(world, door)
        face(1 if y > world.agent_pos[1] else 3)
        while world.agent_pos[1] != y:
            env.step(2)
        face(0 if x > world.agent_pos[0] else 2)
        while abs(world.agent_pos[0] - x) > 1:
            env.step(2)
        *_, info = env.step(3)
    assert info == {"is_success": True}


def _where(world: Any, thing: Any) -> tuple[int, int]:
    index = next(k for k, cell in enumerate(world.grid.grid) if cell is thing)
    return index % world.width, index // world.width


def test_a_minigrid_episode_that_runs_out_of_time_is_no_success() -> None:
    env = make_env(MEMORY, kwargs={"max_steps": 2}, wrappers=[THREE])
    env.reset(seed=0)
    assert "is_success" not in env.step(0)[4]
    assert env.step(0)[2:] == (False, True, {"is_success": False})


def test_one_hot_cells_name_object_colour_and_state() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[1, 0] = (5, 1, 2)
    cells = one_hot_cells(image).reshape(2, 2, 20)
    assert np.flatnonzero(cells[1, 0]).tolist() == [5, 11 + 1, 17 + 2]
    assert (cells.sum(-1) == 3).all()


def test_previous_action_and_reward_follow_a_vector() -> None:
    env = make_env("bistable_rl/TMaze-v0", wrappers=[EXTRA])
    observation, _ = env.reset(seed=0)
    assert observation[4:].tolist() == [0] * 5
    observation, *_ = env.step(2)
    assert observation[4:].tolist() == pytest.approx([0, 0, 1, 0, -0.1])
    observation, _ = env.reset()
    assert observation[4:].tolist() == [0] * 5
    batch = make_batched_env("bistable_rl/TMaze-v0", num_envs=1, kwargs={"previous_action_reward": True})
    assert batch.single_observation_space.shape == env.observation_space.shape


def test_previous_action_and_reward_join_a_dict() -> None:
    env = make_env(MEMORY, wrappers=[THREE, EXTRA])
    env.reset(seed=0)
    observation, *_ = env.step(2)
    assert observation["previous_action"].tolist() == [0, 0, 1]
    assert observation["previous_reward"].tolist() == [0]
    assert env.observation_space.contains(observation)


def test_previous_action_and_reward_make_a_dict_of_anything_else() -> None:
    class Counter(gymnasium.Env[Any, Any]):
        observation_space = Discrete(9)
        action_space = Box(-2, 2, (2,), np.float32)

        def reset(self, **_: Any) -> tuple[int, dict[str, Any]]:
            return 0, {}

        def step(self, action: np.ndarray) -> tuple[int, float, bool, bool, dict[str, Any]]:
            return 1, 0.5, False, False, {}

    env = WRAPPERS["previous_action_reward"](Counter())
    env.reset()
    observation, *_ = env.step(np.array([1.0, -2.0], np.float32))
    assert isinstance(env.observation_space, Dict)
    assert observation["observation"] == 1
    assert observation["previous_action"].tolist() == [1, -2]
    assert observation["previous_reward"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("env_id", "kept"),
    [
        ("CartPole-v1", [0, 2]),
        ("Pendulum-v1", [0, 1]),
        ("MountainCar-v0", [0]),
        ("MountainCarContinuous-v0", [0]),
        ("Acrobot-v1", [0, 1, 2, 3]),
    ],
)
def test_velocities_are_masked(env_id: str, kept: list[int]) -> None:
    env, plain = make_env(env_id, wrappers=[{"name": "mask_velocity"}]), make_env(env_id)
    env.reset(seed=1)
    plain.reset(seed=1)
    action = plain.action_space.sample()
    observation = env.step(action)[0]
    np.testing.assert_array_equal(observation, plain.step(action)[0][kept])
    assert env.observation_space.contains(observation)


def test_a_time_limit_truncates_and_does_not_terminate() -> None:
    env = make_env("CartPole-v1", wrappers=[{"name": "time_limit", "kwargs": {"max_episode_steps": 2}}])
    env.reset(seed=0)
    env.step(0)
    assert env.step(1)[2:4] == (False, True)


@pytest.mark.parametrize(
    ("env_id", "arguments", "message"),
    [
        (
            "bistable_rl/TMase-v0",
            {},
            "unknown environment id 'bistable_rl/TMase-v0'; did you mean 'bistable_rl/TMaze-v0'.*TMazePassive-v0",
        ),
        ("MiniGrid-MemoryS8-v0", {}, "did you mean 'MiniGrid-MemoryS"),
        ("nowhere:Env-v0", {}, "environment 'nowhere:Env-v0' needs the package 'nowhere'"),
        (
            "bistable_rl/TMaze-v0",
            {"kwargs": {"lenght": 3}},
            "unknown argument of bistable_rl/TMaze-v0 'lenght'; did you mean 'length'.*stochasticity",
        ),
        ("bistable_rl/TMaze-v0", {"kwargs": {"num_envs": 3}}, "unknown argument of bistable_rl/TMaze-v0 'num_envs'"),
        ("bistable_rl/TMaze-v0", {"kwargs": {"length": "x"}}, "length must be an integer above 0, got 'x'"),
        ("CartPole-v1", {"kwargs": {"sutton": 1}}, "unknown argument of CartPole-v1 'sutton'.*sutton_barto_reward"),
        (MEMORY, {"kwargs": {"view": 3}}, "MemoryS7-v0 cannot be built with view=3: .*unexpected.*'view'"),
        (MEMORY, {"kwargs": {"agent_view_size": 4}}, "MemoryS7-v0 cannot be built with agent_view_size=4"),
        ("CartPole-v1", {"wrappers": [{"name": "minigird"}]}, "unknown wrapper 'minigird'.*did you mean 'minigrid'"),
        (
            "CartPole-v1",
            {"wrappers": [{"nam": "minigrid"}]},
            "a wrapper must be a name or {name: ..., kwargs: {...}}, not",
        ),
        ("CartPole-v1", {"wrappers": [{"name": "minigrid"}]}, "the wrapper 'minigrid' is for MiniGrid's environments"),
        ("..:Env-v0", {}, "environment '..:Env-v0' needs the package '..'"),
        ("CartPole-v1", {"wrappers": ["minigrid"]}, "the wrapper 'minigrid' is for MiniGrid's environments"),
        ("CartPole-v1", {"wrappers": [3]}, "unknown wrapper 3"),
        (
            "CartPole-v1",
            {"wrappers": [{"name": "time_limit", "kwargs": {"max_steps": 2}}]},
            "unknown argument of wrapper 'time_limit' 'max_steps'; .*choices are max_episode_steps.$",
        ),
        (
            "Wumpus",
            {},
            r"'Wumpus'; none of the \d+ choices is near it. An .* own is named module:Wumpus, with the module",
        ),
        ("Cartpole-v1", {}, r"did you mean 'CartPole-v1'\? .* own is named module:Cartpole-v1, with the module"),
        ("TMaze-v0", {}, "the nearest of the .* choices are bistable_rl/TMaze-v0, .* own is named module:TMaze-v0"),
        ("CartPole-v1", {"wrappers": [{"name": ["minigrid"]}]}, r"unknown wrapper \['minigrid'\]"),
        ("CartPole-v1", {"kwargs": ["length"]}, "the arguments of CartPole-v1 must be given as {name: value}"),
        (
            MEMORY,
            {"wrappers": [{"name": "minigrid", "kwargs": "one_hot"}]},
            "the arguments of wrapper 'minigrid' must be given as {name: value}, not 'one_hot'",
        ),
        ("bistable_rl/CopyFirst-v0", {"kwargs": {"flags": 3}}, "flags must be True or False; got 3"),
        (
            MEMORY,
            {"wrappers": [{"name": "minigrid", "kwargs": {"encodng": "one_hot"}}]},
            "unknown argument of wrapper 'minigrid' 'encodng'.*did you mean 'encoding'",
        ),
        (
            MEMORY,
            {"wrappers": [{"name": "minigrid", "kwargs": {"encoding": "onehot"}}]},
            "unknown encoding 'onehot'.*did you mean 'one_hot'",
        ),
        (
            MEMORY,
            {"wrappers": [{"name": "minigrid", "kwargs": {"actions": ["foward"]}}]},
            "unknown action 'foward'.*did you mean 'forward'",
        ),
        (
            MEMORY,
            {"wrappers": [{"name": "minigrid", "kwargs": {"actions": []}}]},
            "actions must be a list of at least one name, each given once",
        ),
        (MEMORY, {"wrappers": [{"name": "mask_velocity"}]}, "unknown environment for mask_velocity 'MiniGrid-Memory"),
    ],
)
def test_what_a_user_got_wrong_is_told_in_a_sentence(env_id: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_env(env_id, **arguments)
    assert "\n" not in str(caught.value)


def test_an_environment_without_a_batched_form_says_so() -> None:
    with pytest.raises(ValueError, match="MountainCar-v0 has no batched form"):
        make_batched_env("MountainCar-v0", num_envs=2)


def test_the_minigrid_wrapper_is_rebuilt_from_its_spec() -> None:
    env = make_env(MEMORY, wrappers=[THREE])
    assert env.spec is not None
    assert isinstance(gymnasium.make(env.spec), MiniGrid)
