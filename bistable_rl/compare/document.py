"""A page of headings, paragraphs, tables and figures, as Markdown and as HTML in one file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = """\
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font: 14px sans-serif; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #8885; text-align: left; }
img { max-width: 100%; background: white; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; the first one is the page's title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; every row has as many cells as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A PNG beside the page, and what it shows."""

    file: Path
    text: str


Block = Heading | Paragraph | Table | Figure


def markdown(blocks: Sequence[Block]) -> str:
    """Return the page as Markdown, in which no text is markup; figures are links to files beside it."""
    parts: list[str] = []
    for i, block in enumerate(blocks):
        if isinstance(block, Heading):
            parts.append(f"{'##' if i else '#'} {_escaped(block.text)}")
        elif isinstance(block, Paragraph):
            parts.append(_escaped(block.text))
        elif isinstance(block, Figure):
            parts.append(f"![{_escaped(block.text)}]({block.file.name})")
        else:
            lines = [block.header, ["---"] * len(block.header), *block.rows]
            parts.append("\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def page(blocks: Sequence[Block]) -> str:
    """Return the page as HTML that needs no other file: figures lie within."""
    parts: list[str] = []
    for i, block in enumerate(blocks):
        if isinstance(block, Heading):
            parts.append(f"<h{2 if i else 1}>{html.escape(block.text)}</h{2 if i else 1}>")
        elif isinstance(block, Paragraph):
            parts.append(f"<p>{html.escape(block.text)}</p>")
        elif isinstance(block, Figure):
            data = base64.b64encode(block.file.read_bytes()).decode()
            parts.append(f'<p><img alt="{html.escape(block.text)}" src="data:image/png;base64,{data}"></p>')
        else:
            parts.append(
                f"<table>\n{_row('th', block.header)}" + "".join(_row("td", r) for r in block.rows) + "</table>"
            )
    title = html.escape(next(block.text for block in blocks if isinstance(block, Heading)))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>\n{STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _escaped(text: str) -> str:
    """Return a text as Markdown shows it: in one line, without HTML, links, formulas, emphasis or a further cell."""
    return re.sub(r"[\\`*\[\]<>|$&~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(text.split()))


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>\n"
