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


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The error numbers of a full disk, a quota and a limit on the size of a file."""


class UserError(ValueError):
    """A user's mistake; the message is one sentence that names the mistake, its place and the remedy."""


class NonFiniteError(FloatingPointError):
    """A NaN or an infinity in training; the message names the place."""


class RunFailedError(RuntimeError):
    """A run that stopped because of an error; the message names the error, its place and what is left of the run."""


@contextlib.contextmanager
def user_errors(section: str, *types: type[Exception]) -> Iterator[None]:
    """Turn errors of these types in the block into a UserError about a section of the configuration."""
    try:
        yield
    except UserError:
        raise
    except types as error:
        raise UserError(f"{section}: {one_sentence(error)}") from None


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """Return the sentence for an unknown name, with all choices, or some of many, and the nearest whatever its case."""
    options = sorted(choices)
    folded = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), folded, n=1)
    hint = f"did you mean {folded[near[0]]!r}? The" if near else "the"
    given = f"{str(name)[:57]}..." if len(str(name)) > 60 else name
    if len(options) > LISTED:
        hint += f" nearest of the {len(options)}"
        options = [folded[key] for key in difflib.get_close_matches(str(name).lower(), folded, n=5, cutoff=0)]
    return f"unknown {what} {given!r}; {hint} choices are {', '.join(options)}."


def one_sentence(error: BaseException) -> str:
    """Return an error's text in one line that ends with a full stop or a question mark."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "?")) else text + "."


def shown(value: Any) -> str:
    """Return a value as text for an error message, cut if it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
