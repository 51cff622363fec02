import os
import signal
import subprocess
import sys
import time
from dataclasses import make_dataclass, replace
from pathlib import Path

import fake_run
import pytest

from bistable_rl.compare import ledger
from bistable_rl.compare.comparison import Comparison, MetricConfig
from bistable_rl.compare.engine import Outcome, run_grid
from bistable_rl.compare.jobs import Job, config_hash
from bistable_rl.compare.launchers.child import stop_when_closed
from bistable_rl.compare.launchers.local import LocalLauncher, Process
from bistable_rl.compare.report import write_report
from bistable_rl.errors import UserError
from bistable_rl.runs.config import to_yaml
from bistable_rl.runs.lock import take
from bistable_rl.runs.schema import Experiment, PolicyConfig

CELLS = ("nbrc", "gru")


def grid(experiment: Experiment, out: Path, cells: tuple[str, ...] = CELLS, seeds: int = 2) -> list[Job]:
    """Return the jobs of cells by seeds."""
    return [
        Job(
            label=cell,
            config=replace(experiment, policy=replace(experiment.policy, cell=cell), seed=seed),
            folder=out / cell / f"seed{seed}",
            keys={"policy.cell": cell},
        )
        for cell in cells
        for seed in range(seeds)
    ]


def run(jobs: list[Job], out: Path, committed: Path | None = None, workers: int = 4) -> Outcome:
    return run_grid(jobs, out, LocalLauncher(workers, fake_run.command), committed=committed)


def starts(job: Job) -> list[str]:
    """Return threads:process of each start of a fake run."""
    file = job.folder / "starts"
    return file.read_text().split() if file.exists() else []


def test_every_run_becomes_a_row_with_its_curve(experiment: Experiment, tmp_path: Path) -> None:
    jobs = grid(experiment, tmp_path)
    outcome = run(jobs, tmp_path)
    assert outcome.failed == {}
    assert [(row.label, row.seed, row.hash) for row in outcome.rows] == [(j.label, j.config.seed, j.hash) for j in jobs]
    assert [row.final["success_rate"] for row in outcome.rows] == [1.0, 0.99, 0.5, 0.49]
    row = outcome.rows[3]
    assert row.keys == {"policy.cell": "gru"}
    assert (row.number("steps"), row.number("seconds"), row.number("memory_mb")) == (400, 1.5, 100)
    assert [point["steps"] for point in row.curve] == [50 * (i + 1) for i in range(8)]
    assert [point["success_rate"] for point in row.curve] == [fake_run.success("gru", 1, i + 1) for i in range(8)]
    assert sorted(ledger.read(tmp_path), key=lambda r: r.hash) == sorted(outcome.rows, key=lambda r: r.hash)


def test_a_finished_run_is_never_repeated(experiment: Experiment, tmp_path: Path) -> None:
    first = run(grid(experiment, tmp_path), tmp_path)
    extended = grid(experiment, tmp_path, cells=("nbrc", "gru", "lstm"))
    (tmp_path / "runs.csv").unlink()  # then the run folders still know
    second = run(extended, tmp_path)
    assert second.rows[:4] == first.rows
    assert len(second.rows) == 6
    assert [len(starts(job)) for job in extended] == [1] * 6


