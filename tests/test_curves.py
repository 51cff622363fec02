import csv
import shutil
from pathlib import Path

import pytest

from bistable_rl.analysis.curves import main, read


def test_curves_are_those_of_the_metrics(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(trained), str(trained), "--out", str(tmp_path / "figures" / "x"), "--chance", "0.5"]) == 0
    assert (tmp_path / "figures" / "x.png").read_bytes()[1:4] == b"PNG"
    with (tmp_path / "figures" / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    curve = read(trained)
    assert [int(row["steps"]) for row in rows] == [*curve.steps, *curve.steps]
    assert [float(row["success_rate"]) for row in rows] == pytest.approx([*curve.success, *curve.success], rel=1e-3)
    with (trained / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert curve.success.tolist() == [float(row["rollout/success_rate"]) for row in metrics]
    page = (tmp_path / "figures" / "x.md").read_text()
    assert page.count("| nbrc | 0 |") == 2
    assert "--chance 0.5" in page
    assert page in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_final_evaluation_is_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "result.json").write_text('{"status": "interrupted", "steps": 0, "seconds": 0, "evaluation": null}')
    assert main([str(run), "--out", str(tmp_path / "x")]) == 2
    assert "ended without an evaluation" in capsys.readouterr().err
    (run / "result.json").write_text("{")
    assert main([str(run), "--out", str(tmp_path / "x")]) == 2
    assert "broken" in capsys.readouterr().err
    assert not list(tmp_path.glob("x*"))
