"""Whether the runs of a grid can be carried out at all, found out before the first of them begins.

What can be found out only by building an environment, a task or a network is asked of a function that the caller gives:
a grid itself knows nothing of what trains.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError, one_sentence, unknown

Check = Callable[[Any], Collection[str]]
"""Refuses an experiment or benchmark with a UserError, or returns the metrics that its evaluations report."""

SILENT_SECONDS = 2.0


def check_jobs(jobs: Sequence[Job], check: Check, source: str, *, metric: str | None = None) -> None:
    """Check every configuration of a grid once, whatever its seeds.

    Args:
        jobs: What is to be carried out.
        check: Checks a configuration.
        source: Where the grid is written, for the errors.
        metric: What is compared; each must report it.

    Raises:
        UserError: One cannot be trained, or does not report the metric.
    """
    distinct: dict[str, Job] = {}
    for job in jobs:
        distinct.setdefault(repr(replace(job.config, seed=0)), job)
    began = time.monotonic()
    for i, job in enumerate(distinct.values(), 1):
        if time.monotonic() - began > SILENT_SECONDS:
            print(f"checking {job.label} ({i} of {len(distinct)})", file=sys.stderr, flush=True)
        try:
            known = check(job.config)
        except UserError as error:
            raise UserError(f"{source}, {job.label}: {one_sentence(error)}") from None
        except Exception as error:  # whatever somebody else's environment does, or a size beyond the memory
            kind = type(error).__name__
            raise UserError(f"{source}, {job.label}: it cannot be built: {kind}: {one_sentence(error)}") from error
        if metric is not None and metric not in known:
            choices = unknown("metric", metric, known)
            raise UserError(f"{source}: metric.name: not reported by {job.label}: {choices}")
