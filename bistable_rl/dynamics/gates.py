"""The gates of a network over time: a, c and the states, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bistable_rl.cells import CELLS, Cell
from bistable_rl.dynamics.sequences import one_way
from bistable_rl.rnn import RNN


@dataclass(frozen=True)
class GateTrace:
    """Gates and states of L layers over T steps of B sequences.

    Attributes:
        cell: The cell's name.
        gate: The name of the gate c in the cell's equations.
        a: (L, T, B, H) feedback gain, from 0 to 2 (0 for mixed units without one); None for a cell without one.
        c: (L, T, B, H) the gate that keeps the state, from 0 to 1: c of BRC and nBRC, z of a GRU, f of an LSTM.
        h: (L, T, B, H) outputs.
    """

    cell: str
    gate: str
    a: np.ndarray | None
    c: np.ndarray
    h: np.ndarray

    @property
    def bistable(self) -> np.ndarray | None:
        """(L, T, B) share of units with a > 1, which have two stable states; None for a cell without gain."""
        return None if self.a is None else (self.a > 1).mean(-1)

    @property
    def mean_c(self) -> np.ndarray:
        """(L, T, B) mean of c over the units of a layer."""
        return self.c.mean(-1)


@torch.no_grad()
def gate_trace(rnn: RNN, x: Tensor) -> GateTrace:
    """Run sequences from the initial state and return the gates at every step.

    Args:
        rnn: Layers of a cell with a slow gate, in one direction; dropout is not applied.
        x: (T, B, I) sequences, time first even with `rnn.batch_first`.

    Raises:
        ValueError: If the cell has no such gate, the layers run in two directions, or x does not fit.
    """
    gate = slow_gate(rnn)
    cells = one_way(rnn)
    if x.dim() != 3 or x.shape[-1] != rnn.input_size:
        raise ValueError(f"x must be (T, B, {rnn.input_size}), got {tuple(x.shape)}")
    layers: dict[str, list[Tensor]] = {"a": [], gate: [], "h": []}
    for cell in cells:
        gates = _run(cell, x)
        x = gates["h"]
        for name, values in gates.items():
            if name in layers:
                layers[name].append(values)
    a, c, h = ([values.cpu().numpy() for values in each] for each in layers.values())
    return GateTrace(rnn.cell, gate, np.stack(a) if a else None, np.stack(c), np.stack(h))


@torch.no_grad()
def slow_gate(rnn: RNN) -> str:
    """Return the name of the gate that keeps the state.

    Raises:
        ValueError: If the cell has none, or its class names one that its `gates` does not return.
    """
    cell = rnn.layers[0]
    gate = cell.slow_gate
    if gate is None:
        known = ", ".join(name for name, cell in CELLS.items() if cell.slow_gate)
        raise ValueError(f"{rnn.cell} has no gates that can be traced; the cells that have them are {known}")
    gates = cell.gates(cell.project(cell.weight_ih.new_zeros(1, cell.input_size)), cell.initial_state(1))
    if gate not in gates:
        kind, found = type(cell).__name__, ", ".join(map(repr, gates)) or "no gate"
        raise ValueError(f"{kind}.slow_gate is {gate!r}, but {kind}.gates returns {found}; it must return {gate!r} too")
    return gate


def _run(cell: Cell, x: Tensor) -> dict[str, Tensor]:
    """Return the gates and the outputs h (T, B, H) of one layer, step by step from the initial state."""
    state = cell.initial_state(x.shape[1])
    steps: list[dict[str, Tensor]] = []
    for t, projected in enumerate(cell.project(x)):
        gates = cell.gates(projected, state)
        output, state = cell.scan(x[t : t + 1], state)
        steps.append({**gates, "h": output[0]})
    empty = x.new_empty(0, x.shape[1], cell.hidden_size)
    if not steps:
        return {"a": empty, str(cell.slow_gate): empty, "h": empty}
    return {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
