"""What the files of `compare` and `tune` share: the base experiment, and the rules for its keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from bistable_rl.errors import UserError, shown
from bistable_rl.runs.config import build, find_config, read_yaml
from bistable_rl.runs.keys import Section
from bistable_rl.runs.schema import Benchmark, Experiment, check_command, kind_of

FIXED = ("name", "seed")
"""Keys of the base that a comparison or a study sets itself."""


Keys = TypeVar("Keys", bound=Section)
Kind = type[Experiment] | type[Benchmark]


def read_with_base(path: Path, command: str, section: type[Keys]) -> tuple[Keys, Kind, dict[str, Any], str]:
    """Return the keys of a file, and the kind, the keys and the cell of its base.

    Args:
        path: The file.
        command: The command that reads it.
        section: The schema of its other keys, which include `name`.

    Raises:
        UserError: If anything is wrong; one sentence names the file and the first wrong key.
    """
    data = read_yaml(path)
    check_command(data, path, command)
    if "base" not in data:
        raise UserError(f"{path}: the key base is missing; give a shipped config, a path or an experiment.")
    base = data.pop("base")
    keys = build(section, data, str(path))
    return keys, *_read_base(base, data["name"], path)


def folders(path: Path) -> list[Path]:
    """Return the folder of a file and that of its base.

    Raises:
        UserError: If the file cannot be read, or there is no such base.
    """
    base = read_yaml(path).get("base")
    return [path.parent, *([find_config(base).parent] if isinstance(base, str) else [])]


def check_seeds(seeds: Sequence[int]) -> None:
    """Check that there are seeds and that they differ.

    Raises:
        ValueError: If not.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be a list of different seeds, not {shown(seeds)}.")


def check_varied(key: str, where: str, what: str) -> None:
    """Check that a key of the base may be varied.

    Args:
        key: The key.
        where: The place that the error names.
        what: What the file describes: "comparison" or "study".

    Raises:
        UserError: If it may not.
    """
    if key in FIXED:
        raise UserError(f"{where}: {key} cannot be varied: the {what}'s own name and seeds set it.")


def _read_base(base: Any, name: str, path: Path) -> tuple[Kind, dict[str, Any], str]:
    """Return the kind, the keys and the cell of the base.

    Args:
        base: A shipped config's name, a path, or an experiment.
        name: The name of an experiment that has none.
        path: The file that names the base, for the errors.

    Raises:
        UserError: If the base is of another kind, or something in it is wrong.
    """
    if isinstance(base, str):
        source, prefix = str(find_config(base)), ""
        base = read_yaml(Path(source))
    elif isinstance(base, dict):
        source, prefix = str(path), "base."
        base = {"name": name, **base}
    else:
        raise UserError(f"{path}: base must be a config's name or path, or an experiment, not {shown(base)}.")
    kind = kind_of(base, source, prefix)
    return kind, base, build(kind, base, source, prefix=prefix).cell
