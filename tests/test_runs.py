from pathlib import Path
from typing import Any

import pytest
from new_run import new_run

from bistable_rl.errors import UserError
from bistable_rl.runs.config import read_yaml
from bistable_rl.runs.files import write_json, written_folder
from bistable_rl.runs.metrics import Metrics
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig, Experiment


@pytest.fixture
def experiment() -> Experiment:
    return Experiment(name="x", env=EnvConfig(id="bistable_rl/TMaze-v0"))


def test_a_run_that_is_there_is_never_overwritten(tmp_path: Path, experiment: Experiment) -> None:
    folders = [new_run(experiment, tmp_path) for _ in range(3)]
    assert [folder.name for folder in folders] == ["mixed-seed0", "mixed-seed0-2", "mixed-seed0-3"]


def test_overwrite_replaces_the_run(tmp_path: Path, experiment: Experiment) -> None:
    first = new_run(experiment, tmp_path)
    (first / "result.json").write_text("{}")
    assert new_run(experiment, tmp_path, overwrite=True) == first
    assert not (first / "result.json").exists()


def test_overwrite_leaves_alone_what_is_not_a_run(tmp_path: Path, experiment: Experiment) -> None:
    folder = tmp_path / "x" / "mixed-seed0"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not a run folder"):
        new_run(experiment, tmp_path, overwrite=True)
    assert (folder / "thesis.tex").exists()


def test_a_file_in_place_of_the_output_folder_is_one_sentence(tmp_path: Path, experiment: Experiment) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        new_run(experiment, tmp_path / "out")


def test_a_run_folder_reads_back(tmp_path: Path, experiment: Experiment) -> None:
    assert Run.open(new_run(experiment, tmp_path)).experiment() == experiment


def test_a_folder_that_is_no_run_points_to_the_runs_below_it(tmp_path: Path, experiment: Experiment) -> None:
    run = new_run(experiment, tmp_path)
    with pytest.raises(UserError, match="did you mean") as caught:
        Run.open(tmp_path).experiment()
    assert str(run) in str(caught.value)
    with pytest.raises(UserError, match="there is no folder"):
        Run.open(tmp_path / "nothing").experiment()


def test_what_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"x.zip is a file, not a run folder; RecurrentPPO.load opens what"):
        Run.open(tmp_path / "x.zip")
    with pytest.raises(UserError, match=r"^a run must be given as a Run or its folder, not as int\.$"):
        Run.open(3)  # type: ignore[arg-type]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write_json(file, {"steps": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"steps": float("nan")})
    assert file.read_text() == '{\n  "steps": 1\n}\n'
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "000"

    def half() -> None:
        with written_folder(target) as folder:
            (folder / "a").write_text("1")
            raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        half()
    assert list(target.parent.iterdir()) == []
    with written_folder(target) as folder:
        (folder / "a").write_text("1")
    assert (target / "a").read_text() == "1"


def test_metrics_keep_their_columns_and_grow(tmp_path: Path) -> None:
    for row in ({"a": 1, "b": 0.5}, {"a": 2, "other": 3}):
        file = Metrics(tmp_path, "metrics.csv").writer(["a", "b"])
        file.write(row)
        file.close()
    assert (tmp_path / "metrics.csv").read_text().split() == ["a,b", "1,0.5", "2,"]


def test_a_config_is_read_once_and_again_only_if_it_is_replaced(
    tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(new_run(experiment, tmp_path))
    read: list[Path] = []

    def counted(path: Path) -> dict[str, Any]:
        read.append(path)
        return read_yaml(path)

    monkeypatch.setattr("bistable_rl.runs.run.read_yaml", counted)
    assert run.experiment(["--env.kwargs.length", "7"]).env.kwargs == {"length": 7}
    assert run.config == run.experiment() == experiment
    assert len(read) == 1
    experiment.total_steps = 7
    Run(run).write_config(experiment)
    assert run.experiment().total_steps == 7
    assert len(read) == 2


def test_a_run_that_was_made_by_hand_is_checked_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        Run.open(Run(tmp_path))
