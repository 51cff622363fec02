"""Exported agents: every cell, observation and action as `predict` has them, in files that need no package of ours."""

import contextlib
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from masked_env import Info, Method
from noise_env import NUMBERS, TWO, Noise
from one_net import Net
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import bistable_rl
from bistable_rl.agents import export_check
from bistable_rl.agents.agent import Agent, make_policy
from bistable_rl.agents.distributions import masked
from bistable_rl.agents.export import describe, export, exported_step, program_of
from bistable_rl.agents.export_check import compare, masks_of, observations
from bistable_rl.agents.export_formats import FORMATS, Format, Run, quiet
from bistable_rl.agents.exported_step import ExportedStep
from bistable_rl.agents.features import SymbolicView
from bistable_rl.agents.normalization import Normalization
from bistable_rl.agents.run_spaces import spaces_of_env
from bistable_rl.agents.spaces import spaces_of
from bistable_rl.agents.training import train
from bistable_rl.agents.vec_envs import as_vec_env
from bistable_rl.cells import CELLS
from bistable_rl.cli import main
from bistable_rl.commands import export as commands
from bistable_rl.envs import make_env
from bistable_rl.envs.wrappers import Categories
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import AlgorithmConfig, EnvConfig, Experiment, PolicyConfig

PAGE = Path(bistable_rl.__file__).resolve().parent / "agents" / "EXPORT.md"

IMAGE = spaces.Box(0, 255, (40, 36, 3), np.uint8)
TUPLE = spaces.Tuple([spaces.Discrete(3, start=2), spaces.Box(-2, 2, (2, 2)), spaces.MultiDiscrete([2, 4])])
DEEP = spaces.Dict({"image": IMAGE, "inner": spaces.Dict({"b": spaces.MultiBinary(2), "t": TUPLE}), "n": TWO})
LAST_FIRST = spaces.Dict([("z", spaces.Box(-1, 1, (2,))), ("a", spaces.Discrete(3))])

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "numbers": NUMBERS,
    "unbounded": spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    "wide": spaces.Box(-3e38, 3e38, (2,), np.float32),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "binary": spaces.MultiBinary(3),
    "image": IMAGE,
    "categories": Categories(0, 255, (5, 5, 3), np.uint8),
    "tuple": TUPLE,
    "deep": DEEP,
    "last first": LAST_FIRST,
}
KINDS: dict[str, Any] = {"categories": {"observation_kinds": {"observation": "categories"}}}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 4]),
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(-0.5, 2, (2,), np.float32),
    "box of doubles": spaces.Box(-1, 1, (2, 2), np.float64),
}


def made(
    observation: spaces.Space[Any] = NUMBERS,
    action: spaces.Space[Any] = TWO,
    *,
    normalized: bool = False,
    use_sde: bool = False,
    has_masks: bool = False,
    **policy: Any,
) -> Agent:
    """Return an untrained agent whose actions depend on what it sees."""
    torch.manual_seed(0)
    env = DummyVecEnv([lambda: as_vec_env(Noise(observation, action))])  # type: ignore[list-item, return-value]
    found = spaces_of_env(BaseAlgorithm._wrap_env(env, verbose=0, monitor_wrapper=True))
    algorithm = AlgorithmConfig(use_sde=use_sde)
    experiment = Experiment("made", EnvConfig("none"), PolicyConfig(**{"hidden_size": 8, **policy}), algorithm)
    network = make_policy(experiment, found, torch.device("cpu"))
    network.nested_space = found.nested
    with torch.no_grad():
        network.action_net.weight.normal_()
        for cell in network.memory.layers:
            for part in cell.cells:
                if part.initial is not None:
                    part.initial.uniform_(-1, 1)
    if normalized:
        shapes = {key: part.shape or () for key, part in spaces_of(found.given).items()}
        moments = {key: (np.full(shape, 3.0), np.full(shape, 4.0)) for key, shape in shapes.items()}
        network.normalization = Normalization(moments)
    network.set_training_mode(False)
    if use_sde:
        network.reset_noise()
    return Agent(network, experiment, 0, found.given, has_masks)


def eager(step: nn.Module) -> Run:
    """Return a step as an opened file is run, without a file."""

    def run(*inputs: Any) -> list[np.ndarray]:
        with torch.no_grad():
            return [out.numpy() for out in step(*tree_map(torch.from_numpy, inputs))]

    return run


def opened(agent: Agent, step: ExportedStep, kind: str) -> Run:
    with quiet():
        return FORMATS[kind].open(FORMATS[kind].pack(program_of(step), describe(agent, step)))


