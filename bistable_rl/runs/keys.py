"""A key of a config: a dataclass field states its type, range, default and meaning, once.

    gamma: Fraction = setting(0.99, "Discount factor.")

Each dataclass is a section of keys and may be a field of another one. Imports no torch.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import inspect
import json
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from bistable_rl.errors import UserError, shown


class Section:
    """Base class of the dataclasses whose fields are keys."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def check(self, prefix: str = "") -> None:
        """Check that values are compatible; `prefix`, such as `policy.`, precedes the keys in the message.

        Raises:
            ValueError: If some are not.
        """


@dataclass(frozen=True)
class Range:
    """The values of a type that a key accepts, and the nouns for one value and for several."""

    noun: str
    contains: Callable[[Any], object]
    plural: str = ""


# Steps, sizes and indices have 64 bits. torch keeps 8 bits of a device index, and would read cuda:256 as cuda:0.
INT64 = Range("an integer below 2^63", lambda n: n < 2**63)
PositiveInt = Annotated[int, Range("an integer above 0", lambda n: n > 0, "integers above 0"), INT64]
NonNegativeInt = Annotated[int, Range("an integer of at least 0", lambda n: n >= 0), INT64]
Interval = Annotated[int, Range("an integer of at least -1", lambda n: n >= -1), INT64]
Seed = Annotated[
    int, Range("an integer from 0 to 4294967295", lambda n: 0 <= n < 2**32, "integers from 0 to 4294967295")
]
Positive = Annotated[float, Range("a finite number above 0", lambda x: x > 0)]
NonNegative = Annotated[float, Range("a finite number of at least 0", lambda x: x >= 0)]
Finite = Annotated[float, Range("a finite number", math.isfinite, "finite numbers")]
Fraction = Annotated[float, Range("a number from 0 to 1", lambda x: 0 <= x <= 1)]
StreamName = Annotated[str, Range("the name of a kind of stream", bool, "kinds of streams")]
Device = Annotated[
    str,
    Range("auto, cpu, cuda or cuda:N", re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]*))?").fullmatch),
    Range("cuda:N with N from 0 to 127", lambda name: len(name) <= len("cuda:127") and int(name[5:] or 0) <= 127),
]

Schedule = Callable[[float], float]
"""A function of the remaining progress, from 1 at the start to 0 at the end; in Python only."""
PositiveSchedule = Positive | tuple[Positive, NonNegative] | Schedule
NonNegativeSchedule = NonNegative | tuple[NonNegative, NonNegative] | Schedule

NameOrClass = str | type
"""A name, or in Python a class."""

FORM = "{name: ..., kwargs: {...}}"


def is_named(value: Any) -> bool:
    """Whether a value is a name, a class, or a mapping of the form `FORM`."""
    if not isinstance(value, dict):
        return True
    well_formed = {"name"} <= value.keys() <= {"name", "kwargs"} and isinstance(value["name"], str | type)
    return well_formed and isinstance(value.get("kwargs", {}), dict)


NamedPart = Annotated[
    str | type | dict[str, Any], Range(f"a name or {FORM}", is_named, f"names, or of {FORM} where there are arguments")
]


def named_part(given: str | type | dict[str, Any]) -> tuple[str | type, dict[str, Any]]:
    """Return the name (in Python also a class) and the arguments of a `NamedPart`."""
    return (given["name"], given.get("kwargs", {})) if isinstance(given, dict) else (given, {})


_NOUNS: dict[Any, str] = {bool: "true or false", str: "text", type(None): "null"}


def meaning(text: str) -> dict[str, str]:
    """Return the metadata of a field, which holds the meaning of a key."""
    return {"meaning": text}


