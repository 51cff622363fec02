"""A comparison of real trainings, killed and gone on with, from the command line."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import SMALL

from bistable_rl.cli import main

TIMED = ("seconds", "seconds_to_threshold", "memory_mb", "date", "commit")
"""Columns that differ between two runs of the same."""


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """Return the path of a comparison of two cells and two seeds that takes some seconds."""
    base = {**SMALL, "total_steps": 4000, "evaluation": {"every": 400, "episodes": 5, "horizons": [5, 10]}}
    path = tmp_path / "small.yaml"
    file = {"name": "small", "base": base, "grid": {"policy.cell": ["nbrc", "gru"]}, "seeds": [0, 1]}
    path.write_text(yaml.safe_dump({**file, "metric": {"threshold": 0.5}}))
    return path


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return [{name: v for name, v in row.items() if name not in TIMED} for row in csv.DictReader(lines)]


def measured(out: Path) -> int:
    """Return how many rows of metrics all runs have."""
    return sum(file.read_bytes().count(b"\n") for file in out.glob("small/*/seed*/metrics.csv"))


def children(out: Path) -> list[int]:
    """Return the processes of the runs below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"bistable_rl.compare.launchers.child" in words and os.fsencode(out) in words:
            found.append(int(process.name))
    return found


@pytest.mark.slow
def test_a_comparison_killed_five_times_reports_what_one_left_alone_reports(comparison: Path, tmp_path: Path) -> None:
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    command = [sys.executable, "-m", "bistable_rl.cli", "compare", str(comparison), "--workers", "2", "--out"]
    for kill in range(5):
        grid = subprocess.Popen([*command, str(killed)], stderr=subprocess.DEVNULL)
        before, deadline = measured(killed), time.monotonic() + 300
        while measured(killed) < before + 8 and grid.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert grid.poll() is None, "it ended before it could be killed"
        grid.kill()
        grid.wait()
        for process in children(killed) if kill % 2 else []:  # otherwise they stop by themselves, with a checkpoint
            os.kill(process, signal.SIGKILL)
    subprocess.run([*command, str(killed)], check=True)
    subprocess.run([*command, str(alone)], check=True)
    assert children(killed) == []
    for name in ("runs.csv", "curves.csv", "summary.csv"):
        assert rows(killed / "small" / name) == rows(alone / "small" / name)
    assert len(rows(alone / "small" / "curves.csv")) == 4 * 10
    assert "final.success@10" in rows(alone / "small" / "runs.csv")[0]
    assert (killed / "small" / "report.html").exists()


@pytest.mark.slow
def test_a_plan_says_what_there_is_to_do(comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(comparison), "--out", str(tmp_path / "runs"), "--workers", "2", "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("nbrc  0 finished, 2 to do, about 0:0")
    assert said[2].startswith("4 runs to do, about 0:0")
    assert said[2].endswith("with 2 at once")
    assert not (tmp_path / "runs" / "small" / "nbrc").exists()
