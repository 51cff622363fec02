"""Runs that were stopped go on as if they had not been."""

import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import yaml

from bistable_rl.agents.agent import load
from bistable_rl.agents.training import resume, train
from bistable_rl.cli import main
from bistable_rl.envs.copy_first import CopyFirstVectorEnv
from bistable_rl.errors import UserError
from bistable_rl.runs import checkpoint
from bistable_rl.runs.config import to_yaml
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig, Experiment, NormalizeConfig


def outcome(run: Path) -> dict[str, Any]:
    """All that a run left behind, time and memory aside."""
    found: dict[str, Any] = {}
    for folder in sorted((run / "checkpoints").iterdir()):
        for path in folder.glob("*.safetensors"):
            found[f"{folder.name}/{path.name}"] = path.read_bytes()
    with (run / "metrics.csv").open() as file:
        found["metrics"] = [
            {key: value for key, value in row.items() if not key.startswith("time/") or "total" in key}
            for row in csv.DictReader(file)
        ]
    result = json.loads((run / "result.json").read_text())
    return found | {name: result[name] for name in ("status", "steps", "checkpoint", "evaluation", "horizons")}


def cut_back(run: Path, steps: int) -> None:
    """Leave what a run that was killed in the update after a checkpoint leaves."""
    for folder in Run(run).checkpoints.all():
        if int(folder.name) > steps:
            shutil.rmtree(folder)
    (run / "result.json").unlink()
    with (run / "metrics.csv").open("a") as file:
        file.write("480,1,2,3")
    half = run / "checkpoints" / ".000000000240.1"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")


def change(experiment: Experiment, **sections: dict[str, Any]) -> None:
    for section, values in sections.items():
        for key, value in values.items():
            setattr(getattr(experiment, section), key, value)


VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "refreshed states": {"algorithm": {"refresh_states": True, "bptt_length": 3}},
    "burn-in": {"algorithm": {"burn_in": 2, "bptt_length": 4}, "policy": {"cell": "lstm", "critic": "separate"}},
    "schedules": {"algorithm": {"learning_rate": (1e-2, 0.0), "ent_coef": (0.1, 0.0), "clip_range": (0.2, 0.0)}},
    "PopArt": {"algorithm": {"popart": True}},
    "certified loss": {"algorithm": {"certified_coef": (1.0, 2.0)}},
    "action masks": {"env": {"id": "bistable_rl/TMazeMasked-v0", "kwargs": {"length": 3}}},
    "gSDE": {
        "env": {"id": "bistable_rl/CopyFirstContinuous-v0", "kwargs": {"length": 5}},
        "algorithm": {"use_sde": True, "sde_sample_freq": 3},
        "evaluation": {"horizons": [9]},
    },
    "horizons": {"evaluation": {"horizons": [9]}},
    "warm-up": {"warmup": {"steps": 2}},
    "normalised": {"env": {"normalize": NormalizeConfig(obs=True, reward=True)}, "evaluation": {"horizons": [9]}},
    "Dict observations": {"env": {"id": "bistable_rl/MiniGridMemory-v0", "kwargs": {}, "num_envs": 4}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_goes_on_equals_one_that_was_never_stopped(
    variant: str, experiment: Experiment, tmp_path: Path
) -> None:
    change(experiment, **VARIANTS[variant])
    experiment.checkpoint.keep = 10
    whole = train(experiment, tmp_path)
    stopped = Path(shutil.copytree(whole, tmp_path / "stopped"))
    cut_back(stopped, 160)
    resume(stopped)
    expected, found = outcome(whole), outcome(stopped)
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == expected[name], name
    assert not list((stopped / "checkpoints").glob(".*"))


def test_ctrl_c_loses_the_update_under_way_and_nothing_else(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment.checkpoint.every, experiment.checkpoint.keep = 1000, 10
    whole = train(experiment, tmp_path / "whole")
    advance = CopyFirstVectorEnv._advance
    steps = 0

    def pressed(self: CopyFirstVectorEnv, actions: np.ndarray) -> Any:
        nonlocal steps
        steps += self.num_envs == 4
        if steps == 1 + 50:  # in the third update, whose rollouts are of 20 steps
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, actions)

    with monkeypatch.context() as patch:
        patch.setattr(CopyFirstVectorEnv, "_advance", pressed)
        run = train(experiment, tmp_path / "stopped")
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("interrupted", 160)
    assert load(run).steps == 160
    resume(run)
    expected, found = outcome(whole), outcome(run)
    del found["000000000160/weights.safetensors"], found["000000000160/optimizer.safetensors"]
    del found["000000000160/training.safetensors"]
    assert found == expected


def test_a_finished_run_says_so_and_a_larger_total_extends_it(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment.evaluation.every = 80
    whole = train(experiment, tmp_path / "whole")
    experiment.total_steps = 240
    run = train(experiment, tmp_path / "short")
    before = outcome(run)
    assert main(["train", "--resume", str(run)]) == 0
    assert "has finished already; a larger --total_steps continues it" in capsys.readouterr().out
    assert outcome(run) == before
    assert main(["train", "--resume", str(run), "--total_steps", "400"]) == 0
    assert "finished: 400 steps" in capsys.readouterr().out
    assert outcome(run) == outcome(whole)
    assert Run.open(run).experiment() == Run.open(whole).experiment()


def _only_config(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "config.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _no_checkpoint(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    (run / "result.json").unlink()
    (run / "metrics.csv").write_text("")


def _half_a_header(run: Path) -> None:
    _no_checkpoint(run)
    (run / "metrics.csv").write_text("time/total_ti")


@pytest.mark.parametrize("left", [_only_config, _no_checkpoint, _half_a_header])
def test_a_run_without_a_checkpoint_starts_over_in_its_folder(
    left: Callable[[Path], None], trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "anywhere"))
    left(run)
    assert main(["train", "--resume", str(run)]) == 0
    assert outcome(run) == outcome(trained)
    assert (run / "environment.json").exists()


def test_a_third_partys_environment_goes_on_with_new_episodes(experiment: Experiment, tmp_path: Path) -> None:
    experiment.env = EnvConfig("CartPole-v1", num_envs=2)
    change(experiment, algorithm={"batch_size": 20}, checkpoint={"keep": 20, "every": 40})
    experiment.total_steps = 160
    run = train(experiment, tmp_path)
    first = checkpoint.load_arrays(Run(run).checkpoints.all()[0])
    cut_back(run, 80)
    resume(run)
    assert json.loads((run / "result.json").read_text())["status"] == "finished"
    with (run / "metrics.csv").open() as file:
        assert [int(row["time/total_timesteps"]) for row in csv.DictReader(file)] == [40, 80, 120, 160]
    last = checkpoint.load_arrays(Run(run).checkpoints.latest())
    assert not np.array_equal(first["observation"], last["observation"])


def test_the_best_weights_are_kept_beside_the_last(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bistable_rl.agents import callbacks
    from bistable_rl.agents.evaluation import Evaluation

    returns = iter([0.0, 2.0, 1.0, 2.0, -1.0])

    def fixed(*_: Any, **__: Any) -> Evaluation:
        return Evaluation(np.array([next(returns)]), np.array([5]), None, None)

    monkeypatch.setattr(callbacks, "evaluate", fixed)
    experiment.evaluation.every = 80
    run = train(experiment, tmp_path)
    assert Run(run).checkpoints.best().name == "best-000000000320"
    assert len(list((run / "checkpoints").glob("best-*"))) == 1
    assert load(run, best=True).steps == 320
    assert load(run).steps == 400
    assert json.loads((Run(run).checkpoints.best() / "state.json").read_text())["evaluation"]["return_mean"] == 2.0


def test_the_best_weights_until_the_last_checkpoint_survive_better_ones_that_are_lost(tmp_path: Path) -> None:
    checkpoints = Run(tmp_path).checkpoints

    def bests() -> list[str]:
        return sorted(
            folder.name.removeprefix("best-").lstrip("0") for folder in (tmp_path / "checkpoints").glob("best-*")
        )

    for steps in (20, 50):
        checkpoints.add_best(steps, {"state.json": b""})
    checkpoints.add(60, {"state.json": b""}, keep=1)
    for steps in (70, 80):
        checkpoints.add_best(steps, {"state.json": b""})
        assert bests() == ["50", str(steps)]
    checkpoints.forget_best(60)  # killed, it goes on from there
    assert checkpoints.best().name == "best-000000000050"
    checkpoints.add_best(60, {"state.json": b""})
    assert bests() == ["60"]


def test_evaluate_takes_the_best_weights_when_asked(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = int(Run(trained).checkpoints.best().name.removeprefix("best-"))
    assert main(["evaluate", str(trained), "--best", "--episodes", "2"]) == 0
    assert f"trained for {steps:,} steps" in capsys.readouterr().out


def test_the_time_and_the_memory_of_a_run_add_up_over_its_parts(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(experiment, tmp_path)
    cut_back(run, 320)
    folder = Run(run).checkpoints.latest()
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"seconds": 1000.0}))
    ticks = itertools.count(0, 3)  # a clock that goes on by 3 s whenever it is looked at: this part takes no time
    monkeypatch.setattr("bistable_rl.agents.callbacks.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    resume(run)
    result = json.loads((run / "result.json").read_text())
    assert 1003 <= result["seconds"] < 1100
    assert result["peak_memory_mb"] > 50
    with (run / "metrics.csv").open() as file:
        assert 1000 <= int(list(csv.DictReader(file))[-1]["time/time_elapsed"]) < 1100


def _other_copies(run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("num_envs: 4", "num_envs: 8"))


def _no_arrays(run: Path) -> None:
    (Run(run).checkpoints.latest() / "training.safetensors").unlink()


def _broken_arrays(run: Path) -> None:
    import pickle

    (Run(run).checkpoints.latest() / "training.safetensors").write_bytes(pickle.dumps({"a": 1}))


def _broken_moments(run: Path) -> None:
    file = Run(run).checkpoints.latest() / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _broken_counters(run: Path) -> None:
    (Run(run).checkpoints.latest() / "state.json").write_text('{"steps": 320}')


def _state(run: Path, **changes: Any) -> None:
    file = Run(run).checkpoints.latest() / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _other_steps(run: Path) -> None:
    _state(run, steps=10**30)


def _no_seconds(run: Path) -> None:
    _state(run, seconds="nan")


def _moments(run: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = Run(run).checkpoints.latest() / "optimizer.safetensors"
    tensors = safetensors.torch.load_file(file)
    change(tensors)
    safetensors.torch.save_file(tensors, file)


def _nan_moments(run: Path) -> None:
    _moments(run, lambda tensors: tensors["0.exp_avg"].fill_(float("nan")))


def _lost_moment(run: Path) -> None:
    _moments(run, lambda tensors: tensors.pop("0.exp_avg"))


def _array(run: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    file = Run(run).checkpoints.latest() / "training.safetensors"
    arrays = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file(arrays | {name: change(arrays[name])}, file)


def _nan_memory(run: Path) -> None:
    _array(run, "memory", lambda memory: memory * np.float32("nan"))


def _fewer_starts(run: Path) -> None:
    _array(run, "episode_starts", lambda starts: starts[:1])


def _result_is_a_folder(run: Path) -> None:
    (run / "result.json").unlink(missing_ok=True)
    (run / "result.json").mkdir()


def _negative_generator(run: Path) -> None:
    _array(run, "generator/python", lambda words: -words)


def _endless(run: Path) -> None:
    _state(run, evaluated_at=float("inf"))


def _broken_metrics(run: Path) -> None:
    (run / "metrics.csv").write_text("a,b\n1,2\n")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_other_copies, "does not fit"),
        (_no_arrays, "training.safetensors is missing"),
        (_broken_arrays, "training.safetensors is truncated or broken"),
        (_broken_moments, "optimizer.safetensors is truncated or broken"),
        (_broken_counters, "does not fit"),
        (_other_steps, "state.json is truncated or broken"),
        (_no_seconds, "seconds must be a number of seconds, not nan"),
        (_nan_moments, "0.exp_avg holds NaN"),
        (_lost_moment, "0.exp_avg is missing"),
        (_nan_memory, "the memory holds NaN"),
        (_fewer_starts, "episode_starts must have shape (4,), not (1,)"),
        (_negative_generator, "does not fit"),
        (_endless, "does not fit"),
        (_result_is_a_folder, "result.json cannot be removed"),
        (_broken_metrics, "metrics.csv is broken"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(
    damage: Callable[[Path], None], expected: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    cut_back(run, 320)
    damage(run)
    assert main(["train", "--resume", str(run)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") <= 2  # the run's name may stand before it


@pytest.mark.parametrize("damage", [_other_copies, _broken_arrays, _endless, _broken_metrics])
def test_what_cannot_go_on_leaves_the_folder_as_it_was(
    damage: Callable[[Path], None], trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    cut_back(run, 320)
    (run / "result.json").write_text("{}")
    damage(run)

    def files() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}

    before = files()
    assert main(["train", "--resume", str(run), "--total_steps", "5000"]) == 2
    assert files() == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "name a CONFIG to train, or a run to resume with"),
        (["rl/copy_first", "--resume", "RUN"], "name a CONFIG to train, or a run to resume with"),
        (["--resume", "RUN", "--seed", "1"], "--seed cannot be changed"),
        (["--resume", "RUN", "--total_steps", "0"], "total_steps must be an integer above 0"),
        (["--resume", "RUN", "--out", "there"], "--out is for a new run"),
        (["--resume", "RUN", "--overwrite"], "--overwrite is for a new run"),
        (["--resume", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_a_wrong_way_to_go_on_is_one_sentence(
    options: list[str], expected: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *(str(trained) if option == "RUN" else option for option in options)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_sentence_and_keeps_its_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    cut_back(run, 320)

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        resume(run)
    assert load(run).steps == 320


@pytest.mark.slow
def test_a_run_killed_twenty_times_equals_one_that_was_not(experiment: Experiment, tmp_path: Path) -> None:
    experiment.total_steps, experiment.checkpoint.keep = 40_000, 2
    experiment.evaluation.every, experiment.checkpoint.every = 4000, 400
    whole = train(experiment, tmp_path / "whole")
    run = tmp_path / "killed"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(experiment))
    command = [sys.executable, "-m", "bistable_rl.cli", "train", "--resume", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    instants = random.Random(0)
    kills, done = 0, 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        if kills == 20:
            break
        reached = done
        while reached <= done and process.poll() is None:  # it has loaded, and made a checkpoint of its own
            time.sleep(0.01)
            reached = max([int(folder.name) for folder in Run(run).checkpoints.all()], default=-1)
        time.sleep(instants.uniform(0, 0.3))
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        kills += 1
        now = int(Run(run).checkpoints.latest().name)
        assert now >= reached  # no checkpoint was lost
        done = now
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, (out, err)
    assert outcome(run) == outcome(whole)
    assert yaml.safe_load((run / "config.yaml").read_text()) == yaml.safe_load((whole / "config.yaml").read_text())
