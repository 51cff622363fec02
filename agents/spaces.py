"""The spaces that the policies support, and their form as plain JSON values."""

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from bistable_rl.envs.nested import NESTED
from bistable_rl.envs.wrappers import Categories, is_text

ONLY = "observation"
"""The key of an observation that is not a Dict."""


LARGEST = 10**8
"""The most numbers of a saved Box: the bounds of a larger one would fill the memory."""


def spaces_of(space: spaces.Space) -> dict[str, spaces.Space]:
    """Return the spaces of a Dict by key, or the only one under the key "observation"."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {ONLY: space}


def becomes(given: spaces.Space, read: spaces.Space) -> bool:
    """Return whether flat observations have the form that a policy reads, as given or with the channels first."""
    before, after = spaces_of(given), spaces_of(read)
    return before.keys() == after.keys() and all(_part_becomes(before[key], after[key]) for key in after)


def _part_becomes(given: Any, read: Any) -> bool:
    if given == read:
        return True
    if given.dtype != read.dtype or len(given.shape or ()) != 3:
        return False
    return bool(read.shape == (given.shape[2], *given.shape[:2]))


def check_spaces(observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
    """Check that the policies support an environment's observations and actions.

    Raises:
        ValueError: If they do not; the message names the space.
    """
    seen = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    if not seen:
        raise ValueError("its observation space is a Dict that holds nothing a policy reads; text is left out")
    for key, space in seen.items():
        if not isinstance(key, str):
            raise ValueError(f"its observation space has the key {key!r}; the keys of a Dict must be strings")
        where = f"its observation space{f' {key!r}' if key else ''} is {_shown(space)}"
        if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise ValueError(
                f"{where}, but a policy reads Box, Discrete, MultiDiscrete, MultiBinary or a Dict of them"
                + ("; bistable_rl.envs.FlattenNested around each copy flattens it" if isinstance(space, NESTED) else "")
                + ("; bistable_rl.envs.make_env leaves a Dict's texts out" if key and is_text(space) else "")
            )
        if isinstance(space, spaces.Box) and (space.shape == () or 0 in space.shape):
            raise ValueError(f"{where}, which holds no numbers along an axis")
        if isinstance(space, spaces.MultiDiscrete) and len(space.shape) > 1:
            raise ValueError(f"{where}, but a policy reads several discrete numbers along one axis; flatten them")
        _check_start(space, where)
    where = f"its action space is {_shown(action_space)}"
    if not isinstance(action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ValueError(f"{where}, but a policy gives Box, Discrete, MultiDiscrete or MultiBinary actions")
    if 0 in (action_space.shape or ()):
        raise ValueError(f"{where}, which holds no numbers along an axis")
    if isinstance(action_space, spaces.Box):
        if not (np.issubdtype(action_space.dtype, np.floating) and action_space.is_bounded()):
            raise ValueError(
                f"{where}, but a policy's continuous actions are floating-point numbers with finite bounds"
            )
    elif len(action_space.shape or ()) > 1:
        raise ValueError(f"{where}, but a policy's discrete actions are along one axis; flatten them")
    _check_start(action_space, where)


def to_json(space: spaces.Space) -> dict[str, Any]:
    """Return a space as plain values.

    Raises:
        ValueError: If it is not a space that the policies support.
    """
    if isinstance(space, spaces.Box):
        bounds = {name: _bound(getattr(space, name)) for name in ("low", "high")}
        mark = {"categories": True} if isinstance(space, Categories) else {}
        return {"space": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds, **mark}
    if isinstance(space, spaces.Discrete):
        return {"space": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiDiscrete):
        start = {"start": space.start.tolist()} if space.start.any() else {}
        return {"space": "MultiDiscrete", "nvec": space.nvec.tolist(), "dtype": str(space.dtype), **start}
    if isinstance(space, spaces.MultiBinary):
        return {"space": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, spaces.Dict):
        return {"space": "Dict", "spaces": {key: to_json(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"space": "Tuple", "spaces": [to_json(part) for part in space.spaces]}
    raise ValueError(
        f"a policy reads and gives Box, Discrete, MultiDiscrete, MultiBinary or a Dict of them, not {space}"
    )


def from_json(data: dict[str, Any]) -> spaces.Space:
    """Return the space that `to_json` described.

    Raises:
        ValueError, KeyError, TypeError: If the data do not describe a space.
    """
    kind = data["space"]
    if kind == "Box":
        dtype = np.dtype(data["dtype"])
        if math.prod(data["shape"]) > LARGEST:
            raise ValueError(f"a Box of {data['shape']} is too large for an observation")
        low, high = (np.full(data["shape"], np.array(data[name], object).astype(dtype)) for name in ("low", "high"))
        return (Categories if data.get("categories") is True else spaces.Box)(low, high, dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"], dtype=np.dtype(data.get("dtype", "int64")).type)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(data["nvec"], np.dtype(data.get("dtype", "int64")).type, start=data.get("start"))
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind == "Dict":
        return spaces.Dict([(key, from_json(part)) for key, part in data["spaces"].items()])  # a dict would be sorted
    if kind == "Tuple":
        return spaces.Tuple([from_json(part) for part in data["spaces"]])
    raise ValueError(f"there is no space {kind!r}")


def _check_start(space: gymnasium.Space, where: str) -> None:
    if np.any(np.asarray(getattr(space, "start", 0)) != 0):
        raise ValueError(f"{where}, but a discrete space must start at 0")


def _shown(space: gymnasium.Space) -> str:
    return " ".join(str(space).split())  # arrays are printed on several lines


def _bound(values: np.ndarray) -> Any:
    """Return a bound as nested lists, or as one number if all are equal; infinity becomes text, since JSON lacks it."""
    plain = np.array(values.tolist(), object)
    plain[~np.isfinite(values)] = plain[~np.isfinite(values)].astype(str)
    first = plain.flat[0] if plain.size else 0
    return first if (plain == first).all() else plain.tolist()
