"""Run folders that somebody else has made, that two processes want, and that something stops or breaks."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gymnasium
import numpy as np
import pytest
from new_run import new_run, started

from bistable_rl.agents.training import resume, train
from bistable_rl.benchmarks.runner import start
from bistable_rl.cli import main
from bistable_rl.errors import RunFailedError, UserError
from bistable_rl.runs import checkpoint, lock
from bistable_rl.runs import folder as run_folder
from bistable_rl.runs.files import named, read_json, write_bytes, write_json
from bistable_rl.runs.recording import recording
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, EnvConfig, Experiment, NetworkConfig, TaskConfig
from bistable_rl.runs.stopping import Stopper

BENCHMARK = Benchmark("small", TaskConfig("copy_first", {"length": 5}), NetworkConfig(hidden_size=4), device="cpu")


def copied(run: Path, to: Path) -> Path:
    """Return a copy of a run that has not finished."""
    copy = Path(shutil.copytree(run, to / "run"))
    (copy / "result.json").unlink()
    return copy


def files(folder: Path) -> dict[Path, Any]:
    """Return what lies below a folder, links as such."""
    return {
        path: os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


# --- links ------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with what nothing may touch."""
    home = tmp_path / "home"
    for name in (".ssh", ".config", ".000000000240.1"):
        (home / name).mkdir(parents=True)
        (home / name / "key").write_text("secret")
    return home


def _checkpoints(run: Path, home: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        shutil.move(folder, home)
    (run / "checkpoints").rmdir()
    (run / "checkpoints").symlink_to("../home")


def _a_checkpoint(run: Path, home: Path) -> None:
    newest = Run(run).checkpoints.latest()
    shutil.move(newest, home)
    newest.symlink_to(home / newest.name)


def _the_best(run: Path, home: Path) -> None:
    (run / "checkpoints" / "best-000000000001").symlink_to(home)


def _linked(name: str) -> Callable[[Path, Path], None]:
    def link(run: Path, home: Path) -> None:
        target = home / Path(name).name
        if (run / name).exists():
            shutil.move(run / name, target)
        (run / name).symlink_to(target)

    return link


def _a_pipe(run: Path, home: Path) -> None:
    os.mkfifo(run / "result.json")


LINKS = {
    "checkpoints": _checkpoints,
    "a checkpoint": _a_checkpoint,
    "the best checkpoint": _the_best,
    "a pipe": _a_pipe,
    **{
        name: _linked(name)
        for name in (
            "config.yaml",
            "environment.json",
            "spaces.json",
            "metrics.csv",
            "result.json",
            "warmup.json",
            "job.json",
            "log.txt",
            "analysis",
            "events.out.tfevents.1",
            "checkpoints/000000000400/weights.safetensors",
            "checkpoints/000000000400/state.json",
        )
    },
}


@pytest.mark.parametrize("command", ["train --resume", "evaluate", "analyze"])
@pytest.mark.parametrize("link", LINKS)
def test_a_run_folder_that_leads_elsewhere_is_refused_and_nothing_is_touched(
    link: str, command: str, trained: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained, tmp_path)
    LINKS[link](run, home)
    before = files(tmp_path)
    assert main([*command.split(), str(run)]) == 2
    err = capsys.readouterr().err
    assert "is a link; remove it" in err or "neither a file nor a folder" in err
    assert err.count("\n") == 1
    assert files(tmp_path) == before


def test_checkpoints_reached_by_a_link_are_never_pruned(trained: Path, home: Path, tmp_path: Path) -> None:
    import torch

    run = copied(trained, tmp_path)
    _checkpoints(run, home)
    before = files(tmp_path)
    network = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match="checkpoints is a link"):
        Run(run).checkpoints.add_best(10**6, checkpoint.pack(network, {"steps": 10**6, "evaluation": {}}))
    with pytest.raises(UserError, match="checkpoints is a link"):
        Run(run).checkpoints.forget_best(0)
    assert files(tmp_path) == before


