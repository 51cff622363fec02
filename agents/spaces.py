"""Which observations the policies can read, and which actions they can give."""

import gymnasium
import numpy as np
from gymnasium import spaces

from bistable_rl.envs.wrappers import is_text


def check_spaces(observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
    """Check that the policies can read an environment's observations and give it actions.

    Raises:
        ValueError: They cannot; names the space.
    """
    seen = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    if not seen:
        raise ValueError("its observation space is a Dict that holds nothing a policy reads; texts are left out")
    for key, space in seen.items():
        where = f"its observation space{f' {key!r}' if key else ''} is {_shown(space)}"
        if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise ValueError(
                f"{where}, but a policy reads Box, Discrete, MultiDiscrete, MultiBinary or a Dict of them"
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


def _check_start(space: gymnasium.Space, where: str) -> None:
    if np.any(np.asarray(getattr(space, "start", 0)) != 0):
        raise ValueError(f"{where}, but a discrete space must start at 0")


def _shown(space: gymnasium.Space) -> str:
    return " ".join(str(space).split())  # arrays are printed on several lines
