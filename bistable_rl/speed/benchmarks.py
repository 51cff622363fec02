"""The seconds per epoch of the papers' benchmarks: our cells against the same network with torch.nn.GRU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bistable_rl.benchmarks.network import Network
from bistable_rl.benchmarks.tasks import make_task
from bistable_rl.benchmarks.tasks.task import SyntheticTask, Task, task_loss
from bistable_rl.runs.progress import say_measuring
from bistable_rl.runs.schema import NetworkConfig, TaskConfig, TrainingConfig
from bistable_rl.speed.table import print_table
from bistable_rl.speed.timing import median_seconds

TASKS = (TaskConfig("copy_first", {"length": 300}), TaskConfig("denoising", {"length": 400}))
CELLS = ("brc", "nbrc", "gru", "lstm")
THEIRS = "nn.GRU"
FLUSHED = "nn.GRU, denormals flushed"
"""Gradients that vanish over the steps become denormal numbers, which slow a processor tenfold unless it flushes them
to 0. torch does this only after `torch.set_flush_denormal`; our kernels do it while they run."""


@dataclass(frozen=True)
class EpochSpeed:
    """The duration of an epoch of a task, computed from the median update.

    Attributes:
        task: The task.
        steps: T, the number of steps in a sequence.
        layer: A cell's name, "nn.GRU", or "nn.GRU, denormals flushed".
        seconds: The seconds of an epoch at the paper's sizes: two layers of 128, batches of 100, 40,000 samples.
    """

    task: str
    steps: int
    layer: str
    seconds: float


class TorchNetwork(nn.Module):
    """The network of the benchmarks with torch's own GRU.

    Args:
        config: The sizes of the network.
        task: The task, which sets the sizes of input and answer and the number of steps with an answer.
    """

    def __init__(self, config: NetworkConfig, task: Task) -> None:
        super().__init__()
        self.answers = task.answers
        self.rnn = nn.GRU(task.input_size, config.hidden_size, config.num_layers)
        self.head = nn.Linear(config.hidden_size, task.output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the answers of the last K steps, (K, B, O), for x of (T, B, I)."""
        answers: Tensor = self.head(self.rnn(x)[0][-self.answers :])
        return answers


def measure(config: TaskConfig, *, cells: Sequence[str] = CELLS, rounds: int = 5) -> list[EpochSpeed]:
    """Time an update of each network, in processor time.

    Args:
        config: A task whose samples are drawn at random.
        cells: The names of the cells.
        rounds: How often each network is timed.

    Returns:
        One `EpochSpeed` per cell, then those of torch.nn.GRU without and with flushed denormals.
    """
    task = make_task(config)
    assert isinstance(task, SyntheticTask)
    training = TrainingConfig()
    x, target = task.fresh_batch(training.batch_size, torch.Generator().manual_seed(0), "paper")
    assert isinstance(x, Tensor)
    networks: dict[str, nn.Module] = {cell: Network(NetworkConfig(cell=cell), task) for cell in cells}
    networks[THEIRS] = networks[FLUSHED] = TorchNetwork(NetworkConfig(), task)
    updates = {name: _update(network, training, x, target) for name, network in networks.items()}
    seconds = median_seconds(updates, rounds=rounds, contexts={FLUSHED: _denormals_flushed})
    updates_per_epoch = task.train_size / training.batch_size
    return [EpochSpeed(config.name, len(x), name, updates_per_epoch * each) for name, each in seconds.items()]


def speed_benchmarks(rounds: int = 5) -> list[EpochSpeed]:
    """Time the benchmarks and print how many times faster our networks are than the networks with torch.nn.GRU.

    They run on one thread, like a training of `reproduce`: `torch.set_flush_denormal` affects only the calling thread.
    """
    torch.set_num_threads(1)
    found: list[EpochSpeed] = []
    rows: list[list[str]] = []
    for i, config in enumerate(TASKS, 1):
        say_measuring(config.name, i, len(TASKS))
        measured = measure(config, rounds=rounds)
        found += measured
        for one in measured:
            ratios = [f"{theirs.seconds / one.seconds:.1f}" for theirs in measured[-2:]]
            rows.append([one.task, str(one.steps), one.layer, f"{one.seconds:.1f}", *ratios])
        rows.append([])
    print_table(
        f"2 x 128, batch 100, 40,000 samples, 1 CPU thread, torch {torch.__version__}",
        ["task", "T", "layer"],
        ["seconds an epoch", "nn.GRU / it", "flushed / it"],
        rows,
    )
    return found


def _update(network: nn.Module, training: TrainingConfig, x: Tensor, target: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate)

    def update() -> None:
        optimizer.zero_grad()
        task_loss(network(x), target, classification=False).backward()
        optimizer.step()

    return update


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
