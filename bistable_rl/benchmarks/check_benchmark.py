"""Check that a benchmark can be trained, and find the metrics of its learning curve, without training it."""

from __future__ import annotations

import torch

from bistable_rl.benchmarks.batches import Batches
from bistable_rl.benchmarks.runner import make_network
from bistable_rl.benchmarks.tasks import make_task
from bistable_rl.benchmarks.tasks.task import SyntheticTask, Task
from bistable_rl.runs.devices import resolve_device
from bistable_rl.runs.schema import Benchmark


class BenchmarkCheck:
    """Checks benchmarks one after the other; shared data is created once.

    Args:
        devices: Whether their devices must be available; False if the runs are trained on other machines.
    """

    def __init__(self, *, devices: bool = True) -> None:
        self._devices = devices
        self._seen: dict[str, Task] = {}

    def __call__(self, benchmark: Benchmark) -> set[str]:
        """Make its task, its data and its network.

        Returns:
            The metrics of its learning curve: the training loss, and those of the validation set if it has one.

        Raises:
            UserError: If it cannot be trained.
        """
        cpu = torch.device("cpu")
        device = resolve_device(benchmark.device) if self._devices else cpu
        key = repr((benchmark.task, benchmark.data, benchmark.protocol, benchmark.training))
        if key not in self._seen:
            task = make_task(benchmark.task)
            batches = Batches(benchmark, task, cpu)
            if not isinstance(task, SyntheticTask):
                batches.test_set()  # a missing or broken file
            self._seen[key] = task
        task = self._seen[key]
        make_network(benchmark, task, device)
        judged = {"loss", "accuracy", "f1"} if task.classification else {"mse"}
        return {"train_loss"} | (judged if benchmark.training.validation_size else set())
