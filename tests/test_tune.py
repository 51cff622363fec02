"""Studies of fake trainings (`fake_run.py`): what is trained, stopped, continued, shared and reported."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import pytest
import yaml
from conftest import SMALL

optuna = pytest.importorskip("optuna")

import tune_fake  # noqa: E402
from tune_fake import study  # noqa: E402

from bistable_rl.errors import RunFailedError, UserError  # noqa: E402
from bistable_rl.runs.config import read_yaml  # noqa: E402
from bistable_rl.tune import storage as storages  # noqa: E402
from bistable_rl.tune.report import importances  # noqa: E402
from bistable_rl.tune.storage import Storage, counted  # noqa: E402

SPACE = {"policy.cell": ["nbrc", "gru", "lstm"], "policy.hidden_size": {"low": 4, "high": 64, "log": True}}
STUDY: dict[str, Any] = {
    "name": "small",
    "base": {**SMALL, "evaluation": {"every": 50, "episodes": 5}},
    "space": SPACE,
    "objective": {"name": "success_rate"},
    "pruner": {"startup_trials": 1},
    "trials": 6,
}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes the small study, with changes, and returns its path."""

    def written(**changes: Any) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return path

    return written


def rows(folder: Path, *without: str) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", *without)} for row in csv.DictReader(file)]


def starts(folder: Path) -> dict[str, int]:
    """Return how often each run of a study was started."""
    files = folder.glob("trial_*/seed*/starts")
    return {str(file.parent.relative_to(folder)): len(file.read_text().split()) for file in sorted(files)}


def in_process(*arguments: str | Path) -> "subprocess.Popen[bytes]":
    """Start a study in a process of its own."""
    return subprocess.Popen([sys.executable, tune_fake.__file__, *map(str, arguments)], stderr=subprocess.DEVNULL)


# --- one process ----------------------------------------------------------------------------------------------


def test_a_study_finds_the_best_cell_and_reports_every_trial(write: Write, tmp_path: Path) -> None:
    folder = study(write(pruner={"name": "none"}, trials=10), tmp_path / "runs")
    found = rows(folder)
    assert [row["trial"] for row in found] == list("0123456789")
    assert {row["status"] for row in found} == {"finished"}
    assert [float(row["success_rate"]) for row in found] == [
        fake_run.success(row["policy.cell"], 0, fake_run.STEPS) for row in found
    ]
    assert len({row["policy.hidden_size"] for row in found}) > 3
    best = read_yaml(folder / "best.yaml")
    assert (best["name"], best["seed"]) == ("small", 0)
    assert fake_run.success(best["policy"]["cell"], 0, fake_run.STEPS) == max(
        float(row["success_rate"]) for row in found
    )
    assert (folder / "best.yaml").read_text().startswith("# Trial ")
    report = (folder / "report.md").read_text()
    assert "10 trials: 10 finished" in report
    assert "Written by `bistable-rl tune small.yaml`" in report
    for name in ("report.html", "history.png", "importance.png"):
        assert (folder / name).stat().st_size > 1000
    assert starts(folder) == {f"trial_00{i}/seed0": 1 for i in range(10)}


def test_a_trial_below_the_median_at_the_same_step_is_stopped_there(write: Write, tmp_path: Path) -> None:
    space = {"policy.cell": ["nbrc", "gru"]}
    sampler = {"name": "random", "seed": 2}
    folder = study(write(space=space, sampler=sampler, pruner={"startup_trials": 1, "warmup": 2}), tmp_path / "runs")
    found = rows(folder)
    assert [row["policy.cell"] for row in found][:2] == ["nbrc", "nbrc"]
    assert "gru" in {row["policy.cell"] for row in found}
    for row in found:
        if row["policy.cell"] == "nbrc":
            assert (row["status"], row["evaluations"]) == ("finished", "8")
        else:  # the first evaluation after the warm-up
            assert (row["status"], row["evaluations"], row["seed0"]) == ("pruned", "3", "")
            assert float(row["success_rate"]) == fake_run.success("gru", 0, 3)


def test_hyperband_stops_trials_too(write: Write, tmp_path: Path) -> None:
    pruner = {"name": "hyperband", "reduction_factor": 2}
    folder = study(write(space={"policy.cell": ["nbrc", "gru", "lstm"]}, pruner=pruner, trials=10), tmp_path / "runs")
    states = [row["status"] for row in rows(folder)]
    assert {"finished", "pruned"} == set(states)


