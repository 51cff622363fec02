"""What the gates of a network do over time: a, c and the states, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bistable_rl.cells import BRCCell, Cell, GRUCell, LSTMCell, NBRCCell
from bistable_rl.dynamics.attractors import one_way
from bistable_rl.rnn import RNN

Gates = tuple[Tensor | None, Tensor]
"""a, or None for a cell that has no feedback gain, and c; each (..., H)."""


@dataclass(frozen=True)
class GateTrace:
    """Gates and states of L layers over T steps of B sequences.

    Attributes:
        cell: The cell's name.
        a: (L, T, B, H) feedback gain, from 0 to 2, of BRC and nBRC; None for the others.
        c: (L, T, B, H) the gate that keeps the state, from 0 to 1: c of BRC and nBRC, z of a GRU, f of an LSTM.
        h: (L, T, B, H) outputs.
    """

    cell: str
    a: np.ndarray | None
    c: np.ndarray
    h: np.ndarray

    @property
    def bistable(self) -> np.ndarray | None:
        """(L, T, B) share of units with a > 1, those with two stable states; None for a cell that has none."""
        return None if self.a is None else (self.a > 1).mean(-1)

    @property
    def mean_c(self) -> np.ndarray:
        """(L, T, B) mean of c over the units of a layer."""
        return self.c.mean(-1)


@torch.no_grad()
def gate_trace(rnn: RNN, x: Tensor) -> GateTrace:
    """Run sequences from the initial state and return what every gate did.

    Args:
        rnn: Layers of BRC, nBRC, GRU or LSTM, in one direction; dropout is left out.
        x: (T, B, I) sequences, time first whatever `rnn.batch_first` says.

    Raises:
        ValueError: The cell has no such gates, the layers run in two directions, or x does not fit.
    """
    gates = gates_of(rnn.cell)
    cells = one_way(rnn)
    if x.dim() != 3 or x.shape[-1] != rnn.input_size:
        raise ValueError(f"x must be (T, B, {rnn.input_size}), got {tuple(x.shape)}")
    found: list[Gates] = []
    outputs: list[Tensor] = []
    for cell in cells:
        output, _ = cell.scan(x)
        start = cell.initial_state(x.shape[1])[:, : cell.hidden_size]
        found.append(gates(cell, x, torch.cat([start.unsqueeze(0), output])[:-1]))
        outputs.append(output)
        x = output
    gains = [a for a, _ in found if a is not None]
    return GateTrace(
        rnn.cell,
        torch.stack(gains).cpu().numpy() if gains else None,
        torch.stack([c for _, c in found]).cpu().numpy(),
        torch.stack(outputs).cpu().numpy(),
    )


def gates_of(cell: str) -> Callable[[Cell, Tensor, Tensor], Gates]:
    """Return what computes a and c of a cell from its input (..., I) and its last output (..., H).

    Raises:
        ValueError: They are not known for this cell.
    """
    if cell not in GATES:
        raise ValueError(f"{cell} has no gates that can be traced; the cells that have are {', '.join(GATES)}")
    return GATES[cell]


def _brc(cell: Cell, x: Tensor, h: Tensor) -> Gates:
    assert isinstance(cell, BRCCell)
    u_a, u_c, _ = cell.project(x).chunk(3, -1)
    w_a, w_c = cell.weight_hh
    return 1 + torch.tanh(u_a + w_a * h), torch.sigmoid(u_c + w_c * h)


def _nbrc(cell: Cell, x: Tensor, h: Tensor) -> Gates:
    assert isinstance(cell, NBRCCell)
    u_a, u_c, _ = cell.project(x).chunk(3, -1)
    w_a, w_c = nn.functional.linear(h, cell.weight_hh).chunk(2, -1)
    return 1 + torch.tanh(u_a + w_a), torch.sigmoid(u_c + w_c)


def _gru(cell: Cell, x: Tensor, h: Tensor) -> Gates:
    assert isinstance(cell, GRUCell)
    _, u_z, _ = cell.project(x).chunk(3, -1)
    _, w_z, _ = nn.functional.linear(h, cell.weight_hh, cell.bias_hh).chunk(3, -1)
    return None, torch.sigmoid(u_z + w_z)


def _lstm(cell: Cell, x: Tensor, h: Tensor) -> Gates:
    assert isinstance(cell, LSTMCell)
    _, f, _, _ = (cell.project(x) + nn.functional.linear(h, cell.weight_hh, cell.bias_hh)).chunk(4, -1)
    return None, torch.sigmoid(f)


GATES: dict[str, Callable[[Cell, Tensor, Tensor], Gates]] = {"brc": _brc, "nbrc": _nbrc, "gru": _gru, "lstm": _lstm}
