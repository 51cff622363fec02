"""Sets that hold every state and output that the agent's float32 kernels can compute from a set of states.

All sets are boxes with float64 corners. The same formulas run on two kinds of numbers. `FLOATS` are fast and find
candidates. `BALLS`, Arb's balls with outward rounding (Johansson 2017), prove them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flint
import numpy as np

from bistable_rl.certify import rounding
from bistable_rl.certify.network import Array, Layer, Network

PIECES = 16
"""The number of pieces of a unit's interval from which a float image is computed."""
MOST_PIECES = 50_000
"""The largest number of pieces to halve at once; with more, a proof is given up."""
MARGIN = 1e-9
"""The margin that a claim adds to bounds computed in float64."""


class Bounds(NamedTuple):
    """A box of vectors, or one box per row: the lower and the upper corners, of the same shape."""

    low: Array
    high: Array

    def magnitude(self) -> Array:
        """Return the greatest absolute value of each component."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def rows(self, rows: Any) -> Bounds:
        """Return the boxes of some rows."""
        return Bounds(self.low[rows], self.high[rows])

    def hull(self) -> Bounds:
        """Return the smallest box that holds the boxes of all rows."""
        return Bounds(self.low.min(0), self.high.max(0))

    def widened(self, by: Any) -> Bounds:
        """Return the box widened by a number or an array on each side, computed in float64."""
        return Bounds(self.low - by, self.high + by)

    def inside(self, other: Bounds) -> np.ndarray:
        """Return which components of each box lie inside those of the other."""
        return (self.low >= other.low) & (self.high <= other.high)


@dataclass(frozen=True)
class Numbers:
    """Operations on arrays of one kind of number."""

    exact: Callable[[Any], Any]
    tanh: Callable[[Any], Any]
    lower: Callable[[Any], Array]
    upper: Callable[[Any], Array]


def _outward(bound: Callable[[flint.arb], flint.arb], direction: float) -> Callable[[Any], Array]:
    convert = np.frompyfunc(lambda ball: float(bound(ball)), 1, 1)
    return lambda balls: np.nextafter(convert(balls).astype(np.float64), direction)


FLOATS = Numbers(np.asarray, np.tanh, np.asarray, np.asarray)
BALLS = Numbers(
    np.frompyfunc(flint.arb, 1, 1),
    np.frompyfunc(flint.arb.tanh, 1, 1),
    _outward(flint.arb.lower, -np.inf),
    _outward(flint.arb.upper, np.inf),
)


def linear(numbers: Numbers, weight: Array, bias: Array | float, x: Bounds, error: Array | float) -> Bounds:
    """Return boxes (M, O) that contain W x + b for every row of x (M, I), widened by an error."""
    low, high = numbers.exact(x.low), numbers.exact(x.high)
    up, down = np.maximum(weight, 0).T, np.minimum(weight, 0).T
    lowest = low @ up + high @ down + bias - error
    highest = high @ up + low @ down + bias + error
    return Bounds(numbers.lower(lowest), numbers.upper(highest))


def affine(numbers: Numbers, weight: Array, bias: Array, x: Bounds) -> Bounds:
    """Return boxes (M, O) that contain the W x + b that a kernel computes for every row of x (M, I)."""
    error = rounding.gamma(weight.shape[1] + 1) * (x.magnitude() @ np.abs(weight).T + np.abs(bias))
    return linear(numbers, weight, bias, x, error)


def unit_inputs(numbers: Numbers, layer: Layer, x: Bounds, h: Bounds) -> Bounds:
    """Enclose the input of each unit except from its own state: (M, 3H) for inputs x (M, I) and states in h (H,).

    The rounding errors of the complete arguments of tanh and sigmoid are included.
    """
    H = layer.size
    projected = affine(numbers, layer.weight_ih, layer.bias, x)
    size = h.magnitude()
    if layer.others is None:
        terms, gates = 2, np.abs(layer.own).ravel() * np.tile(size, 2)
    else:
        terms, gates = H + 1, np.abs(layer.others) @ size + np.abs(layer.own).ravel() * np.tile(size, 2)
    error = projected.magnitude()
    error[:, : 2 * H] += gates
    error[:, 2 * H :] += 2 * size
    error[:, : 2 * H] *= rounding.gamma(terms)
    error[:, 2 * H :] *= rounding.gamma(2)
    weight = np.zeros((3 * H, H))
    if layer.others is not None:
        weight[: 2 * H] = layer.others
    recurrent = linear(numbers, weight, 0.0, Bounds(h.low[None], h.high[None]), error)
    exact = numbers.exact
    return Bounds(
        numbers.lower(exact(recurrent.low) + exact(projected.low)),
        numbers.upper(exact(recurrent.high) + exact(projected.high)),
    )


def unit_map(numbers: Numbers, inputs: Bounds, own: Array, h: Bounds) -> Bounds:
    """Enclose the next state of single units.

    Args:
        numbers: The kind of numbers.
        inputs: (3, ...), the inputs of a, c and the candidate, from `unit_inputs`.
        own: (2, ...), the weights of the unit's own state in a and c.
        h: (...), the unit's states.
    """
    tanh, exact = numbers.tanh, numbers.exact
    low, high = exact(h.low), exact(h.high)

    def argument(i: int) -> tuple[Any, Any]:
        rises = own[i] >= 0
        least, greatest = np.where(rises, low, high), np.where(rises, high, low)
        return exact(inputs.low[i]) + own[i] * least, exact(inputs.high[i]) + own[i] * greatest

    a_low, a_high = argument(0)
    a_low, a_high = 1 + tanh(a_low) - rounding.GAIN, 1 + tanh(a_high) + rounding.GAIN
    # a >= 0, so a h is least at the lower end of h, with the least or the greatest a
    n_low = tanh(exact(inputs.low[2]) + np.where(h.low >= 0, a_low, a_high) * low) - rounding.TANH
    n_high = tanh(exact(inputs.high[2]) + np.where(h.high >= 0, a_high, a_low) * high) + rounding.TANH
    n = Bounds(np.maximum(numbers.lower(n_low), -1), np.minimum(numbers.upper(n_high), 1))
    fast, slow = argument(1)
    holds = numbers.lower(fast) >= rounding.HOLD
    least, most = (0.5 + 0.5 * tanh(0.5 * z) + sign * rounding.SIGMOID for z, sign in ((fast, -1), (slow, 1)))
    cs = exact(np.maximum(numbers.lower(least), 0)), exact(np.minimum(numbers.upper(most), 1))
    mix = rounding.MIX * np.maximum(1, h.magnitude())
    # c h + (1 - c) n rises with h and n and is linear in c
    lows = [numbers.lower(c * low + (1 - c) * exact(n.low) - mix) for c in cs]
    highs = [numbers.upper(c * high + (1 - c) * exact(n.high) + mix) for c in cs]
    floor, ceiling = rounding.floor(h.low, n.low), -rounding.floor(-h.high, -n.high)
    least_next, greatest_next = np.maximum(np.minimum(*lows), floor), np.minimum(np.maximum(*highs), ceiling)
    return Bounds(np.where(holds, h.low, least_next), np.where(holds, h.high, greatest_next))


def outward(bounds: Bounds) -> Bounds:
    """Widen bounds computed in float64 by `MARGIN`, but not beyond the `ENDS` that rounding cannot pass."""

    def lower(x: Array) -> Array:
        ends: Array = rounding.ENDS[np.searchsorted(rounding.ENDS, x, "right") - 1]
        return np.maximum(x - MARGIN, ends)

    return Bounds(lower(bounds.low), -lower(-bounds.high))


def image(layer: Layer, x: Bounds, h: Bounds) -> Bounds:
    """Compute in float64 boxes (M, H) that should hold a layer's next states, for inputs x (M, I) and states in h."""
    ends = np.linspace(h.low, h.high, PIECES + 1, axis=-1)
    inputs = unit_inputs(FLOATS, layer, x, h)
    shaped = Bounds(*(side.reshape(len(side), 3, -1, 1).swapaxes(0, 1) for side in inputs))
    pieces = unit_map(FLOATS, shaped, layer.own[:, None, :, None], Bounds(ends[:, :-1], ends[:, 1:]))
    return outward(Bounds(pieces.low.min(-1), pieces.high.max(-1)))


