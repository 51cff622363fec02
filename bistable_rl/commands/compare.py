"""`bistable-rl compare`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from bistable_rl.commands.parser import OWN_ENVIRONMENT, Parser, count, path
from bistable_rl.errors import UserError
from bistable_rl.runs import user_modules
from bistable_rl.runs.config import find_config, shipped_configs
from bistable_rl.runs.schema import Benchmark, Experiment


def compare(argv: Sequence[str]) -> int:
    """Run a grid of trainings and report how they differ."""
    parser = Parser(
        "compare",
        "Train a base experiment with every variant, grid value and seed of a config file, and write a report of\n"
        "how they differ into OUT/<name>. What is finished is never repeated: after Ctrl-C, a crash, or with more\n"
        "seeds in the file, the same command goes on.\n"
        f"{OWN_ENVIRONMENT.format(folders='the folder of CONFIG or of its base, then in the current one')}\n"
        f"Shipped comparisons: {', '.join(name for name in shipped_configs() if name.startswith('compare/'))}",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped comparison")
    parser.add_argument("--out", metavar="DIR", type=path, default=Path("runs"), help="output folder (default: runs)")
    parser.add_argument("--workers", metavar="N", type=count, help="runs at once (default: one a core)")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local", help="where (default: local)")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="the Ray cluster's (default: RAY_ADDRESS, or one made here)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do and about how long it takes")
    args = parser.parse_args(argv)
    if args.address is not None and args.launcher != "ray":
        raise UserError("compare: --address names a Ray cluster; give --launcher ray with it.")
    config = find_config(args.config)

    from bistable_rl.agents.check_experiment import ExperimentCheck
    from bistable_rl.benchmarks.check_benchmark import BenchmarkCheck
    from bistable_rl.compare import comparison
    from bistable_rl.compare.command import compare
    from bistable_rl.compare.launchers.local import LocalLauncher
    from bistable_rl.compare.launchers.ray import RayLauncher

    user_modules.search(comparison.folders(config))
    ray = args.launcher == "ray"
    of_agents, of_benchmarks = ExperimentCheck(devices=not ray), BenchmarkCheck(devices=not ray)

    def check(training: Experiment | Benchmark) -> set[str]:
        return of_agents(training) if isinstance(training, Experiment) else of_benchmarks(training)

    launcher = RayLauncher(args.workers, args.address) if ray else LocalLauncher(args.workers)
    command = shlex.join(["bistable-rl", "compare", *argv])
    compare(config, args.out, launcher, check, dry_run=args.dry_run, command=command)
    return 0
