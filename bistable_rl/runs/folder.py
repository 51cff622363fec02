"""The folder of a run: its file names, its creation, and its lock.

    OUT/<name>/<cell>-seed<k>/
        config.yaml         the experiment or benchmark, with every key
        environment.json    versions, commit, hardware, kernel backend
        spaces.json         observations and actions (agents)
        metrics.csv         one row per update
        events.out.tfevents.*   TensorBoard
        checkpoints/<steps>/    weights (safetensors) and counters (JSON)
        result.json         how it ended

metrics.csv and TensorBoard's file grow. Every other file is written whole: it is written to a temporary file beside it,
flushed to the disk, and renamed. The training process holds the folder's lock. A run folder may come from anybody, so
nothing in it is executed, and a link in place of a file or folder of the run is refused.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import os
import re
import shutil
from pathlib import Path

from bistable_rl.errors import UserError
from bistable_rl.runs.files import LEFTOVER, beside, inside, remove_folder, write_text
from bistable_rl.runs.lock import LOCK, Lock, LockedError, take

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
SPACES = "spaces.json"
METRICS = "metrics.csv"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
WARMUP = "warmup.json"
JOB = "job.json"
LOG = "log.txt"
PROGRESS_CSV, PROGRESS_JSON, WANDB = "progress.csv", "progress.json", "wandb.json"
ANALYSIS = "analysis"
OWN_NAMES = {
    *(CONFIG, ENVIRONMENT, SPACES, METRICS, RESULT, CHECKPOINTS, WARMUP, JOB, LOG, ANALYSIS),
    *(PROGRESS_CSV, PROGRESS_JSON, WANDB),
}
"""The files and folders in a run folder, except TensorBoard's files."""

_opened: set[Path] = set()
"""The run folders that this process has opened."""


def make_run_folder(stem: Path, config: str, *, overwrite: bool) -> Lock:
    """Make the folder of a new run, with its config.yaml in it, and take its lock.

    The folder appears with everything that `--resume` needs, or not at all.

    Args:
        stem: The path of the folder. An existing run is never touched: further runs are numbered `-2`, `-3`, ...
        config: The content of config.yaml.
        overwrite: Replace the existing run instead.

    Returns:
        The lock; its `folder` is the new folder.

    Raises:
        UserError: If the folder cannot be written to; or if `overwrite` would delete something that is not a run, or a
            run that another process is training.
    """
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(stem)
        former = lock_run(stem) if overwrite and _is_run(stem) else None
        try:
            return _appeared(stem, config, former)
        finally:
            if former is not None:
                former.release()
    except OSError as error:
        raise UserError(f"{error.filename or stem} cannot be written: {error.strerror}.") from None


def lock_run(folder: Path) -> Lock:
    """Take the lock of a run folder.

    Raises:
        UserError: If another process holds it, there is no such folder, or it cannot be written to.
    """
    try:
        return take(folder)
    except LockedError as busy:
        raise UserError(f"another process is training in {folder}{busy.holder}; wait for it, or stop it.") from None
    except FileNotFoundError:
        raise UserError(f"the folder {folder} has been removed.") from None


def check_run_folder(folder: Path) -> None:
    """Check that a folder is a run folder and that none of its files, which may be a stranger's, leads out of it.

    Raises:
        UserError: If it is not; or one of its files is a link, a pipe or a device; or it cannot be read.
    """
    if folder.is_file() and folder.suffix == ".zip":
        raise UserError(f"{folder} is a file, not a run folder; RecurrentPPO.load opens what RecurrentPPO.save wrote.")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give a run folder such as runs/t_maze/nbrc-seed0.")
    try:
        for name in filter(_is_own, sorted(os.listdir(folder))):
            inside(folder, name)
        for below, folders, files in os.walk(folder / CHECKPOINTS):
            for name in sorted(folders + files):
                inside(Path(below), name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}.") from None
    if not (folder / CONFIG).is_file():
        runs = sorted(str(p.parent) for depth in ("*", "*/*") for p in folder.glob(f"{depth}/{CONFIG}"))[:3]
        hint = f"did you mean {' or '.join(runs)}?" if runs else "give one such as runs/t_maze/nbrc-seed0."
        raise UserError(f"{folder} is not a run folder (it holds no {CONFIG}); {hint}")
    _opened.add(folder.resolve())


def run_folder_of(file: Path) -> Path | None:
    """Return the run folder that contains a file, at any depth, or None.

    A run folder is a folder that this process has opened as a run, or a folder with a config.yaml and a file that only
    a training writes.
    """
    for folder in (*file.absolute().parents, *file.resolve().parents):
        written = any((folder / name).is_file() for name in (ENVIRONMENT, RESULT))
        if folder in _opened or (written and (folder / CONFIG).is_file()):
            return folder
    return None


def _is_run(stem: Path) -> bool:
    """Return whether `overwrite` has a run to replace; refuse to replace anything but a run."""
    if stem.is_symlink():
        raise UserError(f"{stem} is a link, so --overwrite leaves it alone; remove it, or train without --overwrite.")
    if stem.exists() and not inside(stem, CONFIG).is_file():
        raise UserError(f"{stem} is not a run folder (it holds no {CONFIG}), so --overwrite leaves it alone.")
    return stem.exists()


def _appeared(stem: Path, config: str, former: Lock | None) -> Lock:
    """Make the folder under a temporary name, then rename it; `former` is the run that it replaces."""
    lock = _unfinished(stem)
    try:
        write_text(lock.folder / CONFIG, config)
        if former is not None:
            remove_folder(stem)
        lock.folder = _renamed(lock.folder, stem)
    except BaseException:
        shutil.rmtree(lock.folder, ignore_errors=True)
        lock.release()
        raise
    return lock


def _unfinished(stem: Path) -> Lock:
    """Make a folder under a temporary name and take its lock."""
    while True:
        with contextlib.suppress(LockedError, FileNotFoundError):  # another process has just removed it as a leftover
            return take(beside(stem, Path.mkdir))


def _remove_unfinished(stem: Path) -> None:
    """Remove the temporary folders that a killed process left of this run or of the run that it was to replace."""
    for folder in stem.parent.glob(f".{glob.escape(stem.name[:40])}.*"):
        suffix = folder.name.removeprefix(f".{stem.name[:40]}")
        if re.fullmatch(r"(\.[0-9]+){1,2}", suffix) and folder.is_dir() and not folder.is_symlink():
            with contextlib.suppress(LockedError, FileNotFoundError):
                lock = take(folder)
                # its process is dead; but a folder of that name that holds other files belongs to a user
                if lock.held and all(_is_own(name) for name in os.listdir(folder)):
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    (folder / LOCK).unlink(missing_ok=True)
                lock.hand_over()


def _is_own(name: str) -> bool:
    """Return whether a name belongs to a file or folder of a run."""
    return name in OWN_NAMES or name == LOCK or "tfevents" in name or LEFTOVER.fullmatch(name) is not None


def _renamed(folder: Path, stem: Path) -> Path:
    """Rename a folder to the first free name of stem, stem-2, stem-3, ... and return its path."""
    for number in itertools.count(1):
        run = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        try:
            folder.rename(run)
            return run
        except OSError as error:  # a rename replaces only an empty folder
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
    raise AssertionError("the numbers have no end")