def test_a_committed_row_counts_as_finished_without_its_folder(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(grid(experiment, tmp_path / "elsewhere"), tmp_path / "elsewhere")
    jobs = [replace(job, label=f"our {job.label}") for job in grid(experiment, tmp_path / "here", seeds=3)]
    second = run(jobs, tmp_path / "here", committed=tmp_path / "elsewhere")
    assert [row.final for row in second.rows if row.seed < 2] == [row.final for row in first.rows]
    assert {row.label for row in second.rows} == {"our nbrc", "our gru"}
    assert [job.folder.exists() for job in jobs] == [False, False, True] * 2
    assert "4 of 6 runs are finished already (4 committed)" in capsys.readouterr().err
    assert [row.committed for row in second.rows] == [True, True, False] * 2
    own = ledger.read(tmp_path / "here")
    assert [row.seed for row in own] == [2, 2]  # without them
    assert len(run(jobs, tmp_path / "here").rows) == 6  # those are trained now
    assert [len(starts(job)) for job in jobs] == [1] * 6


def test_a_failed_run_is_named_stops_no_other_and_is_tried_again(experiment: Experiment, tmp_path: Path) -> None:
    jobs = grid(experiment, tmp_path, cells=("goru", "nbrc"), seeds=1)
    for _ in range(2):
        outcome = run(jobs, tmp_path, workers=1)
        assert outcome.failed == {"goru, seed 0": "the gradient became NaN."}
        assert [row.label for row in outcome.rows] == ["nbrc"]
    assert [len(starts(job)) for job in jobs] == [2, 1]


def test_a_finished_run_whose_files_are_broken_is_named(experiment: Experiment, tmp_path: Path) -> None:
    jobs = grid(experiment, tmp_path, seeds=1)
    run(jobs, tmp_path)
    (tmp_path / "runs.csv").unlink()
    (jobs[0].folder / "environment.json").write_text("{")
    outcome = run(jobs, tmp_path)
    assert "nbrc/seed0: its files are broken" in outcome.failed["nbrc, seed 0"]
    assert [row.label for row in outcome.rows] == ["gru"]


def test_cores_are_shared_out_as_threads(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    for workers, threads in ((1, cores), (cores, 1), (4 * cores, 1)):
        jobs = grid(experiment, tmp_path / str(workers), cells=("nbrc",), seeds=1)
        run(jobs, tmp_path / str(workers), workers=workers)
        [start] = starts(jobs[0])
        assert start.split(":")[0] == str(threads)


def test_a_run_gets_no_more_threads_than_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    for value, threads in (("1", 1), ("3", 3), ("16", 4), ("", 4), ("0", 4), ("many", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert LocalLauncher(workers=2).threads == threads


def test_a_folder_of_another_experiment_is_one_sentence(experiment: Experiment, tmp_path: Path) -> None:
    run(grid(experiment, tmp_path), tmp_path)
    other = replace(experiment, algorithm=replace(experiment.algorithm, learning_rate=0.5))
    with pytest.raises(UserError, match=r"seed0 holds a run of another .*algorithm.learning_rate is 0.001 there"):
        run(grid(other, tmp_path), tmp_path)


def test_a_folder_whose_training_dropped_idle_options_is_still_this_job_s(
    experiment: Experiment, tmp_path: Path
) -> None:
    without = replace(experiment, policy=replace(experiment.policy, cell="goru"))
    helped = replace(without, policy=replace(without.policy, cell_kwargs={"c_bias": "chrono", "t_max": 5}))
    job = Job("goru", helped, tmp_path / "goru")
    run([job], tmp_path)
    (job.folder / "config.yaml").write_text(to_yaml(without))
    run([job], tmp_path)
    assert len(starts(job)) == 2


def test_a_broken_ledger_is_one_sentence(experiment: Experiment, tmp_path: Path) -> None:
    run(grid(experiment, tmp_path, seeds=1), tmp_path)
    text = (tmp_path / "runs.csv").read_text()
    (tmp_path / "runs.csv").write_text(text.replace(",0,", ",zero,"))
    with pytest.raises(UserError, match=r"runs.csv or curves.csv is broken .*zero"):
        run(grid(experiment, tmp_path, seeds=1), tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("runs.csv", b",0.5\n", b"\n"),  # a line cut off
        ("curves.csv", b",0.5\n", b"\n"),
        ("runs.csv", b",0.5\n", b",0.5,0.5\n"),
        ("runs.csv", b"seconds", b"minutes"),
        ("curves.csv", b"steps", b"updates"),
        ("runs.csv", b",2,", b",two,"),
        ("runs.csv", b"label", b"\xff"),
        ("curves.csv", b"label", b"\0"),
    ],
)
def test_a_ledger_with_a_broken_line_is_one_sentence(file: str, old: bytes, new: bytes, tmp_path: Path) -> None:
    facts = dict.fromkeys(ledger.FACTS[3:], "2")
    ledger.write(tmp_path, [ledger.Row("a", 0, "h", facts, {}, {"mse": 0.5}, ({"steps": 1.0, "train_loss": 0.5},))])
    assert [row.final for row in ledger.read(tmp_path)] == [{"mse": 0.5}]
    content = (tmp_path / file).read_bytes()
    for broken in (content.replace(old, new), b"something else", b""):
        (tmp_path / file).write_bytes(broken)
        with pytest.raises(UserError, match=r"runs.csv or curves.csv is broken"):
            ledger.read(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("runs.csv", b",9,2,", b",inf,2,"),  # seconds
        ("runs.csv", b",9,2,", b",-1,2,"),
        ("runs.csv", b",9,2,", b",,2,"),
        ("runs.csv", b"success@5", b"success@five"),
        ("runs.csv", b"a,0,h", b'"' + b"a" * 200_000 + b'",0,h'),
        ("runs.csv", b"a,1,i", b"a,1,h"),  # a hash twice
        ("curves.csv", b"a,1,i", b"a,1,h"),
        ("curves.csv", b",1,", b",nan,"),
        ("curves.csv", b",1,", b",inf,"),
        ("curves.csv", b",1,", b",,"),
    ],
)
def test_a_ledger_with_odd_numbers_is_one_sentence(file: str, old: bytes, new: bytes, tmp_path: Path) -> None:
    facts = dict.fromkeys(ledger.FACTS[3:], "2") | {"seconds": "9"}
    curve = ({"steps": 1.0, "seconds": 3.0, "train_loss": 0.5},)
    rows = [ledger.Row("a", k, name, facts, {}, {"success@5": float("nan")}, curve) for k, name in enumerate("hi")]
    ledger.write(tmp_path, rows)
    assert len(ledger.read(tmp_path)) == 2
    content = (tmp_path / file).read_bytes()
    assert old in content
    (tmp_path / file).write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match=r"runs.csv or curves.csv is broken") as error:
        ledger.read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("result.json", "[" * 100_000),
        ("result.json", '{"status": "finished", "seconds": "soon", "steps": 400, "evaluation": {}}'),
        ("result.json", '{"status": "finished", "seconds": NaN, "steps": 400, "evaluation": {}}'),
        ("metrics.csv", "time/total_timesteps,time/time_elapsed,eval/x\n1,1,1\n1,1,1\n"),
        ("metrics.csv", "time/total_timesteps,time/time_elapsed,eval/x\n1,1," + "1" * 200_000 + "\n"),
    ],
)
def test_a_finished_run_of_odd_content_is_named(file: str, text: str, experiment: Experiment, tmp_path: Path) -> None:
    jobs = grid(experiment, tmp_path, cells=("nbrc",), seeds=1)
    run(jobs, tmp_path)
    (tmp_path / "runs.csv").unlink()
    (jobs[0].folder / file).write_text(text)
    (jobs[0].folder / "job.json").write_text("[" * 100_000)
    outcome = run(jobs, tmp_path)
    assert "nbrc/seed0: its files are broken" in outcome.failed["nbrc, seed 0"]


