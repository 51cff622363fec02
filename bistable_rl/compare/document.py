"""A document of headings, paragraphs, tables and images, rendered by two templates: Markdown, and HTML in one file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Heading:
    """A heading; the first block's is the title."""

    text: str
    kind: ClassVar = "heading"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str
    kind: ClassVar = "paragraph"


@dataclass(frozen=True)
class Table:
    """A table; every row has as many cells as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: ClassVar = "table"


@dataclass(frozen=True)
class Image:
    """A PNG file beside the document, and its caption."""

    file: Path
    text: str
    kind: ClassVar = "image"

    @property
    def base64(self) -> str:
        """The content of the file."""
        return base64.b64encode(self.file.read_bytes()).decode()


Block = Heading | Paragraph | Table | Image


def markdown(blocks: Sequence[Block], command: str) -> str:
    """Render Markdown; images are links to files beside it.

    Args:
        blocks: The content; markup in its text is escaped.
        command: The command that the last line names.
    """
    return _render("document.md.jinja", blocks, command, finalize=_escaped)


def html(blocks: Sequence[Block], command: str) -> str:
    """Render HTML that needs no other file.

    Args:
        blocks: The content, the title first; markup in its text is escaped.
        command: The command that the last line names.
    """
    return _render("document.html.jinja", blocks, command, autoescape=True)


def _render(template: str, blocks: Sequence[Block], command: str, **options: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        **options,
    )
    environment.filters |= {"cells": _cells, "code": _code}
    return environment.get_template(template).render(blocks=blocks, command=command)


def _escaped(value: object) -> str:
    """Return text as Markdown in one line, without HTML, links, formulas, emphasis or a further table cell."""
    if isinstance(value, Markup):
        return value
    return re.sub(r"[\\`*\[\]<>|$&~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(str(value).split()))


def _cells(row: Sequence[str]) -> Markup:
    """Return a row of a Markdown table."""
    return Markup("| " + " | ".join(map(_escaped, row)) + " |")


def _code(text: str) -> Markup:
    """Return a Markdown code span, fenced by more backticks than the text has in a row."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return Markup(f"{fence}{space}{text}{space}{fence}")
