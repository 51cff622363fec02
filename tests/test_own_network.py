"""One's own network: what reads the observations, the layers of the heads, the activation, the optimizer."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from noise_env import Noise
from one_net import Both, Double, Lists, Net, Squares, Wide
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

import bistable_rl
from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.features import Image, Scaled, SymbolicView
from bistable_rl.agents.impala import ImpalaCNN, ResidualBlock
from bistable_rl.agents.training import resume, train
from bistable_rl.cli import main
from bistable_rl.compare.jobs import hashed_keys
from bistable_rl.envs.wrappers import Categories
from bistable_rl.errors import UserError
from bistable_rl.runs import user_modules
from bistable_rl.runs.config import shipped_configs
from bistable_rl.runs.schema import Experiment, load_config

NUMBERS = spaces.Box(-1, 1, (3,))
PIXELS = spaces.Box(0, 255, (3, 40, 40), np.uint8)
SMALL = spaces.Box(0, 255, (3, 9, 11), np.uint8)
VIEW = spaces.Box(0, 255, (7, 7, 3), np.uint8)
MIXED = spaces.Dict({"image": PIXELS, "numbers": spaces.Box(-1, 1, (2,))})


def agent(space: spaces.Space[Any] = NUMBERS, **policy: Any) -> RecurrentPPO:
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "seed": 0, "device": "cpu"}
    return RecurrentPPO("RecurrentPolicy", Noise(space), policy_kwargs={"hidden_size": 4, **policy}, **settings)


def again(model: RecurrentPPO, tmp_path: Path) -> RecurrentPPO:
    """Return the agent, saved and loaded without an environment; both act alike."""
    model.save(tmp_path / "model.zip")
    loaded = RecurrentPPO.load(tmp_path / "model.zip", device="cpu")
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(tensor, loaded.policy.state_dict()[name]), name
    model.observation_space.seed(0)
    seen = model.observation_space.sample()
    torch.manual_seed(0)
    expected, state = model.predict(seen, episode_start=np.array([True]))
    torch.manual_seed(0)
    found, other = loaded.predict(seen, episode_start=np.array([True]))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(state[0], other[0])  # type: ignore[index]
    return loaded


def test_a_class_of_ones_own_trains_and_is_saved_by_its_name(tmp_path: Path) -> None:
    model = agent(features_extractor_class=Net, features_extractor_kwargs={"features_dim": 6}).learn(16)
    assert model.policy.memory.input_size == 6
    loaded = again(model, tmp_path)
    assert type(loaded.policy.features_extractor) is Net
    assert loaded.policy_kwargs["features_extractor_class"] == "one_net:Net"
    loaded.set_env(model.get_env())  # type: ignore[arg-type]
    loaded.learn(16)
    again(loaded, tmp_path)


@pytest.mark.parametrize(
    ("given", "scaled", "largest"),
    [(None, PIXELS, 1), (True, PIXELS, 1), (False, PIXELS, 255), (None, Categories(0, 255, (7, 7, 3), np.uint8), 255)],
)
def test_pixels_come_scaled_and_categories_as_they_are_unless_it_is_said(
    given: bool | None, scaled: spaces.Space[Any], largest: int, tmp_path: Path
) -> None:
    model = agent(scaled, features_extractor_class=Net, normalize_images=given).learn(16)
    extractor: Any = model.policy.features_extractor
    assert 0.9 * largest < extractor.largest <= largest
    loaded: Any = again(model, tmp_path).policy.features_extractor
    assert 0.5 * largest < loaded.largest <= largest


def test_sb3s_own_extractors_are_taken(tmp_path: Path) -> None:
    model = agent(PIXELS, features_extractor_class=NatureCNN, features_extractor_kwargs={"features_dim": 9}).learn(8)
    assert model.policy.memory.input_size == 9
    again(model, tmp_path)
    again(agent(MIXED, features_extractor_class=Both).learn(8), tmp_path)


@pytest.mark.parametrize(
    ("space", "given", "modules", "width"),
    [
        (PIXELS, {}, [Image], 256),
        (PIXELS, {"features_extractor_class": "nature_cnn"}, [Image], 256),
        (PIXELS, {"features_extractor_class": "flat"}, [Scaled], 3 * 40 * 40),
        (SMALL, {"features_extractor_class": "impala", "features_extractor_kwargs": {"features_dim": 8}}, [Image], 8),
        (VIEW, {"features_extractor_class": "minigrid"}, [SymbolicView], 64),
        (VIEW, {"features_extractor_class": "minigrid", "features_extractor_kwargs": {"features_dim": 5}}, None, 5),
        (MIXED, {"features_extractor_class": "impala"}, [Image, nn.Flatten], 258),
        (NUMBERS, {"features_extractor_class": "flat"}, [nn.Flatten], 3),
    ],
)
def test_those_that_come_along_are_chosen_by_the_space_or_by_name(
    space: spaces.Space[Any], given: dict[str, Any], modules: Any, width: int, tmp_path: Path
) -> None:
    model = agent(space, **given).learn(8)
    parts: Any = model.policy.features_extractor.parts
    assert modules is None or [type(part) for part in parts] == modules
    assert model.policy.memory.input_size == width
    if given.get("features_extractor_class") == "impala":
        assert isinstance(parts[0].cnn, ImpalaCNN)
    again(model, tmp_path)


def test_impalas_network_has_the_papers_size_and_a_block_adds_to_its_input() -> None:
    """Espeholt et al. 2018, fig. 3: 15 convolutions, three poolings by 2, 256 units; 72 x 96 pixels end as 9 x 12."""
    net = ImpalaCNN(spaces.Box(0, 255, (3, 72, 96), np.uint8))
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 15
    assert net.linear.in_features == 32 * 9 * 12
    assert net(torch.rand(2, 3, 72, 96)).shape == (2, 256)
    block = ResidualBlock(4)
    nn.init.zeros_(block.second.weight)
    assert block.second.bias is not None
    nn.init.zeros_(block.second.bias)
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(block(x), x)


def test_heads_have_layers_of_their_own_with_the_activation_that_is_asked_for(tmp_path: Path) -> None:
    model = agent(net_arch={"pi": [6, 5], "vf": [7]}, activation_fn=nn.ReLU).learn(16)
    shown = [[type(layer) for layer in mlp] for mlp in (model.policy.actor_mlp, model.policy.critic_mlp)]
    assert shown == [[nn.Linear, nn.ReLU] * 2, [nn.Linear, nn.ReLU]]
    assert (model.policy.action_net.in_features, model.policy.value_net.in_features) == (5, 7)
    again(model, tmp_path)
    only = agent(net_arch={"pi": [6]}, activation_fn="elu").policy
    assert (only.action_net.in_features, only.value_net.in_features) == (6, 4)
    assert type(agent(net_arch=[3], activation_fn=Double).policy.actor_mlp[1]) is Double
    assert type(agent(net_arch=[3]).policy.actor_mlp[1]) is nn.Tanh


@pytest.mark.parametrize(
    ("given", "kind", "group"),
    [
        ({}, torch.optim.Adam, {"eps": 1e-5, "fused": True}),
        ({"optimizer_kwargs": {"eps": 1e-8, "betas": [0.5, 0.9]}}, torch.optim.Adam, {"eps": 1e-8, "fused": True}),
        ({"optimizer_class": torch.optim.AdamW}, torch.optim.AdamW, {"weight_decay": 0.01}),
        ({"optimizer_class": "rmsprop", "optimizer_kwargs": {"alpha": 0.9}}, torch.optim.RMSprop, {"alpha": 0.9}),
        ({"optimizer_class": "sgd"}, torch.optim.SGD, {"momentum": 0}),
        ({"optimizer_class": "sgd", "optimizer_kwargs": {"momentum": 0.9}}, torch.optim.SGD, {"momentum": 0.9}),
        ({"optimizer_class": torch.optim.Adafactor}, torch.optim.Adafactor, {"beta2_decay": -0.8}),
        ({"optimizer_class": Squares}, Squares, {}),
    ],
    ids=str,
)
def test_an_optimizer_of_ones_own_updates_the_weights_and_its_moments_are_kept(
    given: dict[str, Any], kind: type, group: dict[str, Any], tmp_path: Path
) -> None:
    model = agent(**given)
    before = model.policy.value_net.weight.detach().clone()
    model.learn(16)
    assert not torch.equal(model.policy.value_net.weight, before)
    loaded = again(model, tmp_path)
    for one in (model, loaded):
        assert type(one.policy.optimizer) is kind
        assert one.policy.optimizer.param_groups[0].items() >= group.items()
    theirs, ours = (m.policy.optimizer.state_dict()["state"] for m in (model, loaded))
    held = {i: {n: v for n, v in moments.items() if v is not None} for i, moments in theirs.items()}
    for index, moments in held.items():
        for name, moment in moments.items():
            assert torch.equal(torch.as_tensor(ours[index][name]), torch.as_tensor(moment))


def test_a_state_of_an_optimizer_that_cannot_be_saved_is_one_sentence(tmp_path: Path) -> None:
    model = agent(optimizer_class=Lists)
    model.learn(16)
    with pytest.raises(UserError, match=r"the optimizer Lists cannot be saved: its state 0\.past is a list, but only"):
        model.save(tmp_path / "model.zip")


class Inner:
    """Is no network."""


def _local() -> type:
    class Local(Net):
        pass

    return Local


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"features_extractor_class": "natur_cnn"},
            "unknown name 'natur_cnn'; did you mean 'nature_cnn'.*package:",
        ),
        ({"features_extractor_class": "one_net:Nett"}, "there is no Nett in one_net"),
        (
            {"features_extractor_class": "no_such_net:Net"},
            "needs the package 'no_such_net', which is neither",
        ),
        ({"features_extractor_class": Inner}, "must be a subclass of .*BaseFeaturesExtractor, got .*Inner"),
        ({"features_extractor_class": "subprocess:Popen"}, "must be a subclass of .*BaseFeaturesExtractor"),
        ({"features_extractor_class": 3}, "features_extractor_class must be text or None, got 3"),
        (
            {"features_extractor_class": Net, "features_extractor_kwargs": {"widht": 3}},
            "Net cannot be built with {'widht': 3}: TypeError: .*unexpected keyword argument 'widht'",
        ),
        ({"features_extractor_class": Wide}, r"Wide cannot be built .* must return .* \(1, 5\) here, not \(1, 10\)"),
        ({"features_extractor_class": Net, "observation_kinds": {"observation": "numbers"}}, "Net reads the observ"),
        (
            {"features_extractor_class": "impala"},
            "impala reads bytes in three dimensions, but the observations have none",
        ),
        ({"features_extractor_kwargs": {"width": 3}}, "unknown argument in features_extractor_kwargs 'width'"),
        ({"features_extractor_kwargs": {"features_dim": 0}}, "features_dim must be an integer above 0, got 0"),
        ({"normalize_images": False}, "normalize_images is only for a features_extractor_class of your own"),
        ({"activation_fn": "rleu"}, "unknown name 'rleu'; did you mean 'relu'"),
        ({"activation_fn": torch.relu}, "activation_fn must be text or None"),
        ({"optimizer_class": "adam", "optimizer_kwargs": {"epsilon": 1}}, "optimizer_class Adam cannot be built with"),
        ({"optimizer_class": torch.optim.LBFGS}, "optimizer_class LBFGS cannot be used: its step needs a closure"),
        ({"optimizer_class": nn.ReLU}, r"must be a subclass of torch\.optim"),
    ],
)
def test_what_is_none_is_one_sentence(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        agent(**given)
    assert "\n" not in str(caught.value)


def test_a_class_in_a_function_trains_and_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    model = agent(features_extractor_class=_local()).learn(8)
    with pytest.raises(ValueError, match=r"Local is defined in a function, .* must be defined at the top"):
        model.save(tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()


def test_the_script_that_runs_finds_its_own_class_and_another_is_told_what_to_give(tmp_path: Path) -> None:
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import one_net
from noise_env import Noise
from bistable_rl.agents import RecurrentPPO
class Mine(one_net.Net):
    pass
RecurrentPPO("RecurrentPolicy", Noise(), policy_kwargs={"features_extractor_class": Mine}, device="cpu").save("m.zip")
RecurrentPPO.load("m.zip", device="cpu")
"""
    (tmp_path / "mine.py").write_text(script)
    command = [sys.executable, "mine.py", str(Path(__file__).parent)]
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(UserError, match="there is no Mine in __main__, the script that runs; give the class itself in"):
        RecurrentPPO.load(tmp_path / "m.zip", device="cpu")
    kwargs = {"features_extractor_class": Net}
    assert type(RecurrentPPO.load(tmp_path / "m.zip", policy_kwargs=kwargs).policy.features_extractor) is Net


