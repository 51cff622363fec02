"""Where the runs of a grid are carried out: processes on this machine, or tasks on a Ray cluster."""

from __future__ import annotations

from typing import Protocol

from bistable_rl.compare.jobs import Job

POLL_SECONDS = 0.2


class Running(Protocol):
    """A job that has been started."""

    def poll(self) -> int | None:
        """Return the exit code once it has ended."""

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""

    def kill(self) -> None:
        """Stop it at once."""


class Launcher(Protocol):
    """Runs jobs.

    Attributes:
        slots: How many jobs run at once.
    """

    slots: int

    def start(self, job: Job) -> Running:
        """Start a job whose folder is prepared."""
