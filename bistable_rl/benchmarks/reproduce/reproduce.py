"""`bistable-rl reproduce`: carry out the grid behind a published table and show ours beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np

from bistable_rl import figure_style
from bistable_rl.benchmarks.check_benchmark import BenchmarkCheck
from bistable_rl.benchmarks.reproduce import fig3, grids, tables
from bistable_rl.benchmarks.tasks.task import Which
from bistable_rl.compare import ledger
from bistable_rl.compare.check import check_jobs
from bistable_rl.compare.engine import run_grid, unfinished
from bistable_rl.compare.estimate import seconds_a_run
from bistable_rl.compare.jobs import Job
from bistable_rl.compare.launchers.local import LocalLauncher
from bistable_rl.compare.ledger import Ledger
from bistable_rl.runs.files import write_text


def reproduce(
    name: str,
    preset: str,
    out: Path,
    *,
    settings: Sequence[str] = (),
    cells: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    protocol: Which = "paper",
    workers: int | None = None,
    estimate: bool = False,
    command: str,
) -> None:
    """Carry out what is not finished of a table's grid, and write the whole table into `out/<name>-<preset>`.

    The table shows every finished run, whichever command asked for it, and what has not been run. Of another protocol
    than the paper's the folder is `out/<name>-<preset>-<protocol>`.

    Args:
        name: The table, such as `table1`.
        preset: `paper` or `quick`.
        out: The output folder.
        settings: Its rows, such as `T=50` (default: all).
        cells: Its cells (default: the preset's).
        seeds: Its seeds.
        protocol: Whose data and order of samples.
        workers: Runs at once (default: one a core).
        estimate: Say how long it will take here, and carry out nothing.
        command: What the table says that it was written by.

    Raises:
        UserError: There is no such table, setting, cell or protocol, matplotlib is not installed, or a file is broken
            or cannot be written.
        RunFailedError: Some runs failed; the others are finished and in the table.
    """
    table = grids.find(preset, name, protocol)
    grid = grids.grid(name, preset, protocol)
    folder, committed = out / grid, ledger.RESULTS / grid
    jobs = grids.jobs(
        grids.only(table, settings) if settings else table, folder, list(cells) or list(table.cells), seeds
    )
    launcher = LocalLauncher(workers)
    book = Ledger(folder, committed)
    check_jobs(unfinished(jobs, book), BenchmarkCheck(), f"reproduce {name}")
    if estimate:
        _say_estimate(jobs, book, launcher)
        return
    figure_style.check_installed()
    outcome = run_grid(jobs, folder, launcher=launcher, committed=committed)
    if name == "fig3":
        if outcome.rows:
            fig3.draw(outcome.rows, folder / fig3.PICTURE)
            print(f"{folder / fig3.PICTURE}  {fig3.see(outcome.rows)}")
    else:
        book = Ledger(folder, committed)
        columns = list(dict.fromkeys([*table.cells, *cells, *book.values("cell")]))
        finished = map(book.row, grids.jobs(table, folder, columns, sorted({*seeds, *book.seeds})))
        rows = [row for row in finished if row is not None]
        found = tables.entries(name, table, columns, rows)
        tables.write_csv(name, found, folder / tables.CSV)
        page = tables.markdown(found, rows, protocol, command)
        write_text(folder / tables.MARKDOWN, page)
        tables.draw(found, folder / tables.PICTURE)
        print(f"{page}\n{folder / tables.CSV}, {tables.MARKDOWN}, {tables.PICTURE}")
    outcome.check()


def _say_estimate(jobs: Sequence[Job], book: Ledger, launcher: LocalLauncher) -> None:
    """Print how long what is left will take: as finished runs of the same setting and cell took, or measured."""
    left = [job for job in jobs if book.row(job) is None]
    finished = [row for row in map(book.row, jobs) if row is not None]
    seconds: dict[str, float] = {}
    of_label = {job.label: job for job in left}
    for i, (label, job) in enumerate(of_label.items(), 1):
        seconds[label] = seconds_a_run(job, finished, launcher, i, len(of_label))
        print(f"{label}: {_duration(seconds[label])} a run", flush=True)
    total = sum(seconds[job.label] for job in left)
    print(
        f"{len(jobs) - len(left)} of {len(jobs)} runs are finished; the others take {_duration(total)} of one worker, "
        f"{_duration(total / launcher.slots)} with {launcher.slots}"
    )


def _duration(seconds: float) -> str:
    return "an unknown time" if np.isnan(seconds) else str(timedelta(seconds=round(seconds)))
