"""Run jobs on this machine, a process each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError
from bistable_rl.runs import user_modules
from bistable_rl.runs.lock import INHERITED, Lock, LockedError, take
from bistable_rl.runs.run import Run
from bistable_rl.runs.stopping import SIGNALS, exit_code

INTERRUPTED = exit_code(signal.SIGINT)
STOPPED = {exit_code(number) for number in SIGNALS}  # the exit codes of a run that was stopped
Command = Callable[[Job], Sequence[str]]


def child_command() -> Command:
    """Return what gives the command that starts a job's run folder, continues it, or says that it has finished.

    The child finds modules where this process does, and so not in the current folder, where `python -m` would look
    first: a yaml.py may lie there, beside a comparison that somebody else has made.
    """
    return partial(_command, path=tuple(sys.path), folders=tuple(map(str, user_modules.folders())))


def _command(job: Job, path: Sequence[str], folders: Sequence[str]) -> list[str]:
    # `sys` is built in; nothing else is imported before the path is ours. Behind it comes what the interpreter itself
    # brings, for a node of a cluster where things are installed elsewhere; `-c` puts "" in front, the current folder.
    code = (
        f"import sys; path = {list(path)!a}; sys.path[:] = path + [p for p in sys.path if p and p not in path]; "
        f"from bistable_rl.compare.launchers.child import main; main({list(folders)!a})"
    )
    flags = ["-I"] if sys.flags.isolated else []
    return [sys.executable, *flags, "-c", code, job.config.COMMAND, "--resume", str(job.folder)]


class LocalLauncher:
    """Runs jobs side by side on this machine, the cores shared out among them as threads.

    `OMP_NUM_THREADS`, where it is set, is the most that a run gets: who runs two grids at once, or trains beside other
    work, keeps them out of each other's way with it.

    Args:
        workers: How many at once (default: one a core).
        command: What runs a job (default: `child_command`).
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

    While it lives it holds the run folder's lock, which this process takes for it. A grid that was killed and started
    again can so meet a run of its former life: it waits until that one has ended, and never writes to the same folder.

    Args:
        folder: The run folder, which exists.
        command: What runs it.
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
        except LockedError:  # a run of a killed grid is still stopping
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
        """Stop it at once; its last checkpoint is what remains."""
        self._unwanted = True
        if self._process is not None:
            self._process.kill()
