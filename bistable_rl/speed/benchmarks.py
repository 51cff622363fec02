"""How long an epoch of the papers' benchmarks takes with each cell, beside the same network on torch.nn.GRU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bistable_rl.benchmarks.network import Network
from bistable_rl.benchmarks.tasks import make_task
from bistable_rl.benchmarks.tasks.task import SyntheticTask, Task, task_loss
from bistable_rl.runs.progress import say_measuring
from bistable_rl.runs.schema import NetworkConfig, TaskConfig, TrainingConfig

TASKS = (TaskConfig("copy_first", {"length": 300}), TaskConfig("denoising", {"length": 400}))
CELLS = ("brc", "nbrc", "gru", "lstm")
THEIRS = "nn.GRU"
FLUSHED = "nn.GRU, denormals flushed"
"""Gradients that vanish over the steps become denormal numbers, which slow a processor tenfold unless it takes them
for 0: torch leaves that to `torch.set_flush_denormal`, our kernels do it while they run."""


@dataclass(frozen=True)
class EpochSpeed:
    """What an epoch of a task takes, from the median update of interleaved ones.

    Attributes:
        task: The task.
        steps: T, steps of a sequence.
        layer: A cell's name, "nn.GRU", or "nn.GRU, denormals flushed".
        seconds: Seconds of an epoch at the paper's sizes: two layers of 128, batches of 100, 40,000 samples.
    """

    task: str
    steps: int
    layer: str
    seconds: float


class TorchNetwork(nn.Module):
    """The network of the benchmarks on torch's own GRU.

    Args:
        config: Sizes.
        task: Says how wide input and answer are, and how many steps are answered.
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
    """Time an update of each network in turn, so that a busy moment hits all alike.

    Args:
        config: A task whose samples are drawn.
        cells: Names of cells.
        rounds: How often each is timed.

    Returns:
        One `EpochSpeed` a cell, then torch.nn.GRU's as it is and with denormals flushed.
    """
    task = make_task(config)
    assert isinstance(task, SyntheticTask)
    training = TrainingConfig()
    x, target = task.fresh_batch(training.batch_size, torch.Generator().manual_seed(0), "paper")
    assert isinstance(x, Tensor)
    networks: dict[str, nn.Module] = {cell: Network(NetworkConfig(cell=cell), task) for cell in cells}
    networks[THEIRS] = networks[FLUSHED] = TorchNetwork(NetworkConfig(), task)
    updates = {name: _update(network, training, x, target) for name, network in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in updates}
    for measured in [False] + [True] * rounds:  # the first round allocates
        for name, update in updates.items():
            torch.set_flush_denormal(name == FLUSHED)
            start = time.perf_counter()
            update()
            if measured:
                times[name].append(time.perf_counter() - start)
    torch.set_flush_denormal(False)
    an_epoch = task.train_size / training.batch_size
    return [EpochSpeed(config.name, len(x), name, an_epoch * statistics.median(t)) for name, t in times.items()]


def speed_benchmarks(rounds: int = 5) -> list[EpochSpeed]:
    """Time the benchmarks and print how many times faster than torch.nn.GRU's network ours are.

    On one thread, like a training of `reproduce`, and because `torch.set_flush_denormal` reaches no other.
    """
    torch.set_num_threads(1)
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    table = Table(
        "task", "T", "layer", "seconds an epoch", "nn.GRU / it", "flushed / it",
        title=f"2 x 128, batch 100, 40,000 samples, 1 CPU thread, torch {torch.__version__}",
    )  # fmt: skip
    found: list[EpochSpeed] = []
    for i, config in enumerate(TASKS, 1):
        say_measuring(config.name, i, len(TASKS))
        measured = measure(config, rounds=rounds)
        found += measured
        for one in measured:
            ratios = [f"{theirs.seconds / one.seconds:.1f}" for theirs in measured[-2:]]
            table.add_row(one.task, str(one.steps), one.layer, f"{one.seconds:.1f}", *ratios)
    console.print(table)
    return found


def _update(network: nn.Module, training: TrainingConfig, x: Tensor, target: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate)

    def update() -> None:
        optimizer.zero_grad()
        task_loss(network(x), target, classification=False).backward()
        optimizer.step()

    return update
