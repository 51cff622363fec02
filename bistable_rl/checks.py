"""Checks of arguments. Each returns the value or raises an error that names the argument and the allowed values."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeGuard

from bistable_rl.errors import unknown

if TYPE_CHECKING:
    import numpy as np

LARGEST_SIZE = 2**31 - 1
"""The product of two sizes fits in 64 bits."""


def check_int(name: str, value: object, minimum: int, maximum: int | None = None, why: str = "") -> int:
    """Check for an integer of Python or numpy; `why` explains the limits."""
    if not _is_integer(value) or value < minimum or (maximum is not None and value > maximum):
        if maximum is not None:
            allowed = f"an integer from {minimum} to {maximum}"
        else:
            allowed = "an integer above 0" if minimum == 1 else f"an integer of at least {minimum}"
        raise ValueError(f"{name} must be {allowed}{why}, got {value!r}")
    return int(value)


def check_size(name: str, value: object, minimum: int = 1, why: str = "") -> int:
    """Check for an integer from `minimum` to `LARGEST_SIZE`; `why` explains the minimum."""
    return check_int(name, check_int(name, value, minimum, why=why), minimum, LARGEST_SIZE)


def check_number(name: str, value: object, minimum: float = 0.0, maximum: float = math.inf) -> float:
    """Check for a finite number from `minimum` to `maximum`."""
    if not _is_finite(value) or not minimum <= value <= maximum:
        allowed = f"a finite number of at least {minimum:g}"
        if maximum < math.inf:
            allowed = f"a number from {minimum:g} to {maximum:g}"
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return float(value)


def check_positive(name: str, value: object) -> float:
    """Check for a finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def check_bool(name: str, value: object) -> bool:
    """Check for True or False; anything else is a TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return value


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Check for one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(unknown(name, value, choices))
    return value


def check_symbols(name: str, value: np.ndarray, num_symbols: int) -> np.ndarray:
    """Check that an array holds integers from 0 to num_symbols - 1."""
    if value.dtype.kind not in "iu" or (value < 0).any() or (value >= num_symbols).any():
        raise ValueError(f"{name} must be an integer from 0 to {num_symbols - 1}, got {value}")
    return value


def check_numbers(name: str, value: np.ndarray, limit: float) -> np.ndarray:
    """Check that an array holds numbers from -limit to limit."""
    if value.dtype.kind not in "iuf" or not (abs(value) <= limit).all():
        raise ValueError(f"{name} must be numbers from {-limit:g} to {limit:g}, got {value}")
    return value


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def as_float(value: Any) -> float:
    """Convert a number of Python or numpy to a float; an integer beyond the largest float becomes infinity."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(as_float(value))
