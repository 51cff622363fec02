"""The run folder: everything a run knows, in files of data that are never executed.

    OUT/<name>/<cell>-seed<k>/
        config.yaml         the experiment or benchmark, every key spelled out
        environment.json    versions, commit, hardware, kernel backend
        metrics.csv         a row an update
        events.out.tfevents.*   TensorBoard
        checkpoints/<steps>/    weights (safetensors) and counters (JSON)
        result.json         how it ended

Every file but the growing metrics.csv and TensorBoard's is written whole: to a temporary neighbour, flushed to the
disk, renamed. Imports no torch.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import json
import numbers
import os
import platform
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bistable_rl.config import UserError, one_sentence, to_yaml
from bistable_rl.experiments import Benchmark, Experiment, load_benchmark, load_either, load_experiment

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"


class NonFiniteError(FloatingPointError):
    """A NaN or an infinity turned up in training; the message says where."""


class RunFailedError(RuntimeError):
    """A run that stopped by itself; the message is one sentence: what happened, where, and what is left."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: The disk is full, or the folder cannot be written to.
    """
    try:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        UserError: The disk is full, or the folder cannot be written to.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # a file name may hold any bytes


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_file(path: Path) -> None:
    """Remove a file, if there is one.

    Raises:
        UserError: It cannot be removed, or a folder is in its place.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be removed: {error.strerror}.") from None


def make_folder(path: Path) -> Path:
    """Make a folder, with those above it, where there is none; return it.

    Raises:
        UserError: It cannot be made, or a file is in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {path} cannot be made: {error.strerror}.") from None
    return path


@contextlib.contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends well, and vanishes when it does not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(".*"):  # of a run that was killed while it wrote
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.iterdir():
                file.chmod(temporary.stat().st_mode & 0o666)  # as readable as the folder; safetensors writes 0600
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None


def create(config: Experiment | Benchmark, out: Path, *, overwrite: bool = False) -> Path:
    """Make the folder of a new run, with its configuration in it.

    An existing run is never touched: a further one gets `-2`, `-3`, ... unless `overwrite` is set.

    Raises:
        UserError: The folder cannot be written to, or `overwrite` would delete something that is not a run.
    """
    text = to_yaml(config)
    stem = out / config.name / f"{config.cell}-seed{config.seed}"
    try:
        if overwrite and stem.exists():
            if not (stem / CONFIG).is_file():
                raise UserError(f"{stem} is not a run folder (it holds no {CONFIG}), so --overwrite leaves it alone.")
            shutil.rmtree(stem)
        stem.parent.mkdir(parents=True, exist_ok=True)
        run, number = stem, 1
        while True:
            try:
                run.mkdir()
                break
            except FileExistsError:
                number += 1
                run = stem.with_name(f"{stem.name}-{number}")
    except OSError as error:
        raise UserError(f"{error.filename or stem} cannot be written: {error.strerror}.") from None
    write_text(run / CONFIG, text)
    return run


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
    if not (run / CONFIG).is_file():
        inside = sorted(str(p.parent) for depth in ("*", "*/*") for p in run.glob(f"{depth}/{CONFIG}"))[:3]
        hint = f"did you mean {' or '.join(inside)}?" if inside else "give one such as runs/t_maze/nbrc-seed0."
        raise UserError(f"{run} is not a run folder (it holds no {CONFIG}); {hint}")
    return run / CONFIG


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
    here = Path(__file__).resolve().parent.parent
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
    path = run / METRICS
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


def finish(run: Path, result: Mapping[str, Any], failure: Exception | None, done: str) -> None:
    """Write how a run ended, and raise what a user is told if it failed.

    Args:
        run: The run folder.
        result: For result.json; its `checkpoint` is the last good one.
        failure: What stopped the run, if something did.
        done: How far it came, such as "600 updates".

    Raises:
        UserError: The disk is full, or what stopped the run was one.
        RunFailedError: Anything else stopped it.
    """
    if failure is None:
        write_json(run / RESULT, result)
        return
    with contextlib.suppress(UserError):  # a full disk is reported by what met it first
        write_json(run / RESULT, {**result, "traceback": traceback.format_exception(failure)})
    if isinstance(failure, UserError):
        raise failure
    kind = "" if isinstance(failure, NonFiniteError) else f"{type(failure).__name__}: "
    raise RunFailedError(
        f"{run} stopped after {done}; {kind}{one_sentence(failure)} "
        f"The last good checkpoint is {result['checkpoint']}; {RESULT} tells more."
    ) from failure
