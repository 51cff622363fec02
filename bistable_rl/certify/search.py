"""Search, in float64, for boxes that every admissible observation maps into themselves.

The search proves nothing: `enclosure.prove_images` proves the boxes that it finds.
"""

from __future__ import annotations

import numpy as np

from bistable_rl.certify import rounding
from bistable_rl.certify.enclosure import FLOATS, MARGIN, Bounds, image, outward, unit_inputs, unit_map
from bistable_rl.certify.network import Array, Layer, Network

FINE, COARSE = 1024, 256
"""Cells of [-1, 1] in a unit's table: for BRC, and for nBRC, whose table changes with the other units' box."""
ROUNDS = 40
"""Attempts at a box for an nBRC layer; in each attempt the other units' states lie in the box of the attempt before."""
TIGHTENINGS = 2
"""Further attempts, each with a box inside the one before."""


class NoIntervalError(Exception):
    """No interval of a unit was found: it starts outside [-1, 1], or the box still grows after `ROUNDS`.

    Args:
        layer: The index of the unit's layer.
        unit: The index of the unit.
    """

    def __init__(self, layer: int, unit: int) -> None:
        super().__init__()
        self.layer = layer
        self.unit = unit


class Search:
    """The search for the smallest invariant boxes of a network.

    Args:
        network: The network.
        x: (M, D), the admissible observations, as boxes.
    """

    def __init__(self, network: Network, x: Bounds) -> None:
        self.network = network
        self.x = x
        first = network.layers[0]
        everything = Bounds(np.full(first.size, -1.1), np.full(first.size, 1.1))
        self._first_table = Table(first, x, everything, FINE) if first.others is None else None

    def invariant(self, start: list[Bounds]) -> list[Bounds]:
        """Return boxes that contain the start boxes and their own images.

        Raises:
            NoIntervalError: If a unit has no such interval.
        """
        x, found = self.x, list[Bounds]()
        for i, (layer, box) in enumerate(zip(self.network.layers, start, strict=True)):
            closed = self._closed(layer, x, box, self._first_table if i == 0 else None)
            if isinstance(closed, int):
                raise NoIntervalError(i, closed)
            found.append(closed)
            x = image(layer, x, closed)
        return found

    def _closed(self, layer: Layer, x: Bounds, start: Bounds, table: Table | None) -> Bounds | int:
        """Return an invariant box of a layer, or the index of a unit without an invariant interval."""
        if layer.others is None:
            return (table or Table(layer, x, start.widened(2), FINE)).closure(start)
        box = start
        for _ in range(ROUNDS):
            closed = Table(layer, x, box, COARSE).closure(start)
            if isinstance(closed, int):
                return closed
            if closed.inside(box).all():
                return self._tightened(layer, x, start, closed)
            down, up = np.maximum(box.low - closed.low, 0), np.maximum(closed.high - box.high, 0)
            box = Bounds(box.low - 1.1 * down - 1e-6, box.high + 1.1 * up + 1e-6)
        return int((box.high - box.low).argmax())

    def _tightened(self, layer: Layer, x: Bounds, start: Bounds, box: Bounds) -> Bounds:
        """Shrink an invariant box: with the other units' states in that box, a smaller one may be invariant."""
        for _ in range(TIGHTENINGS):
            closed = Table(layer, x, box, COARSE).closure(start)
            if isinstance(closed, int) or not closed.inside(box).all():
                break
            box = closed
        return box


class Table:
    """The lowest and the highest next state of each unit over all observations, for each cell of its state.

    Args:
        layer: The layer.
        x: (M, I), boxes of its inputs.
        h: (H,), the box of the other units' states.
        cells: Number of equal cells of [-1, 1]; further cells lie around the ends, where the memories are.
    """

    def __init__(self, layer: Layer, x: Bounds, h: Bounds, cells: int) -> None:
        near = 1 + np.concatenate([-np.geomspace(2e-6, 4e-3, cells // 16), np.geomspace(1e-6, 0.1, cells // 16)])
        ends = rounding.ENDS[1:]
        self.edges = np.unique(np.concatenate([np.linspace(-1, 1, cells + 1), near, -near, ends, -ends]))
        self.room = [np.where(np.isin(self.edges, side), 0, 2 * MARGIN) for side in (ends, -ends)]
        inputs = unit_inputs(FLOATS, layer, x, h)
        pieces = Bounds(self.edges[:-1], self.edges[1:])
        own = layer.own[:, :, None]
        self.low = np.full((layer.size, len(self.edges) - 1), np.inf)
        self.high = -self.low
        for low, high in zip(inputs.low, inputs.high, strict=True):
            image = unit_map(FLOATS, Bounds(low.reshape(3, -1, 1), high.reshape(3, -1, 1)), own, pieces)
            moves = (image.low != pieces.low) | (image.high != pieces.high)  # else the state is held exactly
            self.low = np.where(moves, np.minimum(self.low, image.low), self.low)
            self.high = np.where(moves, np.maximum(self.high, image.high), self.high)

    def closure(self, start: Bounds) -> Bounds | int:
        """Return the smallest box around the start (H,) that is mapped into itself, or the index of a failing unit."""
        intervals = []
        for unit, ends in enumerate(zip(*start, strict=True)):
            interval = self._interval(unit, *ends)
            if interval is None:
                return unit
            intervals.append(interval)
        low, high = np.array(intervals).T
        return Bounds(low, high)

    def _interval(self, unit: int, start_low: float, start_high: float) -> tuple[float, float] | None:
        """Grow an interval of cells, upwards and downwards in turn, until it is mapped into itself."""
        first = int(np.searchsorted(self.edges, start_low, "right")) - 1
        last = int(np.searchsorted(self.edges, start_high, "left")) - 1
        if last < first:  # the start is a single state at an edge: take the cell towards 0
            first = last = first if start_low < 0 else last
        if first < 0 or last >= len(self.edges) - 1:
            return None
        low, high = self.low[unit], self.high[unit]
        while True:
            up = _first_kept(high[first:], (self.edges - self.room[1])[first + 1 :], last - first)
            if up is None:
                return None
            down = _first_kept(-low[first + up :: -1], -(self.edges + self.room[0])[first + up :: -1], up)
            if down is None:
                return None
            before, last, first = (first, last), first + up, first + up - down
            if before == (first, last):
                cells = slice(first, last + 1)
                found = outward(Bounds(low[cells].min(), high[cells].max()))
                return min(start_low, float(found.low)), max(start_high, float(found.high))


def _first_kept(values: Array, edges: Array, start: int) -> int | None:
    """Return the first index, not below `start`, up to which no value exceeds the edge there."""
    kept = np.flatnonzero(np.maximum.accumulate(values)[start:] <= edges[start:])
    return None if not len(kept) else start + int(kept[0])
