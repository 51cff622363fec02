"""Denoising: repeat the five marked numbers of a stream at its end, in their order."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bistable_rl.benchmarks.tasks.task import DataProtocol, SyntheticTask
from bistable_rl.runs.keys import PositiveInt

MARKED = 5


@dataclass(kw_only=True)
class Denoising(SyntheticTask):
    """Repeat the five marked numbers of a stream in its last five steps, in their order.

    A step is a number and a flag. The number is drawn from N(0, 1), and is 0 in the last five steps. The flag is 1
    where the number is marked, 0 at the first answered step, and -1 elsewhere. The error is the mean over the five. The
    authors' code has 404 steps, and the flag is -1 at the first answered step and 0 elsewhere.

    Vecoven et al. (2021), section 5 and Table 2.

    Args:
        length: T, steps of a sequence.
        forgetting: N, steps at its end without a mark, at least 5.
        train_size: Samples of the training set.
        test_size: Samples of the test set.
    """

    length: PositiveInt = 400
    forgetting: PositiveInt = 5

    classification = False
    input_size = 2
    output_size = 1
    answers = MARKED

    @property
    def steps(self) -> int:
        """T, the most steps of a sequence."""
        return self.length

    def check(self, prefix: str = "") -> None:
        """Check that the marks fit before the answered steps."""
        room = self.length - self.forgetting
        if self.forgetting < MARKED or room < MARKED:
            raise ValueError(
                f"{prefix}forgetting must be from {MARKED} to length - {MARKED}, "
                f"not {self.forgetting} with length {self.length}."
            )

    def draw(self, n: int, generator: torch.Generator, protocol: DataProtocol) -> tuple[Tensor, Tensor]:
        """Return n samples: x (n, T, 2), number and flag, and the marked numbers (n, 5, 1)."""
        T, device = self.length, generator.device
        numbers = torch.randn(n, T, generator=generator, device=device)
        numbers[:, T - MARKED :] = 0
        lots = torch.rand(n, T - self.forgetting, generator=generator, device=device)
        marked = lots.topk(MARKED).indices.sort().values  # five distinct steps, every set equally likely
        elsewhere, announced = (-1.0, 0.0) if protocol == "paper" else (0.0, -1.0)
        flags = torch.full((n, T), elsewhere, device=device).scatter_(1, marked, 1.0)
        flags[:, T - MARKED] = announced
        return torch.stack([numbers, flags], -1), numbers.gather(1, marked).unsqueeze(-1)