def test_analysis_is_not_written_through_a_link_within_it(trained: Path, home: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    (run / "analysis").mkdir()
    (run / "analysis" / "aligned.csv").symlink_to(home / "aligned.csv")
    assert main(["analyze", str(run), "--episodes", "2"]) == 2
    assert not (home / "aligned.csv").exists()


def test_only_what_a_killed_writer_left_is_removed(trained: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    left = [".config.yaml.7", ".metrics.csv.7.2", "checkpoints/.000000000240.1", "checkpoints/.best-000000000240.1.3"]
    theirs = [".git", ".notes", ".config.yaml.swp", "checkpoints/.keep", "checkpoints/.cache.1"]
    for names, file in ((left, "state.json"), (theirs, "file")):
        for name in names:
            (run / name).mkdir()
            (run / name / file).write_text("")
    resume(run)
    assert [name for name in left if (run / name).exists()] == []
    assert [name for name in theirs if (run / name / "file").exists()] == theirs


def test_a_users_own_hidden_folders_stay_whatever_they_are_called(experiment: Experiment, tmp_path: Path) -> None:
    beside = tmp_path / "small" / ".nbrc-seed0.2024"
    beside.mkdir(parents=True)
    (beside / "thesis.txt").write_text("mine")
    unfinished = tmp_path / "small" / ".nbrc-seed0.2025"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text("name: small\n")
    run = train(experiment, tmp_path)
    within = run / "checkpoints" / ".000000000080.2024"
    within.mkdir()
    (within / "thesis.txt").write_text("mine")
    resume(run, total_steps=480)
    assert [path.name for path in beside.iterdir()] == ["thesis.txt"]
    assert [path.name for path in within.iterdir()] == ["thesis.txt"]
    assert not unfinished.exists()


def test_a_run_folder_may_itself_be_a_link(trained: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    (tmp_path / "mine").symlink_to(run)
    resume(tmp_path / "mine")
    assert Run(run).finished(400)


def test_overwrite_leaves_a_linked_run_alone(experiment: Experiment, trained: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "nbrc-seed0").symlink_to(run)
    before = files(run)
    with pytest.raises(UserError, match="is a link, so --overwrite leaves it alone"):
        new_run(experiment, tmp_path / "runs", overwrite=True)
    assert new_run(experiment, tmp_path / "runs").name == "nbrc-seed0-2"
    assert files(run) == before


# --- files that the user names ----------------------------------------------------------------------------


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "a.json").symlink_to("b.json")
    (tmp_path / "b.json").symlink_to(tmp_path / "results" / "c.json")
    for value in (1, 2):
        write_json(named(tmp_path / "a.json"), {"value": value})
        assert json.loads((tmp_path / "results" / "c.json").read_text()) == {"value": value}
    assert (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "b.json").is_symlink()
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_links_in_a_circle_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UserError, match="circle"):
        named(tmp_path / "a")


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    path.chmod(0o600)
    write_json(path, {"a": 1})
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"data")
    reader.join(10)
    assert received == [b"data"]
    assert pipe.is_fifo()


def test_a_device_is_written_to_and_a_full_one_is_one_sentence() -> None:
    write_bytes(Path("/dev/null"), b"data")
    with pytest.raises(UserError, match="/dev/full cannot be written: No space left on device"):
        write_bytes(Path("/dev/full"), b"data")
    assert Path("/dev/null").is_char_device()
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("to", ["a pipe", "a file"])
def test_standard_output_gets_what_is_written_in_its_turn(name: str, to: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bistable_rl.runs.files import named, write_bytes; print('first'); "
        "path = named(Path(sys.argv[1])); write_bytes(path, b'second\\n'); print('third')"
    )
    command = [sys.executable, "-c", code, name]
    if to == "a pipe":
        out = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    else:
        with (tmp_path / "out").open("wb") as file:
            subprocess.run(command, stdout=file, check=True)
        out = (tmp_path / "out").read_bytes()
    assert out == b"first\nsecond\nthird\n"


def test_a_gif_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    from bistable_rl.envs.render import save_film

    frames = [np.zeros((4, 4, 3), np.uint8)] * 2
    with pytest.raises(UserError, match="No space left"):
        save_film(frames, Path("/dev/full"), 0.1)
    (tmp_path / "link.gif").symlink_to("film.gif")
    save_film(frames, tmp_path / "link.gif", 0.1)
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF")
    assert (tmp_path / "link.gif").is_symlink()


