"""A benchmark trains into a run folder, and a stop at any instant leaves no trace in it."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from new_run import new_run

from bistable_rl.benchmarks.batches import Batches
from bistable_rl.benchmarks.runner import load_network, resume, start
from bistable_rl.benchmarks.tasks.task import task_metrics
from bistable_rl.benchmarks.trainer import Trainer, learning_rate
from bistable_rl.cli import main
from bistable_rl.compare.jobs import config_hash
from bistable_rl.errors import UserError
from bistable_rl.runs.config import find_config, to_yaml
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import (
    Benchmark,
    BenchmarkCheckpointConfig,
    NetworkConfig,
    TaskConfig,
    TrainingConfig,
    WarmupConfig,
    load_config,
)


def small(**changes: Any) -> Benchmark:
    """Return a benchmark that trains in a second: 21 updates an epoch, the last of them on 5 samples."""
    training = {"learning_rate": 5e-3, "batch_size": 10, "epochs": 3, "max_grad_norm": 1.0, "warmup_steps": 4}
    kwargs = {"length": 8, "train_size": 205, "test_size": 50, **changes.pop("kwargs", {})}
    return Benchmark(
        name="small",
        task=TaskConfig(changes.pop("task", "copy_first"), kwargs),
        network=NetworkConfig(cell=changes.pop("cell", "nbrc"), hidden_size=8),
        training=TrainingConfig(**(training | changes.pop("training", {}))),
        checkpoint=BenchmarkCheckpointConfig(every=7, keep=2),
        device="cpu",
        **changes,
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(Run(run).checkpoints.latest() / "weights.safetensors")


def metrics(run: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv, the seconds aside."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "time/seconds"} for row in csv.DictReader(file)]


def result(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "result.json").read_text())
    return read


def same(run: Path, other: Path) -> None:
    """Check that two runs ended with the same weights, metrics and evaluation."""
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert metrics(run) == metrics(other)
    assert result(run)["evaluation"] == result(other)["evaluation"]


def test_a_run_folder_is_complete(tmp_path: Path) -> None:
    run = start(small(training={"validation_size": 20}), tmp_path)
    assert run == tmp_path / "small" / "nbrc-seed0"
    names = {path.name.partition(".tfevents")[0] for path in run.iterdir()}
    assert names == {"config.yaml", "environment.json", "metrics.csv", "checkpoints", "result.json", "events.out"}
    found = result(run)
    assert (found["status"], found["steps"], found["epochs"]) == ("finished", 57, 3)
    assert found["peak_memory_mb"] > 1
    assert found["evaluation"].keys() == {"mse"}
    rows = metrics(run)
    assert [row["time/updates"] for row in rows] == ["19", "38", "50", "57"]  # epochs, and every fiftieth update
    assert [float(row["eval/mse"] or 0) > 0 for row in rows] == [True, True, False, True]
    assert json.loads((run / "environment.json").read_text())["backend"]


@pytest.mark.parametrize("cell", ["nbrc", "brc", "gru", "lstm", "goru", "lmu", "half_pbrc"])
def test_every_kind_of_cell_learns(cell: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "kwargs": {"length": 2, "train_size": 1000},
        "training": {"epochs": 5, "learning_rate": 0.02},
    }
    run = start(small(cell=cell, **changes), tmp_path)
    assert result(run)["evaluation"]["mse"] < 0.3  # guessing gives 1


class KilledError(BaseException):
    """Stands for a kill: nothing in the training may catch it."""


@pytest.mark.parametrize("data", ["fixed", "fresh"])
def test_a_run_that_was_killed_again_and_again_ends_as_one_that_was_not(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"validation_size": 20} if data == "fixed" else {}
    config = small(data=data, training={"schedule": "cosine", **extra})
    whole = start(config, tmp_path / "whole")
    run = new_run(config, tmp_path / "killed")
    update, left = Trainer._update, iter([3, 5, 7, 8, 11, 14, 9])

    def dying(trainer: Trainer) -> None:
        if trainer.state.updates >= trainer.dies_at:  # type: ignore[attr-defined]
            raise KilledError
        update(trainer)

    monkeypatch.setattr(Trainer, "_update", dying)
    kills = 0
    while not (run / "result.json").exists():
        saved = Run(run).checkpoints.all()
        first = int(saved[-1].name) if saved else 0
        monkeypatch.setattr(Trainer, "dies_at", first + next(left, 100), raising=False)
        try:
            resume(run)
        except KilledError:
            kills += 1
    assert kills == 7
    same(run, whole)


def test_a_stop_by_ctrl_c_saves_and_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small()
    whole = start(config, tmp_path / "whole")
    (tmp_path / "small.yaml").write_text(to_yaml(config))
    update = Trainer._update

    def interrupted(trainer: Trainer) -> None:
        update(trainer)
        if trainer.state.updates == 10:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "_update", interrupted)
    assert main(["benchmark", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "runs")]) == 130
    run = tmp_path / "runs" / "small" / "nbrc-seed0"
    assert result(run)["status"] == "interrupted"
    assert Run(run).checkpoints.latest().name.endswith("10")
    assert main(["benchmark", "--resume", str(run)]) == 0
    same(run, whole)
    assert "finished: 63 updates" in capsys.readouterr().out


def test_a_finished_run_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(small(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert main(["benchmark", "--resume", str(run)]) == 0
    assert "finished: 63 updates" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_folder_that_holds_only_a_config_starts_at_the_beginning(tmp_path: Path) -> None:
    run = new_run(small(), tmp_path / "a")
    resume(run)
    same(run, start(small(), tmp_path / "b"))


def test_the_seed_decides_the_numbers(tmp_path: Path) -> None:
    first, second, other = (start(small(seed=seed), tmp_path / str(i)) for i, seed in enumerate([0, 0, 1]))
    same(first, second)
    assert result(other)["evaluation"] != result(first)["evaluation"]


def test_a_nan_stops_the_training_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update = Trainer._update

    def poisoned(trainer: Trainer) -> None:
        if trainer.state.updates == 15:
            trainer.network.head.weight.data[0, 0] = float("nan")
        update(trainer)

    monkeypatch.setattr(Trainer, "_update", poisoned)
    (tmp_path / "small.yaml").write_text(to_yaml(small()))
    assert main(["benchmark", str(tmp_path / "small.yaml"), "--out", str(tmp_path)]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "the loss became NaN or infinite in update 16" in message
    assert "The last good checkpoint is checkpoints/000000000014" in message
    assert result(tmp_path / "small" / "nbrc-seed0")["status"] == "failed"


def test_patience_ends_a_training_that_no_longer_gets_better(tmp_path: Path) -> None:
    training = {"learning_rate": 1e-12, "epochs": 50, "validation_size": 55, "patience": 2}
    run = start(small(kwargs={"train_size": 155}, training=training), tmp_path)
    losses = [float(row["eval/mse"]) for row in metrics(run)]
    assert 3 <= len(losses) < 50
    assert min(losses[:-2]) <= min(losses[-2:])


def test_a_target_loss_ends_a_training_at_the_first_update_below_it(tmp_path: Path) -> None:
    run = start(small(training={"target_loss": 100.0}), tmp_path)
    assert result(run)["steps"] == 1
    assert result(run)["status"] == "finished"


def test_the_step_size_warms_up_and_then_follows_its_schedule() -> None:
    def rates(schedule: str) -> list[float]:
        training = TrainingConfig(learning_rate=1.0, warmup_steps=4, schedule=schedule)  # type: ignore[arg-type]
        return [learning_rate(training, update, 14) for update in range(14)]

    assert rates("constant") == [0.25, 0.5, 0.75] + [1.0] * 11
    assert rates("linear")[3:] == pytest.approx([1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    cosine = rates("cosine")
    assert cosine[4] == 1.0
    assert cosine[9] == pytest.approx(0.5)
    assert cosine[4:] == sorted(cosine[4:], reverse=True)


def test_adam_s_epsilon_is_torch_s_unless_it_is_given(tmp_path: Path) -> None:
    as_before, given, larger = (small(training={"adam_epsilon": epsilon}) for epsilon in (None, 1e-8, 1e-2))
    assert config_hash(as_before) == config_hash(small())
    assert len({config_hash(config) for config in (as_before, given, larger)}) == 3
    runs = [start(config, tmp_path / str(i)) for i, config in enumerate((as_before, given, larger))]
    same(runs[0], runs[1])
    assert metrics(runs[0])[0]["train/loss"] != metrics(runs[2])[0]["train/loss"]
    with pytest.raises(UserError, match=r"training.adam_epsilon"):
        load_config(Benchmark, find_config("supervised/copy_first"), ["--training.adam_epsilon", "-1e-7"])


def test_mixed_precision_computes_coarser_numbers_that_learn_too(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"kwargs": {"length": 2, "train_size": 1000}}
    exact = start(small(training={"epochs": 5}, **changes), tmp_path / "a")
    mixed = start(small(training={"epochs": 5, "mixed_precision": True}, **changes), tmp_path / "b")
    assert result(mixed)["evaluation"]["mse"] != result(exact)["evaluation"]["mse"]
    assert result(mixed)["evaluation"]["mse"] < 0.5
    assert weights(mixed)["head.weight"].dtype == torch.float32


def test_a_network_reopened_from_its_folder_answers_as_it_did(tmp_path: Path) -> None:
    run = start(small(), tmp_path)
    network, task = load_network(run)
    assert all(torch.equal(value, weights(run)[name]) for name, value in network.state_dict().items())
    assert network(torch.zeros(8, 3, task.input_size)).shape == (1, 3, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cell", ["nbrc", "brc", "gru", "lstm", "goru", "lmu", "half_pbrc"])
@pytest.mark.parametrize("task", ["copy_first", "variable_line_mnist"])
def test_a_network_trained_on_the_cpu_answers_the_same_on_a_gpu(task: str, cell: str, tmp_path: Path) -> None:
    config = small(cell=cell)
    if task == "variable_line_mnist":
        config.task = TaskConfig(task, {"dataset": "digits", "max_black_lines": 5, "train_size": 205})
    run = start(config, tmp_path)
    ours, made = load_network(run)
    theirs, _ = load_network(run, "cuda")
    samples, index = Batches(config, made, torch.device("cpu")).test_set()
    x, target = samples.batch(index)
    with torch.no_grad():
        expected, answers = ours(x), theirs(x.cuda()).cpu()
    torch.testing.assert_close(answers, expected, rtol=1e-3, atol=1e-4)
    for name, value in task_metrics(answers, target, classification=made.classification).items():
        assert value == pytest.approx(result(run)["evaluation"][name], rel=1e-3, abs=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cell", ["nbrc", "brc", "gru", "lstm"])
def test_the_seed_decides_the_numbers_on_a_gpu_too(cell: str, tmp_path: Path) -> None:
    first = start(replace(small(cell=cell), device="cuda"), tmp_path / "a")
    same(first, start(replace(small(cell=cell), device="cuda"), tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "copy_last"}, "task.name: unknown task 'copy_last'; did you mean 'copy_first'?"),
        ({"kwargs": {"length": 0}}, "task.kwargs.length must be an integer above 0, not 0"),
        ({"kwargs": {"lenght": 5}}, "unknown key 'task.kwargs.lenght'; did you mean 'task.kwargs.length'?"),
        ({"task": "denoising", "kwargs": {"forgetting": 4}}, "task.kwargs.forgetting must be from 5 to length - 5"),
        ({"cell": "nbrk"}, "network: unknown cell 'nbrk'"),
        ({"training": {"validation_size": 205}}, "training.validation_size must be less than the 205 samples"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        start(small(**changes), tmp_path)
    assert expected in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_test_set_that_cannot_be_made_is_not_found_out_after_the_training(tmp_path: Path) -> None:
    config = small()
    config.task = TaskConfig("line_mnist", {"dataset": "digits", "black_lines": 2, "test_size": 5000})
    with pytest.raises(UserError, match=r"task\.kwargs\.test_size must be at most 360, the size of the set, not 5000"):
        start(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "name a CONFIG to train, or a run"),
        (["x.yaml", "--resume", "run"], "name a CONFIG to train, or a run"),
        (["--resume", "nowhere"], "there is no folder nowhere"),
        (["--resume", "run", "--seed", "1"], "a run resumes with its own config.yaml; --seed cannot change it"),
        (["rl/t_maze"], "is not a config for `bistable-rl benchmark`"),
    ],
)
def test_a_wrong_command_is_one_sentence(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *argv]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1


@pytest.mark.slow
def test_twenty_kills_at_random_instants_leave_no_trace(tmp_path: Path) -> None:
    config = small(kwargs={"train_size": 4000, "length": 40}, training={"epochs": 4, "validation_size": 50})
    whole = start(config, tmp_path / "whole")
    run = new_run(config, tmp_path / "killed")
    command = [sys.executable, "-m", "bistable_rl.cli", "benchmark", "--resume", str(run)]
    chance = random.Random(0)
    for _ in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (run / "environment.json").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 6))
        process.kill()
        process.wait()
    assert subprocess.run(command, check=False).returncode == 0
    same(run, whole)


def test_a_warm_up_is_done_once_and_a_resumed_run_tells_what_it_did(tmp_path: Path) -> None:
    warm = small(cell="gru", warmup=WarmupConfig(3), training={"epochs": 1})
    run = start(warm, tmp_path / "a")
    [done] = result(run)["warmup"]
    assert done["steps"] == 3
    whole = weights(run)
    for kept in (1, 0):  # from the first checkpoint on, then from the beginning
        for folder in Run(run).checkpoints.all()[kept:]:
            shutil.rmtree(folder)
        (run / "result.json").unlink()
        resume(run)
        assert result(run)["warmup"] == [done]
        assert all(torch.equal(whole[name], tensor) for name, tensor in weights(run).items())
    cold = start(small(cell="gru", training={"epochs": 1}), tmp_path / "b")
    assert result(cold)["warmup"] is None
    assert not torch.equal(weights(cold)["rnn.cells.0.weight_ih"], whole["rnn.cells.0.weight_ih"])
