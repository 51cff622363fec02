"""The standard streams: they take every character, and a stream that is gone ends no command in a traceback."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
from typing import TextIO

SPELLED = {"±": "+/-", "≠": "!=", "²": "^2", "×": "x", "λ": "lambda", "θ": "theta"}
"""What the commands print beyond ASCII, for an encoding that lacks it; any other character is printed as its code."""


def prepare() -> None:
    """Let the streams take every character, and put nothing in the place of those that are closed.

    A stream that was closed (`>&-`) is None, and the next file to be opened would get its number: what a library
    writes to the standard error would end in metrics.csv.
    """
    codecs.register_error("spelled", _spell)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open to the end
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def say(text: object) -> None:
    """Print a line on the standard error, unless nobody takes it; what is no printable character, as its code."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    with contextlib.suppress(OSError):
        print(f"bistable-rl: {line}", file=sys.stderr, flush=True)


def settle(stream: TextIO) -> OSError | None:
    """Flush a stream before Python does so at its end; if it fails, drop what is left and return the error."""
    try:
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe whose reader has gone away, as after `| head -1`."""
    try:
        poller = select.poll()
        poller.register(stream.fileno(), 0)  # what is wrong with it is reported always
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))
    except OSError:
        return False


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = []
    for character in error.object[error.start : error.end]:
        code = character.encode("ascii", "backslashreplace").decode("ascii")
        parts.append(SPELLED.get(character, code))
    return "".join(parts), error.end
