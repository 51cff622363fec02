"""How a YAML file and the command line become a dataclass, and how each mistake in them becomes one sentence.

The dataclasses themselves are in `bistable_rl.runs.schema`. Imports neither torch nor anything else of ours, so that
`bistable-rl --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import math
import os
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import yaml
from jsonargparse import ArgumentParser
from jsonargparse.typing import ClosedUnitInterval, restricted_number_type

from bistable_rl.errors import UserError, one_sentence, shown, unknown

# below what a 64-bit integer holds, as steps, sizes and indices are
PositiveInt = restricted_number_type("PositiveInt64", int, [(">", 0), ("<", 2**63)])
NonNegativeInt = restricted_number_type("NonNegativeInt64", int, [(">=", 0), ("<", 2**63)])
Positive = restricted_number_type("Positive", float, [(">", 0), ("<", math.inf)])
NonNegative = restricted_number_type("NonNegative", float, [(">=", 0), ("<", math.inf)])
Finite = restricted_number_type("Finite", float, [(">", -math.inf), ("<", math.inf)])
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


NAME_BYTES = 255
"""The longest name of a file or a folder on every common file system."""

CONFIG_BYTES = 2**20
"""The largest config file; whatever is larger was not meant."""


# --- YAML --------------------------------------------------------------------------------------------------


class _CheckingLoader(yaml.SafeLoader):
    """A SafeLoader for plain data: no tags, no aliases, no key twice, no dates; 1e-3 is a number, as in YAML 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own declaration
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, unless it is tagged or an alias: neither belongs in a config, and aliases can explode."""
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or tag is not None:
            what = "an alias" if tag is None else f"the tag {tag!r}"
            raise yaml.constructor.ConstructorError(None, None, f"{what} is not allowed", event.start_mark)
        return super().compose_node(parent, index)


def _mapping(loader: _CheckingLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            line = key_node.start_mark.line + 1
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} in line {line} is not text", key_node.start_mark
            )
        if key in seen:
            line = key_node.start_mark.line + 1
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given a second time in line {line}", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_CheckingLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_CheckingLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file or a pipe, once; nothing in it is executed.

    Raises:
        UserError: It cannot be read, is empty, broken or larger than a config, holds a tag, a key twice, or no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES + 1)
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give a YAML file.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a YAML file.") from None
    if len(content) > CONFIG_BYTES:
        raise UserError(f"{path} is larger than {CONFIG_BYTES:,} bytes, as no config is; give a YAML file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise UserError(
            f"{path} is not a text file in UTF-8 (byte 0x{content[error.start]:02x} in line {line}); "
            "give a YAML file, saved as UTF-8."
        ) from None
    data = _read_data(text, str(path))
    if data is None:
        raise UserError(f"{path} is empty; `bistable-rl list configs` names working ones.")
    if not isinstance(data, dict):
        raise UserError(f"{path} holds {shown(data)}; it must hold keys such as name and seed.")
    return data


def _read_data(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _CheckingLoader)  # a SafeLoader
    except RecursionError:
        raise UserError(f"{source} is nested too deeply for a configuration.") from None
    except yaml.YAMLError as error:
        if isinstance(error, yaml.reader.ReaderError):
            line = 1 + text.count("\n", 0, error.position)
            raise UserError(
                f"{source}, line {line} is not valid YAML here: the character U+{error.character:04X} is not allowed."
            ) from None
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        problem = problem.replace(r"'\x00'", "the end")
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise UserError(f"{source}{where} is not valid YAML here: {problem}.") from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise UserError(f"{source}: {one_sentence(error)}") from None


def shipped_configs() -> dict[str, Path]:
    """Return the configurations that come with the package, by name (`rl/t_maze`)."""
    root = Path(str(importlib.resources.files("bistable_rl.configs").joinpath("rl"))).parent
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in sorted(root.glob("**/*.yaml"))}


def find_config(name: str) -> Path:
    """Return the file behind a path or a shipped name.

    Raises:
        UserError: There is neither.
    """
    if os.path.exists(name):
        return Path(name)
    shipped = shipped_configs()
    for key in (name, name.removesuffix(".yaml"), name.removesuffix(".yaml").removeprefix("configs/")):
        if key in shipped:
            return shipped[key]
    raise UserError(
        f"there is no file {name!r} and no shipped config of that name: " + unknown("config", name, shipped)
    )


# --- from data to a dataclass -------------------------------------------------------------------------------


class Checked(Protocol):
    """A dataclass that a config file becomes: its fields are the keys, a dataclass among them is a section."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def check(self, source: str) -> None:
        """Check what a type alone cannot: values that are wrong together.

        Raises:
            UserError: What is wrong; the sentence starts with `source`.
        """


