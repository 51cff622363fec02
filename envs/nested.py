"""Observations that are a Tuple, or a Dict with Tuples and Dicts in it, flattened by gymnasium's own utilities.

A Tuple becomes one vector, and so does each Tuple or Dict under a key of a Dict. Discrete numbers become one-hot, all
else stays unchanged, in the order of `gymnasium.spaces.utils.flatten`.
"""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten, flatten_space
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

NESTED = (spaces.Tuple, spaces.Dict)


def is_nested(space: gymnasium.Space[Any]) -> bool:
    """Return whether a space is a Tuple, or a Dict with a Tuple or Dict in it."""
    if isinstance(space, spaces.Dict):
        return any(isinstance(part, NESTED) for part in space.spaces.values())
    return isinstance(space, spaces.Tuple)


def flat_space(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """Return the space of the flattened observations; a space that is not nested is returned unchanged.

    Raises:
        ValueError: If a part has no fixed size, is a text, or holds bytes that may be a picture.
    """
    if not is_nested(space):
        return space
    if isinstance(space, spaces.Dict):
        parts = {key: _flat_part(f"its observation space {key!r}", part) for key, part in space.spaces.items()}
        return spaces.Dict(parts)
    return _flat_part("its observation space", space)


def flat_observation(space: gymnasium.Space[Any], observation: Any) -> Any:
    """Return one observation of a nested space, flattened."""
    if isinstance(space, spaces.Dict):
        return {
            key: flatten(part, observation[key]) if isinstance(part, NESTED) else observation[key]
            for key, part in space.spaces.items()
        }
    return flatten(space, observation)


def flat_batch(space: gymnasium.Space[Any], observations: Any, n: int) -> Any:
    """Return n observations of a nested space, flattened; each part is an array (n, ...)."""
    flat = [flat_observation(space, _of_copy(space, observations, copy)) for copy in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([one[key] for one in flat]) for key in space.spaces}
    return np.stack(flat)


def copies_of(space: gymnasium.Space[Any], observation: Any) -> int | None:
    """Return the number of observations in a batch of a nested space; None for a single observation.

    Raises:
        ValueError: If it is not an observation of the space.
    """
    try:
        part, value = next(_leaves(space, observation))
        axes = np.ndim(value) - len(part.shape or ())
        if axes not in (0, 1):
            raise ValueError
        return np.shape(value)[0] if axes else None
    except (KeyError, TypeError, IndexError, ValueError):
        raise ValueError(f"this is not an observation of {space}: {observation!r}") from None


def is_flat(space: gymnasium.Space[Any], observation: Any) -> bool:
    """Return whether an observation, or a batch of them, of a nested space has been flattened already."""
    if isinstance(space, spaces.Dict):
        nested = (key for key, part in space.spaces.items() if isinstance(part, NESTED))
        return isinstance(observation, dict) and all(isinstance(observation.get(key), np.ndarray) for key in nested)
    return isinstance(observation, np.ndarray)


class FlattenNested(gymnasium.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Flatten nested observations; any others are left unchanged.

    Args:
        env: The environment.

    Attributes:
        nested_space: The observation space before flattening.

    Raises:
        ValueError: If `flat_space` raises it.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        self.nested_space = env.observation_space
        self.observation_space = flat_space(self.nested_space)

    def observation(self, observation: Any) -> Any:
        """Return the observation, flattened."""
        return flat_observation(self.nested_space, observation) if is_nested(self.nested_space) else observation


class FlattenNestedVector(VectorWrapper):
    """Flatten the nested observations of a vector environment.

    Args:
        env: The vector environment, whose observations are nested.

    Attributes:
        nested_space: The observation space of one copy before flattening.

    Raises:
        ValueError: If `flat_space` raises it.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self.nested_space = env.single_observation_space
        self.single_observation_space = flat_space(self.nested_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode in every copy."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return flat_batch(self.nested_space, observations, self.num_envs), infos

    def step(self, actions: Any) -> Any:
        """Step the copies; their last observations, in `final_obs`, are flattened too."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            final = infos["final_obs"].copy()
            for copy in np.flatnonzero(infos["_final_obs"]):
                final[copy] = flat_observation(self.nested_space, final[copy])
            infos = {**infos, "final_obs": final}
        return flat_batch(self.nested_space, observations, self.num_envs), rewards, terminated, truncated, infos


def _flat_part(where: str, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    if not isinstance(space, NESTED):
        return space
    for part in _parts(space):
        if isinstance(part, spaces.Text) or not part.is_np_flattenable:
            raise ValueError(f"{where} holds {_shown(part)}, which has no fixed number of entries")
        if isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) > 1:
            raise ValueError(
                f"{where} holds bytes of {' x '.join(map(str, part.shape))}, which may be a picture or categories; "
                "give them a key of their own in a Dict, so that observation_kinds can say how they are read"
            )
    return flatten_space(space)


def _parts(space: gymnasium.Space[Any]) -> Iterator[gymnasium.Space[Any]]:
    if not isinstance(space, NESTED):
        yield space
        return
    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces):
        if isinstance(space, spaces.Dict) and not isinstance(key, str):
            raise ValueError(f"its observation space has the key {key!r}; the keys of a Dict must be strings")
        yield from _parts(part)


def _leaves(space: gymnasium.Space[Any], observation: Any) -> Iterator[tuple[gymnasium.Space[Any], Any]]:
    """Yield each innermost part of a space, with its part of an observation."""
    if isinstance(space, NESTED):
        keys: Any = space.spaces if isinstance(space, spaces.Dict) else range(len(space.spaces))
        for key in keys:
            yield from _leaves(space[key], observation[key])
    else:
        yield space, observation


def _of_copy(space: gymnasium.Space[Any], observations: Any, copy: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _of_copy(part, observations[key], copy) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_of_copy(part, observations[i], copy) for i, part in enumerate(space.spaces))
    return observations[copy]


def _shown(space: gymnasium.Space[Any]) -> str:
    return " ".join(str(space).split())