def is_same(agent: Agent, run: Callable[[ExportedStep], Run]) -> bool:
    step = exported_step(agent)
    compared = compare(agent, step, run(step))
    return compared.difference < 1e-4 and compared.parted is None


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_the_step_of_every_cell_is_that_of_predict(cell: str, layers: int) -> None:
    agent = made(cell=cell, num_layers=layers, cell_kwargs={"learn_initial_state": True}, net_arch=[6])
    assert is_same(agent, eager)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_file_of_every_cell_does_what_predict_does(cell: str, kind: str) -> None:
    agent = made(cell=cell, num_layers=2)
    assert is_same(agent, lambda step: opened(agent, step, kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("seen", "taken"), list(zip(OBSERVATIONS, itertools.cycle(ACTIONS), strict=False)))
def test_a_file_of_every_space_does_what_predict_does(seen: str, taken: str, kind: str) -> None:
    agent = made(OBSERVATIONS[seen], ACTIONS[taken], **KINDS.get(seen, {}))
    assert is_same(agent, lambda step: opened(agent, step, kind))


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_are_given_as_the_environment_gives_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_check, "STEPS", 20)
    agent = made(OBSERVATIONS[name], **KINDS.get(name, {}))
    assert agent.observation_space == OBSERVATIONS[name]
    assert is_same(agent, eager)


def test_the_program_that_reads_minigrids_view_takes_any_number_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_check, "STEPS", 10)
    agent = made(make_env("bistable_rl/MiniGridMemory-v0").observation_space)
    assert any(isinstance(module, SymbolicView) for module in agent.policy.modules())
    with quiet():
        assert is_same(agent, lambda step: eager(program_of(step).module()))


def test_observations_are_normalised_inside() -> None:
    agent = made(LAST_FIRST["z"], normalized=True)
    assert is_same(agent, eager)
    step = exported_step(agent)
    agent.policy.normalization = None
    with pytest.raises(UserError, match="the exported file was not written: it differs from predict"):
        compare(agent, step, eager(step))


SPREADS: dict[str, dict[str, Any]] = {
    "fixed": {"log_std_init": -0.5},
    "bounded": {"log_std_init": 0.5, "log_std_min": 0.0},
    "of the state": {"state_dependent_std": True},
    "of the features": {"use_sde": True},
}


@pytest.mark.parametrize(
    ("action", "options"),
    [(name, {}) for name in ACTIONS] + [("box", spread) for spread in SPREADS.values()],
    ids=[*ACTIONS, *SPREADS],
)
def test_actions_are_those_of_predict_and_their_distribution_is_the_policys(
    action: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_check, "STEPS", 40)
    agent = made(action=ACTIONS[action], net_arch=[6], **options)
    assert is_same(agent, eager)
    policy, step = agent.policy, exported_step(agent)
    seen, state = torch.randn(5, 3), torch.randn(1, 5, 8)
    with torch.no_grad():
        taken, _, *parameters = step(seen, state)
        features = policy.extract_features(seen).unsqueeze(0)
        latent = policy.actor_mlp(policy._advance(features, torch.cat([state, state]))[0][0])
        theirs: Any = policy._distribution(latent)
    space = policy.action_space
    assert taken.numpy().dtype == space.dtype
    assert taken[0].numpy().shape == space.shape
    if isinstance(space, spaces.Box):
        spread = theirs.distribution.stddev if options.get("use_sde") else theirs.log_std.exp().expand(5, -1)
        torch.testing.assert_close(parameters[0].flatten(1), theirs.mode())
        torch.testing.assert_close(parameters[1].flatten(1).exp(), spread)
    elif isinstance(space, spaces.MultiDiscrete):
        for ours, one in zip(parameters[0].split([2, 3, 4], -1), theirs.distribution, strict=True):
            torch.testing.assert_close(ours.softmax(-1), one.probs)
    elif isinstance(space, spaces.MultiBinary):
        torch.testing.assert_close(parameters[0].sigmoid(), theirs.distribution.probs)
    else:
        torch.testing.assert_close(parameters[0].log_softmax(-1), theirs.log_probs)
    assert isinstance(policy.action_dist, StateDependentNoiseDistribution) == bool(options.get("use_sde"))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_of_images_nested_numbers_and_learned_beginnings_does_what_predict_does(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_check, "STEPS", 30)
    agent = made(DEEP, ACTIONS["box"], use_sde=True, cell="mixed", cell_kwargs={"learn_initial_state": True})
    assert is_same(agent, lambda step: opened(agent, step, kind))
    about = describe(agent, exported_step(agent))
    assert [(value["name"], value["shape"]) for value in about["inputs"]] == [
        ("observation.image", ["n", 40, 36, 3]),
        ("observation.inner.b", ["n", 2]),
        ("observation.inner.t.0", ["n"]),
        ("observation.inner.t.1", ["n", 2, 2]),
        ("observation.inner.t.2", ["n", 2]),
        ("observation.n", ["n"]),
        ("state", [1, "n", 8]),
    ]
    assert [value["name"] for value in about["outputs"]] == ["action", "next_state", "mean", "log_std"]


