"""The arguments of `RecurrentPPO` and `RecurrentPolicy`: keys of a config, with their types, defaults and ranges."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from bistable_rl.errors import unknown
from bistable_rl.runs.keys import convert, default_of, keys_of, noun_of, setting
from bistable_rl.runs.schema import AlgorithmConfig, PolicyConfig

Config = TypeVar("Config", bound=AlgorithmConfig | PolicyConfig)
Init = TypeVar("Init", bound=Callable[..., None])


@dataclass(kw_only=True)
class PPOArguments(AlgorithmConfig):
    """The arguments of `RecurrentPPO` after policy and env: the algorithm's keys and SB3's own."""

    stats_window_size: int = setting(100, "Episodes in the logged means.")
    tensorboard_log: str | None = setting(None, "Folder for TensorBoard, or None.")
    policy_kwargs: dict[str, Any] | None = setting(None, "Arguments of the policy.")
    verbose: int = setting(0, "0 or 1.")
    seed: int | None = setting(None, "Seeds every source of randomness.")
    device: torch.device | str = setting("auto", "Where the networks and the rollout live.")
    _init_setup_model: bool = setting(True, "Whether to build the networks at once; `load` builds them later.")


def from_arguments(kind: type[Config], arguments: Mapping[str, Any]) -> Config:
    """Make a dataclass of a constructor's arguments, with the values of the config's keys converted to their types.

    Raises:
        TypeError: If there is no such argument.
        ValueError: If a value has the wrong type or is out of range, or values do not fit together.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    for name in arguments:
        if name not in names:
            raise TypeError(unknown("argument", name, [known for known in names if not known.startswith("_")]))
    taken = kind(**arguments)
    config: Any = AlgorithmConfig if issubclass(kind, AlgorithmConfig) else kind
    for name, hint in keys_of(config).items():
        value = getattr(taken, name)
        try:
            setattr(taken, name, convert(value, hint))
        except ValueError as error:
            noun = (str(error) or noun_of(hint)).replace("null", "None")
            raise ValueError(f"{name} must be {noun}, got {value!r}") from None
    taken.check()
    return taken


def with_arguments_of(kind: type) -> Callable[[Init], Init]:
    """Decorate a constructor that passes its `**arguments` to a dataclass, so that help shows the keys as arguments."""
    fields, hints = dataclasses.fields(kind), typing.get_type_hints(kind)

    def decorate(init: Init) -> Init:
        given = inspect.signature(init).parameters
        names = [f.name for f in fields]
        own = [p for p in given.values() if p.kind is not p.VAR_KEYWORD and p.name not in names]
        keys = [
            inspect.Parameter(
                f.name,
                given[f.name].kind if f.name in given else inspect.Parameter.KEYWORD_ONLY,
                default=default_of(f),
                annotation=hints[f.name],
            )
            for f in fields
        ]
        init.__signature__ = inspect.Signature([*own, *keys], return_annotation=None)  # type: ignore[attr-defined]
        lines = [f"{f.name}: {f.metadata['meaning'].replace('null', 'None')}" for f in fields]
        meanings = [textwrap.fill(line, 110, initial_indent=" " * 4, subsequent_indent=" " * 8) for line in lines]
        init.__doc__ = "\n".join([(inspect.getdoc(init) or "").partition("\n    **arguments")[0], *meanings])
        return init

    return decorate
