"""Every committed row is found as finished by the command that made it, whatever has been renamed since."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bistable_rl.benchmarks.reproduce import grids
from bistable_rl.cells import CELLS
from bistable_rl.cli import main
from bistable_rl.compare import comparison, jobs, ledger
from bistable_rl.compare.jobs import Job
from bistable_rl.compare.ledger import Ledger
from bistable_rl.runs.config import shipped_configs

FOLDERS = sorted(path.parent.name for path in ledger.RESULTS.glob("*/runs.csv"))
pytestmark = pytest.mark.skipif(not FOLDERS, reason="not a clone")


def jobs_of(name: str, out: Path) -> Iterator[Job]:
    """Yield the jobs of a committed folder: of the shipped comparison with its name, or of a table's grid."""
    config = shipped_configs().get(f"compare/{name}")
    if config is not None:
        yield from comparison.read(config, out)[1]
        return
    table, preset, *protocol = name.split("-")
    grid = grids.find_grid(preset, table, *protocol)  # type: ignore[arg-type]
    seeds = Ledger(out, ledger.RESULTS / name).seeds
    yield from grids.make_jobs(grid, out, tuple(CELLS), seeds)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_committed_row_is_a_job_of_its_grid(name: str, tmp_path: Path) -> None:
    committed = ledger.read(ledger.RESULTS / name)
    found = {job.hash: job for job in jobs_of(name, tmp_path)}
    book = Ledger(tmp_path, ledger.RESULTS / name)
    for row in committed:
        job = found.get(row.hash)
        assert job is not None, f"{row.label}, seed {row.seed} is unknown"
        assert (job.label, job.config.seed, job.config.cell) == (row.label, row.seed, row.facts["cell"])
        assert book.row(job) == row
    assert committed


@pytest.mark.parametrize("name", FOLDERS)
def test_the_command_of_a_committed_report_works_in_any_clone(name: str) -> None:
    for page in (ledger.RESULTS / name).glob("*.md"):
        command = page.read_text(encoding="utf-8").rpartition("Written by `")[2].partition("`")[0]
        assert not any(Path(word).is_absolute() for word in shlex.split(command)), command


def test_a_renamed_key_keeps_its_old_name_in_the_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = next(jobs_of("nbrc_t_maze", tmp_path))
    before = job.hash
    monkeypatch.setitem(jobs.RENAMED, "policy.cell", "policy.kind")
    assert "policy.kind" in jobs.hashed_keys(job.config)
    assert "policy.cell" not in jobs.hashed_keys(job.config)
    assert job.hash != before


def test_a_shipped_comparison_takes_committed_rows_only_on_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bistable_rl.compare.command.train_briefly", lambda config, launcher: 1.0)
    command = ["compare", "compare/nbrc_copy_first", "--out", str(tmp_path / "runs")]
    assert main([*command, "--dry-run"]) == 0
    assert "nbrc  0 finished, 5 to do, about 0:00:01 each\n" in capsys.readouterr().out
    assert main([*command, "--dry-run", "--reuse-committed"]) == 0
    assert "nbrc  5 finished (5 committed), 0 to do\n" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert main([*command, "--reuse-committed"]) == 0
    assert "report.html, of 5 runs (5 committed)\n" in capsys.readouterr().out
    folder = tmp_path / "runs" / "nbrc_copy_first"
    assert "5 finished runs (5 committed); " in (folder / "report.md").read_text()
    assert not (folder / ledger.RUNS).exists()
    assert not list(folder.rglob("config.yaml"))  # nothing was trained


def test_only_what_draws_needs_matplotlib(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command = ["compare", "compare/nbrc_copy_first", "--out", str(tmp_path / "runs"), "--reuse-committed"]
    assert main([*command, "--dry-run"]) == 0
    assert main(command) == 2
    assert capsys.readouterr().err.endswith("install it with pip install 'bistable-rl[plot]'.\n")
    assert not (tmp_path / "runs").exists()
