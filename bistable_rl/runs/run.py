"""A run: the folder that a training writes and everything else reads. Imports no torch."""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from bistable_rl.errors import UserError
from bistable_rl.runs.checkpoints import Checkpoints
from bistable_rl.runs.config import Overrides, build, read_yaml, to_yaml
from bistable_rl.runs.environment import collect_environment
from bistable_rl.runs.files import (
    inside,
    make_folder,
    non_finite,
    read_json,
    remove_file,
    remove_leftovers,
    write_json,
    write_text,
)
from bistable_rl.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    JOB,
    LOG,
    METRICS,
    RESULT,
    SPACES,
    WARMUP,
    check_run_folder,
    lock_run,
    make_run_folder,
)
from bistable_rl.runs.metrics import Metrics
from bistable_rl.runs.schema import Benchmark, Experiment, WarmupConfig, check_command, kind_of

Training = TypeVar("Training", Experiment, Benchmark)


class Run:
    """A run folder: the only reader and writer of its files.

    `Run.open` opens an existing run, `Run.create` makes a new one. The constructor itself touches no file.

    Args:
        folder: The run folder.

    Attributes:
        folder: The run folder.
        checkpoints: Its checkpoints.
        metrics: Its metrics.csv.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.checkpoints = Checkpoints(self.folder, CHECKPOINTS)
        self.metrics = Metrics(self.folder, METRICS)
        self._is_checked = False
        self._read: tuple[tuple[int, int] | None, dict[str, Any]] | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def __str__(self) -> str:
        return str(self.folder)

    def __fspath__(self) -> str:
        return str(self.folder)

    # --- opening --------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, run: Run | str | os.PathLike[str]) -> Run:
        """Open an existing run folder; a `Run` that is already open is returned without checking its files again.

        Raises:
            UserError: If what is given names no folder, there is no run folder, or one of its files is a link.
        """
        if not isinstance(run, Run | str | os.PathLike):
            raise UserError(f"a run must be given as a Run or its folder, not as {type(run).__name__}.")
        opened = run if isinstance(run, Run) else cls(run)
        if not opened._is_checked:
            check_run_folder(opened.folder)
            opened._is_checked = True
        return opened

    @classmethod
    @contextlib.contextmanager
    def create(cls, config: Experiment | Benchmark, out: Path, *, overwrite: bool = False) -> Iterator[Run]:
        """Make the folder of a new run, `out/<name>/<cell>-seed<k>`, and hold its lock while the block runs.

        An existing run is never touched: further runs are numbered `-2`, `-3`, ... The folder of a cell named
        `package:Name` has `package_Name` in its name.

        Args:
            config: The training.
            out: The output folder.
            overwrite: Replace the existing run instead of numbering the new one.

        Raises:
            UserError: If the folder cannot be written to; or if `overwrite` would delete something that is not a run,
                or a run that another process is training.
        """
        stem = out / config.name / f"{config.cell.replace(':', '_')}-seed{config.seed}"
        lock = make_run_folder(stem, to_yaml(config), overwrite=overwrite)
        try:
            yield cls(lock.folder)
        finally:
            lock.release()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the run while the block runs.

        Raises:
            UserError: If another process holds it, or the folder cannot be written to.
        """
        lock = lock_run(self.folder)
        try:
            yield
        finally:
            lock.release()

    # --- the configuration ----------------------------------------------------------------------------------

    @property
    def config(self) -> Experiment | Benchmark:
        """The configuration of the run, of either kind.

        Raises:
            UserError: If config.yaml is broken.
        """
        path, data = self._config()
        return build(kind_of(data, str(path)), data, str(path))

    def experiment(self, overrides: Overrides = ()) -> Experiment:
        """Return the configuration of an agent's run, with overrides such as `--env.kwargs.length`, `500`.

        Raises:
            UserError: If config.yaml is broken or belongs to a benchmark, or an override is wrong.
        """
        return self._as(Experiment, overrides)

    def benchmark(self) -> Benchmark:
        """Return the configuration of a benchmark run.

        Raises:
            UserError: If config.yaml is broken or belongs to an experiment.
        """
        return self._as(Benchmark)

    def write_config(self, config: Experiment | Benchmark) -> None:
        """Write config.yaml with every key, defaults included."""
        write_text(self.folder / CONFIG, to_yaml(config))

    def _as(self, kind: type[Training], overrides: Overrides = ()) -> Training:
        path, data = self._config()
        check_command(data, path, kind.COMMAND)
        return build(kind, data, str(path), overrides)

    def _config(self) -> tuple[Path, dict[str, Any]]:
        """Return the file and its keys, which are read again only if another process has replaced the file."""
        path = inside(self.folder, CONFIG)
        version = _version(path)
        if self._read is None or self._read[0] != version:
            self._read = version, read_yaml(path)
        return path, copy.deepcopy(self._read[1])

    # --- files that a training writes -----------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, Any]:
        """The content of environment.json: versions, commit, hardware.

        Raises:
            FileNotFoundError: If there is none yet.
            UserError: If it is broken.
        """
        return read_json(inside(self.folder, ENVIRONMENT))

    def write_environment(self, hardware: Mapping[str, Any]) -> None:
        """Write environment.json: versions, commit and machine, and the given device, threads and backend."""
        write_json(self.folder / ENVIRONMENT, {**collect_environment(), **hardware})

    @property
    def spaces(self) -> dict[str, Any]:
        """The content of spaces.json: the observation and action spaces, see `agents.run_spaces`.

        Raises:
            FileNotFoundError: If there is none: the run is a benchmark, has not begun, or is from an earlier version.
            UserError: If it is broken.
        """
        return read_json(inside(self.folder, SPACES))

    def write_spaces(self, spaces: Mapping[str, Any]) -> None:
        """Write spaces.json."""
        write_json(self.folder / SPACES, spaces)

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of result.json, None if there is none.

        Raises:
            UserError: If it is broken.
        """
        path = inside(self.folder, RESULT)
        try:
            result = read_json(path)
        except FileNotFoundError:
            return None
        for key, types in _RESULT_TYPES.items():
            value = result.get(key, ...)
            if not isinstance(value, types) or isinstance(value, bool) or non_finite(value):
                raise UserError(f"{path} is broken: {key} is {'missing' if value is ... else repr(value)[:80]}.")
        return result

    def finished(self, steps: int = 0) -> bool:
        """Return whether the run has finished after at least the given number of steps.

        A run with a broken result has not finished: it resumes from its last checkpoint and writes a new result.
        """
        try:
            result = self.result
        except UserError:
            return False
        return result is not None and result["status"] == "finished" and result["steps"] >= steps

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json."""
        write_json(self.folder / RESULT, result)

    def remove_result(self) -> None:
        """Remove result.json, if there is one, because the training continues."""
        remove_file(self.folder / RESULT)

    def clean(self) -> None:
        """Remove the unfinished files of killed writers, in the folder whose lock is held."""
        remove_leftovers(self.folder)
        self.checkpoints.clean()

    def warmed_up(
        self, config: WarmupConfig, warm_up: Callable[[], list[dict[str, Any]]], stop: threading.Event
    ) -> list[dict[str, Any]] | None:
        """Warm up the layers of a run that has no checkpoint yet, and keep the summaries in warmup.json.

        Args:
            config: The warm-up.
            warm_up: Carries it out and returns one summary per network.
            stop: An event; if it is set, the warm-up does not begin.

        Returns:
            The summaries, read from warmup.json in a resumed run; None without a warm-up.

        Raises:
            KeyboardInterrupt: If `stop` is set.
            UserError: If the warm-up fails, or warmup.json cannot be written or read.
        """
        if not config.steps:
            return None
        file = inside(self.folder, WARMUP)
        if self.checkpoints.all():
            try:
                kept: list[dict[str, Any]] = read_json(file)["warmup"]
            except (OSError, UserError, KeyError):
                raise UserError(f"{file} is missing or broken, though the run began with a warm-up.") from None
            return kept
        if stop.is_set():
            raise KeyboardInterrupt
        summaries = warm_up()
        write_json(file, {"warmup": summaries})
        return summaries

    # --- a run of a grid ------------------------------------------------------------------------------------

    def write_job(self, job_hash: str, config: Experiment | Benchmark) -> None:
        """Make this folder a run of a grid that has not begun."""
        make_folder(self.folder)
        write_json(self.folder / JOB, {"hash": job_hash})
        self.write_config(config)

    @property
    def exists(self) -> bool:
        """Whether the folder holds a config.yaml."""
        return (self.folder / CONFIG).exists()

    @property
    def job_hash(self) -> str | None:
        """The hash given to `write_job`, None for a run outside a grid."""
        try:
            return str(read_json(inside(self.folder, JOB))["hash"])
        except (FileNotFoundError, UserError, LookupError):
            return None

    @property
    def log(self) -> Path:
        """The log file of the process that a grid starts for this run."""
        return inside(self.folder, LOG)


_RESULT_TYPES: dict[str, Any] = {
    "status": str,
    "steps": int,
    "seconds": (int, float),
    "evaluation": (dict, NoneType),
}


def _version(path: Path) -> tuple[int, int] | None:
    """Return two numbers that change if a file is replaced, None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
