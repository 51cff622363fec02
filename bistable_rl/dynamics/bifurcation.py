"""The fixed points of a bistable unit as a function of its feedback gain, by root finding, and their stability.

With its gates held at a and c, a unit of BRC or nBRC maps its state by F(h) = c h + (1 - c) tanh(u + a h), where u is
the contribution of the input (Vecoven et al. 2021, Appendix A). Theorem A.1: for u = 0 the only fixed point up to a = 1
is 0, which is stable; beyond a = 1 it is unstable between two stable points ±h1, h1 the positive root of h = tanh(a h).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import atanh, log, sqrt

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from bistable_rl.cells import BRCCell, Cell, NBRCCell


@dataclass(frozen=True)
class FixedPoints:
    """P fixed points of a unit, sorted by gain and then by state.

    Attributes:
        a: (P,) feedback gain.
        h: (P,) state, from -1 to 1.
        slope: (P,) F'(h) there: a disturbance grows by this factor per step.
    """

    a: np.ndarray
    h: np.ndarray
    slope: np.ndarray

    @property
    def stable(self) -> np.ndarray:
        """(P,) whether a small disturbance decays."""
        return self.slope < 1


def bifurcation(
    cell: Cell,
    gains: Sequence[float] | np.ndarray | None = None,
    *,
    c: float = 0.5,
    x: Tensor | None = None,
    unit: int = 0,
) -> FixedPoints:
    """Find every fixed point of one unit of a bistable cell for each feedback gain.

    Args:
        cell: A BRC or nBRC cell, such as `rnn.layers[0]`, whose own step is solved in double precision.
        gains: Values of a, strictly between 0 and 2; None is 0.01, 0.02, ..., 1.99.
        c: Value of the other gate, strictly between 0 and 1; it sets the speed, not the fixed points.
        x: (I,) a constant input; None is 0.
        unit: Index of the unit, 0 to H - 1.

    Raises:
        ValueError: If the cell has no feedback gain on a unit's own state, or an argument is out of range.
    """
    found = []
    for a in np.arange(1, 200) / 100 if gains is None else gains:
        step = HeldUnit(cell, float(a), c, x=x, unit=unit)
        for low, high in _brackets(float(a), step.drive):
            if (low - step(low)[0]) * (high - step(high)[0]) < 0:
                h = brentq(lambda h: h - step(h)[0], low, high, xtol=1e-14)  # noqa: B023 - used at once
                found.append((a, h, step(h)[1]))
    a, h, slope = np.array(found).reshape(-1, 3).T
    return FixedPoints(a, h, slope)


class HeldUnit:
    """One unit with its gates held; a call with h returns F(h) and F'(h).

    Args:
        cell: A BRC or nBRC cell.
        a: The feedback gain, strictly between 0 and 2.
        c: The other gate, strictly between 0 and 1.
        x: (I,) a constant input; None is 0.
        unit: Index of the unit, 0 to H - 1.

    Attributes:
        drive: u, the contribution of the input.

    Raises:
        ValueError: If the cell has no feedback gain on a unit's own state, or an argument is out of range.
    """

    def __init__(self, cell: Cell, a: float, c: float, *, x: Tensor | None = None, unit: int = 0) -> None:
        if not isinstance(cell, BRCCell | NBRCCell):
            raise ValueError(
                f"the cell must be a BRC or an nBRC, whose units have a feedback gain, got {cell}; for any other cell, "
                "attractors(rnn, x) counts the states that its layers settle in, and time_constants(rnn, x) says for "
                "how long each unit of a cell with a slow gate keeps a state"
            )
        if not (0 < a < 2 and 0 < c < 1):
            raise ValueError(f"a must be between 0 and 2 and c between 0 and 1, got a={a} and c={c}")
        if not 0 <= unit < cell.hidden_size:
            raise ValueError(f"unit must be from 0 to {cell.hidden_size - 1}, got {unit}")
        if x is not None and x.shape != (cell.input_size,):
            raise ValueError(f"x must be ({cell.input_size},), got {tuple(x.shape)}")
        H = cell.hidden_size
        self.cell = copy.deepcopy(cell).cpu().double().requires_grad_(False)
        self.cell.weight_hh.zero_()  # the gates no longer depend on the state
        x = torch.zeros(cell.input_size) if x is None else x
        self.projected = self.cell.project(x.detach().cpu().double()[None])
        self.projected[:, unit] = atanh(a - 1)
        self.projected[:, H + unit] = log(c / (1 - c))
        self.drive = self.projected[0, 2 * H + unit].item()
        self.unit = unit

    def __call__(self, h: float) -> tuple[float, float]:
        """Return F(h) and F'(h)."""
        state = torch.zeros(1, self.cell.hidden_size, dtype=torch.double)
        state[0, self.unit] = h
        state.requires_grad_()
        following = self.cell.step(self.projected, state)[0, self.unit]
        [slope] = torch.autograd.grad(following, state)
        return following.item(), slope[0, self.unit].item()


def _brackets(a: float, drive: float) -> list[tuple[float, float]]:
    """Cut [-2, 2], which contains every root, where h - tanh(drive + a h) turns: each piece has at most one root."""
    turns = [-2.0, 2.0]
    if a > 1:  # its slope 1 - a (1 - tanh²) is 0 where tanh² = 1 - 1/a
        turns += [(sign * atanh(sqrt(1 - 1 / a)) - drive) / a for sign in (-1, 1)]
    return list(pairwise(sorted(np.clip(turns, -2, 2).tolist())))
