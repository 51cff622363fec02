"""Copy-first: repeat the first step of a stream of noise at its end."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bistable_rl.benchmarks.tasks.task import DataProtocol, SyntheticTask
from bistable_rl.runs.keys import PositiveInt


@dataclass(kw_only=True)
class CopyFirst(SyntheticTask):
    """Repeat the first of T steps of noise after the last; the answer 0 has an error of 1.

    Vecoven et al. (2021), section 5 and Table 1. With 32 dimensions it is Johns' (2021) high-dimensional variant.

    Args:
        length: T, steps of a sequence; every feature is drawn from N(0, 1).
        dimension: D, features of a step.
        train_size: Samples of the training set.
        test_size: Samples of the test set.
    """

    length: PositiveInt
    dimension: PositiveInt = 1

    classification = False
    answers = 1

    def __post_init__(self) -> None:
        self.input_size = self.output_size = self.dimension

    @property
    def steps(self) -> int:
        """T, the most steps of a sequence."""
        return self.length

    def draw(self, n: int, generator: torch.Generator, protocol: DataProtocol) -> tuple[Tensor, Tensor]:
        """Return n samples: x (n, T, D) and its first step (n, 1, D)."""
        x = torch.randn(n, self.length, self.dimension, generator=generator, device=generator.device)
        return x, x[:, :1].clone()
