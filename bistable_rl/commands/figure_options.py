"""The options of commands that draw figures: further formats and the resolution."""

from __future__ import annotations

import argparse
from pathlib import Path

from bistable_rl.commands.parser import Parser
from bistable_rl.errors import UserError

FURTHER = ("pdf", "svg")
SUFFIXES = (".png", ".pdf", ".svg")


def add_figure_options(parser: Parser, *, formats: bool) -> None:
    """Add `--dpi`, and `--format` for a command that names its figures itself."""
    if formats:
        parser.add_argument(
            "--format",
            metavar="FORMAT,...",
            type=_formats,
            default=(),
            help="also write the figures as pdf, svg or both",
        )
    parser.add_argument("--dpi", metavar="N", type=_dpi, help="dots per inch of the figures (default: 150)")


def check_figure(option: str, file: Path | None, dpi: int | None) -> None:
    """Refuse a figure name whose suffix is not a format, and `--dpi` without a figure.

    Raises:
        UserError: If either is refused.
    """
    if file is not None and file.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{option} writes a PNG, PDF or SVG, so its name must end in .png, .pdf or .svg, not {file.name}."
        )
    if file is None and dpi is not None:
        raise UserError(f"{option.split(':')[0]}: --dpi needs --figure.")


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if not set(formats) <= {"png", *FURTHER}:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not pdf, svg or both, such as pdf,svg")
    return formats


def _dpi(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or not 10 <= int(text[:9]) <= 1200:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not an integer from 10 to 1200")
    return int(text)
