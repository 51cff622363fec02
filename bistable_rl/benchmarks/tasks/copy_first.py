"""Copy-first: say at the end of a stream of noise what came first."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bistable_rl.benchmarks.tasks.task import DrawnTask, Which
from bistable_rl.runs.keys import PositiveInt


@dataclass(kw_only=True)
class CopyFirst(DrawnTask):
    """Say after T steps of noise what the first of them was; always saying 0 gives an error of 1.

    Vecoven et al. (2021), section 5 and Table 1; with 32 dimensions Johns' (2021) high-dimensional variant.

    Args:
        length: T, steps of a sequence, each of its features from N(0, 1).
        dimension: D, features of a step.
        train_size: Samples of the training set.
        test_size: Samples of the test set.
    """

    length: PositiveInt
    dimension: PositiveInt = 1

    classes = False
    answers = 1

    def __post_init__(self) -> None:
        self.input_size = self.output_size = self.dimension

    @property
    def steps(self) -> int:
        """T, the most steps of a sequence."""
        return self.length

    def draw(self, n: int, generator: torch.Generator, protocol: Which) -> tuple[Tensor, Tensor]:
        """Return n samples: x (n, T, D) and its first step (n, 1, D)."""
        x = torch.randn(n, self.length, self.dimension, generator=generator, device=generator.device)
        return x, x[:, :1].clone()
