"""The batches of a supervised training; each is a function of the seed and the update's number.

So a resumed training needs no random generator's state: it asks for the batch of its next update.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from bistable_rl.benchmarks.tasks.task import Batch, Samples, SyntheticTask, Task
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import Benchmark

# the purposes of generators
_TRAIN_SET, _TEST_SET, _HELD_OUT, _ORDER, _FRESH = range(5)


def _generator(seed: int, purpose: int, number: int, device: torch.device) -> torch.Generator:
    state = np.random.SeedSequence([seed, purpose, number]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class Batches:
    """The batches of a training and its validation and test sets.

    Args:
        benchmark: The benchmark to train.
        task: Its task.
        device: The device of the samples.

    Raises:
        UserError: If the task draws no fresh samples, or the validation set leaves nothing to train on.
    """

    def __init__(self, benchmark: Benchmark, task: Task, device: torch.device) -> None:
        self.benchmark = benchmark
        self.task = task
        self.device = device
        training = benchmark.training
        self._samples: Samples | None = None
        self._epoch = -1
        if benchmark.data == "fresh":
            if not isinstance(task, SyntheticTask):
                raise UserError(f"data must be fixed for {benchmark.task.name}, which has no new samples to draw.")
            size = task.train_size
        else:
            self._samples = task.train_set(_generator(benchmark.seed, _TRAIN_SET, 0, device), benchmark.protocol)
            size = len(self._samples) - training.validation_size
            if size < 1:
                raise UserError(
                    f"training.validation_size must be less than the {len(self._samples)} samples of the training set, "
                    f"not {training.validation_size}."
                )
            mixed = self._permutation(len(self._samples), _HELD_OUT, 0)
            self._train, self._held_out = mixed[:size].sort().values, mixed[size:].sort().values
        self.epoch_updates = math.ceil(size / training.batch_size)
        self.total_updates = training.epochs * self.epoch_updates
        self._size = size

    def batch(self, update: int) -> Batch:
        """Return the batch of an update, counted from 0."""
        epoch, number = divmod(update, self.epoch_updates)
        start = number * self.benchmark.training.batch_size
        stop = min(start + self.benchmark.training.batch_size, self._size)
        if self._samples is None:
            assert isinstance(self.task, SyntheticTask)
            generator = _generator(self.benchmark.seed, _FRESH, update, self.device)
            return self.task.fresh_batch(stop - start, generator, self.benchmark.protocol)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._train
            if self.benchmark.protocol == "paper":  # the authors' code does not shuffle
                self._order = self._train[self._permutation(self._size, _ORDER, epoch)]
        return self._samples.batch(self._order[start:stop])

    def validation_set(self) -> tuple[Samples, torch.Tensor]:
        """Return samples, and the indices of the validation set."""
        assert self._samples is not None
        return self._samples, self._held_out

    def test_set(self) -> tuple[Samples, torch.Tensor]:
        """Make the test set; return it and the indices of its samples."""
        generator = _generator(self.benchmark.seed, _TEST_SET, 0, self.device)
        samples = self.task.test_set(generator, self.benchmark.protocol)
        return samples, torch.arange(len(samples), device=self.device)

    def _permutation(self, n: int, purpose: int, number: int) -> torch.Tensor:
        generator = _generator(self.benchmark.seed, purpose, number, self.device)
        return torch.randperm(n, generator=generator, device=self.device)
