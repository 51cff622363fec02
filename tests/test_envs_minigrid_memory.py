"""The batched MiniGrid memory task against minigrid's own."""

from typing import Any

import gymnasium
import minigrid  # noqa: F401 - registers its environments
import numpy as np
import numpy.typing as npt
import pytest

from bistable_rl.envs import make_env
from bistable_rl.envs.minigrid_memory import FORWARD, LEFT, RIGHT, MiniGridMemoryEnv, MiniGridMemoryVectorEnv
from bistable_rl.envs.minigrid_world import EAST, NORTH, SOUTH, WEST

WORLDS = {
    "MiniGrid-MemoryS7-v0": (7, False),
    "MiniGrid-MemoryS9-v0": (9, False),
    "MiniGrid-MemoryS11-v0": (11, False),
    "MiniGrid-MemoryS13-v0": (13, False),
    "MiniGrid-MemoryS13Random-v0": (13, True),
    "MiniGrid-MemoryS17Random-v0": (17, True),
}


def walk(world: Any, rng: np.random.Generator) -> int:
    """An action of a player who mostly goes to the junction, guesses there, and now and then does anything."""
    if rng.random() < 0.15:
        return int(rng.integers(7))
    x, y = world.agent_pos
    middle = world.height // 2
    if y != middle:
        wanted = SOUTH if y < middle else NORTH
    elif world.grid.get(x + 1, y) is None:
        wanted = EAST
    else:
        wanted = rng.choice([SOUTH, NORTH])
    return FORWARD if world.agent_dir == wanted else (RIGHT if (wanted - world.agent_dir) % 4 < 3 else LEFT)


def compare(env_id: str, view: int, episodes: int, *, scripted: bool) -> None:
    """Play both with the same seeds and actions, and compare everything at every step."""
    size, random_length = WORLDS[env_id]
    n = 8
    ours = MiniGridMemoryVectorEnv(num_envs=n, size=size, random_length=random_length, agent_view_size=view)
    theirs: list[Any] = [gymnasium.make(env_id, agent_view_size=view).unwrapped for _ in range(n)]
    rng = np.random.default_rng(size + view)
    observations, _ = ours.reset(seed=100)
    for copy, env in enumerate(theirs):
        observation, _ = env.reset(seed=100 + copy)
        np.testing.assert_array_equal(observations["image"][copy], observation["image"])
        assert ours.generators[copy].bit_generator.state == env.np_random.bit_generator.state
    ended, outcomes = 0, set()
    while ended < episodes:
        # Random actions go forward more often than not, or most episodes would only run out of time.
        actions = rng.choice(7, size=n, p=[0.2, 0.2, 0.4, 0.05, 0.05, 0.05, 0.05])
        if scripted:
            actions = np.array([walk(env, rng) for env in theirs])
        observations, rewards, terminated, truncated, infos = ours.step(actions)
        for copy, env in enumerate(theirs):
            observation, *rest, info = env.step(actions[copy])
            assert rest == [rewards[copy], terminated[copy], truncated[copy]]
            assert info == {}
            if rest[1] or rest[2]:
                final = infos["final_obs"][copy]
                np.testing.assert_array_equal(final["image"], observation["image"])
                assert final["direction"] == observation["direction"]
                assert infos["final_info"]["is_success"][copy] == (rest[0] > 0)
                outcomes.add((rest[0] > 0, rest[1], rest[2]))
                ended += 1
                observation, _ = env.reset()
                assert ours.generators[copy].bit_generator.state == env.np_random.bit_generator.state
            np.testing.assert_array_equal(observations["image"][copy], observation["image"])
            assert observations["direction"][copy] == observation["direction"]
    if scripted:
        assert {(True, True, False), (False, True, False)} <= outcomes


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize(
    ("env_id", "view"), [("MiniGrid-MemoryS7-v0", 3), ("MiniGrid-MemoryS9-v0", 7), ("MiniGrid-MemoryS13Random-v0", 7)]
)
def test_it_is_minigrids_environment_step_for_step(env_id: str, view: int, scripted: bool) -> None:
    compare(env_id, view, 40 if scripted else 3, scripted=scripted)


@pytest.mark.slow
@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("env_id", WORLDS)
def test_it_is_minigrids_environment_over_a_thousand_episodes(env_id: str, scripted: bool) -> None:
    compare(env_id, 7 if scripted else 3, 1000, scripted=scripted)