def images(network: Network, x: Bounds, states: list[Bounds]) -> list[Bounds]:
    """Compute in float64 for each layer the boxes (M, H) that should hold its next states.

    Args:
        network: The network.
        x: (M, D), boxes of observations.
        states: Each layer's box of states, (H,).
    """
    found = []
    for layer, h in zip(network.layers, states, strict=True):
        x = image(layer, x, h)
        found.append(x)
    return found


def prove_images(
    network: Network, x: Bounds, states: list[Bounds], claims: list[Bounds]
) -> tuple[int, int, int] | None:
    """Prove with balls that the images of boxes lie in claimed boxes; return None, or layer, row and unit of a failure.

    Args:
        network: The network.
        x: (M, D), boxes of observations.
        states: Each layer's box of states, (H,).
        claims: Each layer's boxes of next states, (M, H).
    """
    for number, (layer, h, claim) in enumerate(zip(network.layers, states, claims, strict=True)):
        inputs = unit_inputs(BALLS, layer, x, h)
        failed = _prove_layer(layer, inputs, h, claim)
        if failed is not None:
            return number, *failed
        x = claim
    return None


def _prove_layer(layer: Layer, inputs: Bounds, h: Bounds, claim: Bounds) -> tuple[int, int] | None:
    """Prove a layer's claim, halving the pieces of each unit's interval whose enclosure does not lie in the claim."""
    H = layer.size
    row, unit = (index.ravel() for index in np.indices(claim.low.shape))
    pieces = Bounds(h.low[unit], h.high[unit])
    while True:
        columns = np.stack([unit, H + unit, 2 * H + unit])
        own = layer.own[:, unit]
        given = Bounds(inputs.low[row, columns], inputs.high[row, columns])
        image = unit_map(BALLS, given, own, pieces)
        left = ~image.inside(Bounds(claim.low[row, unit], claim.high[row, unit]))
        if not left.any():
            return None
        row, unit, low, high = row[left], unit[left], pieces.low[left], pieces.high[left]
        middle = 0.5 * (low + high)
        if len(row) > MOST_PIECES or ((middle <= low) | (middle >= high)).any():
            return int(row[0]), int(unit[0])
        row, unit = np.tile(row, 2), np.tile(unit, 2)
        pieces = Bounds(np.concatenate([low, middle]), np.concatenate([middle, high]))


def margins(numbers: Numbers, network: Network, output: Bounds, action: int) -> Array:
    """Return lower bounds (M, n) of the logit of an action minus each other logit; infinite for the action itself.

    A positive bound proves that every kernel takes this action: the rounding error of `log_softmax` is subtracted.
    """
    for weight, bias in network.hidden:
        argument = affine(numbers, weight, bias, output)
        low, high = numbers.tanh(numbers.exact(argument.low)), numbers.tanh(numbers.exact(argument.high))
        output = Bounds(numbers.lower(low - rounding.TANH), numbers.upper(high + rounding.TANH))
    size = output.magnitude()
    sums = size @ np.abs(network.weight).T + np.abs(network.bias)  # (M, n), upper bounds of the logits
    softmax = 8 * rounding.UNIT * (2 * sums.max(-1, keepdims=True) + np.log(sums.shape[1]) + 1)
    error = rounding.gamma(network.weight.shape[1] + 2) * (sums + sums[:, action, None]) + softmax
    difference = network.weight[action] - network.weight, network.bias[action] - network.bias
    low = linear(numbers, *difference, output, error).low
    low[:, action] = np.inf
    return low
