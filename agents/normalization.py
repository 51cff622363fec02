"""Observations and rewards normalised by running statistics, as SB3's VecNormalize does.

In training VecNormalize stands between the environment and the algorithm. After training, and in evaluations, the
environment is stepped as it is, and the policy normalises its observations by the statistics of the training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor, nn

from bistable_rl.agents.spaces import ONLY, spaces_of
from bistable_rl.envs.wrappers import Categories
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import Experiment

if TYPE_CHECKING:
    from bistable_rl.agents.ppo import RecurrentPPO

CLIP, EPSILON = 10.0, 1e-8
"""VecNormalize's defaults: the largest normalised number, and the number that is added to a variance."""

PREFIX = "normalize/"
"""The prefix of the names of the statistics in a checkpoint."""

Arrays = Mapping[str, np.ndarray]
Moments = tuple[np.ndarray, np.ndarray]
"""A mean and a variance, of the shape of an observation."""


def check_normalizable(space: spaces.Space) -> None:
    """Check that the observations of a space can be normalised.

    Raises:
        ValueError: If an observation is not a Box of floating-point numbers.
    """
    for key, part in spaces_of(space).items():
        floats = isinstance(part, spaces.Box) and np.issubdtype(part.dtype, np.floating)
        if not floats or isinstance(part, Categories):
            what = "" if key == ONLY else f" for {key!r}"
            raise ValueError(
                f"normalize.obs takes a Box of floating-point numbers, or a Dict of them, not {part}{what}; "
                "normalize.reward works with any observation"
            )


def normalized(env: VecEnv, experiment: Experiment) -> VecEnv:
    """Return the copies of an experiment for its training, normalised according to `env.normalize`."""
    config = experiment.env.normalize
    if not (config.obs or config.reward):
        return env
    gamma = experiment.algorithm.gamma
    return VecNormalize(env, True, config.obs, config.reward, CLIP, CLIP, gamma, EPSILON)


class Normalization(nn.Module):
    """Normalises observations by fixed statistics to mean 0 and variance 1, and clips them.

    Args:
        moments: Mean and variance by key; the key is "observation" if there is no Dict.

    Shape:
        - Input and output: (B, ...), one tensor or one per key; the output is in float32
    """

    def __init__(self, moments: Mapping[str, Moments]) -> None:
        super().__init__()
        self.keys = list(moments)
        for i, (mean, var) in enumerate(moments.values()):  # not in the weights: statistics are saved as arrays
            self.register_buffer(f"mean_{i}", torch.tensor(mean, dtype=torch.float64), persistent=False)
            self.register_buffer(f"std_{i}", torch.tensor(np.sqrt(var + EPSILON)), persistent=False)

    def forward(self, obs: PyTorchObs) -> PyTorchObs:
        """Normalise a batch in double precision, bit for bit as VecNormalize does."""
        if isinstance(obs, dict):
            return {key: self._part(obs[key], i) for i, key in enumerate(self.keys)}
        return self._part(obs, 0)

    def _part(self, part: Tensor, i: int) -> Tensor:
        mean, std = self.get_buffer(f"mean_{i}"), self.get_buffer(f"std_{i}")
        return ((part.double() - mean) / std).clamp(-CLIP, CLIP).float()


@contextlib.contextmanager
def reading_unnormalized(model: RecurrentPPO) -> Iterator[None]:
    """In the block, let the policy of a training read observations as the environment gives them."""
    env = model.get_vec_normalize_env()
    if env is None or not env.norm_obs:
        yield
        return
    found: dict[str, RunningMeanStd] | RunningMeanStd = env.obs_rms
    by_key = found if isinstance(found, dict) else {ONLY: found}
    model.policy.normalization = Normalization({key: (m.mean, m.var) for key, m in by_key.items()}).to(model.device)
    try:
        yield
    finally:
        model.policy.normalization = None


def load_normalization(arrays: Arrays, space: spaces.Space, source: str) -> Normalization:
    """Return the statistics of the observations in the arrays of a checkpoint.

    Raises:
        UserError: If they are missing or broken; the message starts with `source`.
    """
    keys = spaces_of(space)
    names = {key: f"observation/{key}" if isinstance(space, spaces.Dict) else "observation" for key in keys}
    try:
        shapes = {key: part.shape or () for key, part in keys.items()}
        return Normalization({key: read_moments(arrays, names[key], shapes[key]) for key in keys})
    except KeyError as error:
        raise UserError(f"{source} is incomplete: {error.args[0]} is missing.") from None
    except ValueError as error:
        raise UserError(f"{source} is broken: {error}.") from None


def read_moments(arrays: Arrays, name: str, shape: tuple[int, ...]) -> Moments:
    """Return the mean and the variance of one of VecNormalize's statistics.

    Raises:
        KeyError: If they are missing.
        ValueError: If they have another shape, or hold NaN, infinity or a negative variance.
    """
    mean, var = arrays[f"{PREFIX}{name}/mean"], arrays[f"{PREFIX}{name}/var"]
    if mean.shape != shape or var.shape != shape:
        raise ValueError(f"{PREFIX}{name} must have shape {shape}, not {mean.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(var).all() and (var >= 0).all()):
        raise ValueError(f"{PREFIX}{name} holds NaN, infinity or a negative variance")
    return mean, var
