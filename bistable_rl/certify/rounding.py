"""The error of the float32 kernels on the CPU: the distance between a computed step and the exact step.

The constants hold for the backends `cpu`, `torch` and `reference`; tests/test_certify_rounding.py measures each of
them. The README of this folder derives the bounds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UNIT = 2.0**-24
"""u, the unit roundoff of float32."""

SLACK = 1.01
"""A factor on every bound that covers the bound's own rounding; float64 rounds 2^-29 times as coarsely as float32."""

TANH = 5e-7
"""Greatest absolute error of tanh in a kernel."""

GAIN = TANH + 2 * UNIT
"""Greatest absolute error of a = 1 + tanh for an exact argument."""

SIGMOID = 3e-7
"""Greatest absolute error of a kernel's sigmoid, the gate c that mixes the old state and the candidate."""

HOLD = 19.5
"""From this argument on, a kernel's sigmoid is exactly 1 and a unit's state stays exactly as it is."""

MIX = 5 * UNIT * SLACK
"""Greatest error of c h + (1 - c) n for given c, h and n, divided by max(1, |h|)."""

_LOWER_ENDS = [(1.0, 1.0), (0.75 - UNIT, 0.75 + 2.0**-20), (-0.75 - UNIT, -0.75 + 2.0**-20), (-1.0, -1.0)]
_SCALED = [(end * 2.0**-e, least * 2.0**-e) for end, least in _LOWER_ENDS for e in range(8)]
ENDS, CANDIDATES = np.array([(-np.inf, -np.inf), *sorted([*_SCALED, (0.0, 0.0)])]).T
"""Ends e that rounding cannot pass downwards, each with a number m: if h >= e and n >= m, then h' >= e.

This holds for every kernel and every gate c, however near 1. By symmetry rounding cannot pass -e upwards.
"""


def gamma(n: int) -> float:
    """Return the greatest error of a sum of n products or terms in any order, fused or not, divided by Σ |w x|."""
    return SLACK * n * UNIT / (1 - n * UNIT)


def floor(h: npt.NDArray[np.float64], n: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the greatest of the `ENDS` that bounds next states from below, for states >= h and candidates >= n."""
    found: npt.NDArray[np.float64] = ENDS[
        np.minimum(np.searchsorted(ENDS, h, "right"), np.searchsorted(CANDIDATES, n, "right")) - 1
    ]
    return found
