"""`bistable-rl train`."""

from __future__ import annotations

from collections.abc import Sequence

from bistable_rl import runs
from bistable_rl.commands.evaluate import print_summary
from bistable_rl.commands.parser import keys
from bistable_rl.commands.training import TrainingParser, say_result
from bistable_rl.config import UserError, find_config, shipped_configs
from bistable_rl.experiments import Experiment, load_experiment


def train(argv: Sequence[str]) -> int:
    """Train an agent from a config file."""
    parser = TrainingParser(
        "train",
        "Train an agent from a config file into a run folder, OUT/<name>/<cell>-seed<k>, or go on with a run.\n"
        "Any key of the config can be overridden: --policy.cell gru --env.kwargs.length 100 --seed 1\n"
        f"Shipped configs: {', '.join(name for name in shipped_configs() if name.startswith('rl/'))}",
        Experiment,
        resume="go on with the run of this folder, to --total_steps if given",
    )
    args, overrides = parser.parse_overrides(argv)
    if args.resume is None:
        experiment = load_experiment(find_config(args.config), overrides)

        from bistable_rl.agents.training import train

        run = train(experiment, args.out, overwrite=args.overwrite)
    else:
        for key in keys(overrides):
            if key != "--total_steps":
                raise UserError(f"train: a run goes on as its config.yaml says, but for --total_steps; {key} is fixed.")
        run = args.resume
        total_steps = runs.read_experiment(run, overrides).total_steps

        from bistable_rl.agents.training import is_finished, resume

        if is_finished(run, total_steps):
            print(f"{run} has finished already; a larger --total_steps makes it go on.")
        resume(run, total_steps=total_steps)
    result = say_result(run, "steps")
    if result["evaluation"]:
        print_summary(result["evaluation"])
    print(f"watch:    tensorboard --logdir {run.parent}\nevaluate: bistable-rl evaluate {run}")
    return 130 if result["status"] == "interrupted" else 0
