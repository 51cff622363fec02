"""`bistable-rl compare`: carry out a comparison and write its report, or estimate how long it takes."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from bistable_rl import figure_style
from bistable_rl.compare import comparison, ledger
from bistable_rl.compare.check import Check, check_jobs
from bistable_rl.compare.engine import run_grid, unfinished
from bistable_rl.compare.estimate import print_estimate, train_briefly
from bistable_rl.compare.groups import panels
from bistable_rl.compare.launchers import Launcher
from bistable_rl.compare.ledger import Ledger
from bistable_rl.compare.origin import of_committed
from bistable_rl.compare.report import PAGE, write_report
from bistable_rl.compare.tensorboard import write_tensorboard
from bistable_rl.runs.schema import Experiment


def compare(
    path: Path,
    out: Path,
    launcher: Launcher,
    check: Check[Collection[str]],
    *,
    reuse_committed: bool = False,
    dry_run: bool = False,
    command: str,
) -> None:
    """Carry out the unfinished runs of a comparison, then write its report into `out/<name>`.

    Args:
        path: The comparison's config file.
        out: The output folder.
        launcher: Where the runs are carried out.
        check: Checks the configuration of a run.
        reuse_committed: Also count committed rows as finished; the report marks them.
        dry_run: Only print what is left to do and how long it takes.
        command: The command that the report names.

    Raises:
        UserError: If something in the file is wrong (then nothing is written), matplotlib is not installed, or a
            file cannot be written.
        RunFailedError: If some runs failed; the others are finished and reported.
    """
    config, jobs = comparison.read(path, out)
    folder = out / config.name
    committed = ledger.RESULTS / config.name if reuse_committed else None
    book = Ledger(folder, committed)
    panels([row for row in map(book.row, jobs) if row is not None], config.metric)  # they must report the metric
    check_jobs(unfinished(jobs, book), check, str(path), metric=config.metric.name)
    if dry_run:
        print_estimate(jobs, book, partial(train_briefly, launcher=launcher), launcher.slots)
        return
    figure_style.check_installed()
    outcome = run_grid(jobs, folder, launcher, committed=committed)
    if outcome.rows:
        unit = "environment steps" if isinstance(jobs[0].config, Experiment) else "updates"
        report, figures = write_report(folder, config, outcome.rows, outcome.failed, unit=unit, command=command)
        by_hash = {job.hash: job for job in jobs}
        write_tensorboard(folder, config.name, [by_hash[row.hash] for row in outcome.rows], outcome.rows, figures)
        print(f"report: {report}, {folder / PAGE}, of {len(outcome.rows)} runs{of_committed(outcome.rows)}")
        print(f"watch:  bistable-rl tensorboard {folder}")
    outcome.check()
