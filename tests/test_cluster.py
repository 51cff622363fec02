"""The page about several machines: its comparison and its study on a Ray cluster of two nodes on this machine."""

import csv
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import bistable_rl
from bistable_rl.cli import main

ray = pytest.importorskip("ray")
pytest.importorskip("optuna")
pytestmark = pytest.mark.slow

from two_nodes import blocks, two_nodes  # noqa: E402

PAGE = Path(bistable_rl.__file__).resolve().parent / "CLUSTER.md"


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[str]:
    with two_nodes() as address:
        yield address


def test_the_page_s_commands_run_on_two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in zip(("cells", "study"), blocks(PAGE, "Many trainings", "yaml"), strict=True):
        Path(f"{name}.yaml").write_text(text)
    (commands,) = blocks(PAGE, "Many trainings", "bash")
    for command in commands.splitlines():
        program, *words = shlex.split(command)
        assert program == "bistable-rl"
        assert main(words) == 0
        ray.shutdown()  # as the end of the command's process
    with open("runs/cells/runs.csv") as file:
        assert len(list(csv.DictReader(file))) == 4
    with open("runs/tune/study/trials.csv") as file:
        trials = list(csv.DictReader(file))
    assert [trial["trial"] for trial in trials] == list("0123")
    assert {trial["status"] for trial in trials} <= {"finished", "pruned"}
    assert Path("runs/tune/study/best.yaml").exists()
