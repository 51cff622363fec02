"""When a bistable unit is a latch: it keeps its sign under any input within a bound.

A unit of BRC or nBRC with the feedback gain a maps its state by h' = c h + (1 - c) tanh(u + a h), where u is the
contribution of its input. `bistable_rl/certify/README.md` states and proves what this module computes.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

Array = np.ndarray | float


def threshold(a: Array) -> Array:
    """Return U(a) = √(a (a - 1)) - artanh √(1 - 1/a): both states exist for `|u| < U(a)`.

    Args:
        a: Feedback gains; up to 1 there is only one state, and U is 0.
    """
    a = np.maximum(a, 1.0)
    return np.sqrt(a * (a - 1)) - np.arctanh(np.sqrt(1 - 1 / a))


def kept_from(a: float, u: float) -> float:
    """Return h*, the greatest root of h = tanh(a h - u): under any inputs of at least -u, [h*, 1] is never left.

    Args:
        a: The least feedback gain, above 1.
        u: The greatest input against the state, at least 0 and below `threshold(a)`.

    Raises:
        ValueError: If u is out of range.
    """
    if not 0 <= u < threshold(a):
        raise ValueError(f"u must be at least 0 and below threshold({a}) = {threshold(a):.6g}, got {u}")
    turn = float(np.sqrt(1 - 1 / a))  # artanh h - a h falls below it and rises above it
    root: float = brentq(lambda h: np.tanh(a * h - u) - h, turn, 1.0, xtol=1e-15)
    return root
