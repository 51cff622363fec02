"""Estimate how long a grid takes on this machine, from its finished runs or a short measurement."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bistable_rl.compare.engine import fraction_done
from bistable_rl.compare.jobs import Job, prepare
from bistable_rl.compare.launchers import POLL_SECONDS, Launcher
from bistable_rl.compare.ledger import Ledger, Row, row_of_job
from bistable_rl.compare.origin import of_committed
from bistable_rl.runs.progress import say_measuring
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment

MEASURED_SECONDS = 5.0
"""Seconds of training that are measured, after the imports."""
LONGEST_SECONDS = 120.0


def print_estimate(jobs: Sequence[Job], book: Ledger, measure: Callable[[Any], float], slots: int) -> None:
    """Print, for each label, how many runs are finished and left, and how long these take.

    Args:
        jobs: The jobs of the grid.
        book: Its ledger.
        measure: Returns the seconds that a job's config takes here, NaN if unknown; called where no run
            with the label has finished here.
        slots: How many runs are trained at once.

    Raises:
        UserError: If the files of a finished run are broken.
    """
    rows = {job.name: book.row(job) or row_of_job(job) for job in jobs}
    finished = [row for row in rows.values() if row is not None]
    left = Counter(job.label for job in jobs if rows[job.name] is None)
    width = max(len(job.label) for job in jobs)
    total = 0.0
    for label, job in {job.label: job for job in jobs}.items():
        done = [row for row in finished if row.label == label]
        line = f"{label:<{width}}  {len(done)} finished{of_committed(done)}, {left[label]} to do"
        if left[label]:
            seconds = _mean_seconds(done)
            if seconds is None:
                say_measuring(label, list(left).index(label) + 1, len(left))
                seconds = measure(job.config)
            total += seconds * left[label]
            line += f", about {duration(seconds)} each"
        print(line, flush=True)
    print(f"{left.total()} runs to do, about {duration(total / slots)} with {slots} at once")


def _mean_seconds(rows: Sequence[Row]) -> float | None:
    """Return the mean seconds of the runs trained here, None if there are none."""
    known = [row.number("seconds") for row in rows if not row.committed]
    return float(np.mean(known)) if known else None


def train_briefly(config: Experiment | Benchmark, launcher: Launcher) -> float:
    """Train for a few seconds in a temporary folder; return the seconds of a whole run, NaN if it started too late."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Job("trial", config, Path(folder) / "run")
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


def duration(seconds: float) -> str:
    """Return a number of seconds as hours, minutes and seconds."""
    return "an unknown time" if np.isnan(seconds) else str(timedelta(seconds=round(seconds)))
