"""`bistable-rl reproduce`: carry out the grid of a published table and show our results next to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bistable_rl import figure_style
from bistable_rl.benchmarks.check_benchmark import BenchmarkCheck
from bistable_rl.benchmarks.duration import Duration
from bistable_rl.benchmarks.reproduce import fig3, grids, tables
from bistable_rl.benchmarks.tasks.task import DataProtocol
from bistable_rl.compare import ledger
from bistable_rl.compare.check import check_jobs
from bistable_rl.compare.engine import run_grid, unfinished
from bistable_rl.compare.estimate import print_estimate
from bistable_rl.compare.launchers.local import LocalLauncher
from bistable_rl.compare.ledger import Ledger


def reproduce(
    table: str,
    preset: str,
    out: Path,
    *,
    settings: Sequence[str] = (),
    cells: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    protocol: DataProtocol = "paper",
    workers: int | None = None,
    reuse_committed: bool = False,
    estimate: bool = False,
    command: str,
) -> None:
    """Carry out the unfinished runs of a table's grid, and write the whole table into `out/<table>-<preset>`.

    The table shows every finished run there, whichever command started it, and the missing ones. With a protocol other
    than the paper's, the folder is `out/<table>-<preset>-<protocol>`.

    Args:
        table: The table, such as `table1`.
        preset: `paper` or `quick`.
        out: The output folder.
        settings: The rows to carry out, such as `T=50` (default: all).
        cells: The cells to carry out (default: the preset's).
        seeds: The seeds to carry out.
        protocol: The data and order of samples.
        workers: How many runs at once (default: one per core).
        reuse_committed: Also count committed rows as finished; the table marks them.
        estimate: Only print what is left to do and how long it takes.
        command: The command that the table names.

    Raises:
        UserError: If there is no such table, setting, cell or protocol, matplotlib is not installed, or a file is
            broken or cannot be written.
        RunFailedError: If some runs failed; the others are finished and in the table.
    """
    grid = grids.find_grid(preset, table, protocol)
    name = grids.folder_name(table, preset, protocol)
    folder = out / name
    committed = ledger.RESULTS / name if reuse_committed else None
    chosen = grids.with_settings(grid, settings) if settings else grid
    jobs = grids.make_jobs(chosen, folder, list(cells) or list(grid.cells), seeds)
    launcher = LocalLauncher(workers)
    book = Ledger(folder, committed)
    if estimate:
        print_estimate(jobs, book, Duration(launcher.threads), launcher.slots)
        return
    check_jobs(unfinished(jobs, book), BenchmarkCheck(), f"reproduce {table}")
    figure_style.check_installed()
    outcome = run_grid(jobs, folder, launcher, committed=committed)
    if table == "fig3":
        if outcome.rows:
            fig3.draw(outcome.rows, folder / fig3.PICTURE)
            print(f"{folder / fig3.PICTURE}  {fig3.caption(outcome.rows)}")
    else:
        book = Ledger(folder, committed)
        columns = list(dict.fromkeys([*grid.cells, *cells, *book.values("cell")]))
        finished = map(book.row, grids.make_jobs(grid, folder, columns, sorted({*seeds, *book.seeds})))
        rows = [row for row in finished if row is not None]
        print(tables.write_table(folder, table, grid, columns, rows, command))
        print(f"{folder / tables.CSV}, {tables.MARKDOWN}, {tables.PICTURE}")
    outcome.check()
