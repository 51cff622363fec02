"""Directives of the reference, whose text is made from the code: commands, keys of configs, all public names."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import textwrap
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from bistable_rl.cli import COMMANDS, main
from bistable_rl.compare.comparison import Comparison
from bistable_rl.envs import ENVIRONMENTS
from bistable_rl.runs.keys import default_of, keys_of, noun_of
from bistable_rl.runs.schema import Benchmark, Experiment
from bistable_rl.tune.tuning import Tuning

PUBLIC = ("bistable_rl", "bistable_rl.agents", "bistable_rl.envs", "bistable_rl.certify", "bistable_rl.kernels")
"""The modules whose `__all__` the reference must hold."""

SECTIONS = {f"{name}:" for name in ("Args", "Attributes", "Options", "Returns", "Yields", "Raises", "Example")}
"""The headings of a docstring's sections, which are its end."""

COLON = "\ue000"
"""Stands for a colon while napoleon reads."""

FILES = {"experiment": Experiment, "benchmark": Benchmark, "comparison": Comparison, "study": Tuning}


def shorter(line: str) -> str:
    """Break a long list of names into lines."""
    return line if len(line) < 130 else textwrap.fill(line, 110, subsequent_indent="  ", break_on_hyphens=False)


class Commands(SphinxDirective):
    """A section for each command: its `--help`; the keys of configs are on a page of their own."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        self.env.note_reread()
        os.environ["COLUMNS"] = "96"
        lines: list[str] = []
        for name, command in COMMANDS.items():
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                main([name, "--help"])
            text = printed.getvalue().partition("\nkeys of the config")[0].rstrip()
            lines += [
                f"## {name}",
                "",
                (command.__doc__ or "").strip(),
                "",
                "```text",
                *map(shorter, text.splitlines()),
                "```",
                "",
            ]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


class Keys(SphinxDirective):
    """The keys of a kind of file: a table for each section."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the tables."""
        self.env.note_reread()
        return self._tables(FILES[self.arguments[0]], "")

    def _tables(self, kind: type, name: str) -> list[nodes.Node]:
        lines = [
            *(inspect.getdoc(kind) or "").splitlines(),
            "",
            "| key | type | default | meaning |",
            "|---|---|---|---|",
        ]
        sections = {}
        for field in dataclasses.fields(kind):
            hint = keys_of(kind)[field.name]
            if dataclasses.is_dataclass(hint):
                sections[f"{name}.{field.name}".lstrip(".")] = hint
                continue
            default = default_of(field)
            shown = "required" if default is dataclasses.MISSING else f"`{json.dumps(default)}`"
            lines.append(f"| `{field.name}` | {noun_of(hint)} | {shown} | {field.metadata['meaning']} |")
        content = [nodes.container("", *self.parse_text_to_nodes("\n".join(lines)), classes=["keys"])]
        if name:
            title = f"{name} ({self.arguments[0]})"
            content = [
                nodes.section("", nodes.title(title, title), *content, ids=[nodes.make_id(title)], names=[title])
            ]
        return content + [node for section, hint in sections.items() for node in self._tables(hint, section)]


def short_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Leave the ranges of keys out of a signature: they are on the page of the keys."""
    if "Range(" not in (signature or ""):
        return None
    plain = inspect.signature(obj)
    parameters = [parameter.replace(annotation=parameter.empty) for parameter in plain.parameters.values()]
    return str(plain.replace(parameters=parameters, return_annotation=plain.empty)), ""


def finish_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Put back the colons that `prepare_docstring` hid."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


class Environments(SphinxDirective):
    """A section for each environment: its docstring, which is Markdown, and its ids."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        self.env.note_reread()
        ids: dict[type, list[str]] = {}
        for name, entry in ENVIRONMENTS.items():
            ids.setdefault(entry.batched, []).append(name)
        lines: list[str] = []
        for kind, names in ids.items():
            lines += [f"## {names[0].split('/')[1].split('-')[0].removesuffix('Easy')}", ""]
            lines += [", ".join(f"`{name}`" for name in names), ""]
            text = inspect.cleandoc(kind.__doc__ or "")
            lines += [f"**{line[3:]}**" if line.startswith("## ") else line for line in text.splitlines()] + [""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def prepare_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Show indented blocks as code; hide the colon of "The cells: ...", which napoleon would take for a type."""
    if what in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(":", COLON)
    new: list[str] = []
    for i, line in enumerate(lines):
        if line in SECTIONS:
            new += lines[i:]
            break
        if line.startswith("    ") and i and not lines[i - 1].strip():
            before = next((earlier for earlier in reversed(lines[:i]) if earlier.strip()), "")
            if not before.startswith(" "):
                new += ["::", ""]
        new.append(line)
    lines[:] = new


def check_public_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that the reference does not hold, under this or another public name of the same thing."""
    public = {f"{module}.{name}": name for module in PUBLIC for name in importlib.import_module(module).__all__}
    values = {full: getattr(importlib.import_module(full.rpartition(".")[0]), name) for full, name in public.items()}
    found = {id(value) for full, value in values.items() if full in env.domains.python_domain.objects}
    for full, value in values.items():
        if id(value) not in found and not inspect.ismodule(value):
            logging.getLogger(__name__).warning("%s is public and not in the reference", full)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("commands", Commands)
    app.add_directive("keys", Keys)
    app.add_directive("environments", Environments)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)
    app.connect("autodoc-process-docstring", finish_docstring, priority=600)
    app.connect("env-check-consistency", check_public_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
