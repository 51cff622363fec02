"""That the measurement runs and says what ran; no test depends on a time."""

import json
from pathlib import Path

import pytest
import torch

from bistable_rl import kernels
from bistable_rl.cli import main
from bistable_rl.speed.cells import SHAPES, parse_shape, speed_cells


def test_every_layer_is_measured_and_named_with_what_ran_it(capsys: pytest.CaptureFixture[str]) -> None:
    with kernels.use_backend("torch"):
        speeds = speed_cells(shapes=[(2, 3, 1, 4), (2, 1, 3, 4)], cells=["nbrc", "goru"], rounds=1)
    assert [(speed.layer, speed.backend) for speed in speeds[:4]] == [
        ("nbrc", "torch"),
        ("goru", "reference"),
        ("nn.GRU", "torch"),
        ("nn.LSTM", "torch"),
    ]
    assert all(speed.milliseconds > 0 for speed in speeds)
    assert [speed.shape for speed in speeds] == [(2, 3, 1, 4)] * 4 + [(2, 1, 3, 4)] * 5
    assert not any(speed.fixed_weights for speed in speeds[:4])
    assert [(speed.layer, speed.fixed_weights) for speed in speeds[4:]] == [
        ("nbrc", False),
        ("nbrc", True),
        ("goru", False),
        ("nn.GRU", False),
        ("nn.LSTM", False),
    ]
    out = capsys.readouterr().out
    assert "nn.GRU / it" in out
    assert out.count("nbrc, fixed weights") == 1


def test_the_command_writes_what_it_measured_and_where(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    assert main(["speed", "cells", "--shapes", "2,3,1,4", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert [row["layer"] for row in written["measured"]] == [*kernels.KERNELS, "nn.GRU", "nn.LSTM"]
    assert all(row["shape"] == [2, 3, 1, 4] for row in written["measured"])
    assert written["environment"]["processor"]


def test_a_shape_is_read_as_it_is_printed() -> None:
    assert parse_shape(",".join(map(str, SHAPES[0]))) == SHAPES[0]


@pytest.mark.parametrize("text", ["100,300,1", "1,2,3,x", "1,2,3,0", "", "1,2,3,-4"])
def test_a_shape_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"four positive integers B,T,I,H.*got"):
        parse_shape(text)


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="device"):
        speed_cells(device=device)
