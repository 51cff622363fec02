"""`bistable-rl reproduce`."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from bistable_rl.commands.figure_options import add_figure_options
from bistable_rl.commands.parser import REUSE_COMMITTED, Parser, count, path, seed
from bistable_rl.errors import UserError


def reproduce(argv: Sequence[str]) -> int:
    """Reproduce a published table, with our results next to it."""
    parser = Parser(
        "reproduce",
        "Train the grid of a published table, and write our results next to the published ones into OUT/TABLE-PRESET.\n"
        "Finished runs are never repeated: after Ctrl-C, a crash, or with more seeds, the same command continues.\n"
        "The table shows every finished run, whichever command started it, and lists the missing ones.",
    )
    names = ("table1", "table2", "table3", "table4", "table5", "johns", "fig3")
    parser.add_argument("table", choices=names)
    parser.add_argument(
        "--preset",
        choices=("quick", "paper"),
        default="quick",
        help="small sizes, or the sizes of the paper; johns has only those (default: quick)",
    )
    parser.add_argument(
        "--protocol",
        choices=("paper", "authors_code"),
        default="paper",
        help="follow the paper's text, or its authors' code. The latter is written to OUT/TABLE-PRESET-"
        "authors_code: samples in one order, other flags in table2, permuted rows and grey lines in table4 and table5, "
        "one N in table5; with --preset paper also its 100 epochs and sizes (default: paper)",
    )
    parser.add_argument("--settings", metavar="SETTING,...", help="rows of the table, such as T=5,T=50 (default: all)")
    parser.add_argument("--cells", metavar="CELL,...", help="cells (default: those of the preset)")
    parser.add_argument("--seeds", metavar="K,...", default="0,1,2", help="seeds (default: 0,1,2)")
    parser.add_argument("--workers", metavar="N", type=count, help="simultaneous runs (default: one per core)")
    parser.add_argument("--out", metavar="DIR", type=path, default=Path("runs"), help="output folder (default: runs)")
    parser.add_argument("--reuse-committed", action="store_true", help=REUSE_COMMITTED)
    parser.add_argument(
        "--estimate", action="store_true", help="estimate the time on this machine from a few updates of each run"
    )
    parser.add_argument("--data-dir", metavar="DIR", type=path, help="the folder of MNIST (default: BISTABLE_RL_DATA)")
    add_figure_options(parser, formats=True)
    args = parser.parse_args(argv)
    try:
        seeds = [seed(text) for text in args.seeds.split(",")]
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--seeds: {error}.") from None
    if args.data_dir is not None:
        os.environ["BISTABLE_RL_DATA"] = str(args.data_dir)

    from bistable_rl.benchmarks.reproduce.reproduce import reproduce
    from bistable_rl.figure_style import writing

    with writing(args.format, args.dpi):
        reproduce(
            args.table,
            args.preset,
            args.out,
            settings=[] if args.settings is None else args.settings.split(","),
            cells=[] if args.cells is None else list(dict.fromkeys(args.cells.split(","))),
            seeds=list(dict.fromkeys(seeds)),
            protocol=args.protocol,
            workers=args.workers,
            reuse_committed=args.reuse_committed,
            estimate=args.estimate,
            command=shlex.join(["bistable-rl", "reproduce", *argv]),
        )
    return 0
