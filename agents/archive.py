"""The archive that `RecurrentPPO.save` writes: an uncompressed zip of plain data, in a file or a file object."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs import checkpoint
from bistable_rl.runs.files import make_folder, named, write_bytes

File = str | os.PathLike[str] | IO[bytes]
"""A path, or a file object such as `io.BytesIO()` or `open(path, "rb")`."""

MODEL = "model.json"
FILES = {MODEL, checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.TRAINING, checkpoint.STATE}

ENCRYPTED = 0x1  # a flag of a zip member


def write(file: File, files: Mapping[str, bytes]) -> None:
    """Write files, by name, to an archive.

    A path is written whole or not at all, and gets the suffix .zip if it has none.

    Raises:
        UserError: If a path cannot be written.
        ValueError: If a file object is not open for writing bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # ZipInfo's fixed date: equal models give equal files
    if isinstance(file, str | os.PathLike):
        path = named(_with_suffix(Path(file)))
        make_folder(path.parent)
        write_bytes(path, buffer.getvalue())
        return
    _check_object(file, "writable", 'open(path, "wb")')
    file.write(buffer.getvalue())


def read(file: File) -> tuple[zipfile.Path, str]:
    """Return an archive as a folder, after a check of its list of files, and its name for error messages.

    Raises:
        UserError: If there is no such file, or it is not an archive that `write` wrote.
        ValueError: If a file object is not open for reading bytes, or cannot seek.
    """
    if isinstance(file, str | os.PathLike):
        path = Path(file)
        name = str(path)
    else:
        _check_object(file, "readable", 'open(path, "rb")')
        _check_object(file, "seekable", "io.BytesIO(data)")
        name = str(getattr(file, "name", "the file object"))
    try:
        if isinstance(file, str | os.PathLike):
            path = path if path.exists() else _with_suffix(path)
            name, size = str(path), path.stat().st_size
            archive = zipfile.ZipFile(path)
        else:
            size = file.seek(0, os.SEEK_END)
            archive = zipfile.ZipFile(file)
            archive.filename = name  # a zipfile.Path prints it
        members = archive.infolist()
    except FileNotFoundError:
        raise UserError(f"there is no file {name}.") from None
    except Exception as error:  # zipfile raises errors of any type
        raise UserError(f"{name} is not an archive of RecurrentPPO.save ({one_sentence(error)[:-1]}).") from None
    names = {member.filename for member in members}
    if {"data", "policy.pth"} <= names:
        raise UserError(
            f"{name} was saved by Stable-Baselines3, with pickles, which are never opened here. "
            "`import_sb3` of a RecurrentPPO of the same architecture loads its weights alone."
        )
    try:
        check_members(archive, size)
        if names != FILES:
            raise ValueError("other files")
    except ValueError:
        raise UserError(
            f"{name} is not an archive of RecurrentPPO.save: it must hold {', '.join(sorted(FILES))}, uncompressed, "
            "and nothing else."
        ) from None
    return zipfile.Path(archive), name


def check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Check that the files in an archive hold no more than its `size` in bytes together.

    Raises:
        ValueError: If one is compressed, encrypted or duplicated, or they claim to be larger than the archive.
    """
    members = archive.infolist()
    if len({member.filename for member in members}) != len(members):
        raise ValueError("it holds a file twice")
    if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & ENCRYPTED for m in members):
        raise ValueError("it holds a compressed or encrypted file")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its contents claim to be larger than the file")


def _check_object(file: Any, ability: str, right: str) -> None:
    able = getattr(file, ability, None)
    if not callable(able) or not able() or isinstance(file, io.TextIOBase):
        raise ValueError(f"an archive needs a path or a {ability} binary file object such as {right}, got {file!r}")


def _with_suffix(path: Path) -> Path:
    return path if path.suffix else path.with_name(f"{path.name}.zip")
