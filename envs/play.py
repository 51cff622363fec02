"""Play an environment in the terminal, to see how hard it is."""

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
from bistable_rl.envs.render import film_frame, find_ffmpeg, save_film
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.wrappers import minigrid_view

OBJECTS = np.array(list("? #.DkbxGL@"))
"""MiniGrid's objects as characters; the first stands for a cell out of sight."""


def observation_text(env: Any, observation: Any) -> str:
    """Return an observation as text for a person.

    Args:
        env: The unwrapped environment, or a batch; its first copy is shown.
        observation: Its last observation.
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


def caption(env: Any, step: int, seen: str) -> str:
    """Return the line below a picture in a film: the step, the observation and, in ours, a perfect memory's content.

    Args:
        env: As of `observation_text`.
        step: The number of the step in its episode.
        seen: The text that `observation_text` returned; several lines are a picture, which the film shows already.
    """
    batch = env.batch if isinstance(env, SingleEnv) else env
    memory = f"  to remember: {batch.memory_text(0)}" if isinstance(batch, BatchedEnv) else ""
    return f"step {step}" + ("" if "\n" in seen else f"  seen: {seen}") + memory


def parse_action(space: gymnasium.Space[Any], text: str) -> npt.NDArray[Any]:
    """Parse an action: a number for a Discrete space, numbers for a Box.

    Raises:
        ValueError: If the text is not an action of the space.
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
    wrappers: Sequence[str | type | Mapping[str, Any]] = (),
    episodes: int = 1,
    seed: int | None = None,
    save: Path | None = None,
    ask: Callable[[str], str] = input,
    show: Callable[[str], object] = print,
) -> list[float]:
    """Play episodes with actions that a person types.

    Args:
        env_id: A registered id, or "package:id".
        kwargs: The environment's arguments.
        wrappers: Its wrappers, as in `make_env`.
        episodes: The number of episodes; `q` or the end of the input stops earlier.
        seed: The seed of the first episode.
        save: The GIF or MP4 to write, if any.
        ask: Shows a prompt and returns a line of input.
        show: Shows a text.

    Returns:
        The returns of the finished episodes.

    Raises:
        ValueError: If the environment cannot be built, has actions that cannot be typed, or has no pictures to save.
        UserError: If the film cannot be written.
    """
    mode = {"render_mode": "rgb_array"} if save else {}
    if save and save.suffix.lower() == ".mp4":
        find_ffmpeg()
    env = make_env(env_id, kwargs={**(kwargs or {}), **mode}, wrappers=wrappers)
    if not isinstance(env.action_space, Discrete | Box):
        raise ValueError(f"{env_id} cannot be played by typing: its actions are {env.action_space}")
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
            save_film(frames, save, 0.5)
    return returns


def _episode(
    env: gymnasium.Env[Any, Any],
    seed: int | None,
    frames: list[npt.NDArray[np.uint8]] | None,
    ask: Callable[[str], str],
    show: Callable[[str], object],
) -> float | None:
    """Play one episode; return its return, or None if the player stopped."""
    observation, info = env.reset(seed=seed)
    total, steps, over = 0.0, 0, False
    while not over:
        seen = observation_text(env.unwrapped, observation)
        if frames is not None:
            frames.append(film_frame(env.render(), caption(env.unwrapped, steps, seen)))  # type: ignore[arg-type]
        show(seen)
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
        frames.append(film_frame(env.render(), f"step {steps}  return {total:g}"))  # type: ignore[arg-type]
    show(f"return {total:g} in {steps} steps" + _verdict(env.unwrapped, info))
    return total


def _verdict(env: Any, info: dict[str, Any]) -> str:
    """Return whether the episode was a success, and the returns to compare with."""
    words = ""
    success = is_success(info)
    if success is not None:
        words += ", success" if success else ", no success"
    if isinstance(env, SingleEnv):
        words += f" (best {env.optimal_return:.3g}, best without memory {env.memoryless_return:.3g}, on average)"
    return words
