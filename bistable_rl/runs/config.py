"""Read a YAML file and command-line options into a dataclass, and name each mistake in one sentence.

The dataclasses are in `bistable_rl.runs.schema`. Imports no torch, so that `bistable-rl --help` is fast.
"""

from __future__ import annotations

import dataclasses
import difflib
import glob
import importlib.resources
import json
import os
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bistable_rl.errors import UserError, one_sentence, shown, unknown, user_errors
from bistable_rl.runs.keys import Section, default_of, keys_of, read_value

NAME_BYTES = 255
"""The longest file or folder name that every common file system allows, in bytes."""

CONFIG_BYTES = 2**20
"""The largest config file, in bytes."""


# --- YAML --------------------------------------------------------------------------------------------------


class _CheckingLoader(yaml.SafeLoader):
    """A SafeLoader without tags, aliases, duplicate keys and dates; it reads 1e-3 as a number, as in YAML 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own declaration
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; refuse tags, which no config needs, and aliases, which can expand without limit."""
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or tag is not None:
            what = "an alias" if tag is None else f"the tag {tag!r}"
            raise yaml.constructor.ConstructorError(None, None, f"{what} is not allowed", event.start_mark)
        return super().compose_node(parent, index)


def _mapping(loader: _CheckingLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key, mark = loader.construct_object(key_node, deep=True), key_node.start_mark
        line = f"line {mark.line + 1}"
        if key in seen or not isinstance(key, str):
            problem = f"is given a second time in {line}" if key in seen else f"in {line} is not text"
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} {problem}", mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_CheckingLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_CheckingLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file or a pipe, once, without executing anything in it.

    Raises:
        UserError: If it cannot be read, is empty, broken or too large, or holds a tag, a duplicate key or no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES + 1)
    except OSError as error:
        problem = "is a folder" if isinstance(error, IsADirectoryError) else f"cannot be read ({error.strerror})"
        raise UserError(f"{path} {problem}; give a YAML file.") from None
    if len(content) > CONFIG_BYTES:
        raise UserError(f"{path} is larger than {CONFIG_BYTES:,} bytes, the limit for a config; give a YAML file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise UserError(
            f"{path} is not a text file in UTF-8 (byte 0x{content[error.start]:02x} in line {line}); "
            "give a YAML file, saved as UTF-8."
        ) from None
    data = _parse(text, str(path))
    if data is None:
        raise UserError(f"{path} is empty; `bistable-rl list configs` names working ones.")
    if not isinstance(data, dict):
        raise UserError(f"{path} holds {shown(data)}; it must hold keys such as name and seed.")
    return data


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _CheckingLoader)  # a SafeLoader
    except RecursionError:
        raise UserError(f"{source} is nested too deeply for a configuration.") from None
    except yaml.reader.ReaderError as error:
        line = 1 + text.count("\n", 0, error.position)
        raise UserError(
            f"{source}, line {line} is not valid YAML here: the character U+{error.character:04X} is not allowed."
        ) from None
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = problem.replace(r"'\x00'", "the end")
        raise UserError(f"{source}{where} is not valid YAML here: {problem}.") from None
    except ValueError as error:  # an integer with more digits than Python reads
        raise UserError(f"{source}: {one_sentence(error)}") from None


def shipped_configs() -> dict[str, Path]:
    """Return the configs that come with the package, by name (`rl/t_maze`)."""
    root = Path(str(importlib.resources.files("bistable_rl.configs").joinpath("rl"))).parent
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in sorted(root.glob("**/*.yaml"))}


def find_config(name: str) -> Path:
    """Return the file for a path or a shipped name.

    Raises:
        UserError: If there is neither.
    """
    if os.path.exists(name):
        return Path(name)
    shipped = shipped_configs()
    key = name.removesuffix(".yaml").removeprefix("configs/")
    if key in shipped:
        return shipped[key]
    if not name.endswith((".yaml", ".yml")):
        raise UserError(
            f"there is no file {name!r} and no shipped config of that name: " + unknown("config", name, shipped)
        )
    own = {file.rpartition(".")[0]: file for file in _yaml_files_beside(name)}
    near = [own[stem] for stem in difflib.get_close_matches(name.rpartition(".")[0], own)]
    near = near or difflib.get_close_matches(key, shipped)
    hint = f"did you mean {' or '.join(near)}?" if near else "`bistable-rl list configs` names the shipped ones."
    raise UserError(f"there is no file {name!r}; {hint}")


