"""The classes that a policy is given by name (`bistable_rl.runs.named`), and those of torch that have a short one.

A class itself, as in SB3, is taken too. It is saved by its name, never by pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from bistable_rl.errors import user_errors
from bistable_rl.runs import named
from bistable_rl.runs.schema import Experiment

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}

NAMED = ("features_extractor_class", "activation_fn", "optimizer_class")
"""The arguments of a policy that are classes."""

T = TypeVar("T")


def resolve(argument: str, given: str | type, known: Mapping[str, type], base: type[T]) -> type[T]:
    """Return the class of a policy's argument, as `bistable_rl.runs.named.resolve` does.

    Raises:
        ValueError: If that function raises it.
    """
    return named.resolve(argument, given, known, base, of_script="give policy_kwargs with the class itself")


def plain(policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a policy with names in place of classes, as they are saved.

    Raises:
        ValueError: If a class has no name by which it could be found again.
    """
    return {
        name: _name_of(name, value) if name in NAMED and isinstance(value, type) else value
        for name, value in policy_kwargs.items()
    }


def with_names(experiment: Experiment) -> Experiment:
    """Return an experiment with names in place of classes, as a run folder holds it.

    Raises:
        UserError: If a class has no name by which it could be found again.
    """
    with user_errors("policy", ValueError):
        policy = replace(experiment.policy, **plain(vars(experiment.policy)))
    with user_errors("env", ValueError):
        env = replace(experiment.env, wrappers=[_with_name("wrapper", one) for one in experiment.env.wrappers])
    return replace(experiment, policy=policy, env=env)


def _with_name(argument: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return `{name: ..., kwargs: {...}}` with the name of a class."""
    kind = given["name"]
    return {**given, "name": named.name_of(argument, kind)} if isinstance(kind, type) else given


def _name_of(argument: str, kind: type) -> str:
    for short, known in (*ACTIVATIONS.items(), *OPTIMIZERS.items()):
        if kind is known:
            return short
    return named.name_of(argument, kind)