MASKABLE = ("discrete", "multi-discrete", "binary")


@pytest.mark.parametrize("kind", [None, *FORMATS])
@pytest.mark.parametrize("action", MASKABLE)
def test_a_file_takes_action_masks_as_predict_does(action: str, kind: str | None) -> None:
    agent = made(action=ACTIONS[action], has_masks=True)
    assert is_same(agent, lambda step: eager(step) if kind is None else opened(agent, step, kind))
    about = describe(agent, exported_step(agent))
    assert about["inputs"][2] == {"name": "action_mask", "dtype": "bool", "shape": ["n", MASK_SIZES[action]]}


MASK_SIZES = {"discrete": 4, "multi-discrete": 9, "binary": 6}


@pytest.mark.parametrize("action", MASKABLE)
def test_what_is_sampled_from_a_files_logits_is_what_the_mask_allows(action: str) -> None:
    agent = made(action=ACTIONS[action], has_masks=True)
    step, space = exported_step(agent), ACTIONS[action]
    masks = masks_of(space, 50, np.random.default_rng(0))
    assert 0.3 < masks.mean() < 0.9
    seen, state = torch.randn(50, 3), torch.zeros(1, 50, 8)
    _, _, logits = step(seen, state, torch.from_numpy(masks))
    features = agent.policy.extract_features(seen).unsqueeze(0)
    latent = agent.policy.actor_mlp(agent.policy.memory(features, state)[0][0])
    theirs: Any = masked(agent.policy._distribution(latent), torch.from_numpy(masks))
    if isinstance(space, spaces.MultiBinary):
        torch.testing.assert_close(logits.sigmoid(), theirs.distribution.probs)
    else:
        parts = [one.probs for one in theirs.distribution] if action == "multi-discrete" else [theirs.log_probs.exp()]
        softmax = [part.softmax(-1) for part in logits.split([part.shape[1] for part in parts], -1)]
        torch.testing.assert_close(torch.cat(softmax, -1), torch.cat(parts, -1))
        assert bool((torch.cat(softmax, -1)[~torch.from_numpy(masks)] == 0).all())


@pytest.mark.parametrize("action", MASKABLE)
def test_a_file_that_ignores_its_masks_is_found_out(action: str) -> None:
    agent = made(action=ACTIONS[action], has_masks=True)
    step = exported_step(agent)
    run = eager(step)
    with pytest.raises(UserError, match="the exported file was not written: it differs from predict"):
        compare(agent, step, lambda observation, state, mask: run(observation, state))


