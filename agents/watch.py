"""Watch a trained agent play, step by step."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.agent import Agent, load
from bistable_rl.agents.evaluation import check_finite, longest_episode, never_ends, playing, success_of
from bistable_rl.agents.make_env import WATCHING, close, derived_seed, make_vec_env
from bistable_rl.envs.play import observation_text
from bistable_rl.envs.registry import find_spec
from bistable_rl.envs.render import save_gif
from bistable_rl.runs import run as runs


def watch(
    run: Path,
    *,
    overrides: Sequence[str] = (),
    episodes: int = 1,
    seed: int | None = None,
    save: Path | None = None,
    delay: float = 0.3,
    show: Callable[[str], object] = print,
) -> list[float]:
    """Show what the agent of a run sees and does.

    Args:
        run: The run folder.
        overrides: Changes to its configuration, such as `--env.kwargs.length`, `500`.
        episodes: How many episodes.
        seed: Of the environment; by default one that the run didn't train on.
        save: A GIF to write.
        delay: Seconds between two steps.
        show: Shows a text.

    Returns:
        The episodes' returns.

    Raises:
        UserError: If there is no run, or its agent doesn't fit the environment.
        ValueError: If the environment has no pictures to save.
        RunFailedError: If the environment fails while it is played, or an episode never ends.
    """
    experiment = runs.read_experiment(run, overrides)
    agent = load(run)
    config = experiment.env
    if save:
        config = dataclasses.replace(config, kwargs={**config.kwargs, "render_mode": "rgb_array"})
    env = make_vec_env(config, 1, derived_seed(experiment.seed, WATCHING) if seed is None else seed)
    try:
        agent.check_spaces(env)
        if save and env.render_mode != "rgb_array":
            raise ValueError(f"{find_spec(config.id).id} has no pictures to save")
        with playing():
            return _watch(agent, env, episodes, save, delay, show, experiment.evaluation.max_episode_steps)
    finally:
        close(env)


def _watch(
    agent: Agent,
    env: VecEnv,
    episodes: int,
    save: Path | None,
    delay: float,
    show: Callable[[str], object],
    longest: int | None,
) -> list[float]:
    frames: list[npt.NDArray[np.uint8]] = []
    returns: list[float] = []
    longest = longest_episode(env, longest)
    observation: Any = env.reset()
    state, start, total, steps = None, np.ones(1, np.bool_), 0.0, 0

    def when(_: int) -> str:
        return f"in step {steps} of an episode"

    while len(returns) < episodes:
        check_finite(observation, "observation", when)
        if save:
            frames.append(env.render())  # type: ignore[arg-type]
        seen = observation_text(env.get_attr("unwrapped")[0], _first(observation))
        action, state = agent.predict(observation, state, start)
        observation, rewards, start, infos = env.step(action)
        steps += 1
        check_finite(rewards, "reward", when)
        total += float(rewards[0])
        show(f"{seen}  action: {action[0]}" + (f"  reward: {rewards[0]:g}" if rewards[0] else ""))
        if start[0]:
            success = success_of(infos[0])
            verdict = "" if success is None else ", success" if success else ", no success"
            show(f"return {total:g} in {steps} steps{verdict}")
            returns.append(total)
            total, steps = 0.0, 0
        elif steps >= longest:
            raise never_ends(longest)
        time.sleep(delay)
    if save:
        save_gif(frames, save, max(delay, 0.05))
    return returns


def _first(observation: Any) -> Any:
    """Return the first copy's observation, with an image's channels, which SB3 moves to the front, at the end."""
    if isinstance(observation, dict):
        return {key: _first(value) for key, value in observation.items()}
    first = observation[0]
    return np.moveaxis(first, 0, -1) if first.ndim == 3 and first.shape[0] == 3 != first.shape[-1] else first