# --- stopped, killed ---------------------------------------------------------------------------------------


def start(out: Path) -> subprocess.Popen[str]:
    """Run the grid in a process of its own."""
    here = Path(__file__).parent
    code = (
        "import sys; from pathlib import Path; import test_compare_engine as t\n"
        "from bistable_rl.runs.schema import Experiment, load_config; out = Path(sys.argv[1])\n"
        "t.run(t.grid(load_config(Experiment, out / 'small.yaml'), out), out, workers=2)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parent}"}
    return subprocess.Popen([sys.executable, "-c", code, str(out)], env=environment, stderr=subprocess.PIPE, text=True)


def points(out: Path, files: str = "*/*/metrics.csv") -> int:
    """Return how many evaluations all runs, or those with these files, have made."""
    return sum(len(file.read_text().splitlines()) - 1 for file in out.glob(files))


def wait_for_points(out: Path, count: int, files: str = "*/*/metrics.csv") -> None:
    deadline = time.monotonic() + 60
    while points(out, files) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_whose_folder_is_in_use_says_so_once_and_waits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lock = take(tmp_path)
    process = Process(tmp_path, ["true"], threads=1)
    assert process.poll() is None
    assert capfd.readouterr().err.count(f"{tmp_path} is still in use") == 1
    lock.release()
    while process.poll() is None:
        time.sleep(0.01)
    assert process.poll() == 0