C = TypeVar("C", bound=Checked)


def build(kind: type[C], data: dict[str, Any], source: str, overrides: Sequence[str] = (), *, prefix: str = "") -> C:
    """Make a dataclass of plain data, with command-line overrides laid over it.

    Args:
        kind: The dataclass.
        data: Its keys; changed by the overrides.
        source: Where the data is from, for the errors.
        overrides: `--key value` and `--key=value` tokens.
        prefix: What stands before each key in the file, for the errors, such as `task.kwargs.`.

    Raises:
        UserError: The first thing that is wrong, in one sentence that names the source and the key.
    """
    _check_keys(data, kind, source, prefix)
    flags = _flags(kind, overrides)
    for key, text in flags:  # in their order: of two that set the same key, the last one holds
        _lay(kind, data, key, text)
    given = dict(flags)
    if given:
        _check_keys(data, kind, "command line", prefix)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    parsed, free = _without_free(data, kind)
    try:
        namespace = parser.parse_object(parsed)
    except Exception as error:  # argparse.ArgumentError, or what its type conversion raised
        found = re.search(r'key "([^"]+)"', str(error))
        if found is None:
            raise UserError(f"{source}: {one_sentence(error)}") from None
        key = found.group(1)
        where, value = ("command line", given[key]) if key in given else (source, _value(data, key))
        large = any(len(digits) > 19 or int(digits) >= 2**63 for digits in re.findall(r"\d{19,}", str(value)))
        below = " below 2^63" if large else ""
        raise UserError(f"{where}: {prefix}{key} must be {_expected(kind, key)}{below}, not {shown(value)}.") from None
    made = parser.instantiate(namespace)
    config = kind(**{f.name: made[f.name] for f in dataclasses.fields(kind)})
    for (*sections, key), value in free.items():
        holder: Any = config
        for section in sections:
            holder = getattr(holder, section)
        setattr(holder, key, value)
    config.check(f"{source} with the command line" if given else source)
    return config


def _lay(kind: Any, data: dict[str, Any], key: str, text: str) -> None:
    """Set `key`, such as env.kwargs.length, to what `text` says; what lies beside it stays."""
    *parents, last = key.split(".")
    for part in parents:
        kind = _hints(kind)[part] if dataclasses.is_dataclass(kind) else Any
        below = data.setdefault(part, {})
        if not isinstance(below, dict):
            raise UserError(f"command line: --{key} has {shown(below)} above it, which holds no keys.")
        data = below
    kind = _hints(kind)[last] if dataclasses.is_dataclass(kind) else Any
    data[last] = text if kind is str else _read_data(text, f"command line: --{key}")


def _without_free(data: Mapping[str, Any], kind: Any) -> tuple[dict[str, Any], dict[tuple[str, ...], Any]]:
    """Split off the mappings of arbitrary values, which the parser would convert: "1" is not 1 for an environment."""
    rest = dict(data)
    free: dict[tuple[str, ...], Any] = {}
    for key, hint in _hints(kind).items():
        if key not in data:
            continue
        if dataclasses.is_dataclass(hint):
            rest[key], below = _without_free(data[key], hint)
            free |= {(key, *path): value for path, value in below.items()}
        elif _is_free(hint):
            rest[key], free[(key,)] = type(data[key])(), data[key]
    return rest, free


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's keys by name; its class variables are none."""
    hints = typing.get_type_hints(kind)
    return {spec.name: hints[spec.name] for spec in dataclasses.fields(kind)}


