"""PopArt (van Hasselt et al. 2016): the critic learns values in units of the spread of the returns.

With returns of any size the value loss is about 1 and its gradient the same, and the value head covers the same part
of the way from 0 to the returns in one step of the optimizer.

In the paper the head is that of the normalised value, V = σ (w·x + b) + μ, and w and b are rewritten whenever σ and μ
move, so that no value changes. Here the head is that of the value itself, of weight W = σw and bias B = σb + μ, and
stays as it is when they move. Only the optimizer sees W/σ and B/σ, and μ, on which no gradient depends, is not needed.
σ is rounded to a power of two, so that a head which the optimizer leaves alone keeps every bit.
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
"""Lower bound of σ: where all returns are equal, as before the first reward, an error is not made large."""


class PopArt:
    """The spread of the returns over the last rollouts, and the optimizer's step in units of it.

    Attributes:
        mean: Mean of the returns, of weight `weight`: an exponential average that begins at 0.
        mean_square: Mean of their squares, likewise.
        weight: What the rollouts so far weigh, from 0 to 1.
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
        """Take the returns of a rollout into the average, in double precision."""
        returns = returns.double()
        self.mean += RATE * (float(returns.mean()) - self.mean)
        self.mean_square += RATE * (float(returns.square().mean()) - self.mean_square)
        self.weight += RATE * (1 - self.weight)

    @contextmanager
    def normalised(self, value_net: nn.Linear) -> Iterator[None]:
        """Let the optimizer see the head of the normalised value and its gradient."""
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
        """Continue from what `get_state` returned.

        Raises:
            KeyError, TypeError, ValueError: If it is something else.
        """
        for name in vars(self):
            setattr(self, name, float(state[name]))
