import csv
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
    page = (tmp_path / "figures" / "x.md").read_text()
    assert page.count("| nbrc | 0 |") == 2
    assert "--chance 0.5" in page
    assert page in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
