"""The run folder: everything a run knows, in files of data that are never executed.

    OUT/<name>/<cell>-seed<k>/
        config.yaml         the experiment or benchmark, every key spelled out
        environment.json    versions, commit, hardware, kernel backend
        metrics.csv         a row an update
        events.out.tfevents.*   TensorBoard
        checkpoints/<steps>/    weights (safetensors) and counters (JSON)
        result.json         how it ended

Every file but the growing metrics.csv and TensorBoard's is written whole: to a temporary neighbour, flushed to the
disk, renamed. Who trains holds the folder's lock. A folder may come from anybody: nothing in it is executed, and a link
in the place of a file or folder of ours is refused. Imports no torch.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import glob
import importlib.metadata
import itertools
import numbers
import os
import platform
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import NoneType
from typing import Any

from bistable_rl.errors import NonFiniteError, RunFailedError, UserError, one_sentence
from bistable_rl.runs.config import to_yaml
from bistable_rl.runs.files import (  # noqa: F401 - others know them as runs.write_text and so on
    LEFTOVER,
    beside,
    inside,
    make_folder,
    named,
    non_finite,
    read_json,
    remove_file,
    remove_folder,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
    written_folder,
)
from bistable_rl.runs.lock import LOCK, Lock, LockedError, take
from bistable_rl.runs.schema import Benchmark, Experiment, load_benchmark, load_either, load_experiment

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
WARMUP = "warmup.json"
JOB = "job.json"
LOG = "log.txt"
ANALYSIS = "analysis"
OWN = {CONFIG, ENVIRONMENT, METRICS, RESULT, CHECKPOINTS, WARMUP, JOB, LOG, ANALYSIS}
"""What a run folder holds beside TensorBoard's files."""

_opened: set[Path] = set()
"""The run folders that this process has read a configuration of."""


def create(config: Experiment | Benchmark, out: Path, *, overwrite: bool = False) -> Path:
    """Make the folder of a new run, with its configuration in it; see `created`."""
    with created(config, out, overwrite=overwrite) as run:
        return run


