"""How a command line is read: a parser whose errors are a user's, overrides of a config, and types of arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bistable_rl.config import UserError, unknown

OWN_ENVIRONMENT = (
    "An environment of your own, my_env:Name-v0, is imported from what is installed or on PYTHONPATH, or else from\n"
    "my_env.py in {folders}; from a run folder, never."
)
"""For the help of every command that takes an id; with the folders that `bistable_rl.user_modules` searches there."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises, so that every error leaves the program by one way."""

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

    def parse_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse the parser's own arguments; return the `--key value` overrides, wherever they stand, beside them."""
        actions = self._option_string_actions
        own: list[str] = []
        overrides: list[str] = []
        tokens = iter(argv)
        for token in tokens:
            name, equals, _ = token.partition("=")
            target = overrides if token.startswith("--") and name not in actions else own
            target.append(token)
            takes_value = target is overrides or (name in actions and actions[name].nargs != 0)
            if token.startswith("-") and takes_value and not equals:
                target.extend(value for value in [next(tokens, None)] if value is not None)
        return self.parse_args(own), overrides

    def parse_env(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse as `parse_overrides` does, refusing overrides of anything but the environment."""
        args, overrides = self.parse_overrides(argv)
        for key in keys(overrides):
            if key.split(".")[0] != "--env" or key == "--env.num_envs":
                options = [name for name in self._option_string_actions if name not in ("-h", "--help")]
                choices = [*options, "--env.id", "--env.kwargs", "--env.wrappers"]
                raise UserError("command line: " + unknown("option", key, choices))
        return args, overrides


def keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys of overrides, such as `--env.id`."""
    return [token.partition("=")[0] for token in overrides if token.startswith("--")]


def count(text: str) -> int:
    """Read an integer above 0."""
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer above 0")
    return int(text)


def seed(text: str) -> int:
    """Read an integer from 0 to 2^32 - 1."""
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 4294967295")
    return int(text)


def check_parent(file: Path | None) -> None:
    """Refuse a file that cannot be written before the work that would fill it."""
    if file is not None and not file.resolve().parent.is_dir():
        raise UserError(f"there is no folder {file.resolve().parent} to write {file.name} to.")
    if file is not None and file.is_dir():
        raise UserError(f"{file} is a folder; name a file to write.")
