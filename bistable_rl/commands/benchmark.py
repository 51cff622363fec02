"""`bistable-rl benchmark`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from bistable_rl.commands.parser import path
from bistable_rl.commands.training import TrainingParser, exit_code, say_result, say_resume
from bistable_rl.errors import UserError
from bistable_rl.runs.config import find_config, shipped_configs
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, load_config


def benchmark(argv: Sequence[str]) -> int:
    """Train a network on a supervised benchmark."""
    parser = TrainingParser(
        "benchmark",
        "Train a network from a config file into the run folder OUT/<name>/<cell>-seed<k>, or resume a run.\n"
        "Every key of the config is an option: --network.cell gru --task.kwargs.length 50 --seed 1\n"
        f"Shipped configs: {', '.join(name for name in shipped_configs() if name.startswith('supervised/'))}",
        Benchmark,
        resume="resume the run of this folder",
    )
    parser.add_argument("--data-dir", metavar="DIR", type=path, help="the folder of MNIST (default: BISTABLE_RL_DATA)")
    args, overrides = parser.parse_overrides(argv)
    if args.resume is not None and overrides:
        raise UserError(f"benchmark: a run resumes with its own config.yaml; {overrides[0]} cannot change it.")
    if args.data_dir is not None:
        os.environ["BISTABLE_RL_DATA"] = str(args.data_dir)
    if args.resume is None:
        config = load_config(Benchmark, find_config(args.config), overrides)

        from bistable_rl.benchmarks.runner import start

        run = Run(start(config, args.out, overwrite=args.overwrite))
    else:
        from bistable_rl.benchmarks.runner import resume

        run = Run.open(args.resume)
        resume(run)
    result = say_result(run, "updates", _print_errors)
    say_resume(run, result)
    return exit_code(result)


def _print_errors(evaluation: Mapping[str, Any]) -> None:
    print(", ".join(f"{name} {value:.4f}" for name, value in evaluation.items()) + " on the test set")
