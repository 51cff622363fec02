"""The objective of a study: the evaluations in the metrics.csv of a trial's runs."""

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
        columns: The columns of metrics.csv to read; the worst of their values counts.

    Attributes:
        name: The name of the objective.
        evaluations: The number of evaluations in a training with one seed.
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
        """Return the evaluations of a run as pairs of a number, counted from 1, and a value.

        The number counts the periods of the base's `evaluation.every` up to the evaluation (in a supervised training,
        the epochs), so evaluations of two trials with the same number follow about the same number of steps.

        Args:
            job: The run.
            whole: Whether the run has ended; otherwise the last row may be half written and is left out.
        """
        try:
            rows = Run(job.folder).metrics.rows()
        except (OSError, csv.Error):  # the run has not begun
            return []
        found = []
        for row in rows if whole else rows[:-1]:
            values = [float(row[column]) for column in self._columns if row.get(column)]
            if len(values) == len(self._columns):
                found.append((max(1, int(float(row[self._clock]) // self._every)), self._worst(values)))
        return found
