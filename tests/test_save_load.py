"""RecurrentPPO.save and load: one file of data, which is never unpickled."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import sb3_contrib
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.spaces import from_json, to_json
from bistable_rl.agents.vec_envs import make_vec_env
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import EnvConfig

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
    with pytest.warns(UserWarning, match="of the observation are not in what was saved: they start empty") as warned:
        RecurrentPPO.load(tmp_path / "rewards.zip", VecNormalize(copy_first()), device="cpu")
    assert len(warned) == 1
    RecurrentPPO.load(tmp_path / "both.zip", device="cpu")  # no environment, nothing to compare with


@pytest.mark.parametrize("name", ["learning_rate", "clip_range", "clip_range_vf", "ent_coef", "certified_coef"])
def test_a_schedule_that_is_a_function_must_be_given_again_to_train_but_not_to_act(tmp_path: Path, name: str) -> None:
    schedules: dict[str, Any] = {name: lambda left: 0.1 + 0.1 * left}
    learned(copy_first(), **schedules).save(tmp_path / "model")
    model = RecurrentPPO.load(tmp_path / "model", copy_first(), device="cpu")
    assert model.predict(np.zeros(4, np.float32))[0] in (0, 1)
    model.save(tmp_path / "again")
    for path in ("model", "again"):
        lacking = RecurrentPPO.load(tmp_path / path, copy_first(), device="cpu")
        with pytest.raises(ValueError, match=rf"its {name} was a function.*give it again: load\(path, {name}="):
            lacking.learn(32)
        assert lacking.num_timesteps == 64
        RecurrentPPO.load(tmp_path / path, copy_first(), device="cpu", **schedules).learn(32)


def test_custom_objects_take_the_place_of_what_is_saved_and_unknown_ones_are_ignored(tmp_path: Path) -> None:
    functions: dict[str, Any] = {"learning_rate": lambda left: 1e-3 * left, "clip_range": lambda left: 0.2 * left}
    learned(copy_first(), **functions).save(tmp_path / "model")
    custom: dict[str, Any] = {"learning_rate": 0.0, "lr_schedule": print, "clip_range": lambda _: 0.0, "gamma": 0.5}
    model = RecurrentPPO.load(tmp_path / "model", copy_first(), device="cpu", custom_objects=custom, seed=3)
    assert (model.lr_schedule(1.0), model.clip_range(1.0), model.gamma, model.seed) == (0.0, 0.0, 0.5, 3)
    before = model.policy.value_net.weight.detach().clone()
    model.learn(32)
    assert torch.equal(model.policy.value_net.weight, before)
    assert RecurrentPPO.load(tmp_path / "model", device="cpu", custom_objects=custom, gamma=0.7).gamma == 0.7


def test_a_given_schedule_takes_the_place_of_the_saved_one(tmp_path: Path) -> None:
    learned(copy_first(), clip_range=lambda left: 0.1 + 0.1 * left).save(tmp_path / "model")
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


def _settings(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        about = json.loads(files["model.json"])
        about["settings"] |= changes
        files["model.json"] = json.dumps(about).encode()

    return change


def _flagged(path: Path, flag: int) -> None:
    """Set a flag of every member, such as the one that says that it is encrypted."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset] |= flag
            place = data.find(signature, place + 4)
    path.write_bytes(data)


def _twice(path: Path, name: str) -> None:
    with zipfile.ZipFile(path) as archive:
        data = archive.read(name)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(name, data)


def _counters(state: int) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        values = json.loads(files["state.json"])
        values["minibatch_generator"]["state"]["state"] = state
        files["state.json"] = json.dumps(values).encode()

    return change


