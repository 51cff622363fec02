"""Classes that a policy is given by name: a short one of ours, or `package:Name`, imported as an environment's package.

    resolve("activation_fn", "relu", ACTIVATIONS, nn.Module) -> torch.nn.ReLU
    resolve("features_extractor_class", "my_net:Net", EXTRACTORS, BaseFeaturesExtractor) -> the class Net of my_net.py

A class itself, as in SB3, is taken too. It is saved by its name, never by pickle.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from bistable_rl.errors import one_sentence, unknown
from bistable_rl.runs import user_modules

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
    """Return the class of a name, or a class itself.

    Args:
        argument: The argument, for the errors.
        given: A key of `known`, `package:Name` or a class.
        known: Classes by their short names.
        base: What the class must extend.

    Raises:
        ValueError: If there is no such class, its package is missing, refused or fails, or it extends another class.
    """
    found: Any = known.get(given) if isinstance(given, str) else given
    if found is None:
        assert isinstance(given, str)
        module, _, name = given.partition(":")
        if not name:
            raise ValueError(f"{argument}: {unknown('name', given, known)} One of your own is named package:Name.")
        found = _imported(argument, module, name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{argument} must be a subclass of {base.__module__}.{base.__name__}, got {found!r}")
    return found


def _imported(argument: str, module: str, name: str) -> Any:
    here = f"{argument} {module}:{name}"
    if module == "__main__":
        where, hint = sys.modules["__main__"], ", the script that runs; give policy_kwargs with the class itself"
    else:
        hint = ""
        try:
            user_modules.load(module)
        except user_modules.RefusedError as error:
            raise ValueError(f"{here} needs the package {module!r}, {error}") from None
        except (Exception, SystemExit) as error:  # another author's module can raise anything
            raise ValueError(
                f"{here} needs the package {module!r}, which fails: {type(error).__name__}: {one_sentence(error)}"
            ) from error
        where = sys.modules[module]
    try:
        return operator.attrgetter(name)(where)
    except AttributeError:
        raise ValueError(f"{here}: there is no {name} in {module}{hint}") from None


def plain(policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a policy with names in place of classes, as they are saved.

    Raises:
        ValueError: If a class has no name by which it could be found again.
    """
    return {
        name: _name_of(name, value) if name in NAMED and isinstance(value, type) else value
        for name, value in policy_kwargs.items()
    }


def _name_of(argument: str, kind: type) -> str:
    for short, known in (*ACTIVATIONS.items(), *OPTIMIZERS.items()):
        if kind is known:
            return short
    if "<locals>" in kind.__qualname__:
        raise ValueError(
            f"{argument}: {kind.__name__} is defined in a function, where no name finds it again; to be saved it must "
            "be defined at the top of a module"
        )
    return f"{kind.__module__}:{kind.__qualname__}"
