"""Action masks: which actions are allowed now, in the form of sb3-contrib's MaskablePPO.

A mask is flat, and true where an action is allowed. Discrete(n) has n entries. MultiDiscrete has the entries of its
actions, one action after the other. MultiBinary has two entries for each bit, for 0 and for 1.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

MASKS = "action_masks"
"""The method by which an environment offers masks, and the argument that takes them, as in sb3-contrib."""

Masks = npt.NDArray[np.bool_]
"""(n, A), true where an action is allowed."""


def choices(space: spaces.Space) -> list[int]:
    """Return the number of values that each action of a space can take.

    Raises:
        ValueError: If the actions are not discrete.
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    raise ValueError(f"action masks are for Discrete, MultiDiscrete and MultiBinary actions, not for {_shown(space)}")


def checked(masks: Any, space: spaces.Space, n: int) -> Masks:
    """Return the masks of n copies, (n, A) of bool, in a new array: an environment may reuse its own array.

    Args:
        masks: The mask of each copy: its entries in order in an array of any shape, or a list with one array per
            action. With one copy, its mask alone is accepted too.
        space: The space of the actions.
        n: The number of copies.

    Raises:
        ValueError: If the masks do not fit the space, or a mask leaves an action without an allowed value.
    """
    sizes = choices(space)
    fits = isinstance(masks, np.ndarray) and masks.shape == (n, sum(sizes))
    array = masks.copy() if fits else _stacked(masks, space, n)
    if array.dtype != np.bool_:
        if array.dtype.kind not in "iuf" or not ((array == 0) | (array == 1)).all():
            raise ValueError(f"an action mask must hold only true and false, or 1 and 0, not {array[0].tolist()}")
        array = array == 1
    possible = np.logical_or.reduceat(array, [0, *accumulate(sizes[:-1])], axis=1)
    if not possible.all():
        copy, action = np.argwhere(~possible)[0].tolist()
        what = "no action" if isinstance(space, spaces.Discrete) else f"no value of action {action}"
        raise ValueError(f"the action mask of copy {copy} allows {what}: at least one entry must be true")
    return array


def as_gymnasium(mask: Masks, space: spaces.Space) -> Any:
    """Return a flat mask (A,) in the form that a space's `sample` takes."""
    if isinstance(space, spaces.MultiBinary):
        zero, one = mask.reshape(-1, 2).T
        return np.where(zero & one, 2, one).astype(np.int8).reshape(space.shape)
    parts = np.split(mask.astype(np.int8), np.cumsum(choices(space))[:-1])
    return tuple(parts) if isinstance(space, spaces.MultiDiscrete) else parts[0]


def _stacked(masks: Any, space: spaces.Space, n: int) -> np.ndarray:
    try:
        rows = [_flat(masks)] if n == 1 else [_flat(mask) for mask in masks]
    except (TypeError, ValueError):  # not a list, or not a list of arrays
        raise ValueError(f"action masks must be an array for each copy, not {str(masks)[:60]}") from None
    if len(rows) != n:
        raise ValueError(f"there are {len(rows)} action masks for {n} copies")
    size = sum(choices(space))
    for copy, row in enumerate(rows):
        if len(row) != size:
            raise ValueError(
                f"the action mask of copy {copy} has {len(row)} entries, but {_shown(space)} needs {size}, "
                f"{_layout(space)}"
            )
    return np.stack(rows)


def _flat(mask: Any) -> np.ndarray:
    """Return a mask, or the masks of several actions one after the other, without further axes."""
    if isinstance(mask, tuple | list) and any(isinstance(part, tuple | list | np.ndarray) for part in mask):
        return np.concatenate([_flat(part) for part in mask])
    return np.asarray(mask).ravel()


def _layout(space: spaces.Space) -> str:
    if isinstance(space, spaces.Discrete):
        return "one for each action"
    if isinstance(space, spaces.MultiDiscrete):
        return "one for each value of the first action, then of the second, and so on"
    return "two for each bit, for 0 and for 1"


def _shown(space: spaces.Space) -> str:
    return " ".join(str(space).split())
