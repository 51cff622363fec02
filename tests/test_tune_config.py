"""Files of studies: each mistake is one sentence before anything is written; the shipped ones and the page's work."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL

pytest.importorskip("optuna")

from bistable_rl.agents.check_experiment import ExperimentCheck, metric_columns
from bistable_rl.cli import main
from bistable_rl.errors import UserError
from bistable_rl.figure_style import drawing
from bistable_rl.runs.config import find_config, shipped_configs
from bistable_rl.runs.schema import Experiment
from bistable_rl.tune.tuning import check_plan, read

STUDY = {"name": "small", "base": SMALL, "space": {"policy.cell": ["nbrc", "gru"]}}
PAGE = Path(__file__).parents[1] / "bistable_rl" / "tune" / "README.md"


def written(folder: Path, changes: Mapping[str, Any]) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


def check(experiment: Experiment) -> dict[str, list[str]]:
    return metric_columns(experiment, ExperimentCheck()(experiment))


def space(key: str, values: Any) -> dict[str, Any]:
    return {"space": {key: values}}


CELLS = {"policy.cell": ["nbrc", "gru"]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            space("policy.hiden_size", [8]),
            r", space: unknown key 'policy.hiden_size'; did you mean 'policy.hidden_size'",
        ),
        (space("policy", [8]), r", space: policy is a section; set its keys"),
        (space("policy.hidden_size", {"low": 0, "high": 9}), r", space: policy.hidden_size must be an integer above 0"),
        (
            space("policy.hidden_size", {"low": 1, "high": 9.5}),
            r", space: policy.hidden_size must be an integer above 0",
        ),
        (
            space("policy.hidden_size", {"low": 2, "high": 8, "step": 1.5}),
            r"so its step must be an integer too, not 1.5",
        ),
        (space("algorithm.gamma", {"low": 0.9, "high": 1.1}), r", space: algorithm.gamma must be a number from 0 to 1"),
        (space("algorithm.gamma", {"low": 0.9, "high": "1"}), r": space.algorithm.gamma must be a list of choices, or"),
        (space("algorithm.gamma", {"low": 0.9, "high": 0.9}), r": space.algorithm.gamma must be a list of choices, or"),
        (space("algorithm.gamma", {"low": 0, "high": 1, "log": True}), r"space.algorithm.gamma has log: true, which"),
        (
            space("algorithm.gamma", {"low": 0, "high": 1, "step": 0.3}),
            r"gamma.step must divide the distance from low to high, not 0.3",
        ),
        (space("algorithm.gamma", {"low": 0, "hihg": 1}), r"unknown key 'space.algorithm.gamma.hihg'; did you mean"),
        (space("algorithm.gamma", {"choices": [0.9], "low": 0}), r"has choices and a range; keep one"),
        (space("algorithm.gamma", 0.9), r", space: algorithm.gamma must be a list of choices or a range such as"),
        (space("algorithm.gamma", []), r"algorithm.gamma.choices must be a list of values"),
        (space("algorithm.gamma", [0.9, 0.9]), r", space: algorithm.gamma has the choice 0.9 twice"),
        (space("policy.critic", {"low": 0, "high": 1}), r", space: policy.critic must be one of separate, shared"),
        (space("policy.critic", ["sharde"]), r', space: policy.critic must be one of .* not "sharde"'),
        (space("seed", [1]), r", space: seed cannot be varied"),
        (space("policy.cell", ["nbrc", "grru"]), r", space, with policy.cell \"grru\": .*did you mean 'gru'"),
        (space("policy.cell_kwargs.strat", ["halves"]), r"with policy.cell_kwargs.strat \"halves\": .*strat"),
        (space("env.kwargs.length", {"low": -5, "high": 5}), r", space, with env.kwargs.length -5: "),
        ({"space": {}}, r": space must have at least one key"),
        (
            {"space": {"policy.cell_kwargs.start": {"choices": ["paper"], "when": {"policy.cell": "nbrc"}}, **CELLS}},
            r"start.when must map keys above this one to some of their choices, not policy.cell",
        ),
        (
            {"space": {**CELLS, "policy.cell_kwargs.start": {"choices": ["paper"], "when": {"policy.cell": "brc"}}}},
            r"start.when names policy.cell \"brc\", which is not one of its choices",
        ),
        (
            {"space": {**CELLS, "policy.cell_kwargs.start": {"choices": ["paper"], "when": {"policy.cell": []}}}},
            r"start.when must map keys above this one",
        ),
        (
            space("policy.cell_kwargs.t_max", {"low": 1, "high": float("inf")}),
            r"t_max must be a list of choices, or a range",
        ),
        ({"changes": {"policy.cell": "gru"}}, r": changes.policy.cell is varied by space; leave it out"),
        ({"changes": {"seed": 1}}, r": changes.seed is set by the study's own name and seeds"),
        ({"changes": {"total_stesp": 1}}, r", changes: unknown key 'total_stesp'; did you mean 'total_steps'"),
        ({"changes": {"algorithm.batch_size": 4000}}, r": algorithm.batch_size 4000 is more than the 80 steps"),
        (
            {"objective": {"name": "success_rte"}},
            r": objective.name: unknown metric 'success_rte'; did you mean 'success_r",
        ),
        ({"objective": {"name": "success@500"}}, r": objective.name: unknown metric 'success@500'"),
        ({"objective": {"better": "max"}}, r": objective.better must be one of higher, lower"),
        ({"pruner": {"name": "mediam"}}, r": pruner.name must be one of median, hyperband, none"),
        ({"pruner": {"reduction_factor": 1}}, r"pruner.reduction_factor must be an integer above 1"),
        ({"seeds": [1, 1]}, r": seeds must be a list of different seeds"),
        ({"name": "a/b"}, r": name must be made of letters"),
        ({"trails": 3}, r": unknown key 'trails'; did you mean 'trials'"),
        ({"base": 3}, r": base must be a config's name or path"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_file_and_key(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        check_plan(read(written(tmp_path, changes)), check)
    text = str(error.value)
    assert text.startswith(str(tmp_path / "small.yaml"))
    assert re.search(re.escape("small.yaml") + ".*" + sentence, text), text
    assert "\n" not in text


def test_an_option_that_one_cell_has_is_accepted_where_it_is_varied_with_that_cell(tmp_path: Path) -> None:
    option = {"choices": ["glorot", "orthogonal"], "when": {"policy.cell": "nbrc"}}
    assert check_plan(read(written(tmp_path, {"space": {**CELLS, "policy.cell_kwargs.recurrent_init": option}})), check)
    path = written(tmp_path, {"space": {"policy.cell": ["gru"], "policy.cell_kwargs.recurrent_init": ["glorot"]}})
    with pytest.raises(UserError, match="recurrent_init"):
        check_plan(read(path), check)


def test_choices_that_fit_no_default_but_each_other_are_accepted(tmp_path: Path) -> None:
    both = {"algorithm.batch_size": [40, 300], "algorithm.n_steps": [20, 100]}  # 300 needs 100 steps
    assert check_plan(read(written(tmp_path, {"space": both})), check) == ["eval/mean_reward"]


def test_the_objective_may_be_a_horizon_and_the_worst_stream(tmp_path: Path) -> None:
    kwargs = {"length": 5, "num_symbols": 2, "distractors": "uniform"}
    evaluation = {"horizons": [9], "streams": ["uniform", "constant"]}
    base = {**SMALL, "env": {**SMALL["env"], "kwargs": kwargs}, "evaluation": evaluation}  # type: ignore[dict-item]
    for name, columns in (
        ("success@9/constant", ["horizon_9_constant/success"]),
        ("return@9/worst", ["horizon_9_uniform/return", "horizon_9_constant/return"]),
    ):
        assert check_plan(read(written(tmp_path, {"base": base, "objective": {"name": name}})), check) == columns


@pytest.mark.parametrize("name", [name for name in shipped_configs() if name.startswith("tune/")])
def test_a_shipped_study_is_valid_and_says_what_it_is(name: str) -> None:
    plan = read(find_config(name))
    assert check_plan(plan, check)
    assert f"tune/{plan.tuning.name}" == name
    assert find_config(name).read_text().startswith("# "), "the first line tells `bistable-rl list configs` what it is"


def test_a_command_refuses_the_files_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for argv, expected in (
        (["train", "tune/copy_first"], "run `bistable-rl tune` on it"),
        (["compare", "tune/copy_first"], "run `bistable-rl tune` on it"),
        (["tune", "rl/t_maze"], "run `bistable-rl train` on it"),
        (["tune", "compare/copy_first_100"], "run `bistable-rl compare` on it"),
        (["tune", "tune/copy_first", "--address", "x"], "tune: --address is for a Ray cluster; add --launcher ray."),
        (["tune", "tune/copy_first", "--storage", "study.db"], "--storage: this is not the URL of a database"),
        (["tune", "tune/copy_first", "--trials", "0"], "'0' is not an integer above 0"),
    ):
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert expected in err
        assert (out, err.count("\n")) == ("", 1)
        assert not list(tmp_path.iterdir())


def test_figures_are_written_in_further_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draws(*_: object, **__: object) -> None:
        with drawing(tmp_path / "history.png"):
            pass

    monkeypatch.setattr("bistable_rl.tune.command.tune", draws)
    assert main(["tune", "tune/copy_first", "--format", "svg,pdf", "--dpi", "50"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"history.png", "history.svg", "history.pdf"}


def test_without_optuna_the_install_line_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "tune/copy_first"]) == 2
    said = "bistable-rl: tune needs Optuna: install it with pip install 'bistable-rl[tune]'.\n"
    assert capsys.readouterr().err == said


# --- real trainings --------------------------------------------------------------------------------------------


def numbers(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [
            {k: v for k, v in row.items() if not k.startswith("time/t") and k != "time/fps"}
            for row in csv.DictReader(file)
        ]


def test_the_page_s_example_finds_a_config_that_train_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "short_copy.yaml").write_text(example)
    assert main(["tune", "short_copy.yaml", "--trials", "2"]) == 0
    folder = Path("runs/tune/short_copy")
    said = capsys.readouterr().out
    best = re.search(r"trial (\d+), success@100 (\S+): .*\n.*\ntrain:  bistable-rl (.*)", said)
    assert best is not None, said
    assert best[3] == f"train {folder}/best.yaml"
    trial = folder / f"trial_{int(best[1]):03d}" / "seed0"
    assert main(best[3].split()) == 0
    [run] = Path("runs/short_copy").iterdir()
    assert numbers(run) == numbers(trial)
    found = [json.loads((one / "result.json").read_text()) for one in (run, trial)]
    assert found[0]["horizons"] == found[1]["horizons"]
    assert found[1]["horizons"][0]["success"] == pytest.approx(float(best[2]), abs=1e-6)


@pytest.mark.slow
def test_a_study_of_real_trainings_killed_three_times_is_one_left_alone(tmp_path: Path) -> None:
    base = {**SMALL, "total_steps": 4000, "evaluation": {"every": 400, "episodes": 5, "horizons": [10]}}
    values = {**CELLS, "algorithm.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    path = written(tmp_path, {"base": base, "space": values, "trials": 4, "pruner": {"startup_trials": 1}})
    command = [sys.executable, "-m", "bistable_rl.cli", "tune", str(path), "--workers", "1", "--out"]
    folders = {name: tmp_path / name / "tune" / "small" for name in ("killed", "alone")}
    for kill in range(3):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while sum(f.read_bytes().count(b"\n") for f in folders["killed"].rglob("metrics.csv")) < 8 + 25 * kill:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    for name in folders:
        subprocess.run([*command, str(tmp_path / name)], check=True)
    texts = {
        name: re.sub(r"(?m)^(\d+,\w+,[^,]*),[^,]*", r"\1", (folder / "trials.csv").read_text())
        for name, folder in folders.items()
    }
    assert texts["killed"] == texts["alone"]
    assert (folders["killed"] / "best.yaml").read_text() == (folders["alone"] / "best.yaml").read_text()
    for run in sorted(folders["alone"].glob("trial_*/seed0")):
        mine = folders["killed"] / run.relative_to(folders["alone"])
        if json.loads((run / "result.json").read_text())["status"] == "finished":
            assert numbers(mine) == numbers(run)
