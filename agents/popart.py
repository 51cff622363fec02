"""PopArt (van Hasselt et al. 2016): the critic learns values in units of the spread of the returns.

Whatever the size of the returns, the value loss is about 1 and its gradient has the same size. One step of the
optimizer moves the value head by the same fraction of the way from 0 to the returns.

In the paper the head gives the normalised value, V = σ (w·x + b) + μ, and w and b are rewritten whenever σ and μ
change, so that no value changes. Here the head gives the value itself, with weight W = σw and bias B = σb + μ, and it
stays unchanged when σ and μ change. Only the optimizer sees W/σ and B/σ. No gradient depends on μ, so μ is not needed.
σ is rounded to a power of two, so that a head that the optimizer does not change keeps every bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

RATE = 0.1
"""Weight of the latest rollout in the moments of the returns."""

SMALLEST = 1e-2
"""Lower bound of σ: it keeps errors small while all returns are equal, as before the first reward."""


class PopArt:
    """The spread of the returns over the last rollouts, and the optimizer's step in units of it.

    Attributes:
        mean: Mean of the returns, with weight `weight`: an exponential average that begins at 0.
        mean_square: Mean of their squares, likewise.
        weight: Total weight of the rollouts so far, from 0 to 1.
    """

    def __init__(self) -> None:
        self.mean = self.mean_square = self.weight = 0.0

    @property
    def scale(self) -> float:
        """σ, the standard deviation of the returns, rounded to a power of two; 1 before the first rollout."""
        if not self.weight:
            return 1.0
        variance = self.mean_square / self.weight - (self.mean / self.weight) ** 2
        return 2.0 ** round(math.log2(max(variance, SMALLEST**2)) / 2)

    def update(self, returns: Tensor) -> None:
        """Add the returns of a rollout to the averages, in double precision."""
        returns = returns.double()
        self.mean += RATE * (float(returns.mean()) - self.mean)
        self.mean_square += RATE * (float(returns.square().mean()) - self.mean_square)
        self.weight += RATE * (1 - self.weight)

    @contextmanager
    def normalised(self, value_net: nn.Linear) -> Iterator[None]:
        """In the block, show the optimizer the head of the normalised value and its gradient."""
        parameters, scale = list(value_net.parameters()), self.scale
        with torch.no_grad():
            for parameter in parameters:
                parameter.div_(scale)
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
            try:
                yield
            finally:
                for parameter in parameters:
                    parameter.mul_(scale)

    def get_state(self) -> dict[str, float]:
        """Return plain values from which `set_state` continues."""
        return dict(vars(self))

    def set_state(self, state: Mapping[str, float]) -> None:
        """Continue from values that `get_state` returned.

        Raises:
            KeyError, TypeError, ValueError: If it is something else.
        """
        for name in vars(self):
            setattr(self, name, float(state[name]))