@pytest.mark.parametrize(
    ("doctor", "expected"),
    [
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "is not an archive of RecurrentPPO.save"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is not an archive of RecurrentPPO.save"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"action_net", b"actoin_net", 1)), "truncated or bro"),
        (lambda path: _rewritten(path, lambda files: files.update({"evil.pkl": b""})), "and nothing else"),
        (lambda path: _rewritten(path, lambda files: None, zipfile.ZIP_DEFLATED), "uncompressed"),
        (lambda path: _rewritten(path, lambda files: files.pop("state.json")), "it must hold"),
        (lambda path: _rewritten(path, lambda files: files.update({"weights.safetensors": b"x"})), "truncated or brok"),
        (lambda path: _rewritten(path, lambda files: files.update({"model.json": b"[]"})), "no algorithm that can be"),
        (lambda path: _rewritten(path, _about(n_envs=True)), "n_envs must be an integer above 0"),
        (lambda path: _rewritten(path, _settings(verbose="x")), "verbose must be an integer from 0 to 2"),
        (lambda path: _rewritten(path, _settings(seed=-1)), "seed must be an integer from 0 to 4294967295"),
        (lambda path: _rewritten(path, _settings(gamma=float("nan"))), "gamma must be"),
        (lambda path: _rewritten(path, _settings(policy_kwargs=[])), "policy_kwargs must be a mapping"),
        (lambda path: _rewritten(path, _settings(policy_kwargs={"hiden_size": 3})), "no algorithm that can be loaded"),
        (lambda path: _rewritten(path, _settings(refresh_states="no")), "refresh_states must be true or false"),
        (lambda path: _rewritten(path, _settings(callback="x")), "its setting 'callback' is unknown here"),
        (lambda path: _rewritten(path, _about(settings=None)), "no algorithm that can be loaded"),
        (lambda path: _rewritten(path, _about(observation_space={"n": 3})), "no algorithm that can be loaded"),
        (lambda path: _rewritten(path, _about(schedules={})), "no algorithm that can be loaded"),
        (lambda path: _rewritten(path, lambda files: files.update({"model.json": b"[" * 100_000})), "RecursionError"),
        (
            lambda path: _rewritten(path, lambda files: files.update({"model.json": b"\xff"})),
            "no algorithm that can be",
        ),
        (lambda path: _flagged(path, 0x1), "is not an archive of RecurrentPPO.save"),
        (lambda path: _twice(path, "model.json"), "is not an archive of RecurrentPPO.save"),
        (lambda path: _rewritten(path, _about(policy="Mine")), "its policy is a Mine"),
        (lambda path: _rewritten(path, _about(settings={"rm": "-rf"})), "no algorithm that can be loaded"),
        (lambda path: _rewritten(path, _about(n_envs=0)), "n_envs must be an integer above 0, got 0"),
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


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ({"lerning_rate": 1e-4}, TypeError, "unknown argument of load 'lerning_rate'; did you mean 'learning_rate'"),
        ({"custom_objects": {"n_steps": "8"}}, ValueError, "^n_steps must be an integer above 0"),
        ({"force_reset": False}, ValueError, "^force_reset must be True: a saved file holds no episodes"),
        ({"_init_setup_model": False}, TypeError, "unknown argument of load"),
        ({"n_steps": "8"}, ValueError, "^n_steps must be an integer above 0"),
        ({"device": "cuda:256"}, ValueError, "^device must be cuda:N with N from 0 to 127"),
        ({"device": "meta"}, ValueError, "^device: meta holds no numbers"),
        ({"device": "banana"}, ValueError, "^device: banana is not available"),
        ({"policy_kwargs": {"hiden_size": 8}}, TypeError, "^(?!.*model.zip).*hiden_size"),
    ],
)
def test_a_wrong_argument_of_load_is_blamed_and_not_the_file(
    saved: Path, given: dict[str, Any], kind: type[Exception], expected: str
) -> None:
    with pytest.raises(kind, match=expected) as caught:
        RecurrentPPO.load(saved, **{"device": "cpu", **given})
    assert "model.zip" not in str(caught.value)


