"""A cell of the user's own, `package:Name`: in layers, configs, comparisons, saved agents and analyses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL
from own_cell import Lacks, MGUCell, Misnamed, Narrow, NoCell, NoGates, NoStep

import bistable_rl
from bistable_rl import RNN, gate_trace, time_constants
from bistable_rl.agents import RecurrentPPO
from bistable_rl.benchmarks.runner import start
from bistable_rl.cells import Cell, cell_options, get_cell
from bistable_rl.cli import main
from bistable_rl.errors import UserError
from bistable_rl.runs import user_modules
from bistable_rl.runs.schema import Benchmark, Experiment, NetworkConfig, TaskConfig, TrainingConfig, load_config

NAME = "own_cell:MGUCell"
CONFIG: dict[str, Any] = {
    **SMALL,
    "name": "own",
    "policy": {"cell": "my_cell:MGUCell", "hidden_size": 8, "cell_kwargs": {"s": 2.0, "c_bias": "chrono", "t_max": 9}},
    "total_steps": 160,
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a config beside the module that it names."""
    (tmp_path / "my_cell.py").write_text("from own_cell import MGUCell\n")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.delitem(sys.modules, "my_cell", raising=False)
    monkeypatch.setattr(user_modules, "_folders", [tmp_path])
    return tmp_path / "own.yaml"


# --- layers ------------------------------------------------------------------------------------------------


def test_layers_take_the_name_and_the_class() -> None:
    x = torch.randn(5, 2, 3)
    outputs = []
    for cell in (NAME, MGUCell):
        torch.manual_seed(0)
        rnn = RNN(cell, 3, 4, 2, cell_kwargs={"s": 2.0})
        assert type(rnn.layers[0]) is MGUCell
        assert rnn.cell == NAME
        assert f"{NAME}, 3, 4, num_layers=2" in repr(rnn)
        outputs.append(rnn(x)[0])
    assert torch.equal(*outputs)
    assert get_cell(NAME) is MGUCell
    assert cell_options(NAME)["s"] == 1.0
    with pytest.raises(ValueError, match=f"cell '{NAME}': unknown option 'c_bia'; did you mean 'c_bias'"):
        RNN(NAME, 3, 4, cell_kwargs={"c_bia": 1})


def test_a_gate_that_is_1_where_the_state_is_overwritten_is_returned_as_what_it_keeps() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 4, 3)
    short, long = (RNN(MGUCell, 3, 4, cell_kwargs={"c_bias": bias}) for bias in (-2.0, 4.0))
    assert gate_trace(short, x).c.mean() < 0.3 < 0.9 < gate_trace(long, x).c.mean()
    assert np.median(time_constants(short, x)) < 5 < 20 < np.median(time_constants(long, x))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("own_cell:MGUCel", "cell own_cell:MGUCel: there is no MGUCel in own_cell"),
        ("no_such_module:MGUCell", "cell no_such_module:MGUCell needs the package 'no_such_module', which is neither"),
        ("own_cell:NoCell", "cell must be a subclass of bistable_rl.cells.base.Cell, got <class 'own_cell.NoCell'>"),
        (NoCell, "cell must be a subclass of bistable_rl.cells.base.Cell, got <class 'own_cell.NoCell'>"),
        ("MGUCell", "unknown cell 'MGUCell'; .*he choices are brc"),
    ],
)
def test_what_is_no_cell_is_one_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        RNN(given, 3, 4)
    assert "\n" not in str(caught.value)


# --- a wrong class -----------------------------------------------------------------------------------------


def test_a_missing_method_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"^Lacks must define reset_parameters, which initialises its param"):
        Lacks(3, 4)
    cell = NoStep(3, 4)
    with pytest.raises(NotImplementedError, match=r"^NoStep must define project, the part of the step that needs"):
        cell.scan(torch.zeros(2, 1, 3))
    with pytest.raises(NotImplementedError, match=r"^NoStep must define step, which computes the next state from"):
        cell.step(torch.zeros(1, 4), torch.zeros(1, 4))


def test_a_step_of_another_shape_is_named() -> None:
    for batch in (torch.zeros(2, 6, 3), torch.zeros(1, 6, 3)):
        with pytest.raises(RuntimeError, match=r"^Narrow.step returned shape \(6, 3\); it must return .* = \(6, 4\)$"):
            Narrow(3, 4).scan(batch)


@pytest.mark.parametrize(("kind", "found"), [(Misnamed, "'keeps'"), (NoGates, "no gate")])
def test_a_slow_gate_that_is_not_among_the_gates_is_named(kind: type[Cell], found: str) -> None:
    name = kind.__name__
    sentence = f"{name}.slow_gate is 'keep', but {name}.gates returns {found}; it must return 'keep' too"
    for look in (gate_trace, time_constants):
        with pytest.raises(ValueError, match=sentence):
            look(RNN(kind, 3, 4), torch.zeros(2, 1, 3))