def test_a_trial_s_value_is_the_mean_over_its_seeds(write: Write, tmp_path: Path) -> None:
    folder = study(write(seeds=[3, 1], trials=3, space={"policy.cell": ["nbrc", "gru"]}), tmp_path / "runs")
    for row in rows(folder):
        if row["status"] == "finished":
            values = [fake_run.success(row["policy.cell"], seed, fake_run.STEPS) for seed in (3, 1)]
            assert [float(row["seed3"]), float(row["seed1"])] == values
            assert float(row["success_rate"]) == pytest.approx(sum(values) / 2)
            assert row["evaluations"] == "16"
    assert read_yaml(folder / "best.yaml")["seed"] == 3


def test_lower_may_be_better(write: Write, tmp_path: Path) -> None:
    objective = {"name": "success_rate", "better": "lower"}
    folder = study(write(objective=objective, space={"policy.cell": ["nbrc", "gru"]}), tmp_path / "runs")
    assert read_yaml(folder / "best.yaml")["policy"]["cell"] == "gru"


def test_a_key_is_varied_only_where_its_condition_holds(write: Write, tmp_path: Path) -> None:
    options = {"choices": ["paper", "halves"], "when": {"policy.cell": ["nbrc"]}}
    inner = {"low": 5, "high": 50, "when": {"policy.cell_kwargs.start": "halves"}}
    space = {**SPACE, "policy.cell_kwargs.start": options, "policy.cell_kwargs.t_max": inner}
    folder = study(write(space=space, trials=7, pruner={"name": "none"}, sampler={"seed": 5}), tmp_path / "runs")
    seen = set()
    for row in rows(folder):
        given = read_yaml(folder / f"trial_00{row['trial']}" / "seed0" / "config.yaml")["policy"]["cell_kwargs"]
        seen.add((row["policy.cell"] == "nbrc", given.get("start"), "t_max" in given))
        assert row["policy.cell_kwargs.start"] == given.get("start", "")
    assert {is_nbrc for is_nbrc, _, _ in seen} == {True, False}
    assert seen <= {(True, "halves", True), (True, "paper", False), (False, None, False)}


def test_a_failed_trial_is_named_and_counts_as_worse_than_all_others(write: Write, tmp_path: Path) -> None:
    folder = study(write(space={"policy.cell": ["nbrc", "goru"]}, trials=5), tmp_path / "runs")
    failed = [row for row in rows(folder) if row["policy.cell"] == "goru"]
    assert failed
    assert {(row["status"], row["why"]) for row in failed} == {("failed", "the gradient became NaN.")}
    assert "the gradient became NaN." in (folder / "report.md").read_text()
    assert read_yaml(folder / "best.yaml")["policy"]["cell"] == "nbrc"


def test_values_that_do_not_go_together_fail_their_trial_alone(write: Write, tmp_path: Path) -> None:
    folder = study(write(space={"algorithm.n_steps": [5, 20], "algorithm.batch_size": [20, 80]}), tmp_path / "runs")
    for row in rows(folder):
        fits = int(row["algorithm.batch_size"]) <= 4 * int(row["algorithm.n_steps"])
        assert ("algorithm.batch_size 80 is more than the 20 steps" in row["why"]) != fits
    assert {row["status"] for row in rows(folder)} == {"finished", "failed"}


def test_a_study_without_a_finished_trial_says_why(write: Write, tmp_path: Path) -> None:
    path = write(space={"policy.cell": ["goru"]}, trials=2)
    with pytest.raises(
        RunFailedError, match=r"no trial has finished, of 2 trials: 2 failed; .* the gradient became NaN"
    ):
        study(path, tmp_path / "runs")
    path = write(name="other", objective={"name": "mean_reward"}, trials=1, space={"policy.cell": ["nbrc"]})
    with pytest.raises(RunFailedError, match=r"its evaluations report no mean_reward"):
        study(path, tmp_path / "runs")


def test_more_trials_continue_a_study_and_a_plan_trains_nothing(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    path = write(trials=2)
    study(path, out, dry_run=True)
    assert capsys.readouterr().out.startswith("small  0 finished, 2 to do, about 0:0")
    assert not out.exists()
    folder = study(path, out)
    study(path, out, trials=4, dry_run=True)
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        "small  2 finished, 2 to do, about 0:00:02 each",
        "2 trials to do, at most about 0:00:03 with 1 at once",
    ]
    study(path, out, trials=4)
    assert starts(folder) == {f"trial_00{i}/seed0": 1 for i in range(4)}
    assert "2 of 4 trials are finished already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"space": {"policy.cell": ["nbrc", "gru"]}},
            r"space.policy.cell is \[.*\] here and \[.*\] in the study small",
        ),
        ({"base": {**STUDY["base"], "total_steps": 800}}, "base.total_steps is 800 here and 400 in the study small"),
        ({"seeds": [1]}, r"seeds is \[1\] here and \[0\] in the study"),
        ({"objective": {"name": "success_rate", "better": "lower"}}, 'objective.better is "lower" here and "higher"'),
        ({"sampler": {"seed": 5}}, "sampler.seed is 5 here and 0"),
    ],
)
def test_a_study_goes_on_only_with_the_keys_it_began_with(
    changes: dict[str, Any], sentence: str, write: Write, tmp_path: Path
) -> None:
    study(write(trials=1), tmp_path / "runs")
    with pytest.raises(UserError, match=sentence) as error:
        study(write(**changes), tmp_path / "runs")
    assert str(error.value).startswith(str(tmp_path / "small.yaml"))


