from pathlib import Path

import pytest

from bistable_rl.errors import UserError
from bistable_rl.runs import run as runs
from bistable_rl.runs.schema import EnvConfig, Experiment


@pytest.fixture
def experiment() -> Experiment:
    return Experiment(name="x", env=EnvConfig(id="bistable_rl/TMaze-v0"))


def test_a_run_that_is_there_is_never_overwritten(tmp_path: Path, experiment: Experiment) -> None:
    folders = [runs.create(experiment, tmp_path) for _ in range(3)]
    assert [folder.name for folder in folders] == ["nbrc-seed0", "nbrc-seed0-2", "nbrc-seed0-3"]


def test_overwrite_replaces_the_run(tmp_path: Path, experiment: Experiment) -> None:
    first = runs.create(experiment, tmp_path)
    (first / runs.RESULT).write_text("{}")
    assert runs.create(experiment, tmp_path, overwrite=True) == first
    assert not (first / runs.RESULT).exists()


def test_overwrite_leaves_alone_what_is_not_a_run(tmp_path: Path, experiment: Experiment) -> None:
    folder = tmp_path / "x" / "nbrc-seed0"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not a run folder"):
        runs.create(experiment, tmp_path, overwrite=True)
    assert (folder / "thesis.tex").exists()


def test_a_file_in_place_of_the_output_folder_is_one_sentence(tmp_path: Path, experiment: Experiment) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        runs.create(experiment, tmp_path / "out")


def test_a_run_folder_reads_back(tmp_path: Path, experiment: Experiment) -> None:
    assert runs.read_experiment(runs.create(experiment, tmp_path)) == experiment


def test_a_folder_that_is_no_run_points_to_the_runs_below_it(tmp_path: Path, experiment: Experiment) -> None:
    run = runs.create(experiment, tmp_path)
    with pytest.raises(UserError, match="did you mean") as caught:
        runs.read_experiment(tmp_path)
    assert str(run) in str(caught.value)
    with pytest.raises(UserError, match="there is no folder"):
        runs.read_experiment(tmp_path / "nothing")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    runs.write_json(file, {"steps": 1})
    with pytest.raises(ValueError, match="JSON"):
        runs.write_json(file, {"steps": float("nan")})
    assert file.read_text() == '{\n  "steps": 1\n}\n'
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "000"

    def half() -> None:
        with runs.written_folder(target) as folder:
            (folder / "a").write_text("1")
            raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        half()
    assert list(target.parent.iterdir()) == []
    with runs.written_folder(target) as folder:
        (folder / "a").write_text("1")
    assert (target / "a").read_text() == "1"


def test_metrics_keep_their_columns_and_grow(tmp_path: Path) -> None:
    for row in ({"a": 1, "b": 0.5}, {"a": 2, "other": 3}):
        file = runs.MetricsFile(tmp_path / "metrics.csv", ["a", "b"])
        file.write(row)
        file.close()
    assert (tmp_path / "metrics.csv").read_text().split() == ["a,b", "1,0.5", "2,"]