# --- agents ------------------------------------------------------------------------------------------------


def test_a_config_names_ones_own_cell_and_the_run_is_resumed_loaded_evaluated_and_analysed(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(own), "--out", str(tmp_path / "runs")]) == 0
    assert f"importing my_cell from {tmp_path / 'my_cell.py'}" in capsys.readouterr().err
    folder = tmp_path / "runs" / "own" / "my_cell_MGUCell-seed0"
    assert yaml.safe_load((folder / "config.yaml").read_text())["policy"]["cell"] == "my_cell:MGUCell"
    bistable_rl.resume(folder, total_steps=240)
    assert json.loads((folder / "result.json").read_text())["steps"] == 240
    cell = bistable_rl.load(folder).policy.memory.layers[0]
    assert (type(cell), cell.s) == (MGUCell, 2.0)
    assert main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert main(["analyze", str(folder), "--episodes", "4"]) == 0
    assert "mean keep" in (folder / "analysis" / "aligned.csv").read_text()


def test_an_experiment_in_python_takes_the_class_and_its_run_holds_the_name(own: Path, tmp_path: Path) -> None:
    experiment = load_config(Experiment, own)
    run = bistable_rl.train(replace(experiment, policy=replace(experiment.policy, cell=MGUCell)), out=tmp_path / "runs")
    assert run.folder.name == "own_cell_MGUCell-seed0"
    assert run.experiment().policy.cell == NAME
    assert run.experiment().cell == NAME


def test_an_agent_is_saved_by_the_name_of_its_cell(tmp_path: Path) -> None:
    for cell in (NAME, MGUCell):
        model = RecurrentPPO(
            "RecurrentPolicy",
            "CartPole-v1",
            policy_kwargs={"cell": cell, "hidden_size": 4},
            n_steps=8,
            batch_size=8,
            device="cpu",
        ).learn(8)
        model.save(tmp_path / "model.zip")
        loaded = RecurrentPPO.load(tmp_path / "model.zip", device="cpu")
        assert loaded.policy_kwargs["cell"] == NAME
        assert type(loaded.policy.memory.layers[0]) is MGUCell
        for name, tensor in model.policy.state_dict().items():
            assert torch.equal(tensor, loaded.policy.state_dict()[name]), name


def test_a_comparison_takes_ones_own_cell(own: Path, tmp_path: Path) -> None:
    file = {"name": "cells", "base": str(own), "seeds": [0], "metric": {"name": "mean_reward"}}
    changes = {"policy.cell": ["my_cell:MGUCell", "gru"], "policy.cell_kwargs": [{}]}
    (tmp_path / "cells.yaml").write_text(yaml.safe_dump({**file, "grid": changes}))
    command = ["compare", str(tmp_path / "cells.yaml"), "--workers", "1", "--out", str(tmp_path / "runs")]
    assert main(command) == 0
    report = (tmp_path / "runs" / "cells" / "report.md").read_text()
    assert "my_cell:MGUCell" in report
    assert (tmp_path / "runs" / "cells" / "my_cell_MGUCell" / "seed0" / "result.json").exists()


def test_a_benchmark_takes_ones_own_cell(tmp_path: Path) -> None:
    task = TaskConfig("copy_first", {"length": 5, "train_size": 40, "test_size": 20})
    benchmark = Benchmark("own", task, NetworkConfig(NAME, 4, 1), TrainingConfig(epochs=1), device="cpu")
    assert (start(benchmark, tmp_path) / "result.json").exists()


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("own_cell:Nope", "policy.cell: cell own_cell:Nope: there is no Nope in own_cell."),
        (
            "own_cell:NoCell",
            "policy.cell: cell must be a subclass of bistable_rl.cells.base.Cell, got <class 'own_cell.N",
        ),
        ("own_cell:Lacks", "policy: cell own_cell:Lacks fails: NotImplementedError: Lacks must define reset_parameter"),
        ("own_cell:NoStep", "policy: cell own_cell:NoStep fails: NotImplementedError: NoStep must define project, the"),
        ("own_cell:Narrow", "policy: cell own_cell:Narrow fails: RuntimeError: Narrow.step returned shape (1, 7); it "),
        ("own_cell:Fails", "policy: cell own_cell:Fails fails: RuntimeError: a view of a leaf Variable that requires"),
    ],
)
def test_a_wrong_cell_is_refused_before_anything_is_written(
    cell: str, sentence: str, own: Path, tmp_path: Path
) -> None:
    experiment = load_config(Experiment, own)
    wrong = replace(experiment, policy=replace(experiment.policy, cell=cell, cell_kwargs={}))
    with pytest.raises(UserError) as caught:
        bistable_rl.train(wrong, out=tmp_path / "runs")
    assert str(caught.value).startswith(sentence)
    assert not (tmp_path / "runs").exists()
