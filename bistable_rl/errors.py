"""The errors that a user sees as one sentence, and functions that write such sentences."""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
from collections.abc import Iterable, Iterator
from typing import Any

LISTED = 40
"""The largest number of choices that an error lists."""

NEAR, LIKELY = 0.5, 0.6
"""The least similarity, as difflib measures it, of a choice named among many, and of the one meant."""


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The error numbers of a full disk, a quota and a limit on the size of a file."""


class UserError(ValueError):
    """A user's mistake; the message is one sentence that names the mistake, its place and the remedy."""


class WrongKeyError(ValueError):
    """An error about one key of a section of the configuration, such as `kwargs`; `user_errors` names the key."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(key, message)
        self.key = key
        self.message = message

    def __str__(self) -> str:
        return self.message


class NonFiniteError(FloatingPointError):
    """A NaN or an infinity in training; the message names the place."""


class RunFailedError(RuntimeError):
    """A run that stopped because of an error; the message names the error, its place and what is left of the run."""


@contextlib.contextmanager
def user_errors(section: str, *types: type[Exception]) -> Iterator[None]:
    """Turn errors of these types in the block into a UserError about a section of the configuration, or a key in it."""
    try:
        yield
    except UserError:
        raise
    except types as error:
        where = f"{section}.{error.key}" if isinstance(error, WrongKeyError) else section
        raise UserError(f"{where}: {one_sentence(error)}") from None


@contextlib.contextmanager
def about_key(key: str) -> Iterator[None]:
    """Turn a ValueError in the block into a WrongKeyError about a key."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise WrongKeyError(key, str(error)) from error.__cause__


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """Return the sentence for an unknown name, with all choices, or the near ones of many, whatever their case."""
    options = sorted(choices)
    folded = {option.lower(): option for option in options}

    def near(n: int, cutoff: float) -> list[str]:
        return [folded[key] for key in difflib.get_close_matches(str(name).lower(), folded, n, cutoff)]

    meant = near(1, LIKELY)
    hint = f"did you mean {meant[0]!r}? The" if meant else "the"
    given = f"{str(name)[:57]}..." if len(str(name)) > 60 else name
    if len(options) > LISTED:
        hint += f" nearest of the {len(options)}"
        within = [option for option in options if str(name).lower() in option.lower()][:5]
        nearest = near(5, LIKELY if meant else NEAR) or within
        if not nearest:
            return f"unknown {what} {given!r}; none of the {len(options)} choices is near it."
        if len(nearest) == 1:
            return f"unknown {what} {given!r}; did you mean {nearest[0]!r}?"
        options = nearest
    return f"unknown {what} {given!r}; {hint} choices are {', '.join(options)}."


def one_sentence(error: BaseException) -> str:
    """Return an error's text in one line that ends with a full stop or a question mark."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "?")) else text + "."


def shown(value: Any) -> str:
    """Return a value as text for an error message, cut if it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