def test_ctrl_c_stops_every_run_and_the_same_call_goes_on(config: Path, experiment: Experiment) -> None:
    out = config.parent
    grid_process = start(out)
    jobs = grid(experiment, out)
    for job in jobs[:2]:  # both have begun, however slowly Python starts
        wait_for_points(job.folder, 1, "metrics.csv")
    grid_process.send_signal(signal.SIGINT)
    _, said = grid_process.communicate(timeout=30)
    assert "4 runs to do, 2 at once" in said
    assert "stopping 2 runs; the same command continues them" in said
    assert "KeyboardInterrupt" in said
    pids = [int(line.split(":")[1]) for job in jobs[:2] for line in starts(job)]
    assert len(pids) == 2
    assert not any(map(alive, pids))
    before = points(out)
    assert 2 <= before < 16
    assert len(run(jobs, out).rows) == 4
    assert points(out) == 32  # a run that had begun again from nothing would have lost its points


def test_a_grid_killed_five_times_gives_what_one_left_alone_gives(config: Path, experiment: Experiment) -> None:
    out, alone = config.parent, config.parent / "alone"
    for kill in range(5):
        grid_process = start(out)
        wait_for_points(out, 5 * (kill + 1))
        grid_process.kill()
        grid_process.communicate()
        if kill % 2:  # with the whole machine; otherwise runs are left alone, and the next grid meets them
            for job in grid(experiment, out):
                for line in starts(job):
                    if alive(int(line.split(":")[1])):
                        os.kill(int(line.split(":")[1]), signal.SIGKILL)
    outcome = run(grid(experiment, out), out)
    assert outcome == run(grid(experiment, alone), alone)
    comparison = Comparison("cells", [0, 1], metric=MetricConfig(threshold=0.5))
    for folder in (out, alone):
        rows = ledger.read(folder)
        write_report(folder, comparison, rows, {}, unit="environment steps", command="it")
    for name in (ledger.RUNS, ledger.CURVES, "report.md", "summary.csv"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()


def test_two_grids_at_once_are_refused(config: Path, experiment: Experiment) -> None:
    grid_process = start(config.parent)
    wait_for_points(config.parent, 1)
    with pytest.raises(UserError, match=r"another command is at work in"):
        run(grid(experiment, config.parent), config.parent)
    grid_process.kill()
    grid_process.communicate()


def test_a_run_stops_when_its_grid_is_gone() -> None:
    ours, theirs = os.pipe()
    os.close(theirs)
    with pytest.raises(KeyboardInterrupt):
        stop_when_closed(ours)


# --- the hash ----------------------------------------------------------------------------------------------


def test_the_hash_covers_what_changes_numbers(experiment: Experiment) -> None:
    same = [
        replace(experiment, name="other"),
        replace(experiment, device="cuda"),
        replace(experiment, checkpoint=replace(experiment.checkpoint, every=7)),
    ]
    assert {config_hash(other) for other in same} == {config_hash(experiment)}
    others = [
        replace(experiment, seed=1),
        replace(experiment, total_steps=500),
        replace(experiment, env=replace(experiment.env, kwargs={"length": 6, "num_symbols": 2})),
        replace(experiment, env=replace(experiment.env, kwargs={"length": 5.0, "num_symbols": 2})),
        replace(experiment, algorithm=replace(experiment.algorithm, ent_coef=0.1)),
        replace(experiment, algorithm=replace(experiment.algorithm, target_kl=0.1)),
        replace(experiment, policy=replace(experiment.policy, cell_kwargs={"c_bias": None})),
    ]
    assert len({config_hash(other) for other in [experiment, *others]}) == 1 + len(others)


def test_an_option_added_one_day_and_off_changes_no_hash(experiment: Experiment) -> None:
    later = make_dataclass("Later", [("burn_in", int, 0)], bases=(PolicyConfig,))
    policy = later(**vars(experiment.policy))
    assert config_hash(replace(experiment, policy=policy)) == config_hash(experiment)
    assert config_hash(replace(experiment, policy=replace(policy, burn_in=4))) != config_hash(experiment)
