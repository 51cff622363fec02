"""The options of commands that carry out many runs: the number of runs at once, and the machines."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bistable_rl.commands.parser import Parser, count
from bistable_rl.errors import UserError

if TYPE_CHECKING:
    from bistable_rl.compare.launchers import Launcher


def add_launcher(parser: Parser) -> None:
    """Add the options `--workers`, `--launcher` and `--address`."""
    parser.add_argument("--workers", metavar="N", type=count, help="simultaneous runs (default: one per core)")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local", help="where to run (default: local)")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="address of the Ray cluster (default: RAY_ADDRESS, or a new one here)"
    )


def check_launcher(command: str, args: argparse.Namespace) -> None:
    """Refuse an address without Ray."""
    if args.address is not None and args.launcher != "ray":
        raise UserError(f"{command}: --address is for a Ray cluster; add --launcher ray.")


def make_launcher(args: argparse.Namespace) -> Launcher:
    """Return the launcher that the options select.

    Raises:
        UserError: If Ray is not installed, or there is no cluster at the address.
    """
    from bistable_rl.compare.launchers.local import LocalLauncher
    from bistable_rl.compare.launchers.ray import RayLauncher

    return RayLauncher(args.workers, args.address) if args.launcher == "ray" else LocalLauncher(args.workers)
