"""What cannot be trained, or compared, is refused before the first run, and nothing is written."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import SMALL
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.check_experiment import ExperimentCheck
from bistable_rl.cli import main
from bistable_rl.runs.schema import EnvConfig, Experiment, PolicyConfig

SUPERVISED = {
    "task": {"name": "copy_first", "kwargs": {"length": 5, "train_size": 200, "test_size": 100}},
    "network": {"hidden_size": 8, "num_layers": 1},
}
LOSS = {"name": "train_loss"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"grid": {"policy.cell": ["gru", "gruu"]}},
            "c.yaml, gruu: policy.cell: unknown cell 'gruu'; did you mean 'gru'",
        ),
        (
            {"grid": {"policy.cell_kwargs": [{}, {"c_bis": 1}]}},
            "policy.cell_kwargs: cell 'nbrc': unknown option 'c_bis'; did you mean 'c_bias'",
        ),
        ({"grid": {"env.id": ["bistable_rl/CopyFist-v0"]}}, "nbrc: env.id: unknown environment id 'bistable_rl/C"),
        (
            {"grid": {"env.kwargs.lenght": [5, 6]}},
            "c.yaml, lenght 5: env.kwargs: unknown argument of bistable_rl/CopyFirst-v0",
        ),
        ({"grid": {"env.wrappers": [[], [{"name": "minigird"}]]}}, r"env.wrappers\[0\]: unknown wrapper 'minigird'"),
        (
            {"grid": {"env.id": ["CartPole-v1"], "env.kwargs": [{}], "env.horizon_kwarg": ["stepz"]}},
            "env.horizon_kwarg: unknown argument of CartPole-v1 'stepz'",
        ),
        ({"grid": {"device": ["cuda:7"]}}, "c.yaml, nbrc: device: cuda:7 is not available"),
        (
            {"grid": {"env.id": ["CartPole-v1"], "env.kwargs": [{}], "evaluation.horizons": [[5]]}},
            "for our environments only, not for CartPole-v1",
        ),
        (
            {"metric": {"name": "sucess_rate"}},
            "c.yaml: metric.name: .*unknown metric 'sucess_rate'; did you mean 'succ",
        ),
        (
            {"base": {**SMALL, "env": {"id": "Pendulum-v1"}}},
            "metric.name: .* 'success_rate'; the choices are mean_ep_len",
        ),
        ({"base": SUPERVISED, "metric": {"name": "mse"}}, "metric.name: .* 'mse'; the choices are train_loss"),
        ({"base": SUPERVISED, "metric": LOSS, "grid": {"task.name": ["copy_fist"]}}, "did you mean 'copy_first'"),
        (
            {"base": SUPERVISED, "metric": LOSS, "grid": {"task.kwargs.lengthh": [5]}},
            "did you mean 'task.kwargs.length'",
        ),
        ({"base": SUPERVISED, "metric": LOSS, "grid": {"network.cell": ["xgru"]}}, "network: unknown cell 'xgru'"),
        (
            {"base": SUPERVISED, "metric": LOSS, "grid": {"training.validation_size": [300]}},
            "must be less than the 200",
        ),
    ],
)
def test_a_comparison_that_cannot_be_carried_out_writes_nothing(
    changes: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"name": "c", "base": SMALL, "seeds": [0, 1], **changes}))
    if "device" in changes.get("grid", {}) and torch.cuda.device_count() > 7:
        pytest.skip("the device is there")
    for arguments in ([], ["--dry-run"]):
        assert main(["compare", str(path), "--out", str(tmp_path / "runs"), *arguments]) == 2
        [said] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bistable-rl: ")]
        assert re.search(sentence, said)
        assert not (tmp_path / "runs").exists()


def test_a_cell_misspelt_after_its_runs_is_named_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    path = tmp_path / "c.yaml"
    command = ["compare", str(path), "--workers", "1", "--out", str(tmp_path / "runs")]
    metric = {"name": "mean_reward"}
    file: dict[str, Any] = {"name": "c", "base": str(config), "seeds": [0], "metric": metric}
    for cell, code, sentence in (
        ("gru", 0, ""),
        ("gruu", 2, "c.yaml, one: policy.cell: unknown cell 'gruu'; did you mean 'gru'"),
        ("brc", 2, "one/seed0 holds a run of another experiment (policy.cell is 'gru' there and 'brc' here)"),
    ):
        path.write_text(yaml.safe_dump({**file, "variants": {"one": {"policy.cell": cell}}}))
        assert main(command) == code
        assert sentence in capsys.readouterr().err


def test_an_environment_that_variants_share_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from bistable_rl.agents import check_experiment

    built: list[EnvConfig] = []
    make = check_experiment.make_vec_env

    def count(env: EnvConfig, num_envs: int, seed: int) -> VecEnv:
        built.append(env)
        return make(env, num_envs, seed)

    monkeypatch.setattr(check_experiment, "make_vec_env", count)
    check = ExperimentCheck()
    env = EnvConfig("bistable_rl/CopyFirst-v0", {"length": 5})
    for cell in ("gru", "nbrc", "lstm"):
        assert check(Experiment("x", env, PolicyConfig(cell))) == {"mean_reward", "mean_ep_length", "success_rate"}
    assert len(built) == 1


def test_an_answer_that_is_a_number_reports_its_squared_error() -> None:
    env = EnvConfig("bistable_rl/CopyFirstContinuous-v0", {"length": 3})
    assert "mse" in ExperimentCheck()(Experiment("x", env))
