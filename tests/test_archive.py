"""RecurrentPPO.save and load: one file of data, which is never unpickled."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.make_env import make_vec_env
from bistable_rl.agents.spaces_json import from_json, to_json
from bistable_rl.config import UserError
from bistable_rl.experiments import EnvConfig

KWARGS = {"cell": "nbrc", "hidden_size": 8}


def copy_first() -> VecEnv:
    return make_vec_env(EnvConfig("bistable_rl/CopyFirst-v0", {"length": 5, "num_symbols": 2}), 2, seed=0)


def learned(env: VecEnv, **settings: Any) -> RecurrentPPO:
    model = RecurrentPPO(
        "RecurrentPolicy", env, n_steps=16, batch_size=16, policy_kwargs=KWARGS, seed=0, device="cpu", **settings
    )
    return model.learn(64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    learned(copy_first(), learning_rate=LinearSchedule(1e-2, 1e-3, 1.0), gamma=0.9).save(path)
    return path.with_suffix(".zip")


def test_a_loaded_algorithm_acts_and_goes_on_as_the_saved_one(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    model = learned(copy_first(), learning_rate=LinearSchedule(1e-2, 1e-3, 1.0), gamma=0.9)
    again = RecurrentPPO.load(saved.with_suffix(""), copy_first(), device="cpu")
    assert (again.num_timesteps, again.gamma, again._n_updates) == (64, 0.9, model._n_updates)
    assert again.lr_schedule(0.5) == model.lr_schedule(0.5) == pytest.approx(5.5e-3)
    for one in (model, again):
        one.set_env(copy_first())
        one._last_obs = None
        torch.manual_seed(1)
        one.learn(64, reset_num_timesteps=False)
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(tensor, again.policy.state_dict()[name]), name


def test_it_acts_without_an_environment_and_a_setting_can_be_given(saved: Path) -> None:
    model = RecurrentPPO.load(saved, device="cpu", n_epochs=7)
    action, _ = model.predict(np.zeros(4, np.float32))
    assert action in (0, 1)
    assert model.n_epochs == 7


def test_the_statistics_of_a_normalised_environment_are_kept(tmp_path: Path) -> None:
    env = VecNormalize(copy_first())
    learned(env).save(tmp_path / "model.zip")
    other = VecNormalize(copy_first())
    RecurrentPPO.load(tmp_path / "model.zip", other, device="cpu")
    assert not isinstance(other.obs_rms, dict)
    assert not isinstance(env.obs_rms, dict)
    np.testing.assert_array_equal(other.obs_rms.mean, env.obs_rms.mean)
    np.testing.assert_array_equal(other.ret_rms.var, env.ret_rms.var)
    assert other.ret_rms.count == env.ret_rms.count


@pytest.mark.filterwarnings("error")
def test_statistics_that_the_environment_does_not_use_are_named(tmp_path: Path) -> None:
    learned(VecNormalize(copy_first())).save(tmp_path / "both.zip")
    with pytest.warns(UserWarning, match="are left out") as warned:
        RecurrentPPO.load(tmp_path / "both.zip", copy_first(), device="cpu")
    assert [str(w.message) for w in warned] == [
        f"VecNormalize's statistics of the {what} are left out: the environment does not normalise it"
        for what in ("observation", "reward")
    ]
    learned(VecNormalize(copy_first(), norm_obs=False)).save(tmp_path / "rewards.zip")
    with pytest.warns(UserWarning, match="of the observation are not in what was saved: they start anew") as warned:
        RecurrentPPO.load(tmp_path / "rewards.zip", VecNormalize(copy_first()), device="cpu")
    assert len(warned) == 1
    RecurrentPPO.load(tmp_path / "both.zip", device="cpu")  # no environment, nothing to compare with


def test_a_schedule_that_is_a_function_must_be_given_again(tmp_path: Path) -> None:
    learned(copy_first(), clip_range=lambda left: 0.1 + 0.1 * left).save(tmp_path / "model")
    with pytest.raises(UserError, match=r"its clip_range was a function.*give it: load\(path, clip_range="):
        RecurrentPPO.load(tmp_path / "model")
    assert RecurrentPPO.load(tmp_path / "model", clip_range=0.3).clip_range(1.0) == 0.3


def _rewritten(path: Path, change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def _about(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files["model.json"] = json.dumps(json.loads(files["model.json"]) | changes).encode()

    return change


def _counters(state: int) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        values = json.loads(files["state.json"])
        values["minibatch_generator"]["state"]["state"] = state
        files["state.json"] = json.dumps(values).encode()

    return change


@pytest.mark.parametrize(
    ("doctor", "expected"),
    [
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "is no archive of RecurrentPPO.save"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is no archive of RecurrentPPO.save"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"lstm_actor", b"lstm_actar", 1)), "truncated or bro"),
        (lambda path: _rewritten(path, lambda files: files.update({"evil.pkl": b""})), "and nothing else"),
        (lambda path: _rewritten(path, lambda files: None, zipfile.ZIP_DEFLATED), "uncompressed"),
        (lambda path: _rewritten(path, lambda files: files.pop("state.json")), "it must hold"),
        (lambda path: _rewritten(path, lambda files: files.update({"weights.safetensors": b"x"})), "truncated or brok"),
        (lambda path: _rewritten(path, lambda files: files.update({"model.json": b"[]"})), "no algorithm that can be"),
        (lambda path: _rewritten(path, _about(policy="Mine")), "its policy is a Mine"),
        (lambda path: _rewritten(path, _about(settings={"rm": "-rf"})), "no algorithm that can be loaded"),
        (lambda path: _rewritten(path, _about(n_envs=0)), "n_envs must be at least 1, got 0"),
        (lambda path: _rewritten(path, _counters(-1)), "are broken"),
        (lambda path: _rewritten(path, _about(schedules={"learning_rate": "x"})), "no algorithm that can be loaded"),
        (lambda path: _rewritten(path, lambda files: files.update({"state.json": b'{"steps": 1}'})), "are broken"),
        (lambda path: path.unlink(), "there is no file"),
    ],
)
def test_a_doctored_archive_is_refused_in_a_sentence(
    doctor: Callable[[Path], None], expected: str, saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(saved.read_bytes())
    doctor(path)
    with pytest.raises(UserError, match=expected):
        RecurrentPPO.load(path, device="cpu")


def test_an_environment_of_other_spaces_is_refused(saved: Path) -> None:
    env = make_vec_env(EnvConfig("bistable_rl/CopyFirst-v0", {"num_symbols": 3}), 2, seed=0)
    with pytest.raises(UserError, match="its observation space is"):
        RecurrentPPO.load(saved, env)


def test_the_weights_of_sb3s_archives_are_imported_and_nothing_else(tmp_path: Path) -> None:
    theirs = sb3_contrib.RecurrentPPO(
        "MlpLstmPolicy", copy_first(), n_steps=16, policy_kwargs={"lstm_hidden_size": 8}, seed=0, device="cpu"
    )
    theirs.save(tmp_path / "theirs.zip")
    with pytest.raises(UserError, match="was saved by Stable-Baselines3, with pickles"):
        RecurrentPPO.load(tmp_path / "theirs.zip")
    lstm = {"cell": "lstm", "hidden_size": 8, "critic": "separate", "net_arch": [64, 64]}
    ours = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs=lstm, device="cpu")
    ours.import_sb3(tmp_path / "theirs.zip")
    seen = np.random.default_rng(0).random((2, 4)).astype(np.float32)
    state, other = None, None
    for _ in range(20):
        expected, state = theirs.predict(seen, state, np.zeros(2, bool), deterministic=True)
        found, other = ours.predict(seen, other, np.zeros(2, bool), deterministic=True)
        np.testing.assert_array_equal(found, expected)
    torch.testing.assert_close(ours.policy.value_net.weight, theirs.policy.value_net.weight, rtol=0, atol=0)
    small = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs=KWARGS, device="cpu")
    with pytest.raises(UserError, match="belongs to another architecture"):
        small.import_sb3(tmp_path / "theirs.zip")


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_in_place_of_sb3s_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Evil()}, "policy.pth")
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.write("policy.pth")
    model = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs=KWARGS, device="cpu")
    with pytest.raises(UserError, match="whose weights can be read"):
        model.import_sb3("evil.zip")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (3,), np.float32),
        spaces.Box(np.array([0.1, -np.inf], np.float64), np.array([0.3, 2.0], np.float64), dtype=np.float64),
        spaces.Box(0, 255, (3, 36, 36), np.uint8),
        spaces.Discrete(4),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 1, (2, 2))}),
    ],
)
def test_spaces_survive_json(space: spaces.Space) -> None:
    assert from_json(json.loads(json.dumps(to_json(space), allow_nan=False))) == space
