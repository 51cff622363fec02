"""Carry out a grid of runs: start new ones, continue stopped ones, and name those that failed.

All state lies in the run folders and the ledger. The same call therefore continues a grid that was stopped or killed,
and runs only the new jobs of a grid that was extended.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bistable_rl.compare.jobs import Job, is_there, prepare
from bistable_rl.compare.launchers import POLL_SECONDS, Launcher, Running
from bistable_rl.compare.launchers.local import STOPPED
from bistable_rl.compare.ledger import Ledger, Row, row_of_job
from bistable_rl.compare.origin import of_committed
from bistable_rl.errors import RunFailedError, UserError
from bistable_rl.runs.files import make_folder
from bistable_rl.runs.lock import LockedError, take
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment
from bistable_rl.runs.stopping import raising

SHOW_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """The result of a grid.

    Attributes:
        rows: The finished runs, in the order of the jobs.
        failed: One sentence per failed run that says why, by the job's name.
    """

    rows: list[Row]
    failed: dict[str, str]

    def check(self) -> None:
        """Check that every run finished.

        Raises:
            RunFailedError: If one failed; the message gives their number and the first reason.
        """
        if self.failed:
            total = len(self.failed) + len(self.rows)
            first, why = next(iter(self.failed.items()))
            raise RunFailedError(
                f"{len(self.failed)} of {total} runs failed; the same command tries them again. "
                f"The first is {first}: {why}"
            )


def run_grid(jobs: Sequence[Job], folder: Path, launcher: Launcher, *, committed: Path | None = None) -> Outcome:
    """Carry out every job that is not finished yet.

    A job is finished when its row is in the ledger, or its run folder says so. One that fails stops no other, and the
    next call tries it again. Ctrl-C, SIGTERM or SIGHUP stops all runs, each with a checkpoint; a second Ctrl-C stops
    them at once.

    Args:
        jobs: The jobs; their names and their folders differ.
        folder: The folder of the ledger, runs.csv and curves.csv.
        launcher: Where the jobs run.
        committed: A folder with a ledger whose rows count as finished too.

    Raises:
        UserError: If a run folder holds another experiment, another grid is at work in `folder`, or a file is broken.
        KeyboardInterrupt: If one of the signals came, once every run has stopped.
    """
    try:
        lock = take(make_folder(folder))
    except LockedError as busy:
        raise UserError(
            f"another command is at work in {folder}{busy.holder}; wait for it, or choose another --out."
        ) from None
    try:
        with raising():
            return _Grid(jobs, launcher, Ledger(folder, committed)).carry_out()
    finally:
        lock.release()


def unfinished(jobs: Sequence[Job], book: Ledger) -> list[Job]:
    """Return the jobs that `run_grid` would carry out: neither in the ledger nor finished in their run folder."""
    return [job for job in jobs if book.row(job) is None and not _has_ended(job)]


def _has_ended(job: Job) -> bool:
    try:
        return row_of_job(job) is not None and is_there(job)
    except UserError:  # broken files: `run_grid` names it as failed and does not run it
        return True


class _Grid:
    """One call of `run_grid`."""

    def __init__(self, jobs: Sequence[Job], launcher: Launcher, book: Ledger) -> None:
        self.jobs = jobs
        self.launcher = launcher
        self.book = book
        self.failed: dict[str, str] = {}
        self.waiting: deque[Job] = deque()
        self.running: list[tuple[Job, Running]] = []

    def carry_out(self) -> Outcome:
        for job in self.jobs:
            if self.book.row(job) is None:
                prepare(job)
                if not self._record(job):
                    self.waiting.append(job)
        done = [row for row in map(self.book.row, self.jobs) if row is not None]
        self.bar = Bar(len(self.jobs), len(self.jobs) - len(self.waiting), of_committed(done))
        if self.waiting:
            self.bar.say(f"{len(self.waiting)} runs to do, {self.launcher.slots} at once; each writes its log.txt")
        try:
            self._run()
        except BaseException:
            stop([process for _, process in self.running], self.bar)
            raise
        finally:
            self.bar.close()
        rows = [row for row in map(self.book.row, self.jobs) if row is not None]
        return Outcome(rows, self.failed)

    def _run(self) -> None:
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.launcher.slots:
                job = self.waiting.popleft()
                self.running.append((job, self.launcher.start(job)))
            time.sleep(POLL_SECONDS)
            for entry in list(self.running):
                job, process = entry
                code = process.poll()
                if code is not None:
                    self.running.remove(entry)
                    self._ended(job, code)
            self.bar.show([job for job, _ in self.running])

    def _ended(self, job: Job, code: int) -> None:
        if not self._record(job):
            self.failed.setdefault(job.name, failure(job, code))
        self.bar.done(f"{job.name}: " + (f"failed: {self.failed[job.name]}" if job.name in self.failed else "finished"))

    def _record(self, job: Job) -> bool:
        """Add a finished run to the ledger; return whether there is nothing left to do for the job."""
        try:
            row = row_of_job(job)
        except UserError as error:
            self.failed[job.name] = str(error)
            return True
        if row is not None:
            self.book.add(row)
        return row is not None


def stop(running: Sequence[Running], bar: Bar) -> None:
    """Stop every run, each with a checkpoint; the next Ctrl-C stops them at once."""
    bar.say(f"stopping {len(running)} runs; the same command continues them. Press Ctrl-C again to stop at once")
    try:
        for process in running:
            process.interrupt()
        while any(process.poll() is None for process in running):
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        for process in running:
            process.kill()


def failure(job: Job, code: int) -> str:
    """Return why a run that ended with this exit code has not finished: the last line of its log."""
    if code < 0:
        return f"it was killed by signal {-code}; see {Run(job.folder).log}."
    if code in STOPPED:
        return "it was stopped; the same command continues it."
    log = Run(job.folder).log
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.removeprefix("bistable-rl: ") for line in reversed(lines) if line.strip()), "it printed nothing.")


def fraction_done(job: Job) -> float:
    """Return the fraction of a run that is done, from the last row of its metrics.csv."""
    try:
        last = Run(job.folder).metrics.last()
        if isinstance(job.config, Experiment):
            return min(1.0, float(last["time/total_timesteps"]) / job.config.total_steps)
        return min(1.0, float(last["time/epochs"]) / job.config.training.epochs)
    except (OSError, LookupError, ValueError, TypeError):  # not started, or a row half written
        return 0.0


class Bar:
    """The progress of a grid: a bar on a terminal, elsewhere one line per finished run.

    Args:
        total: The number of runs.
        done: The number of finished runs.
        note: The text that follows that number.
        unit: The plural noun for the runs.
    """

    def __init__(self, total: int, done: int, note: str = "", unit: str = "runs") -> None:
        self._bar = tqdm(total=total, initial=done, unit=f" {unit}", disable=not sys.stderr.isatty())
        self._done = done
        self._shown = time.monotonic()
        if done:
            self.say(f"{done} of {total} {unit} are finished already{note}")

    def show(self, running: Sequence[Job]) -> None:
        """Show the progress of the running jobs."""
        now = time.monotonic()
        if self._bar.disable or now - self._shown < SHOW_SECONDS:
            return
        self._shown = now
        self._bar.n = round(self._done + sum(map(fraction_done, running)), 2)
        self._bar.set_postfix_str(f"{len(running)} running")

    def done(self, line: str) -> None:
        """Count a run that has ended, and print a line about it."""
        self._done += 1
        self._bar.n = self._done
        self.say(f"{self._done}/{self._bar.total} {line}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Stop updating the bar."""
        self._bar.close()
