"""The adapter from vector environments to SB3, against SB3's own DummyVecEnv of single ones."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from bistable_rl.agents.vec_envs import BatchedVecEnv, make_evaluation_env
from bistable_rl.envs import make_batched_env, make_env
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import EnvConfig

CASES: list[tuple[str, dict[str, Any]]] = [
    ("bistable_rl/CopyFirst-v0", {"length": (2, 5), "num_symbols": 3}),
    ("bistable_rl/CopyFirstContinuous-v0", {"length": 3, "dimensions": 2}),
    ("bistable_rl/TMaze-v0", {"length": 2, "previous_action_reward": True}),
    ("bistable_rl/MiniGridMemory-v0", {"num_actions": 3}),
]


def same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    else:
        np.testing.assert_array_equal(a, b)


def compare(ours: BatchedVecEnv, theirs: DummyVecEnv, steps: int) -> int:
    """Step both with the same actions, compare everything SB3 reads, and return how many episodes ended."""
    ours.seed(11)
    theirs.seed(11)
    ours.action_space.seed(0)
    same(ours.reset(), theirs.reset())
    ended = 0
    for _ in range(steps):
        actions = np.array([ours.action_space.sample() for _ in range(ours.num_envs)])
        observations, rewards, dones, infos = ours.step(actions)
        expected = theirs.step(actions)
        same(observations, expected[0])
        np.testing.assert_array_equal(rewards, expected[1])
        assert rewards.dtype == np.float32
        np.testing.assert_array_equal(dones, expected[2])
        for done, info, other in zip(dones, infos, expected[3], strict=True):
            if done:
                del info["episode"]["t"], other["episode"]["t"]
                same(info, other)
            else:
                assert info == {key: value for key, value in other.items() if key != "TimeLimit.truncated"}
        ended += int(dones.sum())
    return ended


@pytest.mark.parametrize(("env_id", "kwargs"), CASES)
def test_it_gives_sb3_what_its_own_vec_env_of_single_copies_gives(env_id: str, kwargs: dict[str, Any]) -> None:
    n = 5
    ours = BatchedVecEnv(make_batched_env(env_id, num_envs=n, kwargs=kwargs))
    theirs = DummyVecEnv([lambda: Monitor(make_env(env_id, kwargs=kwargs))] * n)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert compare(ours, theirs, 300) > 10


def test_it_takes_gymnasiums_own_vector_environments_too() -> None:
    def make() -> gymnasium.Env[Any, Any]:
        return gymnasium.make("CartPole-v1", max_episode_steps=15)

    ours = BatchedVecEnv(SyncVectorEnv([make] * 3, autoreset_mode="SameStep"))
    theirs = DummyVecEnv([lambda: Monitor(make())] * 3)
    assert compare(ours, theirs, 100) > 15


def test_truncation_is_told_from_termination() -> None:
    env = BatchedVecEnv(make_batched_env("bistable_rl/TMaze-v0", num_envs=2, kwargs={"length": 1}))
    env.set_options({"cue": 0})
    env.reset()
    env.step(np.array([0, 2]))
    _, _, dones, infos = env.step(np.array([1, 2]))
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True]
    assert [info["is_success"] for info in infos] == [True, False]
    assert [info["episode"]["r"] for info in infos] == [4.0, -0.2]
    assert [info["episode"]["l"] for info in infos] == [2, 2]


@pytest.mark.parametrize("mode", ["NEXT_STEP", "DISABLED"])
def test_other_autoreset_modes_are_refused(mode: str) -> None:
    env = make_batched_env("bistable_rl/TMaze-v0", num_envs=2, autoreset_mode=mode)
    with pytest.raises(ValueError, match=f"autoreset_mode must be SAME_STEP, not {mode}"):
        BatchedVecEnv(env)


def test_attributes_and_methods_are_those_of_all_copies() -> None:
    env = BatchedVecEnv(make_batched_env("bistable_rl/TMaze-v0", num_envs=3, kwargs={"length": 4}))
    assert env.get_attr("horizon") == [11] * 3
    assert env.get_attr("horizon", 1) == [11]
    assert env.has_attr("optimal_return")
    assert not env.has_attr("nothing")
    assert env.env_method("normalized_score", env.get_attr("optimal_return")[0]) == [1.0] * 3
    env.set_attr("note", "kept")
    assert env.get_attr("note", [0, 2]) == ["kept"] * 2
    with pytest.raises(ValueError, match="cannot set note for some copies only"):
        env.set_attr("note", "lost", indices=[0])
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(gymnasium.wrappers.TimeLimit, 0) == [False]
    assert env.render_mode is None


def test_pictures_of_the_copies_are_tiled() -> None:
    env = BatchedVecEnv(gymnasium.make_vec("bistable_rl/TMaze-v0", num_envs=4, length=3, render_mode="rgb_array"))
    env.reset()
    picture = env.render()
    assert picture is not None
    assert picture.shape == (2 * 3 * 16, 2 * 4 * 16, 3)


def test_options_that_differ_are_refused() -> None:
    env = BatchedVecEnv(make_batched_env("bistable_rl/TMaze-v0", num_envs=2))
    env.set_options([{"cue": 0}, {"cue": 1}])
    with pytest.raises(ValueError, match="options of reset must be the same for all copies"):
        env.reset()


def test_a_saved_state_goes_on_in_the_middle_of_an_episode() -> None:
    first, second = (BatchedVecEnv(make_batched_env("bistable_rl/TMaze-v0", num_envs=3)) for _ in range(2))
    first.seed(0)
    first.reset()
    actions = np.random.default_rng(0).integers(4, size=(80, 3))
    for action in actions[:20]:
        first.step(action)
    second.set_state(first.get_state())
    for action in actions[20:]:
        a, b = first.step(action), second.step(action)
        np.testing.assert_array_equal(a[0], b[0])
        for info, other in zip(a[3], b[3], strict=True):
            assert ("episode" in info) == ("episode" in other)
            if "episode" in info:
                assert info["episode"]["r"] == other["episode"]["r"]
                assert info["episode"]["l"] == other["episode"]["l"]


@pytest.mark.filterwarnings("error")
def test_recurrent_ppo_trains_and_evaluates_through_it() -> None:
    env = VecNormalize(BatchedVecEnv(make_batched_env("bistable_rl/TMaze-v0", num_envs=4, kwargs={"length": 2})))
    model = RecurrentPPO("MlpLstmPolicy", env, n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(128)
    assert model.ep_info_buffer
    assert model.ep_success_buffer
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=8, return_episode_rewards=True)
    assert len(returns) == 8  # type: ignore[arg-type]
    assert max(lengths) <= 5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("id", "episodes", "copies"),
    [("CartPole-v1", 100, 16), ("bistable_rl/TMaze-v0", 100, 100), ("bistable_rl/TMaze-v0", 999, 256)],
)
def test_an_evaluation_plays_hundreds_of_episodes_at_once_only_in_a_batch(id: str, episodes: int, copies: int) -> None:
    env = make_evaluation_env(EnvConfig(id), episodes, seed=0)
    assert env.num_envs == copies
    env.close()


def test_an_evaluation_of_an_unknown_environment_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^env.id: unknown environment id"):
        make_evaluation_env(EnvConfig("Nope-v0"), 10, seed=0)
