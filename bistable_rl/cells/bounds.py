"""Bounds of what BRC and nBRC can do, from a box of states and boxes of inputs.

Interval arithmetic in the tensors' own precision, differentiable. It is not rounded outward: it serves to train, not to
prove.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell

BOUNDED = ("brc", "nbrc")
"""The kernels of the cells whose steps are bounded here."""


class Bounds(NamedTuple):
    """A box: the least and the greatest value of each number, two tensors of one shape."""

    low: Tensor
    high: Tensor

    def at(self, *index: int | slice | None) -> Bounds:
        """Return the bounds at an index of both tensors."""
        return Bounds(self.low[index], self.high[index])


def linear(x: Bounds, weight: Tensor, bias: Tensor | None = None) -> Bounds:
    """Return the bounds of a linear layer: x (..., I) -> (..., O)."""
    centre = nn.functional.linear((x.low + x.high) / 2, weight, bias)
    radius = nn.functional.linear((x.high - x.low) / 2, weight.abs())
    return Bounds(centre - radius, centre + radius)


def project(cell: Cell, x: Bounds) -> Bounds:
    """Return the bounds of `cell.project(x)`, U x + b: x (..., I) -> (..., 3H)."""
    centre = cell.project((x.low + x.high) / 2)
    radius = nn.functional.linear((x.high - x.low) / 2, cell.weight_ih.abs())
    return Bounds(centre - radius, centre + radius)


def step(cell: Cell, projected: Bounds, h: Bounds) -> Bounds:
    """Return the bounds of the next state.

    Args:
        cell: A BRC or an nBRC.
        projected: (..., 3H), from `project`.
        h: (..., H), the state before the step.
    """
    a, c, u = _gates(projected)
    w_a, w_c = _recurrent(cell, h)
    a, c = _add(a, w_a), _add(c, w_c)
    low, high = _least(a, u.low, h.low), -_least(a, -u.high, -h.high)
    # the more is kept, the nearer the next state is to h
    keep_low = torch.sigmoid(torch.where(h.low < low, c.high, c.low))
    keep_high = torch.sigmoid(torch.where(h.high > high, c.high, c.low))
    return Bounds(low + keep_low * (h.low - low), high + keep_high * (h.high - high))


def widen(cell: Cell, projected: Bounds, h: Bounds) -> Bounds:
    """Return a box that holds a box of states, and the candidates tanh(U_h x + a ⊙ h) of all its states and inputs.

    The next state lies between the state and its candidate. So a box that does not grow here keeps its states for ever,
    however slow the update gate is, and growth does not slow down with it.

    Args:
        cell: A BRC or an nBRC.
        projected: (C or 1, M, 3H), from `project`, of M boxes of inputs.
        h: (C, H), C boxes of states.
    """
    a, _, u = _gates(projected)
    w, _ = _recurrent(cell, h)
    low, high = _least_of_inputs(a, w, u.low, h.low), -_least_of_inputs(a, w, -u.high, -h.high)
    return Bounds(torch.minimum(h.low, low), torch.maximum(h.high, high))


def _least(a: Bounds, u: Tensor, h: Tensor) -> Tensor:
    """Return the least candidate where the state is at least `h`, U_h x at least `u`, and 1 + tanh of `a` the gain."""
    return torch.tanh(u + (1 + torch.tanh(torch.where(h >= 0, a.low, a.high))) * h)


def _least_of_inputs(a: Bounds, w: Bounds, u: Tensor, h: Tensor) -> Tensor:
    """Return `_least` (C, H) over M inputs: a, u (C or 1, M, H), and what the state adds to a, w (C, H)."""
    with torch.no_grad():  # no gradient goes to an input that is not the least, so find that one first
        all_of_a = _add(a, Bounds(w.low.unsqueeze(1), w.high.unsqueeze(1)))
        least = _least(all_of_a, u, h.unsqueeze(1)).argmin(1, keepdim=True)
    low, high, u = (t.expand(len(h), -1, -1).gather(1, least).squeeze(1) for t in (a.low, a.high, u))
    return _least(_add(Bounds(low, high), w), u, h)


def _gates(projected: Bounds) -> list[Bounds]:
    """Return the parts of U x + b that belong to a, c and the candidate."""
    return [Bounds(low, high) for low, high in zip(*(p.chunk(3, -1) for p in projected), strict=True)]


def _add(x: Bounds, y: Bounds) -> Bounds:
    return Bounds(x.low + y.low, x.high + y.high)


def _recurrent(cell: Cell, h: Bounds) -> list[Bounds]:
    """Return what the state adds to the arguments of a and c: w ⊙ h in BRC, W h in nBRC."""
    weight = cell.kernel_weights().weight_hh
    if cell.kernel == "nbrc":
        low, high = (w.chunk(2, -1) for w in linear(h, weight))
        return [Bounds(*pair) for pair in zip(low, high, strict=True)]
    signs = zip(weight.clamp(min=0), weight.clamp(max=0), strict=True)
    return [Bounds(more * h.low + less * h.high, more * h.high + less * h.low) for more, less in signs]
