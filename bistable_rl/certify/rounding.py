"""The error of the float32 kernels on the CPU: how far a computed step lies from the exact one.

The constants hold for the backends `cpu`, `torch` and `reference`; tests/test_certify_rounding.py measures each of
them. The README of this folder derives the bounds.
"""

from __future__ import annotations

UNIT = 2.0**-24
"""u, the unit roundoff of float32."""

SLACK = 1.01
"""Factor of every bound, for the bound's own rounding in float64, which is 2^-29 as large."""

TANH = 5e-7
"""Greatest absolute error of tanh in a kernel."""

GAIN = TANH + 2 * UNIT
"""Greatest absolute error of a = 1 + tanh for an exact argument."""

SIGMOID = 3e-7
"""Greatest absolute error of a kernel's sigmoid, as the gate c that it mixes with."""

HOLD = 19.5
"""From this argument on, a kernel's sigmoid is exactly 1 and a unit's state stays exactly as it is."""

MIX = 5 * UNIT * SLACK
"""Greatest error of c h + (1 - c) n for given c, h and n, divided by max(1, |h|)."""


def gamma(n: int) -> float:
    """Return the greatest error of a sum of n products or terms in any order, fused or not, divided by Σ |w x|."""
    return SLACK * n * UNIT / (1 - n * UNIT)
