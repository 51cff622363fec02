"""Tuples and nested Dicts, flattened wherever an agent sees them; and gymnasium's vector environments as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from noise_env import TWO, Noise
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

import bistable_rl
from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.training import train
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.envs import FlattenNested, make_batched_env, make_env
from bistable_rl.envs.nested import copies_of, flat_batch, flat_observation, flat_space
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import Experiment, load_config

TUPLE = spaces.Tuple([spaces.Discrete(3), spaces.Box(-2, 2, (2,)), spaces.MultiBinary(2)])
DEEP = spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": TUPLE, "c": spaces.Dict({"d": spaces.Discrete(2), "e": TUPLE})})
SETTINGS: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "device": "cpu", "seed": 0}


def make(space: spaces.Space[Any]) -> Callable[[], Noise]:
    return lambda: Noise(space)


def agent(env: Any, **kwargs: Any) -> RecurrentPPO:
    return RecurrentPPO("RecurrentPolicy", env, policy_kwargs={"hidden_size": 4}, **SETTINGS | kwargs)


def seen(space: spaces.Space[Any], n: int) -> tuple[list[Any], Any]:
    """Return n observations, and the same as a batch."""
    space.seed(1)
    batch = batch_space(space, n).sample()
    return list(gymnasium.vector.utils.iterate(batch_space(space, n), batch)), batch


@pytest.mark.parametrize("space", [TUPLE, DEEP], ids=["tuple", "dict"])
def test_a_batch_is_flattened_as_gymnasium_flattens_each_observation(space: spaces.Space[Any]) -> None:
    singles, batch = seen(space, 4)
    flat = flat_space(space)
    assert copies_of(space, batch) == 4
    for i, one in enumerate(singles):
        assert copies_of(space, one) is None
        alone = flat_observation(space, one)
        assert flat.contains(alone)
        together = flat_batch(space, batch, 4)
        if isinstance(space, spaces.Dict):
            np.testing.assert_array_equal(alone["b"], flatten(TUPLE, one["b"]))
            np.testing.assert_array_equal(alone["a"], one["a"])
            for key in space:
                np.testing.assert_array_equal(together[key][i], alone[key])
        else:
            np.testing.assert_array_equal(alone, flatten(TUPLE, one))
            np.testing.assert_array_equal(together[i], alone)


@pytest.mark.parametrize("space", [TUPLE, DEEP], ids=["tuple", "dict"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda make: make(),
        lambda make: SyncVectorEnv([make] * 2, autoreset_mode="SameStep"),
        lambda make: AsyncVectorEnv([make] * 2, autoreset_mode="SameStep"),
        lambda make: DummyVecEnv([lambda: FlattenNested(make())] * 2),
    ],
    ids=["single", "sync", "async", "theirs"],
)
def test_an_agent_trains_on_nested_observations_and_acts_on_them_nested_or_flat(
    wrap: Callable[[Any], Any], space: spaces.Space[Any], tmp_path: Path
) -> None:
    env = wrap(make(space))
    model = agent(env).learn(48)
    assert model.observation_space == flat_space(space)
    model.save(tmp_path / "model.zip")
    singles, batch = seen(space, 3)
    for one in (model, RecurrentPPO.load(tmp_path / "model.zip", device="cpu")):
        together, _ = one.predict(batch, deterministic=True)
        flat, _ = one.predict(flat_batch(space, batch, 3), episode_start=np.ones(3, bool), deterministic=True)
        each = [one.predict(single, episode_start=np.array([True]), deterministic=True)[0] for single in singles]
        np.testing.assert_array_equal(together, flat)
        np.testing.assert_array_equal(np.stack(each), together)
        assert each[0].shape == ()
    env.close()


def test_sb3s_evaluation_of_the_environment_as_it_is_works() -> None:
    model = agent(Noise(TUPLE)).learn(16)
    returns, _ = evaluate_policy(model, Noise(TUPLE), n_eval_episodes=3, return_episode_rewards=True, warn=False)
    assert len(returns) == 3  # type: ignore[arg-type]


def test_an_environment_set_later_is_taken_as_at_first() -> None:
    model = agent(Noise(TUPLE)).learn(16)
    model.set_env(SyncVectorEnv([make(TUPLE)], autoreset_mode="SameStep"))
    model.learn(16)
    assert isinstance(model.get_env(), BatchedVecEnv)
    with pytest.raises(ValueError, match="must be SAME_STEP"):
        model.set_env(SyncVectorEnv([make(TUPLE)]))


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Dict({1: spaces.Discrete(2)}), "has the key 1; the keys of a Dict must be strings"),  # type: ignore[dict-item]
        (spaces.Tuple([spaces.Dict({2: TWO})]), "has the key 2; the keys of a Dict must be strings"),  # type: ignore[dict-item]
        (spaces.Tuple([spaces.Text(4)]), "holds Text.*which has no fixed number of entries"),
        (spaces.Dict({"a": spaces.Tuple([spaces.Sequence(spaces.Discrete(2))])}), "space 'a' holds Sequence"),
        (
            spaces.Tuple([spaces.Box(0, 255, (36, 36, 3), np.uint8)]),
            "bytes of 36 x 36 x 3.* key of their own",
        ),
    ],
)
def test_what_cannot_be_flattened_is_one_sentence(space: spaces.Space[Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        agent(Noise(space))
    assert "\n" not in str(caught.value)


def test_a_vec_env_of_nested_observations_is_answered_with_what_flattens_them() -> None:
    with pytest.raises(ValueError, match="FlattenNested around each copy flattens it"):
        agent(DummyVecEnv([make(TUPLE)]))


def test_an_observation_of_another_form_is_one_sentence() -> None:
    model = agent(Noise(TUPLE))
    with pytest.raises(ValueError, match="this is not an observation of Tuple"):
        model.predict({"a": np.zeros(2)})


def test_a_saved_nested_space_that_is_not_that_of_the_observations_is_refused(tmp_path: Path) -> None:
    model = agent(Noise(TUPLE))
    model.policy.nested_space = spaces.Tuple([spaces.Discrete(2)])
    model.save(tmp_path / "model.zip")
    with pytest.raises(UserError, match="its observations cannot be those of Tuple"):
        RecurrentPPO.load(tmp_path / "model.zip")


@pytest.mark.parametrize("env_id", ["popgym-AutoencodeEasy-v0"])
def test_popgyms_autoencode_trains_from_a_config_and_is_evaluated(env_id: str, tmp_path: Path) -> None:
    pytest.importorskip("popgym")
    config = {
        "name": "nested",
        "env": {"id": env_id, "num_envs": 2},
        "policy": {"hidden_size": 8},
        "algorithm": {"n_steps": 128, "batch_size": 64, "n_epochs": 1},
        "total_steps": 256,
        "evaluation": {"every": 256, "episodes": 2},
        "device": "cpu",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    folder = train(load_config(Experiment, tmp_path / "config.yaml"), tmp_path / "runs")
    assert json.loads((folder / "result.json").read_text())["evaluation"]["episodes"] == 2
    loaded = bistable_rl.load(folder)
    env = gymnasium.make(env_id)
    observation, _ = env.reset(seed=0)
    assert isinstance(observation, tuple)
    wrapped = make_env(env_id)
    flat, _ = wrapped.reset(seed=0)
    assert loaded.predict(observation)[0] == loaded.predict(flat, episode_start=np.array([True]))[0]


@pytest.mark.filterwarnings("error")
def test_our_vector_environments_and_gymnasiums_are_taken_as_they_are() -> None:
    ours = make_batched_env("bistable_rl/CopyFirst-v0", num_envs=3, kwargs={"length": 5})
    assert agent(ours).learn(48).num_timesteps == 48
    theirs = gymnasium.make_vec(
        "CartPole-v1", 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}
    )
    model = agent(theirs, n_steps=32).learn(192)
    assert model.ep_info_buffer
    assert model.n_envs == 3


def test_a_picture_in_nested_observations_is_taken_with_its_channels_last(tmp_path: Path) -> None:
    space = spaces.Dict({"image": spaces.Box(0, 255, (40, 36, 3), np.uint8), "rest": TUPLE})
    model = agent(make(space)())
    assert model.observation_space["image"].shape == (3, 40, 36)  # type: ignore[index]
    model.save(tmp_path / "agent.zip")
    space.seed(0)
    seen = space.sample()
    before, after = (
        one.predict(seen, deterministic=True)[1] for one in (model, RecurrentPPO.load(tmp_path / "agent.zip"))
    )
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before[0], after[0])
