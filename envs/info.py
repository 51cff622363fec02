"""The info of an episode's end, read with care: it may come from any environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def is_success(info: Mapping[str, Any]) -> bool | None:
    """Return whether an episode was a success, from the info of its end; None if `info` has no "is_success".

    Raises:
        ValueError: If "is_success" is neither true nor false.
    """
    value = info.get("is_success")
    if value is None or isinstance(value, bool):
        return value
    number = to_float(value)
    if number not in (0.0, 1.0):
        raise ValueError(f"info['is_success'] must be true or false, not {str(value)[:60]!r}")
    return bool(number)


def to_float(value: object) -> float | None:
    """Return a number, or an array of one number, as a float; None for anything else."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    return float(array.item()) if array.size == 1 and array.dtype.kind in "biuf" else None
