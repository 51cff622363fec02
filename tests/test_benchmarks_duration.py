"""How long a training takes is measured on the first steps of a batch, and scaled to all steps and updates."""

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from bistable_rl.benchmarks import duration
from bistable_rl.benchmarks.batches import Batches
from bistable_rl.benchmarks.duration import MEASURED_STEPS, Duration
from bistable_rl.benchmarks.tasks.task import Batch
from bistable_rl.runs.schema import Benchmark, NetworkConfig, TaskConfig, TrainingConfig

TRAINING = TrainingConfig(batch_size=20, epochs=2)
NETWORK = NetworkConfig(cell="gru", hidden_size=8)


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every measured update take a second; return a list to which the steps of each are added."""
    steps: list[int] = []

    def measure(benchmark: Benchmark, batches: Batches, batch: Batch) -> float:
        x = batch[0]
        steps.append(len(x) if isinstance(x, Tensor) else len(x.batch_sizes))
        return 1.0

    monkeypatch.setattr(duration, "_update_seconds", measure)
    return steps


def test_a_long_sequence_is_cut_and_its_time_scaled_up(one_second: list[int]) -> None:
    seconds = {}
    measure = Duration(1)
    for T in (10, 50, 200):
        task = TaskConfig("copy_first", {"length": T, "train_size": 70, "test_size": 10})
        seconds[T] = measure(Benchmark("x", task, NETWORK, TRAINING))
    assert seconds == {10: 8.0, 50: 8.0, 200: 32.0}  # two epochs of four updates
    assert one_second == [10, 50, 50]


def test_sequences_of_several_lengths_are_cut_too() -> None:
    sequences = [torch.full((length, 1), float(length)) for length in (60, 3, 80)]
    cut, share = duration._cut(pack_sequence(sequences, enforce_sorted=False))
    assert isinstance(cut, PackedSequence)
    assert [(len(one), float(one[0])) for one in unpack_sequence(cut)] == [(50, 60.0), (3, 3.0), (50, 80.0)]
    assert share == pytest.approx(103 / 143)
    assert MEASURED_STEPS == 50


@pytest.mark.parametrize("name", ["copy_first", "variable_line_mnist"])
def test_a_training_is_measured(name: str) -> None:
    kwargs = {"length": 60} if name == "copy_first" else {"dataset": "digits", "max_black_lines": 80}
    seconds = Duration(1)(Benchmark("x", TaskConfig(name, {**kwargs, "train_size": 100}), NETWORK, TRAINING))
    assert 0 < seconds < 100
