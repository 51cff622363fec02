"""The agent of a `RecurrentPPO`, or of the file that its `save` wrote, as `load` returns that of a run."""

from __future__ import annotations

import copy
import os
from pathlib import Path

from bistable_rl.agents import archive
from bistable_rl.agents.agent import Agent
from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.normalization import CLIP, EPSILON, PREFIX, load_normalization, reading_unnormalized
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.run_spaces import spaces_of_env
from bistable_rl.agents.spaces import ONLY, spaces_of
from bistable_rl.agents.vec_envs import attribute_of
from bistable_rl.errors import UserError
from bistable_rl.runs import checkpoint
from bistable_rl.runs.schema import EnvConfig, Experiment


def agent_of_file(file: str | os.PathLike[str]) -> Agent:
    """Return the agent in a file of `RecurrentPPO.save`; it normalises observations if VecNormalize did in training.

    The file says nothing of the environment: the agent has no action masks, and reads images with their channels first.

    Raises:
        UserError: If there is no such file, or it is broken or of another policy.
    """
    model = RecurrentPPO.load(file, device="cpu")
    arrays = checkpoint.load_arrays(archive.read(file)[0])
    if any(name.startswith(f"{PREFIX}observation") for name in arrays):
        model.policy.normalization = load_normalization(arrays, model.observation_space, str(file))
    return agent_of(model, Path(file).stem)


def agent_of(model: RecurrentPPO, name: str) -> Agent:
    """Return a copy of the agent of an algorithm, on the CPU; the algorithm can go on training.

    With an environment the agent reads observations as it gives them, and knows whether it has action masks. Without
    one it reads them as the algorithm's `predict` does.

    Raises:
        UserError: If its VecNormalize has other values of `clip_obs` or `epsilon` than SB3's defaults, or leaves out a
            part of the observations.
    """
    env = model.get_env()
    _check_normalization(model)
    with reading_unnormalized(model):
        policy = copy.deepcopy(model.policy).to("cpu")
    policy.set_training_mode(False)
    given = policy.nested_space or model.observation_space if env is None else spaces_of_env(env).given
    spec = None if env is None else attribute_of(env, "spec")
    experiment = Experiment(name, EnvConfig("" if spec is None else spec.id))
    return Agent(policy, experiment, model.num_timesteps, copy.deepcopy(given), _has_masks(model))


def _check_normalization(model: RecurrentPPO) -> None:
    env = model.get_vec_normalize_env()
    if env is None or not env.norm_obs:
        return
    if (env.clip_obs, env.epsilon) != (CLIP, EPSILON):
        raise UserError(
            f"VecNormalize must have clip_obs {CLIP:g} and epsilon {EPSILON:g}, SB3's defaults, for an agent without "
            f"its environment, not {env.clip_obs:g} and {env.epsilon:g}."
        )
    for key in spaces_of(model.observation_space).keys() - set(env.norm_obs_keys or [ONLY]):
        raise UserError(
            f"VecNormalize must normalise all observations for an agent without its environment, also {key!r}."
        )


def _has_masks(model: RecurrentPPO) -> bool:
    """Return whether the environment has action masks; one in which no training has begun is reset for it."""
    env = model.get_env()
    if env is None:
        return False
    if model._masks is not None and model._masks.env is env:
        return model._masks.now is not None
    env.unwrapped.reset()  # not VecNormalize's, which would count the observations
    return EnvMasks(env).now is not None
