"""Batches of observations and infos, and autoreset modes, as `gymnasium.vector` defines them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from bistable_rl.errors import unknown

Copies = npt.NDArray[np.int64]
"""Indices of copies."""


def rows(observations: Any, i: Copies) -> list[Any]:
    """Return copies of the observations of the copies `i`, one by one."""
    if isinstance(observations, dict):
        columns = [rows(value, i) for value in observations.values()]
        return [dict(zip(observations, row, strict=True)) for row in zip(*columns, strict=True)]
    return list(observations[i])


def replace_rows(observations: Any, i: Copies, new: Any) -> None:
    """Write the observations `new` of the copies `i` into those of all copies."""
    if isinstance(observations, dict):
        for key, value in new.items():
            observations[key][i] = value
    else:
        observations[i] = new


def masked_infos(values: dict[str, np.ndarray], mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return infos that hold each value, zero where the mask is false, and the mask itself under `_name`."""
    infos: dict[str, Any] = {}
    for name, value in values.items():
        if value.dtype != object:
            value = np.where(mask.reshape(-1, *[1] * (value.ndim - 1)), value, value.dtype.type(0))
        infos[name], infos[f"_{name}"] = value, mask.copy()
    return infos


def find_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """Return an autoreset mode, given as itself, by its name ("SAME_STEP") or by its value ("SameStep")."""
    for known in AutoresetMode:
        if mode in (known, known.name, known.value):
            return known
    raise ValueError(unknown("autoreset_mode", mode, [known.name for known in AutoresetMode]))
