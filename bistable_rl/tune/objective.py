"""What a trial is judged by: the evaluations in the metrics.csv of its runs."""

from __future__ import annotations

import csv
from collections.abc import Collection

from bistable_rl.compare.jobs import Job
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment
from bistable_rl.tune.tuning import Plan


class Objective:
    """The objective of a study.

    Args:
        plan: The study.
        columns: The columns of metrics.csv that it reads; the worst of them counts.

    Attributes:
        name: Its name.
        evaluations: How many evaluations the training with one seed has.
    """

    def __init__(self, plan: Plan, columns: Collection[str]) -> None:
        self.name = plan.tuning.objective.name
        self._columns = columns
        self._worst = min if plan.tuning.objective.better == "higher" else max
        config = plan.config({})
        if isinstance(config, Experiment):
            self._clock, self._every, total = "time/total_timesteps", config.evaluation.every, config.total_steps
        else:
            self._clock, self._every, total = "time/epochs", 1, config.training.epochs
        self.evaluations = max(1, total // self._every)

    def values(self, job: Job, *, whole: bool) -> list[tuple[int, float]]:
        """Return the evaluations of a run, as numbers from 1 on and values.

        An evaluation's number says how often the base's `evaluation.every` had passed (of a supervised training, how
        many epochs), so that those of two trials with the same number were made after about as many steps.

        Args:
            job: The run.
            whole: Whether it has ended; otherwise the last row of its metrics may be half written and is left out.
        """
        try:
            rows = Run(job.folder).metrics.rows()
        except (OSError, csv.Error):  # not begun
            return []
        found = []
        for row in rows if whole else rows[:-1]:
            values = [float(row[column]) for column in self._columns if row.get(column)]
            if len(values) == len(self._columns):
                found.append((max(1, int(float(row[self._clock]) // self._every)), self._worst(values)))
        return found
