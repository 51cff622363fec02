"""The classes that a policy and a training take by name (`bistable_rl.runs.named`), and torch's short names.

As in SB3, the class itself is accepted too. It is saved by its name, never by pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from bistable_rl.errors import UserError, one_sentence, user_errors
from bistable_rl.runs import named
from bistable_rl.runs.keys import named_part
from bistable_rl.runs.named import built
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

NAMED = ("cell", "features_extractor_class", "activation_fn", "optimizer_class")
"""The arguments of a policy that are classes."""

T = TypeVar("T")


def resolve(argument: str, given: str | type, known: Mapping[str, type], base: type[T]) -> type[T]:
    """Return the class of a policy's argument, as `bistable_rl.runs.named.resolve` does.

    Raises:
        ValueError: If that function raises it.
    """
    return named.resolve(argument, given, known, base, of_script="give the class itself in policy_kwargs")


def plain(policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a policy in their saved form, with names in place of classes.

    Raises:
        ValueError: If a class has no name by which it could be found again.
    """
    return {
        name: _name_of(name, value) if name in NAMED and isinstance(value, type) else value
        for name, value in policy_kwargs.items()
    }


def with_names(experiment: Experiment) -> Experiment:
    """Return an experiment in the form of a run folder, with names in place of classes.

    Raises:
        UserError: If a class has no name by which it could be found again, or a schedule is a function.
    """
    for key, value in vars(experiment.algorithm).items():
        if callable(value):
            raise UserError(f"algorithm.{key}: a run folder cannot hold a function; give a number or [first, last].")
    with user_errors("policy", ValueError):
        policy = replace(experiment.policy, **plain(vars(experiment.policy)))
    env = replace(experiment.env, wrappers=[_with_name("env.wrappers", one) for one in experiment.env.wrappers])
    callbacks = [_with_name("callbacks", one) for one in experiment.callbacks]
    loggers = [_with_name("loggers", one) for one in experiment.loggers]
    return replace(experiment, policy=policy, env=env, callbacks=callbacks, loggers=loggers)


def make_callbacks(experiment: Experiment) -> list[BaseCallback]:
    """Build the callbacks that an experiment names.

    Raises:
        UserError: If one is unknown, missing or refused, or cannot be built.
    """
    made = []
    with user_errors("callbacks", ValueError):
        for name, kwargs in map(named_part, experiment.callbacks):
            kind: type[BaseCallback] = named.resolve("callback", name, {}, BaseCallback)  # type: ignore[type-abstract]
            with built("callback", kind, kwargs):
                made.append(kind(**kwargs))
    return made


def _with_name(key: str, given: Any) -> Any:
    """Return a name, or `{name: ..., kwargs: {...}}`, with the name of a class in place of the class."""
    kind, kwargs = named_part(given)
    if not isinstance(kind, type):
        return given
    try:
        return {"name": named.name_of(key, kind), "kwargs": kwargs}
    except ValueError as error:
        raise UserError(one_sentence(error)) from None


def _name_of(argument: str, kind: type) -> str:
    for short, known in (*ACTIVATIONS.items(), *OPTIMIZERS.items()):
        if kind is known:
            return short
    return named.name_of(argument, kind)