def _yaml_files_beside(name: str) -> list[str]:
    """Return the YAML files in the folder of a path."""
    folder = os.path.dirname(name)
    return glob.glob(os.path.join(glob.escape(folder), "*.y*ml")) if os.path.isdir(folder or ".") else []


# --- from data to a dataclass ------------------------------------------------------------------------------


S = TypeVar("S", bound=Section)


Overrides = Sequence[str] | Mapping[str, Any]
"""Changes of keys: the command line's `--key value` and `--key=value` tokens, or values by keys such as policy.cell."""


def build(kind: type[S], data: dict[str, Any], source: str, overrides: Overrides = (), *, prefix: str = "") -> S:
    """Build a dataclass from plain data and overrides.

    Args:
        kind: The dataclass.
        data: The values by key; the overrides are written into it.
        source: The source of the data, for the error messages.
        overrides: Changes to the keys; if a key is changed twice, the last change counts.
        prefix: The part of each key before its name in the file, such as `task.kwargs.`, for the error messages.

    Raises:
        UserError: If something is wrong; one sentence names the source and the first wrong key.
    """
    by_key = isinstance(overrides, Mapping)
    for key, value in overrides.items() if isinstance(overrides, Mapping) else ():
        set_key(kind, data, key, value, "overrides")
    tokens = iter(() if by_key else overrides)
    for token in tokens:
        if not token.startswith("--"):
            raise UserError(f"command line: {token!r} belongs to no option; options look like --policy.cell gru.")
        option, equals, text = token.partition("=")
        set_key(kind, data, option, text if equals else next(tokens, None), "command line")
    changed = f"{source} with the {'overrides' if by_key else 'command line'}" if overrides else source
    with user_errors(changed, ValueError):
        section: S = _section(data, kind, prefix, source)
    return section


def set_key(kind: type, data: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set a key such as policy.cell in plain data, or an option such as --policy.cell, whose text is parsed.

    Raises:
        UserError: If there is no such key, or its value is wrong.
    """
    hint, place = hint_of(kind, key, source), data
    dashes = "--" if key.startswith("--") else ""
    *parents, last = key.removeprefix(dashes).split(".")
    if dashes and value is None:
        raise UserError(f"{source}: {key} needs a value.")
    if dashes and getattr(hint, "__origin__", hint) is not str:
        value = _parse(value, f"{source}: {key}")
    for part in parents:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise UserError(f"{source}: {key} cannot be set below {shown(place)}, which is not a mapping.")
    place[last] = _value(value, hint, key.removeprefix(dashes), source)


def hint_of(kind: type, key: str, source: str) -> Any:
    """Return the type of a key such as policy.cell or an option such as --policy.cell; `Any` for a cell's own options.

    Raises:
        UserError: If there is no such key, or it is a section.
    """
    dashes, noun = ("--", "option") if key.startswith("--") else ("", "key")
    path, hint = dashes, kind
    for part in key.removeprefix(dashes).split("."):
        if dataclasses.is_dataclass(hint):
            if part not in keys_of(hint):
                raise UserError(f"{source}: " + unknown(noun, key, [path + name for name in keys_of(hint)]))
            hint = keys_of(hint)[part]
        elif hint is Any or typing.get_origin(hint) is dict:
            hint = Any  # a key of the environment, the task or the cell
        else:
            raise UserError(f"{source}: {path[:-1]} has no keys below it.")
        path += f"{part}."
    if dataclasses.is_dataclass(hint):
        raise UserError(f"{source}: {key} is a section; set its keys: {', '.join(path + n for n in keys_of(hint))}.")
    return hint


def _section(data: dict[str, Any], kind: Any, prefix: str, source: str) -> Any:
    hints = keys_of(kind)
    for name in data:
        if name not in hints:
            raise UserError(f"{source}: " + unknown("key", prefix + name, [prefix + known for known in hints]))
    for field in dataclasses.fields(kind):
        if default_of(field) is dataclasses.MISSING and data.get(field.name) is None:
            raise UserError(f"{source}: the key {prefix}{field.name} is missing.")
    section = kind(**{name: _value(value, hints[name], prefix + name, source) for name, value in data.items()})
    section.check(prefix)
    return section


def _value(value: Any, hint: Any, key: str, source: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _section(value, hint, f"{key}.", source)
    return read_value(value, hint, f"{source}: {key}")


def to_dict(config: Section) -> dict[str, Any]:
    """Return a dataclass as plain JSON values, with every default."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def to_yaml(config: Section) -> str:
    """Return a dataclass as YAML, with every default."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
