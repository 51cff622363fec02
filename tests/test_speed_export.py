"""How long a step of an exported agent takes."""

import sys

import pytest

from bistable_rl.agents.export_formats import FORMATS
from bistable_rl.errors import UserError
from bistable_rl.speed.export import FIXED, speed_export


def test_a_table_is_printed_and_returned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(FORMATS, "onnx")  # whose translation takes seconds
    rows = speed_export(["gru"], [1, 3], rounds=1, seconds=0.001)
    assert [(row.cell, row.copies) for row in rows] == [("gru", 1), ("gru", 3)]
    assert all(set(row.microseconds) == {"predict", FIXED, "torch", "pt2"} for row in rows)
    assert all(time > 0 for row in rows for time in row.microseconds.values())
    printed = capsys.readouterr().out
    assert "pt2: times as fast" in printed
    assert "…" not in printed


@pytest.mark.slow
def test_onnx_is_faster_than_predict() -> None:
    [row] = speed_export(["nbrc"], [1])
    assert 2 * row.microseconds["onnx"] < row.microseconds[FIXED]


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs onnxscript: install it with pip install 'bistable-rl\[export\]'"):
        speed_export(["gru"], [1])
