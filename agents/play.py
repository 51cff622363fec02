"""Play episodes with a trained agent: show them step by step, or record the inputs of its memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from bistable_rl.agents.agent import Agent, load
from bistable_rl.agents.attack_file import Found, read_found
from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.evaluation import check_finite, longest_episode, never_ends, playing, success_of
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.vec_envs import close, make_rendered_env, make_vec_env
from bistable_rl.cells.base import fixed_weights
from bistable_rl.envs import ENVIRONMENTS
from bistable_rl.envs.play import caption, observation_text
from bistable_rl.envs.registry import find_spec
from bistable_rl.envs.render import film_frame, find_ffmpeg, save_film
from bistable_rl.errors import UserError
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig
from bistable_rl.runs.seeds import WATCHING, derived_seed


def watch(
    run: Run | Path,
    *,
    overrides: Sequence[str] = (),
    episodes: int = 1,
    seed: int | None = None,
    save: Path | None = None,
    sequence: Path | None = None,
    cue: int | None = None,
    delay: float = 0.3,
    show: Callable[[str], object] = print,
) -> list[float]:
    """Show the observations and actions of a run's agent, step by step.

    Args:
        run: The run or its folder.
        overrides: Changes to its configuration, such as `--env.kwargs.length`, `500`.
        episodes: The number of episodes.
        seed: Seed of the environment; by default one on which the run did not train.
        save: A GIF or MP4 to write.
        sequence: A file of `evaluate --adversary --json`; its distractors are shown, in an episode of their length.
        cue: The number of the cue in that file; by default the first killed cue.
        delay: Seconds between two steps.
        show: Called with each line of text.

    Returns:
        The returns of the episodes.

    Raises:
        UserError: If there is no run, or its agent does not fit the environment.
        ValueError: If the environment has no pictures to save.
        RunFailedError: If the environment fails during an episode, or an episode never ends.
    """
    run = Run.open(run)
    experiment = run.experiment(overrides)
    agent = load(run)
    config, found = experiment.env, None if sequence is None else read_found(sequence, cue)
    if found is not None:
        config = _for_sequence(config, found)
        seed = found.seed
    if save and save.suffix.lower() == ".mp4":
        find_ffmpeg()
    if seed is None:
        seed = derived_seed(experiment.seed, WATCHING)
    env = make_rendered_env(config, seed) if save else make_vec_env(config, 1, seed)
    try:
        agent.check_spaces(env)
        if found is not None:
            env.env_method("reset", options=found.options)  # refuses options that do not fit, before any episode
            env.set_options(found.options)
        if save and env.render_mode != "rgb_array":
            raise ValueError(f"{find_spec(config.id).id} has no pictures to save")
        with playing():
            return _watch(agent, env, episodes, save, delay, show, experiment.evaluation.max_episode_steps)
    finally:
        close(env)


def _for_sequence(config: EnvConfig, found: Found) -> EnvConfig:
    """Return the environment with the length that a sequence of distractors needs."""
    spec = find_spec(config.id).id
    if spec != find_spec(found.env_id).id:
        raise UserError(f"play: the sequence was found in {found.env_id}, but the run's environment is {config.id}.")
    batched = ENVIRONMENTS[spec].batched if spec in ENVIRONMENTS else None
    if config.wrappers or batched is None or not hasattr(batched, "SHORTEST"):
        raise UserError(f"play: a sequence of distractors cannot be given to {config.id}.")
    return replace(config, kwargs={**config.kwargs, "length": batched.SHORTEST + found.steps})


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
    obs: Any = env.reset()
    masks = EnvMasks(env)
    state, dones, total, steps = None, np.ones(1, np.bool_), 0.0, 0

    def when(_: int) -> str:
        return f"in step {steps} of an episode"

    while len(returns) < episodes:
        check_finite(obs, "observation", when)
        unwrapped = env.get_attr("unwrapped")[0]
        seen = observation_text(unwrapped, _first(obs))
        told, picture = (caption(unwrapped, steps, seen), env.render()) if save else ("", None)
        actions, state = agent.predict(obs, state, dones, **masks.given)
        obs, rewards, dones, infos = env.step(actions)
        masks.see(dones, infos)
        if picture is not None:
            rewarded = f"  reward: {rewards[0]:g}" if rewards[0] else ""
            frames.append(film_frame(picture, f"{told}  action: {actions[0]}{rewarded}"))
        steps += 1
        check_finite(rewards, "reward", when)
        total += float(rewards[0])
        show(f"{seen}  action: {actions[0]}" + (f"  reward: {rewards[0]:g}" if rewards[0] else ""))
        if dones[0]:
            success = success_of(infos[0])
            verdict = "" if success is None else ", success" if success else ", no success"
            show(f"return {total:g} in {steps} steps{verdict}")
            returns.append(total)
            total, steps = 0.0, 0
        elif steps >= longest:
            raise never_ends(longest)
        time.sleep(delay)
    if save:
        save_film(frames, save, max(delay, 0.05))
    return returns


def _first(obs: Any) -> Any:
    """Return the first copy's observation, with an image's channels moved back to the end: SB3 puts them first."""
    if isinstance(obs, dict):
        return {key: _first(value) for key, value in obs.items()}
    first = obs[0]
    return np.moveaxis(first, 0, -1) if first.ndim == 3 and first.shape[0] == 3 != first.shape[-1] else first


@dataclass(frozen=True)
class Episodes:
    """n recorded episodes of up to T steps.

    Attributes:
        features: (T, n, F) inputs of the recurrent layers, zeros after an episode's end.
        lengths: (n,) steps of each episode.
        successes: (n,) whether each succeeded; None if the environment does not say, or an episode was cut short.
        cut: The number of episodes that were cut before their end.
    """

    features: Tensor
    lengths: Tensor
    successes: np.ndarray | None
    cut: int = 0


Choose = Callable[[Any, np.ndarray, EnvMasks], np.ndarray]
"""A function of the observations, the episode starts (n,) and the action masks; it returns the actions."""


def record(env: VecEnv, policy: RecurrentPolicy, choose: Choose, longest: int) -> Episodes:
    """Play one episode in every copy of an environment, and record the features of every step.

    Args:
        env: The copies, already seeded; they are reset first.
        policy: Computes the features, with the weights that it has at the start.
        choose: Chooses the actions.
        longest: Steps after which an episode is cut.

    Raises:
        NonFiniteError: If an observation is NaN or infinite.
        RunFailedError: If an info reports a success that is neither true nor false.
    """
    with torch.no_grad(), fixed_weights(policy):
        return _record(env, policy, choose, longest)


def _record(env: VecEnv, policy: RecurrentPolicy, choose: Choose, longest: int) -> Episodes:
    n = env.num_envs
    obs: Any = env.reset()
    masks = EnvMasks(env)
    dones = np.ones(n, np.bool_)
    lengths = np.zeros(n, np.int64)
    running = np.ones(n, np.bool_)
    successes: list[Any] = [None] * n
    features: list[Tensor] = []
    while running.any() and len(features) < longest:
        check_finite(obs, "observation", lambda _: f"in step {len(features)} of an episode")
        found = policy.extract_features(policy.obs_to_tensor(obs)[0])
        features.append(torch.where(torch.from_numpy(running).to(found.device).unsqueeze(1), found, 0.0))
        lengths[running] += 1
        obs, _, dones, infos = env.step(choose(obs, dones, masks))
        masks.see(dones, infos)
        for i in np.flatnonzero(dones & running):
            successes[i] = success_of(infos[i])
        running &= ~dones
    known = None if any(success is None for success in successes) else np.array(successes, np.bool_)
    return Episodes(torch.stack(features), torch.from_numpy(lengths), known, int(running.sum()))


def random_actions(env: VecEnv, seed: int) -> Choose:
    """Return a `choose` for `record` that acts at random."""
    env.action_space.seed(seed)
    return lambda obs, dones, masks: masks.sample(env.action_space)