def test_an_archive_does_not_say_where_to_log(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(saved.read_bytes())
    _rewritten(path, _settings(tensorboard_log=str(tmp_path / "theirs")))
    with pytest.warns(UserWarning, match="pass tensorboard_log="):
        model = RecurrentPPO.load(path, copy_first(), device="cpu")
    model.learn(32)
    assert not (tmp_path / "theirs").exists()
    model = RecurrentPPO.load(saved, copy_first(), device="cpu", tensorboard_log=str(tmp_path / "ours"))
    assert model.tensorboard_log == str(tmp_path / "ours")
    model.save(tmp_path / "again")
    assert RecurrentPPO.load(tmp_path / "again", device="cpu").tensorboard_log is None


def test_statistics_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    learned(VecNormalize(copy_first())).save(path)

    def change(files: dict[str, bytes]) -> None:
        arrays = safetensors.numpy.load(files["training.safetensors"])
        arrays["normalize/observation/mean"] = np.zeros(3)
        files["training.safetensors"] = safetensors.numpy.save(arrays)

    _rewritten(path, change)
    with pytest.raises(UserError, match=r"counters in .* are broken .*normalize/observation must have shape"):
        RecurrentPPO.load(path, VecNormalize(copy_first()), device="cpu")


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


@pytest.mark.parametrize(
    "odd",
    [
        lambda w: w.to_sparse(),
        lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
        lambda w: w.to("meta"),
        lambda w: w.to(torch.complex64),
        lambda w: w.to(torch.int64),
        lambda w: w.double(),
        lambda w: "text",
        lambda w: torch.nested.nested_tensor([w[0], w[0, :2]]),
    ],
)
def test_odd_tensors_in_sb3s_archive_are_one_sentence(odd: Callable[[torch.Tensor], Any], tmp_path: Path) -> None:
    model = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs=KWARGS, device="cpu")
    weights: dict[Any, Any] = model.policy.state_dict()
    name = "memory.cells.0.weight_ih"
    for key in (name, 3):
        buffer = io.BytesIO()
        torch.save({**weights, key: odd(weights[name])}, buffer)
        with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
            archive.writestr("policy.pth", buffer.getvalue())
        with pytest.raises(UserError, match=r"weights cannot be read|another architecture"):
            model.import_sb3(tmp_path / "odd.zip")


def test_a_compressed_archive_of_sb3_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy.pth", bytes(10**7))
    model = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs=KWARGS, device="cpu")
    with pytest.raises(UserError, match="compressed or encrypted"):
        model.import_sb3(tmp_path / "bomb.zip")


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_in_place_of_sb3s_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Evil()}, "policy.pth")
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.write("policy.pth")
    model = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs=KWARGS, device="cpu")
    with pytest.raises(UserError, match="its weights cannot be read"):
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


# --- as in SB3 ---------------------------------------------------------------------------------------------


def test_a_file_object_is_written_and_read_as_a_path_is(saved: Path, tmp_path: Path) -> None:
    model = RecurrentPPO.load(saved, device="cpu")
    buffer = io.BytesIO()
    model.save(buffer)
    model.save(tmp_path / "model.zip")
    assert buffer.getvalue() == (tmp_path / "model.zip").read_bytes()
    with (tmp_path / "model.zip").open("rb") as file:
        for source in (buffer, file):  # the first stands at its end, after writing
            again = RecurrentPPO.load(source, copy_first(), device="cpu")
            assert torch.equal(again.policy.value_net.weight, model.policy.value_net.weight)
    with (tmp_path / "other.zip").open("wb") as file:
        model.save(file)
    assert (tmp_path / "other.zip").read_bytes() == buffer.getvalue()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda model, path: model.save(path.open("rb")), "needs a path or a writable binary file object such as"),
        (lambda model, path: model.save(io.StringIO()), "writable binary file object"),
        (lambda model, path: model.save(5), "writable binary file object .* got 5"),
        (lambda model, path: model.load(io.StringIO()), "readable binary file object"),
        (lambda model, path: model.load(path.open("ab")), "readable binary file object"),
        (lambda model, path: model.set_parameters(None), "readable binary file object .* got None"),
        (lambda model, path: model.load(io.BytesIO(b"x")), "the file object is not an archive of RecurrentPPO.save"),
        (lambda model, path: model.save(path, exclude=["gamma"]), "exclude: gamma cannot be left out: an archive"),
        (lambda model, path: model.save(path, include=["env"]), "include: env cannot be saved: .* no pickle"),
    ],
)
def test_what_no_archive_can_be_is_one_sentence(
    call: Callable[[RecurrentPPO, Path], Any], expected: str, saved: Path
) -> None:
    before = saved.read_bytes()
    model = RecurrentPPO.load(saved, device="cpu")
    with pytest.raises((ValueError, UserError), match=expected) as caught:
        call(model, saved)
    assert "\n" not in str(caught.value)
    assert saved.read_bytes() == before


