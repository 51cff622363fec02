"""Observations as tensors: one tensor, or one per key of a Dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor


def map_obs(function: Callable[[Tensor], Tensor], obs: PyTorchObs) -> PyTorchObs:
    """Return the observations with a function applied to every tensor."""
    return {key: function(part) for key, part in obs.items()} if isinstance(obs, dict) else function(obs)


def obs_parts(obs: PyTorchObs) -> list[Tensor]:
    """Return the tensors of the observations."""
    return list(obs.values()) if isinstance(obs, dict) else [obs]


def stack_obs(obs: list[Any], device: torch.device) -> PyTorchObs:
    """Return single observations, arrays or dicts of them, as one batch."""
    if isinstance(obs[0], dict):
        return obs_as_tensor({key: np.stack([one[key] for one in obs]) for key in obs[0]}, device)
    return obs_as_tensor(np.stack(obs), device)
