"""Run each job as a process on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from tqdm import tqdm

from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError
from bistable_rl.runs import user_modules
from bistable_rl.runs.lock import INHERITED, Lock, LockedError, take
from bistable_rl.runs.run import Run
from bistable_rl.runs.stopping import SIGNALS, exit_code

INTERRUPTED = exit_code(signal.SIGINT)
STOPPED = {exit_code(number) for number in SIGNALS}
"""The exit codes of a run that was stopped."""
Command = Callable[[Job], Sequence[str]]
"""Gives the command that runs a job."""


def child_command() -> Command:
    """Return a function that gives the command which trains in a job's run folder, from the start or a checkpoint.

    The child imports modules from where this process does. That excludes the current folder, where `python -m` would
    look first: it may hold a yaml.py, beside a comparison that somebody else has made.
    """
    return partial(_command, path=tuple(sys.path), folders=tuple(map(str, user_modules.folders())))


def _command(job: Job, path: Sequence[str], folders: Sequence[str]) -> list[str]:
    # `sys` is built in; nothing else is imported before the path is set. The interpreter's own path follows, for a
    # cluster's node with other installation folders, without the "" (the current folder) that `-c` puts first.
    code = (
        f"import sys; path = {list(path)!a}; sys.path[:] = path + [p for p in sys.path if p and p not in path]; "
        f"from bistable_rl.compare.launchers.child import main; main({list(folders)!a})"
    )
    flags = ["-I"] if sys.flags.isolated else []
    return [sys.executable, *flags, "-c", code, job.config.COMMAND, "--resume", str(job.folder)]


class LocalLauncher:
    """Runs jobs in parallel on this machine, which share its cores as threads.

    `OMP_NUM_THREADS`, where it is set, limits the threads of each run, so that two grids, or a grid and other work, can
    share the machine.

    Args:
        workers: How many jobs run at once (default: one per core).
        command: Gives the command that runs a job (default: `child_command`).
    """

    def __init__(self, workers: int | None = None, command: Command | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.slots = workers or cores
        self.threads = max(1, cores // self.slots)
        most = os.environ.get("OMP_NUM_THREADS", "")
        if most.isdecimal() and int(most):
            self.threads = min(self.threads, int(most))
        self._command = command or child_command()

    def start(self, job: Job) -> Process:
        """Start a job whose folder is prepared."""
        return Process(job.folder, self._command(job), self.threads)


class Process:
    """A job's process; its output goes to log.txt in the run folder.

    The process holds the run folder's lock, which this process takes for it. A grid that was killed and started again
    may find that a run of the killed one still holds the lock. It says so, and waits until that run has ended, so that
    two runs never write to the same folder.

    Args:
        folder: The run folder, which exists.
        command: The command.
        threads: Its OMP_NUM_THREADS.
        cwd: Its current folder (default: this process's).
    """

    def __init__(self, folder: Path, command: Sequence[str], threads: int, cwd: Path | None = None) -> None:
        self._folder = folder
        self._command = list(command)
        self._cwd = cwd
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process: subprocess.Popen[bytes] | None = None
        self._unwanted = False
        self._told = False
        self.poll()

    def poll(self) -> int | None:
        """Return the exit code once the process has ended."""
        if self._process is not None:
            return self._process.poll()
        if self._unwanted:
            return INTERRUPTED
        folder = self._folder
        try:
            lock = take(folder)
        except LockedError as busy:  # a run of a killed grid is still stopping
            if not self._told:
                tqdm.write(f"{folder} is still in use{busy.holder}; waiting for that process to end", file=sys.stderr)
                self._told = True
            return None
        except FileNotFoundError:
            raise UserError(f"the folder {folder} has been removed.") from None
        try:
            with Run(folder).log.open("ab") as log:
                self._process = self._start(lock, log)
        except OSError as error:
            lock.release()
            raise UserError(f"{error.filename or folder} cannot be written: {error.strerror}.") from None
        lock.note(self._process.pid)
        lock.hand_over()
        return None

    def _start(self, lock: Lock, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            cwd=self._cwd,
            env={**self._environment, INHERITED: str(lock.descriptor)},
            stdin=subprocess.PIPE,  # closes when this process dies; see child.py
            stdout=log,
            stderr=log,
            pass_fds=[lock.descriptor],
            start_new_session=True,  # Ctrl-C reaches it through `interrupt` alone, once
        )

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""
        self._unwanted = True
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Stop it at once, without a further checkpoint."""
        self._unwanted = True
        if self._process is not None:
            self._process.kill()
