"""Estimate how long a training takes on this machine, from a few updates on the first steps of a batch."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from bistable_rl.benchmarks.batches import Batches
from bistable_rl.benchmarks.runner import make_network
from bistable_rl.benchmarks.tasks import make_task
from bistable_rl.benchmarks.tasks.task import Batch
from bistable_rl.benchmarks.trainer import make_optimizer, update_weights
from bistable_rl.runs.devices import resolve_device
from bistable_rl.runs.schema import Benchmark

MEASURED_STEPS = 50
"""The most steps of a measured update. One of T steps takes T / 50 times as long: seconds, with the slowest cells."""
MEASURED_SECONDS = 0.15
"""How long the updates of one training are measured; at least one is."""


class Duration:
    """Estimates the time of trainings one after the other; consecutive ones share their data.

    Args:
        threads: The threads of a training on the CPU.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._made: tuple[str, Batches] | None = None

    def __call__(self, benchmark: Benchmark) -> float:
        """Return the seconds that a training takes to its last epoch.

        Raises:
            UserError: If it cannot be trained.
        """
        batches = self._batches(benchmark)
        x, target = batches.batch(0)
        x, share = _cut(x)
        return batches.total_updates * _update_seconds(benchmark, batches, (x, target)) / share

    def _batches(self, benchmark: Benchmark) -> Batches:
        """Return the batches of a training, which do not depend on the network."""
        key = repr((benchmark.task, benchmark.data, benchmark.protocol, benchmark.training, benchmark.seed))
        if self._made is None or self._made[0] != key:
            self._made = key, Batches(benchmark, make_task(benchmark.task), resolve_device(benchmark.device))
        return self._made[1]


def _cut(x: Tensor | PackedSequence) -> tuple[Tensor | PackedSequence, float]:
    """Return the first steps of the inputs, and their fraction of all steps."""
    if isinstance(x, Tensor):
        return x[:MEASURED_STEPS], min(1.0, MEASURED_STEPS / len(x))
    sizes = x.batch_sizes[:MEASURED_STEPS]
    rows = int(sizes.sum())
    return PackedSequence(x.data[:rows], sizes, x.sorted_indices, x.unsorted_indices), rows / len(x.data)


def _update_seconds(benchmark: Benchmark, batches: Batches, batch: Batch) -> float:
    """Return the mean seconds of an update, without the first one."""
    network = make_network(benchmark, batches.task, batches.device)
    optimizer = make_optimizer(network, benchmark.training)

    def update() -> None:
        update_weights(network, optimizer, batch, benchmark.training, classification=batches.task.classification)

    update()
    began, updates = time.monotonic(), 0
    while not updates or time.monotonic() - began < MEASURED_SECONDS:
        update()
        updates += 1
    return (time.monotonic() - began) / updates