@contextlib.contextmanager
def created(config: Experiment | Benchmark, out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Make the folder of a new run, with its configuration in it, and hold its lock while the block runs.

    An existing run is never touched: a further one gets `-2`, `-3`, ... unless `overwrite` is set. The folder appears
    with all that it needs for `--resume`, or not at all.

    Raises:
        UserError: The folder cannot be written to; or `overwrite` would delete something that is not a run, or a run
            that another process is training.
    """
    text = to_yaml(config)
    stem = out / config.name / f"{config.cell}-seed{config.seed}"
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(stem)
        former = _lock(stem) if overwrite and _is_run(stem) else None
        try:
            lock = _unfinished(stem)
            try:
                write_text(lock.folder / CONFIG, text)
                if former is not None:
                    remove_folder(stem)
                lock.folder = run = _appeared(lock.folder, stem)
            except BaseException:
                shutil.rmtree(lock.folder, ignore_errors=True)
                lock.release()
                raise
        finally:
            if former is not None:
                former.release()
    except OSError as error:
        raise UserError(f"{error.filename or stem} cannot be written: {error.strerror}.") from None
    try:
        yield run
    finally:
        lock.release()


def _is_run(stem: Path) -> bool:
    """Return whether there is a run for --overwrite to replace.

    Raises:
        UserError: Something else is there.
    """
    if stem.is_symlink():
        raise UserError(f"{stem} is a link, so --overwrite leaves it alone; remove it, or train without --overwrite.")
    if stem.exists() and not inside(stem, CONFIG).is_file():
        raise UserError(f"{stem} is not a run folder (it holds no {CONFIG}), so --overwrite leaves it alone.")
    return stem.exists()


def _unfinished(stem: Path) -> Lock:
    """Make a folder, under a temporary name, that becomes a run's, and take its lock."""
    while True:
        with contextlib.suppress(LockedError, FileNotFoundError):  # somebody took it for a dead one's in that instant
            return take(beside(stem, Path.mkdir))


def _remove_unfinished(stem: Path) -> None:
    """Remove what was to become this run, or was to be replaced by it, when its maker was killed."""
    for folder in stem.parent.glob(f".{glob.escape(stem.name[:40])}.*"):
        suffix = folder.name.removeprefix(f".{stem.name[:40]}")
        if re.fullmatch(r"(\.[0-9]+){1,2}", suffix) and folder.is_dir() and not folder.is_symlink():
            with contextlib.suppress(LockedError, FileNotFoundError):
                lock = take(folder)
                # so its maker is dead; a folder of that name with anything else in it is not ours
                if lock.held and all(_is_own(name) for name in os.listdir(folder)):
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    (folder / LOCK).unlink(missing_ok=True)
                lock.hand_over()


def _is_own(name: str) -> bool:
    """Return whether a run folder holds a file or folder of this name."""
    return name in OWN or name == LOCK or "tfevents" in name or LEFTOVER.fullmatch(name) is not None


def _appeared(folder: Path, stem: Path) -> Path:
    """Rename a folder to the first of the stem, stem-2, stem-3, ... that is free, and return it."""
    for number in itertools.count(1):
        run = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        try:
            folder.rename(run)
            return run
        except OSError as error:  # a rename replaces an empty folder, and nothing else
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
    raise AssertionError("there is always a further number")


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run folder while the block runs.

    Raises:
        UserError: Another process trains in it, or it cannot be written to.
    """
    lock = _lock(run)
    try:
        yield
    finally:
        lock.release()


def _lock(run: Path) -> Lock:
    try:
        return take(run)
    except LockedError as busy:
        raise UserError(f"another process is training in {run}{busy.holder}; wait for it, or stop it.") from None
    except FileNotFoundError:
        raise UserError(f"the folder {run} has been removed.") from None


def clean(run: Path) -> None:
    """Remove from a run folder whose lock is held what writers that were killed left there."""
    remove_leftovers(run)
    remove_leftovers(run / CHECKPOINTS)


def write_environment(run: Path, hardware: Mapping[str, Any]) -> None:
    """Write environment.json: versions, commit, machine, and what the caller knows of device, threads and backend."""
    write_json(run / ENVIRONMENT, {**environment(), **hardware})


def read_config(run: Path) -> Experiment | Benchmark:
    """Return what a run folder trains, whichever kind it is.

    Raises:
        UserError: There is no run folder there, or its configuration is broken.
    """
    return load_either(_config_file(run))


def read_benchmark(run: Path) -> Benchmark:
    """Return the benchmark of a run folder.

    Raises:
        UserError: There is no run folder of a benchmark there, or its configuration is broken.
    """
    return load_benchmark(_config_file(run))


def read_experiment(run: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a run folder, with overrides such as `--env.kwargs.length`, `500` laid over it.

    Raises:
        UserError: There is no run folder there, or its configuration is broken.
    """
    return load_experiment(_config_file(run), overrides)


def _config_file(run: Path) -> Path:
    if not run.is_dir():
        raise UserError(f"there is no folder {run}; give a run folder such as runs/t_maze/nbrc-seed0.")
    check_links(run)
    if not (run / CONFIG).is_file():
        inside = sorted(str(p.parent) for depth in ("*", "*/*") for p in run.glob(f"{depth}/{CONFIG}"))[:3]
        hint = f"did you mean {' or '.join(inside)}?" if inside else "give one such as runs/t_maze/nbrc-seed0."
        raise UserError(f"{run} is not a run folder (it holds no {CONFIG}); {hint}")
    _opened.add(run.resolve())
    return run / CONFIG


def check_links(run: Path) -> None:
    """Check that no file of a run folder, which somebody else may have made, leads out of it.

    Raises:
        UserError: One does, or is a pipe or a device; or the folder cannot be read.
    """
    try:
        for name in filter(_is_own, sorted(os.listdir(run))):
            inside(run, name)
        for folder, folders, files in os.walk(run / CHECKPOINTS):
            for name in sorted(folders + files):
                inside(Path(folder), name)
    except OSError as error:
        raise UserError(f"{run} cannot be read: {error.strerror}.") from None


def read_result(run: Path) -> dict[str, Any] | None:
    """Return what result.json says, None where there is none.

    Raises:
        UserError: It is broken.
    """
    path = inside(run, RESULT)
    try:
        result = read_json(path)
    except FileNotFoundError:
        return None
    for key, kinds in (("status", str), ("steps", int), ("seconds", (int, float)), ("evaluation", (dict, NoneType))):
        value = result.get(key, ...)
        if not isinstance(value, kinds) or isinstance(value, bool) or non_finite(value):
            raise UserError(f"{path} is broken: {key} is {'missing' if value is ... else repr(value)[:80]}.")
    return result


def is_finished(run: Path, steps: int = 0) -> bool:
    """Return whether a run's result says that it came to its end, after so many steps or more.

    A run whose result is broken goes on from its last checkpoint, and writes it anew.
    """
    try:
        result = read_result(run)
    except UserError:
        return False
    return result is not None and result["status"] == "finished" and result["steps"] >= steps


def run_folder_of(file: Path) -> Path | None:
    """Return the run folder that a file lies in, however deep, None if it lies in none.

    That is a folder that was opened as one, or one with a config.yaml and what only a training writes beside it.
    """
    for folder in (*file.absolute().parents, *file.resolve().parents):
        written = any((folder / name).is_file() for name in (ENVIRONMENT, RESULT))
        if folder in _opened or (written and (folder / CONFIG).is_file()):
            return folder
    return None


def environment() -> dict[str, Any]:
    """Return versions, commit and hardware."""
    packages = ("bistable-rl", "torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "minigrid")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {name: _version(name) for name in packages},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the clone this package runs from (`+` where it was changed), None elsewhere."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


class MetricsFile:
    """metrics.csv: fixed columns, a row at a time.

    Args:
        path: The file; appended to where it exists.
        columns: The names of the columns, in order.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        new = not path.exists()
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, self.columns, extrasaction="ignore", restval="")
        if new:
            self._writer.writeheader()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; columns it lacks stay empty, names that are no column are left out."""
        try:
            self._writer.writerow({key: _short(value) for key, value in row.items()})
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._file.name} cannot be written: {error.strerror}.") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def cut_metrics(run: Path, column: str, last: int) -> None:
    """Drop the rows of a run's metrics.csv whose `column` is past `last`, and a row that was cut off: written later.

    Raises:
        UserError: The file is broken or cannot be written.
    """
    path = inside(run, METRICS)
    if not path.exists():
        return
    if last < 1 or not path.stat().st_size:  # it starts over, or was killed before the header was on the disk
        path.unlink()
        return
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        place = header.index(column)
        kept = [row for row in rows if len(row) == len(header) and int(row[place]) <= last]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is broken ({error}); delete it, or start the run anew.") from None
    write_text(path, "".join(",".join(row) + "\r\n" for row in [header, *kept]))


def _short(value: Any) -> Any:
    """Write a float, numpy's too, with six digits."""
    return f"{value:.6g}" if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral) else value


