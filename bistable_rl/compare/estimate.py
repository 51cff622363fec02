"""How long a grid will take here, from finished runs or from a short measurement."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bistable_rl.compare.engine import POLL_SECONDS, Launcher, fraction_done
from bistable_rl.compare.jobs import Job, prepare
from bistable_rl.compare.ledger import Row
from bistable_rl.runs.progress import say_measuring
from bistable_rl.runs.run import Run

MEASURED_SECONDS = 5.0  # of training, behind the imports
LONGEST_SECONDS = 120.0


def seconds_a_run(job: Job, finished: list[Row], launcher: Launcher, number: int, total: int) -> float:
    """Return how long a job takes: as others of its label took, or else measured; NaN if it does not get going.

    Args:
        job: The job.
        finished: Finished runs of any label.
        launcher: Runs the measurement.
        number: The first of how many to be asked for, as the line on stderr says that tells of a measurement.
        total: How many.
    """
    known = [row.number("seconds") for row in finished if row.label == job.label]
    if known:
        return float(np.mean(known))
    say_measuring(job.label, number, total)
    return _measured(job, launcher)


def _measured(job: Job, launcher: Launcher) -> float:
    """Train for some seconds in a folder that vanishes, and extrapolate."""
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
