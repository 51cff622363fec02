"""`bistable-rl compare`: carry out a comparison and report it, or say what it would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from bistable_rl import figure_style
from bistable_rl.compare import comparison as plan
from bistable_rl.compare import ledger
from bistable_rl.compare.check import Check, check_jobs
from bistable_rl.compare.engine import Launcher, run_grid, unfinished
from bistable_rl.compare.estimate import seconds_a_run
from bistable_rl.compare.groups import panels
from bistable_rl.compare.jobs import Job
from bistable_rl.compare.ledger import Ledger, Row, of_run
from bistable_rl.compare.report import PAGE, write_report
from bistable_rl.compare.tensorboard import write_tensorboard
from bistable_rl.runs.schema import Experiment


def compare(path: Path, out: Path, launcher: Launcher, check: Check, *, dry_run: bool = False, command: str) -> None:
    """Carry out what is not finished of a comparison, then write its report into `out/<name>`.

    Args:
        path: The comparison's config file.
        out: The output folder.
        launcher: Where the runs are carried out.
        check: Checks what is to be carried out.
        dry_run: Say what there is to do and how long it takes, and do none of it.
        command: What the report says that it was made by.

    Raises:
        UserError: Something in the file is wrong (nothing has been written then), matplotlib is not installed, or a
            file cannot be written.
        RunFailedError: Some runs failed; the others are finished and reported.
    """
    figure_style.check_installed()
    comparison, jobs = plan.read(path, out)
    folder, committed = out / comparison.name, ledger.RESULTS / comparison.name
    book = Ledger(folder, committed)
    panels([row for row in map(book.row, jobs) if row is not None], comparison.metric)  # they report the metric
    check_jobs(unfinished(jobs, book), check, str(path), metric=comparison.metric.name)
    if dry_run:
        _say_plan(jobs, book, launcher)
        return
    outcome = run_grid(jobs, folder, launcher=launcher, committed=committed)
    if outcome.rows:
        unit = "environment steps" if isinstance(jobs[0].config, Experiment) else "updates"
        report, figures = write_report(folder, comparison, outcome.rows, outcome.failed, unit=unit, command=command)
        by_hash = {job.hash: job for job in jobs}
        write_tensorboard(folder, comparison.name, [by_hash[row.hash] for row in outcome.rows], outcome.rows, figures)
        print(f"report: {report}, {folder / PAGE}\nwatch:  bistable-rl tensorboard {folder}")
    outcome.check()


def _say_plan(jobs: Sequence[Job], book: Ledger, launcher: Launcher) -> None:
    finished: list[Row] = []
    waiting: list[Job] = []
    for job in jobs:
        row = book.row(job) or of_run(job)
        if row is None:
            waiting.append(job)
        else:
            finished.append(row)
    total = 0.0
    to_do, done = Counter(job.label for job in waiting), Counter(row.label for row in finished)
    width = max(len(job.label) for job in jobs)
    missing = list(to_do)
    for label, job in {job.label: job for job in jobs}.items():
        line = f"{label:<{width}}  {done[label]} finished, {to_do[label]} to do"
        if to_do[label]:
            seconds = seconds_a_run(job, finished, launcher, missing.index(label) + 1, len(missing))
            total += seconds * to_do[label]
            line += f", about {_duration(seconds)} each"
        print(line, flush=True)
    print(f"{len(waiting)} runs to do, about {_duration(total / launcher.slots)} with {launcher.slots} at once")


def _duration(seconds: float) -> str:
    return "an unknown time" if seconds != seconds else str(timedelta(seconds=round(seconds)))