def test_names_that_are_in_no_archive_may_be_excluded_and_those_in_it_included(saved: Path, tmp_path: Path) -> None:
    model = RecurrentPPO.load(saved, device="cpu")
    model.save(tmp_path / "a.zip")
    model.save(tmp_path / "b.zip", exclude=["env", "replay_buffer", "tensorboard_log"], include=["policy", "gamma"])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_parameters_are_set_in_place_from_a_file_or_a_dictionary(saved: Path) -> None:
    trained = RecurrentPPO.load(saved, copy_first(), device="cpu")
    for source in (saved, str(saved.with_suffix("")), io.BytesIO(saved.read_bytes()), trained.get_parameters()):
        model = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs=KWARGS, seed=5, device="cpu")
        policy = model.policy
        model.set_parameters(source)
        assert model.policy is policy
        for name, tensor in trained.policy.state_dict().items():
            assert torch.equal(tensor, policy.state_dict()[name]), name
        for mine, other in zip(policy.parameters(), trained.policy.parameters(), strict=True):
            moment, wanted = (m.policy.optimizer.state[p]["exp_avg"] for m, p in ((model, mine), (trained, other)))
            assert torch.equal(moment, wanted)
        model.learn(128)  # they are still those that the optimizer updates


def test_parameters_of_another_architecture_are_refused_unless_those_in_common_are_asked_for(saved: Path) -> None:
    deeper = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs={**KWARGS, "num_layers": 2}, device="cpu")
    with pytest.raises(UserError, match=r"belongs to another architecture: critic_memory\.cells\.1"):
        deeper.set_parameters(saved)
    deeper.set_parameters(saved, exact_match=False)
    trained = RecurrentPPO.load(saved, device="cpu").policy.state_dict()
    assert torch.equal(deeper.policy.state_dict()["memory.cells.0.weight_ih"], trained["memory.cells.0.weight_ih"])
    wider = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs={**KWARGS, "hidden_size": 9}, device="cpu")
    with pytest.raises(UserError, match="belongs to another architecture"):
        wider.set_parameters(saved, exact_match=False)


def test_the_versions_are_printed_on_request(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RecurrentPPO.load(saved, device="cpu", print_system_info=True, force_reset=True)
    assert f"PyTorch: {torch.__version__}" in capsys.readouterr().out


def test_one_action_is_an_array_as_in_sb3(saved: Path) -> None:
    model = RecurrentPPO.load(saved, device="cpu")
    action, _ = model.predict(np.zeros(4, np.float32))
    assert isinstance(action, np.ndarray)
    assert action.shape == ()
    theirs = sb3_contrib.RecurrentPPO("MlpLstmPolicy", copy_first(), device="cpu")
    expected, _ = theirs.predict(np.zeros(4, np.float32))
    assert (type(action), action.shape, action.dtype) == (type(expected), expected.shape, expected.dtype)


class Fixed(RecurrentPolicy):
    """A policy of a user with a network of its own and no argument for it."""

    def __init__(self, observation_space: Any, action_space: Any, lr_schedule: Any, use_sde: bool = False) -> None:
        super().__init__(observation_space, action_space, lr_schedule, use_sde, cell="gru", hidden_size=4)


def test_a_policy_without_arguments_for_its_network_is_saved_and_loaded(tmp_path: Path) -> None:
    RecurrentPPO(Fixed, copy_first(), device="cpu").save(tmp_path / "fixed")
    assert RecurrentPPO.load(tmp_path / "fixed", policy=Fixed, device="cpu").policy.memory.cell == "gru"


def test_a_policy_alone_is_neither_saved_nor_loaded_by_pickle(tmp_path: Path) -> None:
    policy = RecurrentPPO("RecurrentPolicy", copy_first(), policy_kwargs=KWARGS, device="cpu").policy
    with pytest.raises(NotImplementedError, match=r"save the algorithm with model\.save\(path\)"):
        policy.save(tmp_path / "policy.pt")
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotImplementedError, match=r"use RecurrentPPO\.load\(path\)\.policy"):
        type(policy).load(tmp_path / "policy.pt")
