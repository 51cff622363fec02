"""Parse command lines: a parser that raises UserError, overrides of a config, and types of arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bistable_rl.errors import UserError, unknown
from bistable_rl.runs.config import NAME_BYTES
from bistable_rl.runs.files import named

OWN_ENVIRONMENT = (
    "An environment of your own, my_env:Name-v0, is imported from an installed package or PYTHONPATH, or else from\n"
    "my_env.py in {folders}; never from a run folder."
)
"""Help of every command with an environment id; `folders` names the folders that `runs.user_modules` searches."""

REUSE_COMMITTED = (
    "treat runs as finished if their results are committed in the clone (bistable_rl/results); the report marks them"
)
"""Help of an option of the commands that carry out grids."""


class HelpShown(Exception):  # noqa: N818 - nothing went wrong
    """The help has been printed: the command is done."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises instead of exiting."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"bistable-rl {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; see `{self.prog} --help`.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise HelpShown. argparse exits only after help, so any SystemExit comes from elsewhere."""
        raise HelpShown

    def parse_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse the parser's arguments; return them and the `--key value` overrides, which may stand anywhere."""
        actions = self._option_string_actions
        own: list[str] = []
        overrides: list[str] = []
        tokens = iter(argv)
        for token in tokens:
            if token == "--":  # no options follow
                own += [token, *tokens]
                break
            name, equals, _ = token.partition("=")
            target = overrides if token.startswith("--") and name not in actions else own
            target.append(token)
            takes_value = target is overrides or (name in actions and actions[name].nargs != 0)
            if token.startswith("-") and takes_value and not equals:
                target.extend(value for value in [next(tokens, None)] if value is not None)
        return self.parse_args(own), overrides

    def parse_env(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse as `parse_overrides` does; refuse overrides of keys outside the environment."""
        args, overrides = self.parse_overrides(argv)
        for key in keys(overrides):
            if key.split(".")[0] != "--env" or key == "--env.num_envs":
                options = [name for name in self._option_string_actions if name not in ("-h", "--help")]
                choices = [*options, "--env.id", "--env.kwargs", "--env.wrappers", "--env.horizon_kwarg"]
                raise UserError("command line: " + unknown("option", key, choices))
        return args, overrides


def keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys of overrides, such as `--env.id`."""
    return [token.partition("=")[0] for token in overrides if token.startswith("--")]


MOST = 10**9 - 1


def count(text: str) -> int:
    """Read an integer above 0 and below 10^9."""
    if not re.fullmatch("[0-9]+", text, re.ASCII) or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not an integer above 0")
    if len(text.lstrip("0")) > 9:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is more than {MOST:,}")
    return int(text)


def port(text: str) -> int:
    """Read the number of a TCP port."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a port, an integer from 1 to 65535")
    return int(text)


def path(text: str) -> Path:
    """Read the name of a file or folder that need not exist."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} holds a NUL character, which a file name cannot")
    try:
        longest = max(map(len, text.encode("utf-8").split(b"/")))
    except UnicodeEncodeError:  # the locale could not decode it
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not UTF-8, which TensorBoard and JSON need") from None
    if longest > NAME_BYTES:
        raise argparse.ArgumentTypeError(f"a name of {longest} bytes is too long; at most {NAME_BYTES} are allowed")
    return Path(text)


def seed(text: str) -> int:
    """Read an integer from 0 to 2^32 - 1."""
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not an integer from 0 to 4294967295")
    return int(text)


def check_parent(file: Path | None) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold."""
    folder = None if file is None else named(file).absolute().parent
    if file is not None and folder is not None and not folder.is_dir():
        raise UserError(f"there is no folder {folder} to write {file.name} to.")
    if file is not None and file.is_dir():
        raise UserError(f"{file} is a folder; name a file to write.")
