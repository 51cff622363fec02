"""The contract of a supervised task: its sizes, its data sets, and the loss and metrics of its answers."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from bistable_rl.runs.capacity import check_memory
from bistable_rl.runs.keys import PositiveInt, Section

DataProtocol: TypeAlias = Literal["paper", "authors_code"]
"""Data as described in the paper's text, or as made by the code that its authors published."""

Batch: TypeAlias = tuple[Tensor | PackedSequence, Tensor]
"""Inputs x (T, B, I), packed if their lengths differ; targets of the last K steps, (K, B, O) or classes (K, B)."""


class Samples(Protocol):
    """A set of samples on one device."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """Return the samples with these indices (B,)."""


class Task(Section):
    """A task: a dataclass whose fields are the arguments of its config (`task.kwargs`).

    Attributes:
        classification: Whether answers are classes (cross-entropy) or numbers (mean squared error).
        input_size: I, the features of a step.
        output_size: O, the numbers of an answer, or the number of classes.
        answers: K, the number of steps at the end of a sequence that are answered.
        steps: T, the most steps of a sequence.
    """

    classification: ClassVar[bool]
    input_size: int
    output_size: int
    answers: int

    @property
    @abstractmethod
    def steps(self) -> int:
        """T, the most steps of a sequence."""

    @abstractmethod
    def train_set(self, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return the training set, on the generator's device."""

    @abstractmethod
    def test_set(self, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return the test set, on the generator's device."""


@dataclass
class _TensorSamples:
    """Samples in two tensors: x (n, T, I) and targets (n, K, ...)."""

    x: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> Batch:
        return self.x[index].transpose(0, 1).contiguous(), self.target[index].transpose(0, 1)


@dataclass(kw_only=True)
class SyntheticTask(Task):
    """A task whose samples are drawn at random.

    Args:
        train_size: Samples of the training set.
        test_size: Samples of the test set.
    """

    train_size: PositiveInt = 40_000
    test_size: PositiveInt = 50_000

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator, protocol: DataProtocol) -> tuple[Tensor, Tensor]:
        """Return n samples, x (n, T, I) and targets (n, K, O) or classes (n, K), on the generator's device."""

    def train_set(self, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return the training set, on the generator's device."""
        self._check_memory("train_size", self.train_size, generator.device)
        return _TensorSamples(*self.draw(self.train_size, generator, protocol))

    def test_set(self, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return the test set, on the generator's device."""
        self._check_memory("test_size", self.test_size, generator.device)
        return _TensorSamples(*self.draw(self.test_size, generator, protocol))

    def _check_memory(self, name: str, n: int, device: torch.device) -> None:
        what = f"task.kwargs.{name} {n} (sequences of {self.steps:,} steps x {self.input_size} features)"
        check_memory(what, 4 * n * self.steps * self.input_size, device)

    def fresh_batch(self, n: int, generator: torch.Generator, protocol: DataProtocol) -> Batch:
        """Return n new samples."""
        return _TensorSamples(*self.draw(n, generator, protocol)).batch(torch.arange(n, device=generator.device))


def task_metrics(outputs: Tensor, targets: Tensor, *, classification: bool) -> dict[str, float]:
    """Return the paper's metrics of answers.

    Args:
        outputs: (K, n, O) the network's answers.
        targets: (K, n, O), or classes (K, n).
        classification: Whether the targets are classes.

    Returns:
        `mse`; or `loss` (cross-entropy), `accuracy` and `f1` (the mean of the classes' F1 scores).
    """
    loss = float(task_loss(outputs, targets, classification=classification))
    if not classification:
        return {"mse": loss}
    from sklearn.metrics import accuracy_score, f1_score

    true, predicted = targets.flatten().cpu().numpy(), outputs.argmax(-1).flatten().cpu().numpy()
    return {
        "loss": loss,
        "accuracy": float(accuracy_score(true, predicted)),
        "f1": float(f1_score(true, predicted, average="macro", zero_division=0)),
    }


def task_loss(outputs: Tensor, targets: Tensor, *, classification: bool) -> Tensor:
    """Return the mean squared error, or the cross-entropy of classes, in float32."""
    outputs = outputs.float()
    if classification:
        return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
    return torch.nn.functional.mse_loss(outputs, targets)