def test_the_importance_of_a_key_is_its_share_in_the_variance() -> None:
    trials = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    for number in range(30):
        trial = trials.ask()
        size, cell = trial.suggest_int("size", 4, 64, log=True), trial.suggest_categorical("cell", ["nbrc", "gru"])
        assert (number < 10) == (not importances(trials))
        trials.tell(trial, {"nbrc": 1.0, "gru": 0.5}[cell] + 1e-4 * size)
    shares = importances(trials)
    assert list(shares) == ["cell", "size"]
    assert shares["cell"] > 0.95
    same = optuna.create_study()
    for _ in range(10):
        trial = same.ask()
        trial.suggest_float("x", 0, 1)
        same.tell(trial, 0.5)
    assert importances(same) == {}


# --- killed, and several processes ----------------------------------------------------------------------------


def test_a_study_killed_three_times_is_one_left_alone(write: Write, tmp_path: Path) -> None:
    path = write(trials=5, sampler={"startup_trials": 2, "seed": 7})
    alone = study(path, tmp_path / "alone")
    killed = tmp_path / "killed" / "tune" / "small"
    for kill in range(3):
        process, deadline = in_process(path, tmp_path / "killed"), time.monotonic() + 120
        while measured(killed) < 4 + 9 * kill:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    study(path, tmp_path / "killed")
    assert rows(killed) == rows(alone)
    assert {row["status"] for row in rows(alone)} == {"finished", "pruned"}
    assert (killed / "best.yaml").read_text() == (alone / "best.yaml").read_text()
    intermediate = [
        [(t.number, t.params, t.intermediate_values) for t in loaded(folder).get_trials()] for folder in (killed, alone)
    ]
    assert intermediate[0] == intermediate[1]