def _is_free(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return origin is dict or (origin is list and typing.get_origin(typing.get_args(hint)[0]) is dict)


def help_of(kind: type[Checked]) -> str:
    """Return every key of a dataclass with its meaning, type and default."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    title = (kind.__doc__ or "").splitlines()[0].removesuffix(".")
    text = parser.format_help().partition(f"{title}:\n")[2]
    return re.sub(r"  --\w+ CONFIG +Path to a configuration file\.\n", "", text)


def to_dict(config: Checked) -> dict[str, Any]:
    """Return a dataclass as plain JSON values, every default spelled out."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def to_yaml(config: Checked) -> str:
    """Return a dataclass as YAML, every default spelled out."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def _flags(kind: Any, overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Return (key, value) of `--key value` and `--key=value` tokens."""
    pairs: list[tuple[str, str]] = []
    tokens = iter(overrides)
    for token in tokens:
        if not token.startswith("--"):
            raise UserError(f"command line: {token!r} belongs to no option; options look like --policy.cell gru.")
        key, equals, value = token[2:].partition("=")
        if not equals:
            try:
                value = next(tokens)
            except StopIteration:
                _check_flags(kind, [key])
                raise UserError(f"command line: --{key} needs a value.") from None
        _check_flags(kind, [key])
        pairs.append((key, value))
    return pairs


def _check_flags(root: Any, keys: Iterable[str]) -> None:
    for key in keys:
        kind = root
        done: list[str] = []
        for part in key.split("."):
            if not dataclasses.is_dataclass(kind):
                if typing.get_origin(kind) is dict:
                    break  # the keys below belong to the environment or the cell
                raise UserError(f"command line: --{'.'.join(done)} has no keys below it.")
            hints = _hints(kind)
            if part not in hints:
                full = [".".join([*done, name]) for name in hints]
                raise UserError("command line: " + unknown("option", f"--{key}", [f"--{name}" for name in full]))
            done.append(part)
            kind = hints[part]
        if dataclasses.is_dataclass(kind):
            names = ", ".join(f"--{key}.{f.name}" for f in dataclasses.fields(kind))
            raise UserError(f"command line: --{key} is a section; set its keys: {names}.")


def _check_keys(data: Mapping[str, Any], kind: Any, source: str, prefix: str = "") -> None:
    hints = _hints(kind)
    for key, value in data.items():
        if key not in hints:
            raise UserError(f"{source}: " + unknown("key", prefix + key, [prefix + name for name in hints]))
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {prefix}{key} must be {_phrase(hints[key])}, not {shown(value)}.")
            _check_keys(value, hints[key], source, f"{prefix}{key}.")
        elif not _is_possible(value, hints[key]):
            raise UserError(f"{source}: {prefix}{key} must be {_phrase(hints[key])}, not {shown(value)}.")
    for spec in dataclasses.fields(kind):
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and data.get(spec.name) is None:
            raise UserError(f"{source}: the key {prefix}{spec.name} is missing.")


def _is_possible(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind that the parser need not guess: it would read the text "8" as a number."""
    origin = typing.get_origin(kind)
    if value is None:
        return type(None) in typing.get_args(kind)
    if origin is dict:
        return isinstance(value, dict)
    if origin is list:
        item_kind = typing.get_args(kind)[0]
        wanted: Any = dict if typing.get_origin(item_kind) is dict else (int, float) if item_kind is Finite else int
        return isinstance(value, list) and all(isinstance(item, wanted) for item in value)
    return not isinstance(value, str) or kind is str or origin is Literal


def _value(given: Mapping[str, Any], key: str) -> Any:
    value: Any = given
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _expected(kind: Any, key: str) -> str:
    for part in key.split("."):
        kind = _hints(kind)[part]
    return _phrase(kind)


_LISTED = {PositiveInt: "integers above 0", Finite: "finite numbers"}


def _phrase(kind: Any) -> str:
    phrases = {
        PositiveInt: "an integer above 0",
        NonNegativeInt: "an integer of at least 0",
        Seed: "an integer from 0 to 4294967295",
        Positive: "a finite number above 0",
        NonNegative: "a finite number of at least 0",
        Finite: "a finite number",
        ClosedUnitInterval: "a number from 0 to 1",
        bool: "true or false",
        str: "text",
    }
    if kind in phrases:
        return phrases[kind]
    if dataclasses.is_dataclass(kind):
        return "a mapping of " + ", ".join(f.name for f in dataclasses.fields(kind))
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is list:
        return f"a list of {_LISTED.get(args[0], 'mappings')}"
    if origin is tuple:
        return "a schedule [first, last] of two such numbers"
    if origin is dict:
        return "a mapping"
    return " or ".join("null" if a is type(None) else _phrase(a) for a in args)
