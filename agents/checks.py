"""What a user gave the algorithm, checked: each function returns it, or says in a sentence what would be right."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np


def check_whole(name: str, value: Any, least: int, most: int | None = None, why: str = "") -> int:
    """Return a whole number of at least `least`, and at most `most`; `why` says more of the limits."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}{why}" if most is None else f"within {least} and {most}{why}"
        raise ValueError(f"{name} must be {limits}, got {value}")
    return int(value)


def check_number(name: str, value: Any, least: float = 0.0, most: float = math.inf) -> float:
    """Return a finite number from `least` to `most`."""
    if not _is_finite(value) or not least <= value <= most:
        limits = f"within {least:g} and {most:g}" if most < math.inf else f"a finite number of at least {least:g}"
        raise ValueError(f"{name} must be {limits}, got {value!r}")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Return a finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def _is_finite(value: Any) -> bool:
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        return False
    return bool(abs(value) <= sys.float_info.max)  # of an int as large as it may be, which no float could hold