@pytest.mark.parametrize("view", [3, 7, 11])
@pytest.mark.parametrize("env_id", WORLDS)
def test_every_view_from_every_place_is_minigrids(env_id: str, view: int) -> None:
    size, random_length = WORLDS[env_id]
    world = MiniGridMemoryVectorEnv(size=size, random_length=random_length, agent_view_size=view).world
    theirs: Any = gymnasium.make(env_id, agent_view_size=view).unwrapped
    seen = set()
    for seed in range(40):
        theirs.reset(seed=seed)
        end = theirs.success_pos[0] - 1
        cue = theirs.grid.get(1, size // 2 - 1).type == "ball"
        order = theirs.grid.get(end + 1, size // 2 - 2).type == "key"
        layout = 4 * (end - world.ends[0]) + 2 * cue + order
        if layout in seen:
            continue
        seen.add(layout)
        for place in np.flatnonzero(world.place_layout == layout):
            theirs.agent_pos = (world.place_x[place], world.place_y[place])
            for direction in range(4):
                theirs.agent_dir = direction
                np.testing.assert_array_equal(world.images[place, direction], theirs.gen_obs()["image"])
    assert len(seen) >= min(4 * len(world.ends), 12)


def test_the_single_environment_shares_its_generator_with_minigrids() -> None:
    ours, theirs = MiniGridMemoryEnv(size=9), gymnasium.make("MiniGrid-MemoryS9-v0").unwrapped
    for seed in (3, None, None):
        ours.reset(seed=seed)
        theirs.reset(seed=seed)
        assert ours.np_random.bit_generator.state == theirs.np_random.bit_generator.state


def test_one_hot_images_are_those_of_the_wrapper() -> None:
    ours = make_env("bistable_rl/MiniGridMemory-v0", kwargs={"encoding": "one_hot", "num_actions": 3})
    wrapper = {"name": "minigrid", "kwargs": {"encoding": "one_hot", "actions": ["left", "right", "forward"]}}
    theirs = make_env("MiniGrid-MemoryS7-v0", kwargs={"agent_view_size": 3}, wrappers=[wrapper])
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    a, b = ours.reset(seed=1)[0], theirs.reset(seed=1)[0]
    for action in (0, 0, 2, 1):
        np.testing.assert_array_equal(a["image"], b["image"])
        a, b = ours.step(action)[0], theirs.step(action)[0]


def mean_return(env: MiniGridMemoryVectorEnv, player: Any, episodes: int) -> tuple[float, float]:
    """Mean return and success rate of `player(env, fresh)`, told which copies have just started."""
    env.reset(seed=0)
    fresh = np.ones(env.num_envs, bool)
    total, wins, ended = 0.0, 0, 0
    while ended < episodes:
        _, rewards, terminated, truncated, infos = env.step(player(env, fresh))
        fresh = terminated | truncated
        total += rewards.sum()
        ended += fresh.sum()
        wins += infos["final_info"]["is_success"].sum() if fresh.any() else 0
    return total / ended, wins / ended


class Planner:
    """Goes where the fewest steps are left, given whether it has seen the cue and an object at the end."""

    def __init__(self, num_envs: int) -> None:
        self.cue, self.end = np.zeros(num_envs, bool), np.zeros(num_envs, bool)

    def __call__(self, env: MiniGridMemoryVectorEnv, fresh: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        world, place, direction = env.world, env.place, env.direction
        self.cue = (self.cue & ~fresh) | world.sees_cue[place, direction]
        self.end = (self.end & ~fresh) | world.sees_end[place, direction]
        both, cue, end, none = world.plans
        known = [self.cue & self.end, self.cue, self.end]
        ahead = world.forward[place, direction]
        left, right = (direction - 1) % 4, (direction + 1) % 4
        options = [(place, left), (place, right), (ahead, direction)]
        left_steps = [np.select(known, [plan[at] for plan in (both, cue, end)], none[at]) for at in options]
        return np.argmin(left_steps, axis=0)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"size": 7},
        {"size": 7, "agent_view_size": 7},
        {"size": 13, "random_length": True},
        {"size": 13, "random_length": True, "agent_view_size": 7},
    ],
)
def test_a_perfect_player_reaches_the_optimum(kwargs: dict[str, Any]) -> None:
    env = MiniGridMemoryVectorEnv(num_envs=100, num_actions=3, **kwargs)
    mean, success = mean_return(env, Planner(100), 5000)
    assert success == 1
    assert mean == pytest.approx(env.optimal_return, abs=0.001)


