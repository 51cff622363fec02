"""Run each job as a task on a Ray cluster; needs the extra `ray`.

The output folder must be the same folder on every node, for example on a network file system: it holds all state.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import bistable_rl
from bistable_rl.compare.jobs import Job
from bistable_rl.compare.launchers import POLL_SECONDS
from bistable_rl.compare.launchers.local import INTERRUPTED, Command, Process, child_command
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.run import Run


class RayLauncher:
    """Runs jobs as Ray tasks, which share the cluster's cores.

    Args:
        workers: How many jobs run at once (default: one per core of the cluster).
        address: The cluster's address (default: RAY_ADDRESS, or a new cluster on this machine).
        command: Gives the command that runs a job (default: `child_command`).

    Raises:
        UserError: If Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, workers: int | None = None, address: str | None = None, command: Command | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise UserError("--launcher ray needs Ray: install it with pip install 'bistable-rl[ray]'.") from None
        if address is not None:
            _check_address(address)
        here = Path.cwd()
        # Ray's workers import from this process's current folder, which may hold somebody else's modules
        os.chdir(Path(bistable_rl.__file__).parent.parent)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(f"--address {address}: {one_sentence(error)}") from None
        finally:
            os.chdir(here)
        cores = int(ray.cluster_resources()["CPU"])
        self.slots = workers or cores
        self.threads = max(1, cores // self.slots)
        self._command = command or child_command()
        self._task = ray.remote(num_cpus=self.threads)(carry_out)

    def start(self, job: Job) -> RayTask:
        """Start a job whose folder is prepared."""
        away = replace(job, folder=job.folder.resolve())
        return RayTask(job.folder, self._task.remote(away, Path.cwd(), self._command, self.threads))


def _check_address(address: str) -> None:
    """Check that something listens at host:port; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "://" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"--address {address}: no Ray cluster answers there ({error}).") from None


class RayTask:
    """A job's Ray task.

    Args:
        folder: The run folder.
        reference: Ray's reference to the task.
    """

    def __init__(self, folder: Path, reference: Any) -> None:
        self._folder = folder
        self._reference = reference

    def poll(self) -> int | None:
        """Return the exit code once the task has ended; 1 if the task itself failed, which is written to the log."""
        import ray

        if not ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            return int(ray.get(self._reference))
        except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
            return INTERRUPTED
        except ray.exceptions.RayError as error:
            with Run(self._folder).log.open("a", encoding="utf-8") as log:
                print(f"the Ray task failed: {type(error).__name__}: {one_sentence(error)}", file=log)
            return 1

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""
        import ray

        ray.cancel(self._reference)

    def kill(self) -> None:
        """Stop it at once; its process then reads the end of its input and stops too."""
        import ray

        ray.cancel(self._reference, force=True)


def carry_out(job: Job, cwd: Path, command: Command, threads: int) -> int:
    """Run a job on this node and return its exit code; Ray cancels it with a KeyboardInterrupt.

    Args:
        job: The job.
        cwd: The job's current folder, if the node has it.
        command: Gives the command that runs the job.
        threads: The job's threads.
    """
    process = Process(job.folder, command(job), threads, cwd if cwd.is_dir() else None)
    while True:
        try:
            code = process.poll()
            if code is not None:
                return code
            time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            process.interrupt()
