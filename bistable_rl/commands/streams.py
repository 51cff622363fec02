"""The standard streams, which accept every character; a closed stream does not end a command with a traceback."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
from typing import TextIO

SPELLED = {"±": "+/-", "≠": "!=", "²": "^2", "×": "x", "λ": "lambda", "θ": "theta"}
"""ASCII for characters that an encoding may lack; other missing characters are printed as their codes."""


def prepare() -> None:
    """Let the streams accept every character, and replace closed streams by the null device.

    A closed stream (`>&-`) is None, and the next opened file would get its file descriptor. A library's messages to the
    standard error would then end up in metrics.csv.
    """
    codecs.register_error("spelled", _spell)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open until the process ends
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def say(text: object) -> None:
    """Print a line on the standard error, if possible; unprintable characters are printed as their codes."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    with contextlib.suppress(OSError):
        print(f"bistable-rl: {line}", file=sys.stderr, flush=True)


def settle(stream: TextIO) -> OSError | None:
    """Flush a stream; if that fails, drop the rest, so that the flush at exit succeeds, and return the error."""
    try:
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def has_no_reader(stream: TextIO) -> bool:
    """Return whether a stream is a pipe without a reader, as after `| head -1`."""
    try:
        poller = select.poll()
        poller.register(stream.fileno(), 0)  # errors are always reported
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