def test_nobody_without_memory_gets_more_than_half_where_the_cue_is_out_of_sight() -> None:
    env = MiniGridMemoryVectorEnv(num_envs=100, num_actions=3, size=9, agent_view_size=3)

    def straight(env: MiniGridMemoryVectorEnv, fresh: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        junction = env.world.place_x[env.place] == env.size - 2
        return np.where(junction & (env.direction == EAST), LEFT, FORWARD)

    mean, success = mean_return(env, straight, 20_000)
    assert success == pytest.approx(0.5, abs=0.02)
    assert mean == pytest.approx(env.memoryless_return, abs=0.02)


@pytest.mark.parametrize("kwargs", [{"size": 7}, {"size": 9}, {"size": 13, "random_length": True}])
def test_a_wide_view_lets_a_player_without_memory_look_back(kwargs: dict[str, Any]) -> None:
    """The player uses the present image and direction only: at the junction, what it sees of the cue and the end."""
    env = MiniGridMemoryVectorEnv(num_envs=200, num_actions=3, agent_view_size=7, **kwargs)
    value, p = env.world.memoryless_return(0.9 / env.horizon)
    rng = np.random.default_rng(0)

    def look_back(env: MiniGridMemoryVectorEnv, fresh: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        world, place, direction = env.world, env.place, env.direction
        junction = world.place_x[place] == world.ends[world.place_layout[place] // 4] + 1
        up = world.outcome[world.forward[place, NORTH]] == 1
        west = np.where(world.sees_cue[place, direction] & up, RIGHT, LEFT)
        north = np.where(rng.random(env.num_envs) < p, FORWARD, LEFT)
        actions = np.select([direction == EAST, direction == SOUTH, direction == WEST], [LEFT, FORWARD, west], north)
        return np.where(junction, actions, FORWARD)

    mean, _ = mean_return(env, look_back, 20_000)
    assert value == env.memoryless_return
    assert mean == pytest.approx(value, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "view"), [(7, 3), (7, 5), (7, 7), (9, 7)])
def test_no_policy_without_memory_found_by_gradient_ascent_gets_more(size: int, view: int) -> None:
    """A probability for each action and each image and direction; its expected return, exactly; uphill."""
    torch = pytest.importorskip("torch")
    env = MiniGridMemoryVectorEnv(size=size, agent_view_size=view)
    world, cost = env.world, 0.9 / env.horizon
    n = len(world.place_x)
    states = np.arange(4 * n).reshape(n, 4)
    seen = np.c_[world.images.reshape(4 * n, -1), np.tile(np.arange(4), n)]
    kinds, kind = np.unique(seen, axis=0, return_inverse=True)
    turned = [np.roll(states, 1, 1), np.roll(states, -1, 1), 4 * world.forward + np.arange(4)]
    following = torch.tensor(np.stack([to.ravel() for to in turned], 1)).ravel()
    outcome = torch.tensor(np.repeat(world.outcome, 4))
    start = torch.zeros(4 * n)
    places = world.start[:, 1 : world.ends[0] + 1].ravel()
    start[4 * places + EAST] = 1 / len(places)

    def expected(preferences: Any) -> Any:
        policy = torch.softmax(preferences, 1)[torch.tensor(kind.ravel())]
        here, total = start, torch.zeros(())
        for t in range(1, env.horizon + 1):
            here = torch.zeros(4 * n).index_add(0, following, (here[:, None] * policy).ravel())
            total = total + here[outcome == 1].sum() * (1 - cost * t)
            here = here * (outcome == 0)
            if t % 20 == 0 and here.sum() < 1e-5:
                break
        return total

    best = -np.inf
    for seed in range(2):
        torch.manual_seed(seed)
        preferences = (torch.randn(len(kinds), 3) + torch.tensor([0.0, 0.0, 1.0])).requires_grad_()
        uphill = torch.optim.Adam([preferences], lr=0.15, maximize=True)
        for _ in range(200):
            uphill.zero_grad()
            value = expected(preferences)
            value.backward()
            uphill.step()
            best = max(best, value.item())
    assert best == pytest.approx(env.memoryless_return, abs=0.003)
    assert best < env.memoryless_return + 0.0005


def test_a_random_player_rarely_succeeds() -> None:
    env = MiniGridMemoryVectorEnv(num_envs=50, size=9)
    env.action_space.seed(0)
    mean, _ = mean_return(env, lambda env, fresh: env.action_space.sample(), 300)
    assert mean < env.memoryless_return - 0.1


def test_the_object_in_the_room_can_be_forced() -> None:
    for cue in (0, 1):
        env = MiniGridMemoryVectorEnv(num_envs=50, size=7)
        env.reset(seed=0, options={"cue": cue})
        held = env.world.grids[env.world.place_layout[env.place], 1, 2]
        assert (held == (5, 6)[cue]).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": 5}, "size must be an integer of at least 7, got 5"),
        ({"size": 8}, "size must be odd, not 8"),
        ({"agent_view_size": 4}, "agent_view_size must be odd, not 4"),
        ({"num_actions": 2}, "num_actions must be an integer from 3 to 7, got 2"),
        ({"num_actions": 8}, "num_actions must be an integer from 3 to 7, got 8"),
        ({"encoding": "onehot"}, "unknown encoding 'onehot'"),
    ],
)
def test_bad_arguments_get_a_sentence(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiniGridMemoryEnv(**kwargs)