def setting(default: Any, text: str) -> Any:
    """Return the field of a key with a default, or a function that makes the default, and a meaning."""
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=meaning(text))
    return dataclasses.field(default=default, metadata=meaning(text))


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a key, `dataclasses.MISSING` if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@functools.cache
def keys_of(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's keys by their names."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def convert(value: Any, hint: Any) -> Any:
    """Convert a value to a type: 1 to 1.0, 6.0 to 6, a list to a tuple; text is never read as a number.

    Raises:
        ValueError: If the value does not fit the type or its range, or a number is not finite.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = convert(value, args[0])
        for part in hint.__metadata__:
            if not part.contains(value):
                raise ValueError(part.noun)
        return value
    if origin in (typing.Union, types.UnionType):
        for arg in args:
            with contextlib.suppress(ValueError):
                return convert(value, arg)
        lists = [arg for arg in args if typing.get_origin(arg) is list]
        if lists and isinstance(value, list):  # the form is right, so its items are wrong
            raise ValueError(noun_of(lists[0]))
    elif origin is list and isinstance(value, list | tuple):
        with contextlib.suppress(ValueError):
            return [convert(item, args[0]) for item in value]
    elif origin is tuple and isinstance(value, list | tuple) and len(value) == len(args):
        return tuple(map(convert, value, args))
    elif hint in (int, float) and _is_number(value):
        if abs(value) <= sys.float_info.max and (hint is float or value % 1 == 0):
            return hint(value)
    elif (
        hint is Any
        or (origin is dict and isinstance(value, dict))
        or (origin is Literal and isinstance(value, str) and value in args)
        or (hint in _NOUNS and isinstance(value, hint))
        or (hint is type and isinstance(value, type))
        or (origin is Callable and callable(value))
    ):
        return value
    raise ValueError


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def read_value(value: Any, hint: Any, key: str) -> Any:
    """Convert a key's value to its type.

    Raises:
        UserError: If `convert` refuses it; the message starts with `key`, or with `key[0]` for an item of a list.
    """
    try:
        return convert(value, hint)
    except ValueError as error:
        if typing.get_origin(hint) is list and isinstance(value, list | tuple):
            for i, item in enumerate(value):
                read_value(item, typing.get_args(hint)[0], f"{key}[{i}]")
        raise UserError(f"{key} must be {str(error) or noun_of(hint)}, not {shown(value)}.") from None


def noun_of(hint: Any) -> str:
    """Return the noun for a value of a type: "an integer above 0 or null"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return "a mapping of " + ", ".join(keys_of(hint))
    if origin is Annotated:
        return str(hint.__metadata__[0].noun)
    if origin is list:
        return "a list of " + (
            args[0].__metadata__[0].plural if typing.get_origin(args[0]) is Annotated else "mappings"
        )
    if origin is tuple:
        may_end = "" if args[0] == args[1] else ", of which the last may be 0"
        return f"a schedule [first, last] of two such numbers{may_end}"
    if origin is Literal:
        return "one of " + ", ".join(args)
    if origin is dict:
        return "a mapping"
    return _NOUNS[hint] if hint in _NOUNS else " or ".join(noun_of(a) for a in args if a not in (Schedule, type))


def help_of(kind: type) -> str:
    """Return the help for the keys of a dataclass as options: meaning, range and default."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    _add_options(parser, kind, "--")
    return parser.format_help()


def _add_options(parser: argparse.ArgumentParser, kind: Any, prefix: str) -> None:
    title, _, description = (inspect.getdoc(kind) or kind.__name__).partition("\n")
    group = parser.add_argument_group(title.removesuffix("."), description)
    for field in dataclasses.fields(kind):
        hint = keys_of(kind)[field.name]
        if dataclasses.is_dataclass(hint):
            _add_options(parser, hint, f"{prefix}{field.name}.")
            continue
        default = default_of(field)
        ending = "required" if default is dataclasses.MISSING else f"default: {json.dumps(default)}"
        text = f"{field.metadata['meaning']} ({noun_of(hint)}; {ending})".replace("%", "%%")
        group.add_argument(prefix + field.name, metavar=field.name.upper(), help=text)
