"""The parts of a policy that a user can replace: the features extractor, the activation, the optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from bistable_rl.agents.features import READERS, Features
from bistable_rl.agents.named import ACTIVATIONS, OPTIMIZERS, resolve
from bistable_rl.errors import unknown
from bistable_rl.runs.named import built
from bistable_rl.runs.schema import PolicyConfig

# SB3's epsilon for PPO; fused is the fastest on CPU and GPU.
ADAM = {"eps": 1e-5, "fused": True}


def extractor_of(config: PolicyConfig) -> tuple[type[BaseFeaturesExtractor], dict[str, Any]]:
    """Return the class of the features extractor, and its arguments after the observation space.

    Raises:
        ValueError: If there is no such class, or a key does not fit it.
    """
    given, kwargs = config.features_extractor_class, config.features_extractor_kwargs
    if given is None or given in READERS:
        for name in kwargs.keys() - {"features_dim"}:
            raise ValueError(unknown("argument in features_extractor_kwargs", name, ["features_dim"]))
        if config.normalize_images is not None:
            raise ValueError(
                "normalize_images is only for a features_extractor_class of your own; ours always scale pixels"
            )
        return Features, {"observation_kinds": config.observation_kinds, "reader": given, **kwargs}
    kind = resolve("features_extractor_class", given, dict.fromkeys(READERS, Features), BaseFeaturesExtractor)
    if config.observation_kinds:
        raise ValueError(f"observation_kinds must be empty: {kind.__name__} reads the observations by itself")
    return kind, dict(kwargs)


def layers(config: PolicyConfig, width: int, widths: list[int]) -> nn.Sequential:
    """Return linear layers of these widths, each with its activation.

    Raises:
        ValueError: If there is no such activation.
    """
    activation = resolve("activation_fn", config.activation_fn or "tanh", ACTIVATIONS, nn.Module)
    sizes = [width, *widths]
    pairs = [(nn.Linear(before, after), activation()) for before, after in zip(sizes, widths, strict=False)]
    return nn.Sequential(*(module for pair in pairs for module in pair))


def make_optimizer(config: PolicyConfig, parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of a policy's parameters.

    Raises:
        ValueError: If there is no such optimizer, it refuses its arguments, or its step needs a closure.
    """
    kind: Any = resolve("optimizer_class", config.optimizer_class or "adam", OPTIMIZERS, torch.optim.Optimizer)
    kwargs = {**(ADAM if kind is torch.optim.Adam else {}), **config.optimizer_kwargs}
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(f"optimizer_class {kind.__name__} cannot be used: its step needs a closure")
    with built("optimizer_class", kind, kwargs):
        made: torch.optim.Optimizer = kind(parameters, lr=rate, **kwargs)
    return made