def test_saving_a_model_makes_the_folder(tmp_path: Path) -> None:
    from bistable_rl.agents.ppo import RecurrentPPO

    model = RecurrentPPO("RecurrentPolicy", "CartPole-v1", policy_kwargs={"hidden_size": 4}, device="cpu")
    model.save(tmp_path / "new" / "folder" / "m")
    assert RecurrentPPO.load(tmp_path / "new" / "folder" / "m").policy is not None


# --- one process a folder ---------------------------------------------------------------------------------


def test_a_folder_in_which_another_trains_is_refused_and_nothing_is_touched(
    experiment: Experiment, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "small" / "nbrc-seed0"))
    (run / "result.json").unlink()
    with Run(run).locked():
        before = files(tmp_path)
        assert main(["train", "--resume", str(run)]) == 2
        assert f"another process is training in {run} (pid {os.getpid()}); wait" in capsys.readouterr().err
        with pytest.raises(UserError, match="another process is training in"):
            train(experiment, tmp_path, overwrite=True)
        assert files(tmp_path) == before
        assert main(["evaluate", str(run), "--episodes", "1"]) == 0  # it only reads
    resume(run)
    assert Run(run).finished(400)
    assert not (run / lock.LOCK).exists()


def test_the_lock_of_a_process_that_was_killed_stops_nobody(tmp_path: Path) -> None:
    code = "import sys, time; from bistable_rl.runs import lock; from pathlib import Path; lock.take(Path(sys.argv[1]))"
    command = [sys.executable, "-c", f"{code}; print('taken', flush=True); time.sleep(60)", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(lock.LockedError, match=f"pid {holder.pid}"):
            lock.take(tmp_path)
        holder.kill()
    assert (tmp_path / lock.LOCK).exists()
    lock.take(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_another_name_of_a_users_file_is_refused(trained: Path, tmp_path: Path) -> None:
    run, precious = copied(trained, tmp_path / "run"), tmp_path / "precious"
    precious.write_text("mine")
    os.link(precious, run / ".lock")
    with pytest.raises(UserError, match="a hard link to another file"):
        resume(run, total_steps=480)
    assert precious.read_text() == "mine"


def test_a_lock_is_not_held_by_what_an_environment_forks(tmp_path: Path) -> None:
    held = lock.take(tmp_path)
    here, there = os.pipe()
    child = os.fork()
    if not child:
        os.write(there, b"runs")
        time.sleep(60)
        os._exit(0)
    assert os.read(here, 4) == b"runs"
    os.close(held.descriptor)  # as when this process dies
    try:
        lock.take(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(here)
        os.close(there)
        lock._open.discard(held.descriptor)


def test_a_lock_whose_file_its_holder_removed_meanwhile_is_taken_again(tmp_path: Path) -> None:
    for _ in range(3):
        first = lock.take(tmp_path)
        assert first.held
        with pytest.raises(lock.LockedError):
            lock.take(tmp_path)
        first.release()


def test_a_child_takes_over_the_lock_that_its_parent_took_for_it(tmp_path: Path) -> None:
    held = lock.take(tmp_path)
    code = "import sys; from bistable_rl.runs.run import Run\nwith Run(sys.argv[1]).locked(): pass"
    environment = {**os.environ, lock.INHERITED: str(held.descriptor)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, pass_fds=[held.descriptor], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    held.hand_over()
    refused = subprocess.Popen(command, env={**os.environ, lock.INHERITED: "1"}, stderr=subprocess.PIPE)
    assert refused.wait() == 0  # a number that is no lock is no claim, and the lock is free by now


def test_a_new_run_appears_with_its_config_or_not_at_all(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            new_run(experiment, tmp_path)
    assert list((tmp_path / "small").iterdir()) == []
    for name in (".nbrc-seed0.1", ".nbrc-seed0.1.2"):  # kill -9 leaves these
        (tmp_path / "small" / name).mkdir()
        (tmp_path / "small" / name / "config.yaml").write_text("")
    (tmp_path / "small" / ".nbrc-seed0.mine").mkdir()
    (tmp_path / "small" / ".nbrc-seed0.9").mkdir()
    with Run(tmp_path / "small" / ".nbrc-seed0.9").locked():  # its maker lives
        new_run(experiment, tmp_path)
        names = {path.name for path in (tmp_path / "small").iterdir()}
    assert names == {"nbrc-seed0", ".nbrc-seed0.mine", ".nbrc-seed0.9"}


def test_runs_that_begin_at_once_get_a_folder_each(experiment: Experiment, tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(new_run(experiment, tmp_path))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(path.name for path in made)
    assert names == sorted(["nbrc-seed0", *(f"nbrc-seed0-{number}" for number in range(2, 13))])
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == names


# --- what stops a run -------------------------------------------------------------------------------------


@pytest.fixture
def without_nohup() -> Iterator[None]:
    """Undo `nohup`, under which these tests may run: a process inherits that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize(("sent", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_what_a_job_manager_and_a_closed_terminal_send_stops_as_ctrl_c_does(
    sent: str, code: int, config: Path, tmp_path: Path
) -> None:
    process = started(config, tmp_path / "runs")
    run = tmp_path / "runs" / "small" / "nbrc-seed0"
    second = subprocess.run(
        [sys.executable, "-m", "bistable_rl.cli", "train", "--resume", str(run)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert f"another process is training in {run} (pid {process.pid})" in second.stderr
    for _ in range(2):  # `timeout` sends it twice
        process.send_signal(getattr(signal, sent))
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "interrupted: " in out
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["signal"]) == ("interrupted", sent)
    assert int(Run(run).checkpoints.latest().name) == result["steps"]
    with (run / "metrics.csv").open() as file:
        rows = [int(row["time/total_timesteps"]) for row in csv.DictReader(file)]
    assert rows == list(range(80, rows[-1] + 1, 80))


@pytest.mark.parametrize("module", ["training", "benchmarks"])
def test_a_signal_before_the_first_step_leaves_a_result(
    module: str, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Run.write_environment

    def interrupted(run: Run, hardware: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write(run, hardware)

    monkeypatch.setattr(Run, "write_environment", interrupted)
    run = train(experiment, tmp_path) if module == "training" else start(BENCHMARK, tmp_path)
    result = Run.open(run).result
    assert result is not None
    assert (result["status"], result["signal"], result["steps"]) == ("interrupted", "SIGTERM", 0)


def test_a_hangup_that_was_ignored_stays_ignored(config: Path, tmp_path: Path) -> None:
    process = started(config, tmp_path / "runs", prefix=("nohup",))
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_training_in_a_side_thread_is_stopped_by_its_event(experiment: Experiment, tmp_path: Path) -> None:
    experiment.total_steps = 10**8
    stop, ended = threading.Event(), []
    thread = threading.Thread(target=lambda: ended.append(train(experiment, tmp_path, stop=stop)))
    thread.start()
    run = tmp_path / "small" / "nbrc-seed0"
    deadline = time.monotonic() + 60
    while len(Run(run).checkpoints.all()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stop.set()
    thread.join(60)
    assert ended == [run]
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["signal"]) == ("interrupted", None)
    assert int(Run(run).checkpoints.latest().name) == result["steps"]


def test_a_benchmark_in_a_side_thread_is_stopped_by_its_event(tmp_path: Path) -> None:
    stop, ended = threading.Event(), []
    stop.set()
    thread = threading.Thread(target=lambda: ended.append(start(BENCHMARK, tmp_path, stop=stop)))
    thread.start()
    thread.join(60)
    assert json.loads((ended[0] / "result.json").read_text())["status"] == "interrupted"
    assert Run(ended[0]).checkpoints.all()


# --- environments that break ------------------------------------------------------------------------------


class Breaking(gymnasium.Env):
    """Raises what it is told to, where it is told to."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    error: BaseException = RuntimeError()
    where = ""
    steps = 0
    reward = 0.0

    def __init__(self) -> None:
        self.time = 0
        self.meet("made")

    def meet(self, where: str) -> None:
        if where == Breaking.where and (where != "step" or Breaking.steps > 150):
            raise Breaking.error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.time = 0
        self.meet("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        Breaking.steps += 1
        self.time += 1
        self.meet("step")
        return np.zeros(2, np.float32), Breaking.reward, self.time > 9, False, {}

    def close(self) -> None:
        self.meet("close")


gymnasium.register("Breaking-v0", lambda **kwargs: Breaking(**kwargs))


@pytest.fixture
def breaking(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setattr(Breaking, "steps", 0)
    experiment.env = EnvConfig("Breaking-v0", num_envs=4)
    return experiment


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(0), r"the environment Breaking-v0 called sys.exit\(0\)"),
        (SystemExit("text"), r"the environment Breaking-v0 called sys.exit\('text'\)"),
        (GeneratorExit(), "GeneratorExit"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_whatever_an_environment_raises_is_a_failed_run(
    error: BaseException, said: str, breaking: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaking, "where", "step")
    monkeypatch.setattr(Breaking, "error", error)
    with pytest.raises(RunFailedError, match=said):
        train(breaking, tmp_path)
    assert json.loads((tmp_path / "small" / "nbrc-seed0" / "result.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("where", ["made", "reset"])
def test_an_environment_that_exits_when_it_is_tried_is_refused(
    where: str, breaking: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaking, "where", where)
    monkeypatch.setattr(Breaking, "error", SystemExit(0))
    with pytest.raises(UserError, match=r"Breaking-v0 called sys.exit\(0\)"):
        train(breaking, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("error", [RuntimeError("no display"), SystemExit(0)])
def test_an_environment_that_fails_to_close_loses_no_result(
    error: BaseException, breaking: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaking, "where", "close")
    monkeypatch.setattr(Breaking, "error", error)
    with pytest.warns(UserWarning, match="the environment could not be closed: .*(no display|SystemExit)"):
        run = train(breaking, tmp_path)
    assert Run(run).finished(400)


@pytest.mark.parametrize(
    ("is_full", "ending"), [(False, "see result.json for more"), (True, "result.json could not be written")]
)
def test_a_result_that_could_not_be_written_is_not_said_to_tell_more(
    is_full: bool, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_full:
        monkeypatch.setattr(Run, "write_result", Mock(side_effect=UserError("no space")))
    with (
        pytest.raises(RunFailedError, match=rf"no checkpoint yet; {ending}\.$"),
        recording(Run(tmp_path), lambda: {"steps": 3}, hardware={}, stopper=Stopper(), unit="updates"),
    ):
        raise OSError("broken")


def test_an_interrupt_while_it_is_closed_leaves_the_finished_result(
    breaking: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaking, "where", "close")
    monkeypatch.setattr(Breaking, "error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(breaking, tmp_path)
    run = tmp_path / "small" / "nbrc-seed0"
    assert Run(run).finished(400)
    monkeypatch.setattr(Breaking, "where", "")
    result = (run / "result.json").read_bytes()
    resume(run)
    assert (run / "result.json").read_bytes() == result


def test_a_clock_that_is_set_back_changes_neither_fps_nor_seconds(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 10**18 - time.monotonic_ns())  # it runs backwards
    run = train(experiment, tmp_path)
    with (run / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            assert 0 <= int(row["time/time_elapsed"]) < 100
            assert 0 < int(row["time/fps"]) < 10**6


# --- odd content ------------------------------------------------------------------------------------------

DEEP = "[" * 100_000
ODD_RESULTS = {
    "empty": b"",
    "a list": b"[]",
    "no status": b"{}",
    "no steps": b'{"status": "finished"}',
    "text for steps": b'{"status": "finished", "steps": "400", "seconds": 1, "evaluation": null}',
    "true for steps": b'{"status": "finished", "steps": true, "seconds": 1, "evaluation": null}',
    "a list for status": b'{"status": [], "steps": 400, "seconds": 1, "evaluation": null}',
    "endless seconds": b'{"status": "finished", "steps": 400, "seconds": 1e999, "evaluation": null}',
    "NaN": b'{"status": "finished", "steps": 400, "seconds": NaN, "evaluation": null}',
    "a number for the evaluation": b'{"status": "finished", "steps": 400, "seconds": 1, "evaluation": 3}',
    "many levels": DEEP.encode(),
    "UTF-16": '{"status": "finished"}'.encode("utf-16"),
    "many digits": b'{"status": "finished", "steps": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("odd", ODD_RESULTS)
def test_a_broken_result_is_one_sentence_where_it_is_read_and_written_again_by_a_resumed_run(
    odd: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained, tmp_path)
    (run / "result.json").write_bytes(ODD_RESULTS[odd])
    with pytest.raises(UserError, match=r"result.json is broken: .*[.]$"):
        _ = Run.open(run).result
    assert not Run(run).finished()
    if odd == "no steps":
        assert main(["train", "--resume", str(run)]) == 0
        assert "finished: 400 steps" in capsys.readouterr().out
        assert Run(run).finished(400)


def test_an_evaluation_that_cannot_be_shown_is_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained, tmp_path)
    odd = {"status": "finished", "steps": 400, "seconds": 1, "evaluation": {"success_rate": "all"}}
    (run / "result.json").write_text(json.dumps(odd))
    assert main(["train", "--resume", str(run)]) == 2
    err = capsys.readouterr().err
    assert "its evaluation cannot be shown" in err
    assert err.count("\n") == 1


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _of(dtype: str, size: int) -> bytes:
    header = {"value_net.bias": {"dtype": dtype, "shape": [2], "data_offsets": [0, size]}}
    return _safetensors(json.dumps(header).encode(), bytes(size))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        _of("F4", 1),
        _of("F8_E4M3", 2),
        _of("F8_E8M0", 2),
        _of("C64", 16),
        _of("none", 2),
        _safetensors(DEEP.encode()),
        (2**62).to_bytes(8, "little") + b"{}",
        _safetensors('{"a": 1}'.encode("utf-16")),
    ],
)
@pytest.mark.parametrize("file", ["weights", "optimizer", "training"])
def test_safetensors_of_odd_content_are_one_sentence(
    file: str, content: bytes, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained, tmp_path)
    (Run(run).checkpoints.latest() / f"{file}.safetensors").write_bytes(content)
    assert main(["train", "--resume", str(run)]) == 2
    err = capsys.readouterr().err
    assert "the checkpoint " in err
    assert err.count("\n") <= 2
    assert len(err) < 1000


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"{}", DEEP.encode(), '{"steps": 400}'.encode("utf-16"), b'{"steps": "4", "x": 1}']
)
def test_a_state_of_odd_content_is_one_sentence(
    content: bytes, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained, tmp_path)
    (Run(run).checkpoints.latest() / "state.json").write_bytes(content)
    assert main(["train", "--resume", str(run)]) == 2
    assert "the checkpoint " in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_result_that_is_not_finite_is_a_failed_run_with_its_key(value: float, tmp_path: Path) -> None:
    result = {"steps": 3, "evaluation": {"mse": value, "accuracy": 0.5}}
    with (
        pytest.raises(RunFailedError, match=f"evaluation.mse is {value}, which is not a finite number. There is no"),
        recording(Run(tmp_path), lambda: result, hardware={}, stopper=Stopper(), unit="updates"),
    ):
        pass
    written = read_json(tmp_path / "result.json")
    assert (written["status"], written["evaluation"]) == ("failed", {"mse": None, "accuracy": 0.5})


@pytest.mark.parametrize("kind", [np.inf, np.nan])
def test_returns_of_an_evaluation_that_are_not_finite_are_a_failed_run(
    kind: float, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bistable_rl.agents import callbacks
    from bistable_rl.agents.evaluation import Evaluation

    endless = Evaluation(np.array([kind]), np.array([5]), None, None)
    monkeypatch.setattr(callbacks, "evaluate", lambda *_, **__: endless)
    with pytest.raises(RunFailedError, match=f"return_mean became {kind} in the evaluation after 160 env"):
        train(experiment, tmp_path)
    assert read_json(tmp_path / "small" / "nbrc-seed0" / "result.json")["status"] == "failed"


def test_a_test_error_that_is_not_finite_is_the_same_sentence_at_every_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bistable_rl.benchmarks.trainer import Trainer

    monkeypatch.setattr(Trainer, "evaluate", lambda *_: {"mse": float("inf")})
    options = ["--network.hidden_size", "4", "--task.kwargs.length", "4", "--training.batch_size", "10000"]
    options += ["--training.epochs", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["benchmark", "supervised/copy_first", *options]) == 1
    for _ in range(2):
        err = capsys.readouterr().err
        assert "evaluation.mse is inf, which is not a finite number. The last good checkpoint is" in err
        assert main(["benchmark", "--resume", str(tmp_path / "copy_first" / "nbrc-seed0")]) == 1
