"""Wrappers of environments, and the names by which a config refers to them."""

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import TimeLimit

from bistable_rl.checks import check_choice
from bistable_rl.envs.previous_action_reward import PreviousActionReward
from bistable_rl.errors import unknown

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
"""MiniGrid's actions, in its order."""

ENCODINGS = ("symbolic", "one_hot")
"""The encodings of a MiniGrid image: unchanged, or as zeros and ones."""

CHANNELS = (11, 6, 3)
"""The numbers of objects, colours and states in MiniGrid's encoding of a cell."""

VELOCITIES: dict[str, tuple[int, ...]] = {
    "CartPole": (1, 3),
    "Pendulum": (2,),
    "MountainCar": (1,),
    "MountainCarContinuous": (1,),
    "Acrobot": (4, 5),
}
"""The indices of the velocities in a classic-control observation."""


class Categories(Box):
    """A Box of bytes that are categories, such as MiniGrid's view, and not brightness. It equals the plain Box.

    The shape of a space does not distinguish categories from brightness, so the environment declares categories by this
    class. A wrapper that turns them into other observations (tiles drawn in colour, stacked frames) declares a plain
    Box.
    """


def one_hot_cells(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Encode MiniGrid images (..., V, V, 3) as flat one-hot vectors (..., V·V·20)."""
    cells = [np.eye(n, dtype=np.float32)[image[..., k]] for k, n in enumerate(CHANNELS)]
    return np.concatenate(cells, axis=-1).reshape(*image.shape[:-3], -1)


def minigrid_view(env: Any) -> gymnasium.Space[Any] | None:
    """Return the space of an unwrapped MiniGrid environment's view, which holds categories; None for others."""
    if not any(kind.__module__ == "minigrid.minigrid_env" for kind in type(env).__mro__):
        return None
    space = env.observation_space
    return space["image"] if isinstance(space, Dict) and "image" in space.spaces else None


def minigrid_views(env: gymnasium.Env[Any, Any]) -> list[gymnasium.Space[Any]]:
    """Return the spaces that hold categories, of a MiniGrid environment and of MiniGrid's wrappers around it."""
    views = [minigrid_view(env.unwrapped)]
    while isinstance(env, gymnasium.Wrapper):
        if type(env).__module__ == "minigrid.wrappers" and type(env).__name__ in ("FullyObsWrapper", "ViewSizeWrapper"):
            views.append(env.observation_space["image"])  # type: ignore[index]
        env = env.env
    return [view for view in views if view is not None]


def is_text(space: gymnasium.Space[Any]) -> bool:
    """Whether a space holds texts, as gymnasium's Text and MiniGrid's MissionSpace do."""
    return space.dtype is not None and np.dtype(space.dtype).kind == "U"


class DropText(gymnasium.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Drop the texts of a Dict observation (MiniGrid's mission): no network here reads them.

    Args:
        env: The environment; observations without texts are left unchanged.

    Raises:
        ValueError: If the observations hold only texts.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        if isinstance(space, Dict):
            kept = {key: value for key, value in space.items() if not is_text(value)}
            if not kept:
                raise ValueError(f"the observations hold only text ({', '.join(space)}), which no network here reads")
            self.observation_space = Dict(kept)

    def observation(self, observation: Any) -> Any:
        """Return the observation without its texts."""
        if isinstance(self.observation_space, Dict):
            return {key: observation[key] for key in self.observation_space}
        return observation


class MiniGrid(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Prepare a MiniGrid environment for training: no mission, fewer actions, `info["is_success"]`.

    MiniGrid's own argument `agent_view_size` sets the size V of the view.

    Args:
        env: A MiniGrid environment.
        encoding: "symbolic" leaves the image unchanged: (V, V, 3) bytes of object, colour and state. "one_hot" turns it
            into a vector of V·V·20 zeros and ones.
        actions: The names of the actions to keep, in the order of their new numbers; None keeps all seven.

    Raises:
        ValueError: If the environment is not MiniGrid's, or an argument is not one of the choices.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], *, encoding: str = "symbolic", actions: list[str] | None = None
    ) -> None:
        RecordConstructorArgs.__init__(self, encoding=encoding, actions=actions)
        gymnasium.Wrapper.__init__(self, env)
        space = env.observation_space
        if not isinstance(space, Dict) or not {"image", "direction"} <= set(space):
            raise ValueError(f"the wrapper 'minigrid' is for MiniGrid's environments, not for {env}")
        self.encoding = check_choice("encoding", encoding, ENCODINGS)
        image = space["image"]
        assert isinstance(image, Box)
        if encoding == "one_hot":
            image = Box(0, 1, (image.shape[0] * image.shape[1] * sum(CHANNELS),), np.float32)
        else:
            image = Categories(image.low, image.high, dtype=np.uint8)
        self.observation_space = Dict({"image": image, "direction": space["direction"]})
        names = ACTIONS if actions is None else actions
        for name in names:
            check_choice("action", name, ACTIONS)
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"actions must be a list of at least one name, each given once, not {names}")
        self._numbers = [ACTIONS.index(name) for name in names]
        self.action_space = Discrete(len(names))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._encode(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Apply one of the kept actions."""
        observation, reward, terminated, truncated, info = self.env.step(self._numbers[int(action)])
        if terminated or truncated:
            info = {**info, "is_success": bool(terminated and float(reward) > 0)}
        return self._encode(observation), float(reward), terminated, truncated, info

    def _encode(self, observation: Any) -> Any:
        image = observation["image"]
        if self.encoding == "one_hot":
            image = one_hot_cells(image)
        return {"image": image, "direction": observation["direction"]}


class MaskVelocity(gymnasium.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Drop the velocities of a classic-control observation; the agent must infer them from the positions.

    Args:
        env: One of gymnasium's classic-control environments.

    Raises:
        ValueError: If it is another environment.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        name = env.spec.name if env.spec is not None else str(env)
        if name not in VELOCITIES:
            raise ValueError(unknown("environment for mask_velocity", name, VELOCITIES))
        space = env.observation_space
        assert isinstance(space, Box)
        self._kept = np.delete(np.arange(space.shape[0]), VELOCITIES[name])
        self.observation_space = Box(space.low[self._kept], space.high[self._kept], dtype=np.float32)

    def observation(self, observation: Any) -> Any:
        """Return the positions."""
        return observation[self._kept]


WRAPPERS: dict[str, type[gymnasium.Wrapper[Any, Any, Any, Any]]] = {
    "mask_velocity": MaskVelocity,
    "minigrid": MiniGrid,
    "previous_action_reward": PreviousActionReward,
    "time_limit": TimeLimit,
}
"""The wrappers by name. `time_limit` is gymnasium's (`max_episode_steps`); it truncates, so PPO bootstraps."""