@pytest.mark.parametrize("how", [Method, Info])
def test_a_run_records_that_its_environment_has_masks(how: Any, tmp_path: Path) -> None:
    gymnasium.register("Masked-v0", entry_point=how, max_episode_steps=20)
    try:
        config = Experiment("masked", EnvConfig("Masked-v0", num_envs=2), total_steps=64)
        run = train(replace(config, evaluation=replace(config.evaluation, episodes=2)), tmp_path, progress_bar=False)
    finally:
        gymnasium.registry.pop("Masked-v0")
    assert export(run, format="pt2").about["inputs"][-1]["name"] == "action_mask"
    recorded = json.loads((run / "spaces.json").read_text())
    del recorded["action_masks"]  # as an earlier version wrote it
    (run / "spaces.json").write_text(json.dumps(recorded))
    assert export(run, format="pt2").about["inputs"][-1]["name"] == "state"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_pages_example_plays_with_masks(kind: str, tmp_path: Path) -> None:
    agent = made(spaces.Box(-1, 1, (4,)), ACTIONS["discrete"], has_masks=True)
    step, rng = exported_step(agent), np.random.default_rng(0)
    with quiet():
        (tmp_path / f"agent.{kind}").write_bytes(FORMATS[kind].pack(program_of(step), describe(agent, step)))
    seen = rng.uniform(-1, 1, (20, 1, 4)).astype(np.float32)
    masks = np.stack([masks_of(ACTIONS["discrete"], 1, rng) for _ in seen])
    np.save(tmp_path / "observations.npy", seen)
    np.save(tmp_path / "masks.npy", masks)
    page = PAGE.read_text()
    [example] = [text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f"agent.{kind}" in text]
    call = {"onnx": r"session\.run", "pt2": "step"}[kind]
    [with_mask] = re.findall(rf"\| `({call}\(.*\))` \|", page)
    example = re.sub(rf"(    .* = ){call}\(.*\)", rf"    action_mask = next(masks)\n\1{with_mask}", example)
    read = {"onnx": "np.load('masks.npy')", "pt2": "torch.from_numpy(np.load('masks.npy'))"}[kind]
    (tmp_path / "play.py").write_text(example.replace("\nstate =", f"\nmasks = iter({read})\nstate ="))
    done = subprocess.run([sys.executable, "play.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    state, expected = None, []
    for observation, mask in zip(seen, masks, strict=True):
        action, state = agent.predict(observation, state, action_masks=mask)
        expected.append(str(action[0]))
    assert done.stdout.split() == expected


def test_an_environment_without_masks_is_recorded_so(trained: Path) -> None:
    assert json.loads((trained / "spaces.json").read_text())["action_masks"] is False


def test_the_critic_is_left_out() -> None:
    names = {name for name, _ in exported_step(made(critic="separate", net_arch=[4])).named_parameters()}
    assert "actor.action_net.weight" in names
    assert not any("critic" in name or "value" in name for name in names)


def test_a_file_that_forgets_or_never_resets_is_found_out() -> None:
    agent = made(cell_kwargs={"learn_initial_state": True})
    step = exported_step(agent)
    run = eager(step)

    def forgets(observation: Any, state: np.ndarray) -> list[np.ndarray]:
        return run(observation, np.repeat(step.initial_state.numpy(), state.shape[1], 1))

    with pytest.raises(
        UserError, match=r"differs from predict by .* at step 1 of 1 copies, which is more than rounding"
    ):
        compare(agent, step, forgets)


def test_rounding_that_a_network_amplifies_is_told_and_is_no_error() -> None:
    agent = made(cell="gru", hidden_size=64)
    with torch.no_grad():
        for cell in agent.policy.memory.layers:
            cell.get_parameter("weight_hh").mul_(10)
    step = exported_step(agent)
    run = eager(step)

    def shaken(observation: Any, state: np.ndarray) -> list[np.ndarray]:
        action, after, *parameters = run(observation, state)
        return [action, after * np.float32(1 + 1e-5), *parameters]

    parted = compare(agent, step, shaken).parted
    assert parted is not None
    assert parted > 1


def test_what_random_observations_are_drawn_from_belongs_to_the_space_and_is_near() -> None:
    rng = np.random.default_rng(0)
    for space in OBSERVATIONS.values():
        one = tree_map(lambda part: part[0], observations(space, 3, rng, {}))
        assert space.contains(one)
    assert np.abs(observations(OBSERVATIONS["wide"], 100, rng, {})).max() < 10


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FORMATS)
def written(
    request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Return the file that the command wrote of the trained run, agent.json beside it, and what it printed."""
    file = tmp_path_factory.mktemp("written") / f"agent.{request.param}"
    arguments = ["--format", request.param, "--out", str(file), "--json", str(file.with_suffix(".json"))]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["export", str(trained), *arguments]) == 0
    return file, out.getvalue()


def test_the_command_says_what_it_wrote(written: tuple[Path, str]) -> None:
    file, out = written
    printed = out.splitlines()
    assert printed[0].startswith(f"{file}: nbrc, trained for 400 steps, ")
    assert printed[1:8] == [
        "inputs:",
        "  observation    float32 (n, 4)",
        "  state          float32 (1, n, 8)",
        "outputs:",
        "  action         int64 (n,)",
        "  next_state     float32 (1, n, 8)",
        "  logits         float32 (n, 2)",
    ]
    assert re.fullmatch(r"largest difference from predict over 200 steps with resets: \de-\d\d", printed[8])
    assert len(printed) == 9
    about = json.loads(file.with_suffix(".json").read_text())
    assert about["cell"] == "nbrc"
    assert about["env"] == "bistable_rl/CopyFirst-v0"
    assert np.array(about["initial_state"]).shape == (1, 1, 8)


def test_the_pages_example_plays_where_this_package_is_missing(
    written: tuple[Path, str], trained: Path, tmp_path: Path
) -> None:
    file, _ = written
    shutil.copy(file, tmp_path)
    seen = np.random.default_rng(0).uniform(0, 1, (50, 1, 4)).astype(np.float32)
    np.save(tmp_path / "observations.npy", seen)
    [example] = [text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if file.name in text]
    gone = ["bistable_rl", "stable_baselines3", "gymnasium", *(["torch"] if file.suffix == ".onnx" else [])]
    missing = "".join(f"sys.modules[{name!r}] = None\n" for name in gone)
    (tmp_path / "play.py").write_text(f"import sys\n{missing}{example}")
    done = subprocess.run([sys.executable, "play.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    agent, state, expected = bistable_rl.load(trained), None, []
    for observation in seen:
        action, state = agent.predict(observation, state)
        expected.append(str(action[0]))
    assert done.stdout.split() == expected
    assert set(expected) == {"0", "1"}


def test_a_file_tells_no_paths_of_this_machine_and_opens_without_pickles(written: tuple[Path, str]) -> None:
    file, _ = written
    data = file.read_bytes()
    for path in (bistable_rl.__file__, *torch.__path__):
        assert str(Path(path).parent).encode() not in data
    assert b".py" not in data
    if file.suffix == ".pt2":
        with zipfile.ZipFile(file) as archive:
            configs = [archive.read(name).decode() for name in archive.namelist() if name.endswith("_config.json")]
            assert len(configs) == 2  # weights and constants
            assert set(re.findall(r'"use_pickle": (\w+)', "".join(configs))) == {"false"}
            [sample] = [name for name in archive.namelist() if "sample_inputs" in name]
            assert torch.load(io.BytesIO(archive.read(sample)), weights_only=True)[0][0].shape == (3, 4)


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_help_lists_the_formats_that_there_are() -> None:
    assert tuple(FORMATS) == commands.FORMATS


def test_what_is_wrong_is_one_sentence(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(trained, unfinished)
    shutil.rmtree(unfinished / "checkpoints")
    assert "there is no folder nowhere" in fails(["nowhere"], capsys)
    assert "is not a run folder" in fails([str(tmp_path)], capsys)
    assert "holds no checkpoint yet" in fails([str(unfinished)], capsys)
    assert "invalid choice: 'tflite'" in fails([str(trained), "--format", "tflite"], capsys)
    (unfinished / "agent.pt2").symlink_to(tmp_path / "elsewhere")
    shutil.copytree(trained / "checkpoints", unfinished / "checkpoints")
    assert "is a link; remove it" in fails([str(unfinished), "--format", "pt2"], capsys)
    assert "must end in .pt2, not a.onnx" in fails([str(trained), "--format", "pt2", "--out", "a.onnx"], capsys)
    assert "there is no folder /nowhere" in fails([str(trained), "--out", "/nowhere/a.onnx"], capsys)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    expected = "--format onnx needs onnxruntime: install it with pip install 'bistable-rl[export]'."
    assert expected in fails([str(trained)], capsys)
    with pytest.raises(UserError, match="export: unknown format 'tflite'; the choices are onnx, pt2"):
        export(trained, format="tflite")
    with pytest.raises(UserError, match=r"export: the name of the file must end in \.pt2, not a\.onnx\."):
        export(trained, tmp_path / "a.onnx", format="pt2")


def test_a_file_that_differs_is_not_written(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = eager(exported_step(bistable_rl.load(trained)))

    def other(observation: Any, state: np.ndarray) -> list[np.ndarray]:
        return run(observation, state + np.float32(0.1))

    monkeypatch.setitem(FORMATS, "pt2", Format(lambda program, about: b"file", lambda data: other, ()))
    with pytest.raises(UserError, match="differs from predict"):
        export(trained, tmp_path / "agent.pt2", format="pt2")
    assert not list(tmp_path.iterdir())


class Halved(nn.Module):
    """An activation that calls an operator of its own."""

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = torch.ops.test_export.halve(x)
        return halved


@torch.library.custom_op("test_export::halve", mutates_args=())
def halve(x: Tensor) -> Tensor:
    """Return half of it."""
    return x / 2


halve.register_fake(torch.empty_like)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (
            {"features_extractor_class": Net},
            r"run cannot be exported: its mixed layers, its activation or its Net is not made of torch's operations "
            r"alone, or branches on values \(GuardOnDataDependentSymNode: Could not guard on .*\)\.$",
        ),
        (
            {"activation_fn": Halved, "net_arch": [4]},
            r"it calls the operator test_export\.halve\.default, which runs only where its package is",
        ),
    ],
)
def test_what_torch_cannot_follow_is_one_sentence(
    policy: dict[str, Any],
    sentence: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    monkeypatch.setattr("bistable_rl.agents.export.load", lambda run, best: made(**policy))
    with pytest.raises(UserError, match=sentence):
        export(run, format="pt2")
    assert capsys.readouterr() == ("", "")
    assert not (run / "agent.pt2").exists()
