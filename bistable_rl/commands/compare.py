"""`bistable-rl compare`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from bistable_rl.commands.figure_options import add_figure_options
from bistable_rl.commands.launching import add_launcher, check_launcher, make_launcher
from bistable_rl.commands.parser import OWN_ENVIRONMENT, REUSE_COMMITTED, Parser, path
from bistable_rl.runs import user_modules
from bistable_rl.runs.config import find_config, shipped_configs
from bistable_rl.runs.schema import Benchmark, Experiment


def compare(argv: Sequence[str]) -> int:
    """Train a grid of variants and seeds, and report how they compare."""
    parser = Parser(
        "compare",
        "Train a base experiment with every variant, grid value and seed of a config file, and write a report that\n"
        "compares them into OUT/<name>. Finished runs are never repeated: after Ctrl-C, a crash, or with more\n"
        "seeds in the file, the same command continues.\n"
        f"{OWN_ENVIRONMENT.format(folders='the folder of CONFIG or of its base, then in the current one')}\n"
        f"Shipped comparisons: {', '.join(name for name in shipped_configs() if name.startswith('compare/'))}",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped comparison")
    parser.add_argument("--out", metavar="DIR", type=path, default=Path("runs"), help="output folder (default: runs)")
    add_launcher(parser)
    parser.add_argument("--reuse-committed", action="store_true", help=REUSE_COMMITTED)
    parser.add_argument("--dry-run", action="store_true", help="list the runs to do and estimate the time")
    add_figure_options(parser, formats=True)
    args = parser.parse_args(argv)
    check_launcher("compare", args)
    config = find_config(args.config)

    from bistable_rl.agents.check_experiment import ExperimentCheck
    from bistable_rl.benchmarks.check_benchmark import BenchmarkCheck
    from bistable_rl.compare.base import folders
    from bistable_rl.compare.command import compare
    from bistable_rl.figure_style import writing

    user_modules.search(folders(config))
    here = args.launcher == "local"
    of_agents, of_benchmarks = ExperimentCheck(devices=here), BenchmarkCheck(devices=here)

    def check(training: Experiment | Benchmark) -> set[str]:
        return of_agents(training) if isinstance(training, Experiment) else of_benchmarks(training)

    launcher = make_launcher(args)
    command = shlex.join(["bistable-rl", "compare", *argv])
    reuse, dry_run = args.reuse_committed, args.dry_run
    with writing(args.format, args.dpi):
        compare(config, args.out, launcher, check, reuse_committed=reuse, dry_run=dry_run, command=command)
    return 0
