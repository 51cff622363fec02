"""The previous action and reward, shown by a batch as by single copies."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from noise_env import Noise
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from test_vec_env import compare

from bistable_rl.agents.vec_envs import BatchedVecEnv, make_vec_env
from bistable_rl.envs import make_batched_env, make_env
from bistable_rl.envs.previous_action_reward import PreviousActionReward, PreviousActionRewardVector
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import EnvConfig

EXTRA: list[Any] = [{"name": "previous_action_reward"}]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("bistable_rl/TMaze-v0", {"length": 2}),
    ("bistable_rl/CopyFirstContinuous-v0", {"length": 3, "dimensions": 2}),
    ("bistable_rl/MiniGridMemory-v0", {"num_actions": 3}),
]


@pytest.mark.parametrize(("env_id", "kwargs"), CASES)
def test_a_batch_shows_what_single_copies_show(env_id: str, kwargs: dict[str, Any]) -> None:
    """Step for step through the ends of episodes, the last observations included."""
    n = 5
    ours = make_vec_env(EnvConfig(env_id, kwargs, EXTRA), n, seed=0)
    assert isinstance(ours, BatchedVecEnv)
    theirs = DummyVecEnv([lambda: Monitor(make_env(env_id, kwargs=kwargs, wrappers=EXTRA))] * n)
    assert ours.observation_space == theirs.observation_space
    assert compare(ours, theirs, 300) > 10


def test_the_t_mazes_own_previous_action_and_reward_are_the_same() -> None:
    plain = make_batched_env("bistable_rl/TMaze-v0", num_envs=3)
    one = PreviousActionRewardVector(plain)  # type: ignore[arg-type]
    other = make_batched_env("bistable_rl/TMaze-v0", num_envs=3, kwargs={"previous_action_reward": True})
    np.testing.assert_array_equal(one.reset(seed=4)[0], other.reset(seed=4)[0])
    for actions in np.random.default_rng(0).integers(4, size=(100, 3)):
        np.testing.assert_array_equal(one.step(actions)[0], other.step(actions)[0])


def test_a_saved_state_goes_on_in_the_middle_of_an_episode() -> None:
    config = EnvConfig("bistable_rl/TMaze-v0", {}, EXTRA)
    first, second = make_vec_env(config, 3, seed=0), make_vec_env(config, 3, seed=1)
    assert isinstance(first, BatchedVecEnv)
    assert isinstance(second, BatchedVecEnv)
    first.reset()
    actions = np.random.default_rng(0).integers(4, size=(80, 3))
    for action in actions[:20]:
        first.step(action)
    second.set_state(first.get_state())
    for action in actions[20:]:
        np.testing.assert_array_equal(first.step(action)[0], second.step(action)[0])


def test_what_the_environment_declares_shows_through() -> None:
    env = make_vec_env(EnvConfig("bistable_rl/TMaze-v0", {"length": 4}, EXTRA), 2, seed=0)
    assert env.get_attr("horizon") == [11, 11]
    assert not env.has_attr("nothing")


def test_some_copies_alone_are_not_reset() -> None:
    env = PreviousActionRewardVector(make_batched_env("bistable_rl/TMaze-v0", num_envs=2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="all copies are reset together"):
        env.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize("mode", ["NEXT_STEP", "DISABLED"])
def test_other_autoreset_modes_are_refused(mode: str) -> None:
    env: Any = make_batched_env("bistable_rl/TMaze-v0", num_envs=2, autoreset_mode=mode)
    with pytest.raises(ValueError, match=f"needs autoreset_mode SAME_STEP, not {mode}"):
        PreviousActionRewardVector(env)


def test_arguments_it_does_not_take_are_refused() -> None:
    wrong: list[Any] = [{"name": "previous_action_reward", "kwargs": {"steps": 2}}]
    with pytest.raises(UserError, match="steps"):
        make_vec_env(EnvConfig("bistable_rl/TMaze-v0", {}, wrong), 2, seed=0)


@pytest.mark.parametrize(
    ("space", "action", "shown"),
    [
        (spaces.Discrete(3, start=1), 2, [0, 1, 0]),
        (spaces.MultiDiscrete([2, 3]), [1, 2], [0, 1, 0, 0, 1]),
        (spaces.MultiDiscrete([2, 2], start=[1, 0]), [1, 1], [1, 0, 0, 1]),
        (spaces.MultiBinary(3), [1, 0, 1], [1, 0, 1]),
        (spaces.Box(-1, 1, (2,)), [0.5, -1], [0.5, -1]),
    ],
)
def test_every_kind_of_action_is_shown(space: spaces.Space[Any], action: Any, shown: list[float]) -> None:
    env = PreviousActionReward(Noise(action_space=space))
    first, _ = env.reset(seed=0)
    assert not first[-len(shown) - 1 :].any()
    observation, reward, *_ = env.step(np.array(action, space.dtype))
    np.testing.assert_array_equal(observation[-len(shown) - 1 : -1], shown)
    assert observation[-1] == np.float32(reward)
    assert env.observation_space.contains(observation)


def test_other_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="is for Discrete, MultiDiscrete, MultiBinary and Box actions, not for Text"):
        PreviousActionReward(Noise(action_space=spaces.Text(3)))
