import subprocess
from pathlib import Path

import pytest

from bistable_rl.runs import environment


def test_the_commit_is_marked_where_a_tracked_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "bistable_rl" / "runs" / "environment.py"))
    assert environment.collect_environment()["commit"] is None
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "One"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "mine.yaml").write_text("name: mine")
    commit = environment.collect_environment()["commit"]
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert environment.collect_environment()["commit"] == commit + "+"


def test_the_command_of_a_run_of_a_grid_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/clone/bistable_rl/cli.py", "train", "--resume", "runs/a"])
    assert environment.collect_environment()["command"] == ["bistable-rl", "train", "--resume", "runs/a"]
