"""What a user gave, checked: each function returns the value, or says in a sentence what would be right."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

LARGEST = 2**31 - 1
"""No size, length or number here is larger, so that what is computed of two of them is still a 64-bit integer."""


def unknown(
    kind: str, name: object, choices: Collection[str], nearest: Collection[str] | None = None, why: str | None = None
) -> ValueError:
    """Return the error for a name that isn't one of `choices`: it lists them, and names the nearest.

    `nearest` is what the nearest is looked for in, where that is more than the choices worth listing; `why` is said
    instead of the list.
    """
    near = difflib.get_close_matches(str(name), choices if nearest is None else nearest, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {kind} {name!r}: {why or 'choose from ' + ', '.join(choices)}{hint}")


def check_int(name: str, value: object, minimum: int, why: str = "") -> int:
    """Return `value` if it is an integer of at least `minimum`; `why` ends the sentence that refuses it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}{why}, not {value!r}")
    if value > LARGEST:
        raise ValueError(f"{name} must be an integer from {minimum} to {LARGEST}, not {value!r}")
    return int(value)


def check_bool(name: str, value: object) -> bool:
    """Return `value` if it is true or false."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be true or false, not {value!r}")
    return bool(value)


def check_symbol(cue: np.ndarray, high: int) -> np.ndarray:
    """Return the cue, or cues, if they are integers from 0 to high - 1."""
    if cue.dtype.kind not in "iu" or (cue < 0).any() or (cue >= high).any():
        raise ValueError(f"cue must be an integer from 0 to {high - 1}, not {cue}")
    return cue


def check_numbers(cue: np.ndarray, limit: float) -> np.ndarray:
    """Return the cue, or cues, if they are numbers from -limit to limit."""
    if cue.dtype.kind not in "iuf" or not (np.abs(cue) <= limit).all():
        raise ValueError(f"cue must be numbers from {-limit:g} to {limit:g}, not {cue}")
    return cue


def check_probability(name: str, value: object) -> float:
    """Return `value` if it is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, not {value!r}")
    return float(value)


def check_choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise unknown(name, value, choices)
    return value


def told_success(info: Mapping[str, Any]) -> bool | None:
    """Return whether the episode that ended with this info was a success, None where the info does not say.

    Raises:
        ValueError: It says something that is neither true nor false.
    """
    value = info.get("is_success")
    if value is None or isinstance(value, bool):
        return value
    number = told_number(value)
    if number not in (0.0, 1.0):
        raise ValueError(f"info['is_success'] must be true or false, not {str(value)[:60]!r}")
    return bool(number)


def told_number(value: object) -> float | None:
    """Return a number, or an array of one, as a float; None for anything else."""
    try:
        array = np.asarray(value)
    except ValueError:  # a list of lists of several lengths
        return None
    return float(array.item()) if array.size == 1 and array.dtype.kind in "biuf" else None
