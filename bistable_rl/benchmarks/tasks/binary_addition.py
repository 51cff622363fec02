"""Binary addition: add two streams of bits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bistable_rl.benchmarks.tasks.task import DataProtocol, SyntheticTask
from bistable_rl.runs.keys import PositiveInt


@dataclass(kw_only=True)
class BinaryAddition(SyntheticTask):
    """Name the sum of two numbers bit by bit, the lowest first; the network must remember the carry.

    Two independent streams of fair bits are followed by one step of zeros for the last carry. Every step is answered.

    Args:
        bits: Bits of each of the two numbers.
        train_size: Samples of the training set.
        test_size: Samples of the test set.
    """

    bits: PositiveInt = 60

    classification = True
    input_size = 2
    output_size = 2

    def __post_init__(self) -> None:
        self.answers = self.bits + 1

    @property
    def steps(self) -> int:
        """T, the most steps of a sequence."""
        return self.bits + 1

    def draw(self, n: int, generator: torch.Generator, protocol: DataProtocol) -> tuple[Tensor, Tensor]:
        """Return n samples: two bits per step x (n, bits + 1, 2), and the bits of the sum (n, bits + 1)."""
        terms = torch.randint(2, (n, self.bits + 1, 2), generator=generator, device=generator.device)
        terms[:, -1] = 0
        total = torch.empty_like(terms[..., 0])
        carry = torch.zeros_like(total[:, 0])
        for t in range(self.bits + 1):
            both = terms[:, t].sum(-1) + carry
            total[:, t], carry = both % 2, both // 2
        return terms.float(), total
