"""How long a grid takes on this machine, by its finished runs or a short measurement."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from bistable_rl.compare.engine import fraction_done
from bistable_rl.compare.jobs import Job, prepare
from bistable_rl.compare.launchers import POLL_SECONDS, Launcher
from bistable_rl.compare.ledger import Ledger, Row, row_of_job
from bistable_rl.runs.progress import say_measuring
from bistable_rl.runs.run import Run

MEASURED_SECONDS = 5.0
"""Seconds of training that are measured, after the imports."""
LONGEST_SECONDS = 120.0


def print_estimate(jobs: Sequence[Job], book: Ledger, launcher: Launcher) -> None:
    """Print, for each label, how many runs are finished and left, and how long these take.

    Args:
        jobs: The jobs of the grid.
        book: Its ledger.
        launcher: Runs the measurements.

    Raises:
        UserError: If the files of a finished run are broken.
    """
    rows = {job.name: book.row(job) or row_of_job(job) for job in jobs}
    finished = [row for row in rows.values() if row is not None]
    left = Counter(job.label for job in jobs if rows[job.name] is None)
    done = Counter(row.label for row in finished)
    width = max(len(job.label) for job in jobs)
    total = 0.0
    for label, job in {job.label: job for job in jobs}.items():
        line = f"{label:<{width}}  {done[label]} finished, {left[label]} to do"
        if left[label]:
            number = list(left).index(label) + 1
            seconds = _seconds_per_run(job, finished, launcher, number, len(left))
            total += seconds * left[label]
            line += f", about {_duration(seconds)} each"
        print(line, flush=True)
    print(f"{left.total()} runs to do, about {_duration(total / launcher.slots)} with {launcher.slots} at once")


def _seconds_per_run(job: Job, finished: Sequence[Row], launcher: Launcher, number: int, total: int) -> float:
    """Return the mean of the finished runs with the job's label, or else a measurement, the `number`th of `total`."""
    known = [row.number("seconds") for row in finished if row.label == job.label]
    if known:
        return float(np.mean(known))
    say_measuring(job.label, number, total)
    return _measured(job, launcher)


def _measured(job: Job, launcher: Launcher) -> float:
    """Train for some seconds in a temporary folder, and extrapolate; NaN if the training has not started in time."""
    with tempfile.TemporaryDirectory() as folder:
        trial = replace(job, folder=Path(folder) / "run")
        prepare(trial)
        process = launcher.start(trial)
        try:
            give_up = time.monotonic() + LONGEST_SECONDS
            while process.poll() is None and time.monotonic() < give_up and _elapsed(trial) < MEASURED_SECONDS:
                time.sleep(POLL_SECONDS)
            done = fraction_done(trial)
            return _elapsed(trial) / done if done else float("nan")
        finally:
            process.kill()
            while process.poll() is None:
                time.sleep(POLL_SECONDS)


def _elapsed(job: Job) -> float:
    """Return the seconds of training so far: the second column of metrics.csv."""
    try:
        return float(list(Run(job.folder).metrics.last().values())[1])
    except (OSError, LookupError, ValueError, TypeError):  # no row yet, or half a row
        return 0.0


def _duration(seconds: float) -> str:
    return "an unknown time" if np.isnan(seconds) else str(timedelta(seconds=round(seconds)))
