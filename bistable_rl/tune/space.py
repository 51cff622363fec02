"""The space of a study: the values of each key of the base, and the conditions under which a key is varied.

space:
  policy.cell: [nbrc, gru]                                            # choices, of any kind
  policy.hidden_size: {low: 16, high: 128, step: 16}                  # a range; of integers if the key is an integer
  algorithm.learning_rate: {low: 1e-4, high: 1e-2, log: true}
  policy.cell_kwargs.start: {choices: [paper, halves], when: {policy.cell: nbrc}}
"""

from __future__ import annotations

import copy
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from optuna.trial import BaseTrial

from bistable_rl.compare.base import check_varied
from bistable_rl.errors import UserError, shown
from bistable_rl.runs.config import build, hint_of, set_key
from bistable_rl.runs.keys import Section, setting


@dataclass
class Domain(Section):
    """The values of a key: choices, or a range."""

    low: Any = setting(None, "The lowest number of a range.")
    high: Any = setting(None, "The highest number.")
    log: bool = setting(False, "Whether the logarithm is drawn uniformly.")
    step: Any = setting(None, "The distance of two numbers (null: 1 for integers, any for others).")
    choices: Any = setting(None, "A list of values, in place of a range.")
    when: dict[str, Any] = setting(
        dict, "Keys above this one, each with the choice or list of choices with which this key is varied."
    )

    def check(self, prefix: str = "") -> None:
        """Check that the domain is either a range or choices."""
        what, numbers = prefix.removesuffix("."), (self.low, self.high)
        if self.choices is not None:
            if any(value is not None for value in (*numbers, self.step)) or self.log:
                raise ValueError(f"{what} has choices and a range; keep one of them.")
            if not isinstance(self.choices, list) or not self.choices:
                raise ValueError(f"{prefix}choices must be a list of values, not {shown(self.choices)}.")
            return
        if not all(map(_is_number, numbers)) or not self.low < self.high:
            raise ValueError(f"{what} must be a list of choices, or a range {{low: ..., high: ...}} of two numbers.")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"{what} has log: true, which needs low above 0 and no step.")
        if self.step is not None:
            steps = (self.high - self.low) / self.step if _is_number(self.step) and self.step > 0 else 0.5
            if abs(steps - round(steps)) > 1e-9 * steps:
                raise ValueError(f"{prefix}step must divide the distance from low to high, not {shown(self.step)}.")


@dataclass(frozen=True)
class Dimension:
    """A key that is varied.

    Attributes:
        key: The key, such as `policy.hidden_size`, which is also the name of Optuna's parameter.
        domain: Its values.
        integer: Whether a range is a range of integers.
        values: The choices by the value that Optuna stores for them: text, numbers, true, false or null.
        when: The condition: the key is varied only if each of these keys has one of the given choices.
    """

    key: str
    domain: Domain
    integer: bool
    values: Mapping[Any, Any]
    when: Mapping[str, list[Any]]

    @property
    def ends(self) -> list[Any]:
        """Every choice in its stored form, or the two ends of the range."""
        return list(self.values) or [self.domain.low, self.domain.high]

    def suggest(self, trial: BaseTrial) -> Any:
        """Return the value of this key in a trial."""
        if self.values:
            return copy.deepcopy(self.values[trial.suggest_categorical(self.key, list(self.values))])
        suggest: Any = trial.suggest_int if self.integer else trial.suggest_float
        step = {} if self.domain.step is None else {"step": self.domain.step}
        return suggest(self.key, self.domain.low, self.domain.high, log=self.domain.log, **step)


def draw(space: list[Dimension], trial: BaseTrial) -> dict[str, Any]:
    """Return the values of the keys in a trial, without the keys whose condition does not hold."""
    values: dict[str, Any] = {}
    for one in space:
        if all(key in values and values[key] in allowed for key, allowed in one.when.items()):
            values[one.key] = one.suggest(trial)
    return values


def read_space(kind: type, base: dict[str, Any], space: Mapping[str, Any], path: Path) -> list[Dimension]:
    """Return the dimensions of a space.

    Args:
        kind: The kind of training of the base.
        base: The keys of the base.
        space: The space as written in the file.
        path: The file, for the error messages.

    Raises:
        UserError: If a key is unknown, or one of its values does not fit its type or range.
    """
    found: dict[str, Dimension] = {}
    where = f"{path}, space"
    for key, given in space.items():
        check_varied(key, where, "study")
        hint = hint_of(kind, key, where)
        if not isinstance(given, list | dict):
            raise UserError(f"{where}: {key} must be a list of choices or a range such as {{low: 1, high: 9}}.")
        data = {"choices": given} if isinstance(given, list) else given
        domain = build(Domain, data, str(path), prefix=f"space.{key}.")
        for value in domain.choices or (domain.low, domain.high):
            set_key(kind, copy.deepcopy(base), key, copy.deepcopy(value), where)
        numbers = (domain.low, domain.high, 1 if domain.step is None else domain.step)
        integer = _is_integer(hint, all(isinstance(number, int) for number in numbers))
        found[key] = Dimension(
            key, domain, integer, _by_label(domain, key, where), _conditions(domain, key, found, where)
        )
        if not found[key].values and integer and numbers[2] % 1:
            raise UserError(
                f"{where}: {key} is an integer, so its step must be an integer too, not {shown(domain.step)}."
            )
    return list(found.values())


def _by_label(domain: Domain, key: str, where: str) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    for value in domain.choices or ():
        label = json.dumps(value) if isinstance(value, list | dict) else value
        if label in values:
            raise UserError(f"{where}: {key} has the choice {shown(value)} twice.")
        values[label] = value
    return values


def _conditions(domain: Domain, key: str, above: Mapping[str, Dimension], where: str) -> dict[str, list[Any]]:
    conditions: dict[str, list[Any]] = {}
    for other, allowed in domain.when.items():
        known = list(above[other].values.values()) if other in above else []
        conditions[other] = allowed if isinstance(allowed, list) and allowed not in known else [allowed]
        if not known or not conditions[other]:
            raise UserError(
                f"{where}: {key}.when must map keys above this one to some of their choices, "
                f"not {other} to {shown(allowed)}."
            )
        for value in conditions[other]:
            if value not in known:
                raise UserError(f"{where}: {key}.when names {other} {shown(value)}, which is not one of its choices.")
    return conditions


def _is_integer(hint: Any, written: bool) -> bool:
    """Return whether a range is of integers: by the key's type, or as `written` in the file if the key has no type."""
    numbers = {kind for kind in _leaves(hint) if kind in (int, float)}
    return written if not numbers else float not in numbers


def _leaves(hint: Any) -> Iterator[Any]:
    parts = typing.get_args(hint)[:1] if typing.get_origin(hint) is Annotated else typing.get_args(hint)
    for part in parts:
        yield from _leaves(part)
    if not parts:
        yield hint


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63  # no NaN either
