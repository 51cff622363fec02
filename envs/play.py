"""A person plays an environment in the terminal, to see how hard it is."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete

from bistable_rl.envs.base import BatchedEnv
from bistable_rl.envs.info import is_success
from bistable_rl.envs.registry import make_env
from bistable_rl.envs.render import save_gif
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.wrappers import minigrid_view

OBJECTS = np.array(list("? #.DkbxGL@"))
"""How MiniGrid's objects are drawn in text; the first is what can't be seen."""


def describe(env: Any, observation: Any) -> str:
    """Return in words what the player sees, and nothing more.

    Args:
        env: An environment without its wrappers, single or (its first copy) batched.
        observation: What it showed last.
    """
    if isinstance(env, SingleEnv):
        env = env.batch
    if isinstance(env, BatchedEnv):
        return env.observation_text(0)
    view = minigrid_view(env)
    if view is not None and isinstance(observation, dict) and np.shape(observation.get("image", 0)) == view.shape:
        rows = OBJECTS[np.minimum(observation["image"][..., 0], len(OBJECTS) - 1)].T
        return "\n".join("".join(row) for row in rows)
    return str(observation)


def parse_action(space: gymnasium.Space[Any], text: str) -> npt.NDArray[Any]:
    """Return the action that a person typed: a number, or as many as the space asks for.

    Raises:
        ValueError: If it is no action of the space.
    """
    if isinstance(space, Discrete):
        if not text.strip().isdecimal() or not space.contains(action := np.int64(text)):
            raise ValueError(f"an action is a number from {space.start} to {space.start + space.n - 1}, not {text!r}")
        return np.asarray(action)
    assert isinstance(space, Box)
    try:
        numbers = np.array(text.split(), space.dtype).reshape(space.shape)
    except ValueError:
        numbers = np.full(space.shape, np.nan, space.dtype)
    if not space.contains(numbers):
        low, high = space.low.min(), space.high.max()
        size = int(np.prod(space.shape))
        raise ValueError(f"an action is {size} number{'s' * (size > 1)} from {low:g} to {high:g}, not {text!r}")
    return numbers


def play(
    env_id: str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
    episodes: int = 1,
    seed: int | None = None,
    save: Path | None = None,
    ask: Callable[[str], str] = input,
    show: Callable[[str], object] = print,
) -> list[float]:
    """Let a person play.

    Args:
        env_id: A registered id, or "package:id".
        kwargs: The environment's arguments.
        wrappers: As in `make_env`.
        episodes: How many episodes; `q` or the end of the input stops earlier.
        seed: Of the first episode.
        save: A GIF to write.
        ask: Asks for a line of input.
        show: Shows a text.

    Returns:
        The returns of the finished episodes.

    Raises:
        ValueError: If the environment can't be made, can't be played by typing, or has no pictures to save.
    """
    mode = {"render_mode": "rgb_array"} if save else {}
    env = make_env(env_id, kwargs={**(kwargs or {}), **mode}, wrappers=wrappers)
    if not isinstance(env.action_space, Discrete | Box):
        raise ValueError(f"{env_id} can't be played by typing: its actions are {env.action_space}")
    if save and "rgb_array" not in ((env.metadata or {}).get("render_modes") or ()):
        raise ValueError(f"{env_id} has no pictures to save")
    frames: list[npt.NDArray[np.uint8]] = []
    returns: list[float] = []
    show(f"{env_id}: actions {env.action_space}; q to stop")
    try:
        while len(returns) < episodes:
            finished = _episode(env, seed if not returns else None, frames if save else None, ask, show)
            if finished is None:
                break
            returns.append(finished)
    finally:
        env.close()
        if save and frames:
            save_gif(frames, save, 0.5)
    return returns


def _episode(
    env: gymnasium.Env[Any, Any],
    seed: int | None,
    frames: list[npt.NDArray[np.uint8]] | None,
    ask: Callable[[str], str],
    show: Callable[[str], object],
) -> float | None:
    """Play one episode and return its return, or None if the player stopped."""
    observation, info = env.reset(seed=seed)
    total, steps, over = 0.0, 0, False
    while not over:
        if frames is not None:
            frames.append(env.render())  # type: ignore[arg-type]
        show(describe(env.unwrapped, observation))
        action = None
        while action is None:
            try:
                text = ask("action: ")
            except EOFError:
                return None
            if text.strip() == "q":
                return None
            try:
                action = parse_action(env.action_space, text)
            except ValueError as error:
                show(str(error))
        observation, reward, terminated, truncated, info = env.step(action)
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
        if reward:
            show(f"reward {float(reward):g}")
    if frames is not None:
        frames.append(env.render())  # type: ignore[arg-type]
    show(f"return {total:g} in {steps} steps" + _verdict(env.unwrapped, info))
    return total


def _verdict(env: Any, info: dict[str, Any]) -> str:
    """Return what there is to say of a finished episode."""
    words = ""
    success = is_success(info)
    if success is not None:
        words += ", success" if success else ", no success"
    if isinstance(env, SingleEnv):
        words += f" (best {env.optimal_return:.3g}, best without memory {env.memoryless_return:.3g}, on average)"
    return words
