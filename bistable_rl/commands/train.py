"""`bistable-rl train`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bistable_rl.commands.evaluate import print_summary
from bistable_rl.commands.parser import OWN_ENVIRONMENT, keys
from bistable_rl.commands.training import TrainingParser, exit_code, say_result, say_resume
from bistable_rl.errors import UserError
from bistable_rl.runs import user_modules
from bistable_rl.runs.config import find_config, shipped_configs
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment, load_config


def train(argv: Sequence[str]) -> int:
    """Train an agent from a config file."""
    parser = TrainingParser(
        "train",
        "Train an agent from a config file into the run folder OUT/<name>/<cell>-seed<k>, or resume a run.\n"
        "Every key of the config is an option: --policy.cell gru --env.kwargs.length 100 --seed 1\n"
        f"{OWN_ENVIRONMENT.format(folders='the folder of CONFIG, then in the current one')}\n"
        f"Shipped configs: {', '.join(name for name in shipped_configs() if name.startswith('rl/'))}",
        Experiment,
        resume="resume the run of this folder, up to --total_steps if given",
    )
    args, overrides = parser.parse_overrides(argv)
    if args.resume is None:
        config = find_config(args.config)
        experiment = load_config(Experiment, config, overrides)
        user_modules.search([config.parent])

        from bistable_rl.agents.training import train

        run = Run(train(experiment, args.out, overwrite=args.overwrite))
    else:
        for key in keys(overrides):
            if key != "--total_steps":
                raise UserError(
                    f"train: a run resumes with its own config.yaml; {key} cannot be changed, only --total_steps."
                )
        run = Run.open(args.resume)
        total_steps = run.experiment(overrides).total_steps

        from bistable_rl.agents.training import resume

        if run.finished(total_steps):
            print(f"{run} has finished already; a larger --total_steps continues it.")
        resume(run, total_steps=total_steps)
    result = say_result(run, "steps", print_summary)
    say_resume(run, result)
    print(f"watch:    {shlex.join(['bistable-rl', 'tensorboard', str(run.folder.parent)])}")
    print(f"evaluate: {shlex.join(['bistable-rl', 'evaluate', str(run)])}")
    return exit_code(result)
