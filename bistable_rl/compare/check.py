"""Check, before the first run of a grid, that all of them can be carried out.

Environments, tasks and networks are built by a function that the caller gives: a grid does not know what trains.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError, one_sentence, unknown

Metrics = TypeVar("Metrics", bound=Collection[str])
Check = Callable[[Any], Metrics]
"""Returns the metrics that the evaluations of an experiment or benchmark report; raises UserError if it is wrong."""

SILENT_SECONDS = 2.0


def check_jobs(jobs: Sequence[Job], check: Check[Collection[str]], source: str, *, metric: str | None = None) -> None:
    """Check every configuration of a grid once, not once per seed.

    Args:
        jobs: The jobs to carry out.
        check: Checks a configuration.
        source: The file of the grid, for the errors.
        metric: The metric that is compared; each must report it.

    Raises:
        UserError: If one cannot be trained, or does not report the metric.
    """
    distinct: dict[str, Job] = {}
    for job in jobs:
        distinct.setdefault(repr(replace(job.config, seed=0)), job)
    began = time.monotonic()
    for i, job in enumerate(distinct.values(), 1):
        if time.monotonic() - began > SILENT_SECONDS:
            print(f"checking {job.label} ({i} of {len(distinct)})", file=sys.stderr, flush=True)
        known = checked(job.config, check, f"{source}, {job.label}")
        if metric is not None and metric not in known:
            choices = unknown("metric", metric, known)
            raise UserError(f"{source}: metric.name: not reported by {job.label}: {choices}")


def checked(config: Any, check: Check[Metrics], where: str) -> Metrics:
    """Return the metrics that the evaluations of a configuration report.

    Raises:
        UserError: If it cannot be trained; the sentence starts with `where`.
    """
    try:
        return check(config)
    except UserError as error:
        raise UserError(f"{where}: {one_sentence(error)}") from None
    except Exception as error:  # an environment of the user's may raise anything
        raise UserError(f"{where}: it cannot be built: {type(error).__name__}: {one_sentence(error)}") from error
