"""Files and folders, written whole or not at all, and never through a link that somebody else has placed.

A temporary file or folder beside the target is named `.<name>.<pid>`. It is renamed to `<name>` once it is complete on
the disk.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bistable_rl.errors import UserError, one_sentence

LEFTOVER = re.compile(r"\.(?:[a-z]+\.(?:yaml|json|csv)|(?:best-)?[0-9]{12,})(?:\.[0-9]+){1,2}")
"""The names of temporary files and folders in a run folder."""


# --- paths ------------------------------------------------------------------------------------------------


def inside(folder: Path, *names: str) -> Path:
    """Return a path below a folder, and refuse one that leads out of it; the folder itself may be a link.

    Raises:
        UserError: If a part of the path is a link, a pipe or a device.
    """
    path = folder
    for name in names:
        path = path / name
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):  # it does not exist yet
            break
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            what = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            raise UserError(f"{path} is {what}; remove it: everything in {folder} must lie in that folder.")
    return folder.joinpath(*names)


def named(path: Path) -> Path:
    """Follow the links of a path that the user has given.

    Raises:
        UserError: If the links lead in a circle.
    """
    try:
        return path.resolve() if path.is_symlink() and _descriptor(path) is None else path
    except (OSError, RuntimeError):
        raise UserError(f"{path} cannot be written: its links lead in a circle.") from None


def _descriptor(path: Path) -> int | None:
    """Return the file descriptor for a path such as /dev/stdout or /dev/fd/3, None for any other path."""
    opened = Path("/proc/self/fd").resolve()
    for _ in range(40):  # links in a circle
        if not path.is_symlink():
            return None
        if path.name.isdecimal() and path.parent.resolve() == opened:
            return int(path.name)
        path = path.parent / os.readlink(path)
    return None


# --- files ------------------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; write into an existing device or pipe.

    Raises:
        UserError: If the disk is full, the folder cannot be written to, or the path is a link (`named` follows it).
    """
    try:
        descriptor = _descriptor(path)
        if descriptor is not None:
            sys.stdout.flush()  # stdout may be the same file, and earlier output comes first
            with open(os.dup(descriptor), "wb") as file:
                file.write(data)
        elif path.is_symlink():
            raise UserError(f"{path} cannot be written: it is a link; remove it.")
        elif path.exists() and not path.is_file():
            with path.open("wb") as file:
                file.write(data)
        else:
            _replace(path, data)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None


def _replace(path: Path, data: bytes) -> None:
    temporary = beside(path, lambda new: new.touch(exist_ok=False))
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))  # a private file stays private
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def beside(path: Path, make: Callable[[Path], object]) -> Path:
    """Make a temporary file or folder beside another one, with a unique name, and return its path.

    Args:
        path: The other file or folder.
        make: Makes the temporary one; raises FileExistsError if the name is taken.
    """
    for number in itertools.count():
        # names have at most 255 bytes; the number serves other threads and reused pids
        temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}" + (f".{number}" if number else ""))
        with contextlib.suppress(FileExistsError):
            make(temporary)
            return temporary
    raise AssertionError("the numbers have no end")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        UserError: If `write_bytes` raises it.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # a file name may hold any bytes


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a mapping as strict JSON, whole or not at all.

    Raises:
        UserError: If `write_bytes` raises it, or a number is NaN or infinite, which JSON cannot express.
    """
    for key, value in non_finite(data).items():
        raise UserError(f"{path} cannot be written: {key} is {value}, which JSON cannot express.")
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def non_finite(data: Any, key: str = "") -> dict[str, float]:
    """Return the numbers of a JSON document that are NaN or infinite, by keys such as `horizons.0.return`."""
    if isinstance(data, float):
        return {} if math.isfinite(data) else {key: data}
    items: Any = ()
    if isinstance(data, Mapping):
        items = data.items()
    elif isinstance(data, Sequence) and not isinstance(data, str):
        items = enumerate(data)
    found: dict[str, float] = {}
    for name, value in items:
        found |= non_finite(value, f"{key}.{name}" if key else str(name))
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If it cannot be read, or is not a mapping in JSON.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise UserError(f"{path} is broken: it is nested too deeply.") from None
    except ValueError as error:
        raise UserError(f"{path} is broken: {one_sentence(error)}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is broken: it must hold keys and values, not a {type(data).__name__}.")
    return data


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


def remove_file(path: Path) -> None:
    """Remove a file, if there is one.

    Raises:
        UserError: If it cannot be removed, or is a folder.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be removed: {error.strerror}.") from None


# --- folders ----------------------------------------------------------------------------------------------


def make_folder(path: Path) -> Path:
    """Make a folder and its parents, unless it exists, and return it.

    Raises:
        UserError: If it cannot be made, or a file has its name.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {path} cannot be created: {error.strerror}.") from None
    return path


@contextlib.contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` at the end of the block; an error in the block removes it.

    Raises:
        UserError: If the disk is full or cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = beside(path, Path.mkdir)
        try:
            yield temporary
            for file in temporary.iterdir():
                file.chmod(temporary.stat().st_mode & 0o666)  # as readable as the folder; safetensors writes 0600
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            remove_folder(path)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None


def remove_folder(path: Path) -> None:
    """Remove a folder, if there is one and it can be removed; other processes see all of it or nothing."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            gone = beside(path, Path.mkdir)
            path.rename(gone)  # onto the empty folder, so that no other folder is replaced
            shutil.rmtree(gone, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of killed writers from a run folder whose lock is held."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not LEFTOVER.fullmatch(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                # an unfinished checkpoint; a folder that holds any other file belongs to a user
                if all(re.fullmatch(r"[a-z]+\.(?:safetensors|json)", name) for name in os.listdir(entry.path)):
                    shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)
