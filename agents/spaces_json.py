"""Gymnasium's spaces as plain JSON values, and back."""

from typing import Any

import numpy as np
from gymnasium import spaces


def to_json(space: spaces.Space) -> dict[str, Any]:
    """Return a space as plain values.

    Raises:
        ValueError: It is none of those that a policy reads or gives.
    """
    if isinstance(space, spaces.Box):
        bounds = {name: _bound(getattr(space, name)) for name in ("low", "high")}
        return {"space": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"space": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiDiscrete):
        start = {"start": space.start.tolist()} if space.start.any() else {}
        return {"space": "MultiDiscrete", "nvec": space.nvec.tolist(), "dtype": str(space.dtype), **start}
    if isinstance(space, spaces.MultiBinary):
        return {"space": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, spaces.Dict):
        return {"space": "Dict", "spaces": {key: to_json(part) for key, part in space.spaces.items()}}
    raise ValueError(
        f"a policy reads and gives Box, Discrete, MultiDiscrete, MultiBinary or a Dict of them, not {space}"
    )


def from_json(data: dict[str, Any]) -> spaces.Space:
    """Return the space that `to_json` made plain.

    Raises:
        ValueError, KeyError, TypeError: The data describe no space.
    """
    kind = data["space"]
    if kind == "Box":
        dtype = np.dtype(data["dtype"])
        low, high = (np.full(data["shape"], np.array(data[name], object).astype(dtype)) for name in ("low", "high"))
        return spaces.Box(low, high, dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"], dtype=np.dtype(data.get("dtype", "int64")).type)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(data["nvec"], np.dtype(data.get("dtype", "int64")).type, start=data.get("start"))
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind == "Dict":
        return spaces.Dict({key: from_json(part) for key, part in data["spaces"].items()})
    raise ValueError(f"there is no space {kind!r}")


def _bound(values: np.ndarray) -> Any:
    """Return a bound as nested lists, or as one number where all are equal; infinity, which JSON lacks, as text."""
    plain = np.array(values.tolist(), object)
    plain[~np.isfinite(values)] = plain[~np.isfinite(values)].astype(str)
    first = plain.flat[0] if plain.size else 0
    return first if (plain == first).all() else plain.tolist()