def finish(run: Path, result: Mapping[str, Any], failure: BaseException | None, done: str) -> None:
    """Write how a run ended, and raise what a user is told if it failed.

    A result with a number that is NaN or infinite is that of a failed run; null stands in its place.

    Args:
        run: The run folder.
        result: For result.json; its `checkpoint` is the last good one.
        failure: What stopped the run, if something did.
        done: How far it came, such as "600 updates".

    Raises:
        UserError: The disk is full, or what stopped the run was one.
        RunFailedError: Anything else stopped it.
    """
    for key, value in non_finite(result).items():
        failure = failure or NonFiniteError(f"{key} is {value}, which is no finite number")
    result = _finite(result)
    if failure is None:
        write_json(run / RESULT, result)
        return
    result = {**result, "status": "failed", "traceback": traceback.format_exception(failure)}
    more = f"{RESULT} tells more"
    try:
        write_json(run / RESULT, result)
    except UserError:  # a full disk is reported by what met it first
        more = f"{RESULT} could not be written"
    if isinstance(failure, UserError):
        raise failure
    plain = isinstance(failure, NonFiniteError | RunFailedError) or not str(failure).strip()
    kind = "" if plain else f"{type(failure).__name__}: "
    last = result["checkpoint"]
    left = "There is no checkpoint yet" if last is None else f"The last good checkpoint is {last}"
    raise RunFailedError(f"{run} stopped after {done}; {kind}{one_sentence(failure)} {left}; {more}.") from failure


def _finite(data: Any) -> Any:
    """Return a JSON document with null for every number that is NaN or infinite."""
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if non_finite(data) else data