def measured(folder: Path) -> int:
    """Return how many rows of metrics all runs have."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("trial_*/seed*/metrics.csv"))


def loaded(folder: Path) -> Any:
    return optuna.load_study(study_name="small", storage=f"sqlite:///{folder / 'study.db'}")


def test_ctrl_c_stops_every_run_and_the_same_command_continues(write: Write, tmp_path: Path) -> None:
    path, folder = write(trials=3), tmp_path / "runs" / "tune" / "small"
    process, deadline = in_process(path, tmp_path / "runs"), time.monotonic() + 120
    while measured(folder) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert [trial.state.name for trial in loaded(folder).get_trials()] == ["RUNNING"]
    study(path, tmp_path / "runs")
    assert len(rows(folder)) == 3
    assert starts(folder)["trial_000/seed0"] == 2


def test_a_run_that_is_killed_is_begun_again(write: Write, tmp_path: Path) -> None:
    path, folder = write(trials=1), tmp_path / "runs" / "tune" / "small"
    process, deadline = in_process(path, tmp_path / "runs"), time.monotonic() + 120
    while measured(folder) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(int((folder / "trial_000/seed0/starts").read_text().rpartition(":")[2]), signal.SIGKILL)
    assert process.wait(120) == 0
    assert [row["status"] for row in rows(folder)] == ["finished"]
    assert starts(folder) == {"trial_000/seed0": 2}


def test_a_run_that_is_killed_every_time_fails_its_trial(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_run, "command", lambda job: ["sh", "-c", "kill -9 $$"])
    with pytest.raises(RunFailedError, match="of 1 trials: 1 failed; the first: it was stopped"):
        study(write(trials=1), tmp_path / "runs")
    [row] = rows(tmp_path / "runs" / "tune" / "small")
    assert row["why"].startswith("it was stopped or killed 3 times; see ")


@pytest.mark.parametrize("shared", [True, False], ids=["one folder", "a folder each"])
def test_two_processes_share_the_trials_of_one_storage(
    shared: bool, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_RUN_GATE", str(tmp_path / "gate"))  # or one could end before the other begins
    path, url = write(trials=8), f"sqlite:///{tmp_path / 'shared.db'}"
    outs = [tmp_path / "runs", tmp_path / ("runs" if shared else "more")]
    folders = [out / "tune" / "small" for out in dict.fromkeys(outs)]

    def wait_for(runs: int) -> None:
        deadline = time.monotonic() + 120
        while sum(len(starts(folder)) for folder in folders) < runs:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    processes = [in_process(path, outs[0], *([] if shared else [url]))]
    if not shared:
        wait_for(1)  # then the database has its tables
    processes.append(in_process(path, outs[1], *([] if shared else [url])))
    wait_for(2)
    (tmp_path / "gate").touch()
    assert [process.wait(240) for process in processes] == [0, 0]
    began = list(map(starts, folders))
    everything = {run: count for one in began for run, count in one.items()}
    total = 8 if shared else len(everything)  # machines that ask at the same moment may begin one more
    assert everything == {f"trial_00{i}/seed0": 1 for i in range(total)}
    assert total in (8, 9)
    assert shared or all(began), "each has trained some"
    rows_of_last = max((rows(out / "tune" / "small") for out in outs), key=len)
    assert len(rows_of_last) == total


def test_two_workers_train_at_once(write: Write, tmp_path: Path) -> None:
    folder = study(write(pruner={"name": "none"}, trials=4), tmp_path / "runs", workers=2)
    assert starts(folder) == {f"trial_00{i}/seed0": 1 for i in range(4)}
    trials = loaded(folder).get_trials()
    assert trials[1].datetime_start < trials[0].datetime_complete


def test_a_trial_of_a_machine_that_is_gone_is_begun_again_with_its_values(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = write(trials=3), f"sqlite:///{tmp_path / 'shared.db'}"
    process, deadline = in_process(path, tmp_path / "gone", url), time.monotonic() + 120
    while measured(tmp_path / "gone" / "tune" / "small") < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    monkeypatch.setattr(storages, "GRACE_SECONDS", 1)
    time.sleep(2.5)
    study(path, tmp_path / "here", url)
    trials = optuna.load_study(study_name="small", storage=url).get_trials()
    lost = next(trial for trial in trials if trial.state.name == "FAIL")
    again = next(trial for trial in trials if trial.user_attrs.get("again") == lost.number)
    assert again.params == lost.params
    assert again.state.is_finished()
    assert [trial.number for trial in counted(trials)] == [1, 2, 3]
    assert [row["trial"] for row in rows(tmp_path / "here" / "tune" / "small")] == ["1", "2", "3"]


# --- the storage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "driver", "package"),
    [("postgresql+psycopg2", "psycopg2", "psycopg2-binary"), ("mysql", "MySQLdb", "mysqlclient")],
)
def test_a_missing_driver_is_answered_with_what_installs_it(
    url: str, driver: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(UserError, match=rf"its driver {driver} is not installed; .*pip install '{package}'\.$"):
        Storage(f"{url}://me@localhost/x")


def test_tables_that_another_machine_makes_at_the_same_instant_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy

    real, calls = storages.RDBStorage, []

    def made_elsewhere(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise sqlalchemy.exc.IntegrityError("CREATE TABLE studies", {}, Exception("duplicate key value"))
        return real(*args, **options)

    monkeypatch.setattr(storages, "RDBStorage", made_elsewhere)
    Storage(f"sqlite:///{tmp_path / 'x.db'}")
    assert len(calls) == 2


def test_a_password_is_neither_printed_nor_written(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for url in ("postgresql://me:s3cret@localhost/x?sslpassword=s3cret", "mysql+nothing://me:s3cret@localhost/x"):
        with pytest.raises(UserError, match=r"^the storage .*//me:\*\*\*@localhost/x: ") as error:
            Storage(url)
        assert "s3cret" not in str(error.value)
    with pytest.raises(UserError, match="--storage: this is not the URL of a database"):
        Storage("study s3cret db")

    def refused(*_: object, **__: object) -> None:
        import sqlalchemy

        raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("password s3cret of me was refused"))

    with monkeypatch.context() as patch:
        patch.setattr(storages, "RDBStorage", refused)
        with pytest.raises(UserError, match=r"password \*\*\* of me was refused"):
            Storage("sqlite://me:s3cret@/x")
    real = storages.RDBStorage
    database = f"sqlite:///{tmp_path / 'x.db'}"
    monkeypatch.setattr(storages, "RDBStorage", lambda url, **options: real(database, **options))
    folder = study(write(trials=1), tmp_path / "runs", "sqlite://me:s3cret@/x")
    assert all(b"s3cret" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert (folder / "report.md").exists()
    assert "s3cret" not in "".join(capsys.readouterr())
