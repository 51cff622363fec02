"""What a task is: where its samples come from, what they look like, and how an answer to them is judged."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from bistable_rl.runs.capacity import check_memory
from bistable_rl.runs.keys import PositiveInt

Which: TypeAlias = Literal["paper", "authors_code"]
"""Whose protocol: the text of the paper or the code that its authors published."""

Batch: TypeAlias = tuple[Tensor | PackedSequence, Tensor]
"""x (T, B, I), or packed sequences of several lengths; the targets of the last K steps (K, B, O), or (K, B) classes."""


class Samples(Protocol):
    """A set of samples on one device."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """Return the samples of these numbers (B,)."""


class Task:
    """A task: a dataclass whose fields are the arguments of its config (`task.kwargs`).

    Attributes:
        classes: Whether an answer is a class (cross-entropy) or numbers (mean squared error).
        input_size: I, the features of a step.
        output_size: O, the numbers of an answer, or the number of classes.
        answers: K, how many steps at the end of a sequence are answered.
        steps: T, the most steps of a sequence.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    classes: ClassVar[bool]
    input_size: int
    output_size: int
    answers: int

    @property
    @abstractmethod
    def steps(self) -> int:
        """T, the most steps of a sequence."""

    @abstractmethod
    def train_set(self, generator: torch.Generator, protocol: Which) -> Samples:
        """Return the training set, on the generator's device."""

    @abstractmethod
    def test_set(self, generator: torch.Generator, protocol: Which) -> Samples:
        """Return the test set, on the generator's device."""

    def check(self, source: str) -> None:
        """Check arguments that are wrong together.

        Raises:
            UserError: What is wrong; the sentence starts with `source`.
        """


@dataclass
class _Drawn:
    """Samples that were drawn: x (n, T, I), targets (n, K, ...)."""

    x: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> Batch:
        return self.x[index].transpose(0, 1).contiguous(), self.target[index].transpose(0, 1)


@dataclass(kw_only=True)
class DrawnTask(Task):
    """A task whose samples are drawn, as many as one likes.

    Args:
        train_size: Samples of the training set.
        test_size: Samples of the test set.
    """

    train_size: PositiveInt = 40_000
    test_size: PositiveInt = 50_000

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator, protocol: Which) -> tuple[Tensor, Tensor]:
        """Return n samples: x (n, T, I) and the targets (n, K, O), or (n, K) classes, on the generator's device."""

    def train_set(self, generator: torch.Generator, protocol: Which) -> Samples:
        """Return the training set, on the generator's device."""
        self._check_memory("train_size", self.train_size, generator.device)
        return _Drawn(*self.draw(self.train_size, generator, protocol))

    def test_set(self, generator: torch.Generator, protocol: Which) -> Samples:
        """Return the test set, on the generator's device."""
        self._check_memory("test_size", self.test_size, generator.device)
        return _Drawn(*self.draw(self.test_size, generator, protocol))

    def _check_memory(self, name: str, n: int, device: torch.device) -> None:
        what = f"task.kwargs.{name} {n}: so many sequences of {self.steps:,} steps x {self.input_size} features"
        check_memory(what, 4 * n * self.steps * self.input_size, device)

    def fresh_batch(self, n: int, generator: torch.Generator, protocol: Which) -> Batch:
        """Return n new samples."""
        return _Drawn(*self.draw(n, generator, protocol)).batch(torch.arange(n, device=generator.device))


def judge(outputs: Tensor, targets: Tensor, *, classes: bool) -> dict[str, float]:
    """Return how good answers are, as in the paper.

    Args:
        outputs: (K, n, O) what the network says.
        targets: (K, n, O), or (K, n) classes.
        classes: Whether the targets are classes.

    Returns:
        `mse`; or `loss` (cross-entropy), `accuracy` and `f1` (the mean of the classes' F1 scores).
    """
    loss = float(loss_of(outputs, targets, classes=classes))
    if not classes:
        return {"mse": loss}
    from sklearn.metrics import accuracy_score, f1_score

    truth, said = targets.flatten().cpu().numpy(), outputs.argmax(-1).flatten().cpu().numpy()
    return {
        "loss": loss,
        "accuracy": float(accuracy_score(truth, said)),
        "f1": float(f1_score(truth, said, average="macro", zero_division=0)),
    }


def loss_of(outputs: Tensor, targets: Tensor, *, classes: bool) -> Tensor:
    """Return the mean squared error, or the cross-entropy of classes, in float32."""
    outputs = outputs.float()
    if classes:
        return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
    return torch.nn.functional.mse_loss(outputs, targets)
