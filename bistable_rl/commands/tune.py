"""`bistable-rl tune`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from bistable_rl.commands.figure_options import add_figure_options
from bistable_rl.commands.launching import add_launcher, check_launcher, make_launcher
from bistable_rl.commands.parser import OWN_ENVIRONMENT, Parser, count, path
from bistable_rl.errors import UserError
from bistable_rl.runs import user_modules
from bistable_rl.runs.config import find_config, shipped_configs
from bistable_rl.runs.schema import Benchmark, Experiment


def tune(argv: Sequence[str]) -> int:
    """Search for the best values of the keys of a config."""
    parser = Parser(
        "tune",
        "Search the space of a config file with Optuna: train a base experiment again and again with other values\n"
        "of its keys, stop trials that fall behind the others, and write a report and the best config found into\n"
        "OUT/tune/<name>. After Ctrl-C, a crash or with more --trials, the same command continues; several\n"
        "processes and machines may work on one --storage.\n"
        f"{OWN_ENVIRONMENT.format(folders='the folder of CONFIG or of its base, then in the current one')}\n"
        f"Shipped studies: {', '.join(name for name in shipped_configs() if name.startswith('tune/'))}",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped study")
    parser.add_argument("--out", metavar="DIR", type=path, default=Path("runs"), help="output folder (default: runs)")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="a database, postgresql+psycopg2://user@host/name (default: sqlite, OUT/tune/<name>/study.db)",
    )
    parser.add_argument(
        "--trials", metavar="N", type=count, help="trials of all processes together (default: the file's)"
    )
    add_launcher(parser)
    parser.add_argument("--dry-run", action="store_true", help="list the trials to do and estimate the time")
    add_figure_options(parser, formats=True)
    args = parser.parse_args(argv)
    check_launcher("tune", args)
    config = find_config(args.config)
    if find_spec("optuna") is None:
        raise UserError("tune needs Optuna: install it with pip install 'bistable-rl[tune]'.")

    from bistable_rl.agents.check_experiment import ExperimentCheck, metric_columns
    from bistable_rl.benchmarks.check_benchmark import BenchmarkCheck
    from bistable_rl.compare.base import folders
    from bistable_rl.figure_style import writing
    from bistable_rl.tune.command import tune

    user_modules.search(folders(config))
    here = args.launcher == "local"
    of_agents, of_benchmarks = ExperimentCheck(devices=here), BenchmarkCheck(devices=here)

    def check(training: Experiment | Benchmark) -> Mapping[str, Collection[str]]:
        if isinstance(training, Experiment):
            return metric_columns(training, of_agents(training))
        return {name: ["train/loss" if name == "train_loss" else f"eval/{name}"] for name in of_benchmarks(training)}

    launcher, command = make_launcher(args), ["bistable-rl", "tune", *argv]
    storage, trials, dry_run = args.storage, args.trials, args.dry_run
    with writing(args.format, args.dpi):
        tune(config, args.out, launcher, check, storage=storage, trials=trials, dry_run=dry_run, command=command)
    return 0