CONFIG = {
    "name": "own",
    "env": {"id": "bistable_rl/CopyFirst-v0", "kwargs": {"length": 5, "num_symbols": 2}, "num_envs": 4},
    "policy": {
        "hidden_size": 8,
        "features_extractor_class": "my_net:Net",
        "features_extractor_kwargs": {"features_dim": 6},
        "activation_fn": "relu",
        "net_arch": {"pi": [5], "vf": [6]},
        "optimizer_class": "adamw",
        "optimizer_kwargs": {"weight_decay": 0.1},
    },
    "algorithm": {"n_steps": 20, "batch_size": 40, "n_epochs": 1},
    "total_steps": 160,
    "evaluation": {"every": 160, "episodes": 2},
    "checkpoint": {"every": 80, "keep": 2},
    "device": "cpu",
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a config beside the module that it names."""
    (tmp_path / "my_net.py").write_text("from one_net import Net\n")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    monkeypatch.setattr(user_modules, "_folders", [tmp_path])
    return tmp_path / "own.yaml"


def test_a_config_names_ones_own_network_and_the_run_is_resumed_loaded_and_evaluated(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(load_config(Experiment, config), tmp_path / "runs")
    assert f"importing my_net from {tmp_path / 'my_net.py'}" in capsys.readouterr().err
    assert yaml.safe_load((folder / "config.yaml").read_text())["policy"]["features_extractor_class"] == "my_net:Net"
    resume(folder, total_steps=240)
    assert json.loads((folder / "result.json").read_text())["steps"] == 240
    policy = bistable_rl.load(folder).policy
    assert type(policy.features_extractor) is Net
    assert type(policy.actor_mlp[1]) is nn.ReLU
    assert isinstance(policy.optimizer, torch.optim.AdamW)
    assert main(["evaluate", str(folder), "--episodes", "2"]) == 0


def test_an_experiment_in_python_takes_the_classes_and_its_run_holds_their_names(config: Path, tmp_path: Path) -> None:
    experiment = load_config(Experiment, config)
    policy = replace(experiment.policy, features_extractor_class=Net, activation_fn=nn.ReLU)
    folder = train(replace(experiment, policy=policy), tmp_path / "runs")
    held = yaml.safe_load((folder / "config.yaml").read_text())["policy"]
    assert (held["features_extractor_class"], held["activation_fn"]) == ("one_net:Net", "relu")
    assert type(bistable_rl.load(folder).policy.actor_mlp[1]) is nn.ReLU
    with pytest.raises(UserError, match=r"^policy: features_extractor_class: Local is defined in a function"):
        train(replace(experiment, policy=replace(policy, features_extractor_class=_local())), tmp_path / "runs")


def test_the_pages_network_trains_with_the_pages_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "agents/NETWORK.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", page, re.DOTALL))
    (tmp_path / "my_net.py").write_text(blocks["python"])
    policy = yaml.safe_load(blocks["yaml"])["policy"]
    (tmp_path / "page.yaml").write_text(yaml.safe_dump(CONFIG | {"policy": policy}))
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "page.yaml"]) == 0
    assert "importing my_net" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "my_net")
    assert bistable_rl.load(tmp_path / "runs/own/mixed-seed0").policy.memory.input_size == 16


def test_a_module_in_a_run_folder_is_not_imported(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(load_config(Experiment, config), tmp_path / "runs")
    (tmp_path / "my_net.py").rename(folder / "my_net.py")
    monkeypatch.delitem(sys.modules, "my_net")
    monkeypatch.setattr(user_modules, "_folders", [])
    monkeypatch.chdir(folder)
    assert main(["evaluate", ".", "--episodes", "2"]) == 2
    told = capsys.readouterr().err
    assert (
        "policy: features_extractor_class my_net:Net needs the package 'my_net', which lies in the run folder" in told
    )


def test_what_only_bounds_tanh_and_numbers_refuses_other_networks(config: Path, tmp_path: Path) -> None:
    for policy, expected in (
        ({"features_extractor_class": "my_net:Net"}, "policy.features_extractor_class must be null"),
        ({"net_arch": [4], "activation_fn": "relu"}, "policy.activation_fn must be null"),
    ):
        data = CONFIG | {"policy": {"cell": "brc", **policy}}
        data["algorithm"] = {**CONFIG["algorithm"], "certified_coef": 1.0}  # type: ignore[dict-item]
        config.write_text(yaml.safe_dump(data))
        with pytest.raises(UserError, match=expected):
            train(load_config(Experiment, config), tmp_path / "runs")


NEW = {
    *("policy.features_extractor_class", "policy.features_extractor_kwargs", "policy.normalize_images"),
    *("policy.activation_fn", "policy.optimizer_class", "policy.optimizer_kwargs"),
}


def test_the_new_keys_are_hashed_only_where_they_are_set() -> None:
    for name, path in shipped_configs().items():
        if name.startswith("rl/"):
            assert not NEW & hashed_keys(load_config(Experiment, path)).keys()
    changed = load_config(Experiment, shipped_configs()["rl/t_maze"], ["--policy.activation_fn", "relu"])
    assert NEW & hashed_keys(changed).keys() == {"policy.activation_fn"}
