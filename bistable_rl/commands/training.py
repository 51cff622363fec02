"""The arguments and the final message that `bistable-rl train` and `bistable-rl benchmark` share."""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bistable_rl.commands.parser import Parser, path
from bistable_rl.errors import UserError
from bistable_rl.runs import stopping
from bistable_rl.runs.folder import RESULT
from bistable_rl.runs.keys import help_of
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment


class TrainingParser(Parser):
    """The parser of a command that trains a config or resumes a run; the config's keys are also options."""

    def __init__(self, command: str, description: str, kind: type[Experiment | Benchmark], *, resume: str) -> None:
        super().__init__(command, description)
        self.command, self.kind = command, kind
        self.add_argument("config", metavar="CONFIG", nargs="?", help="a YAML file, or the name of a shipped config")
        self.add_argument("--out", metavar="DIR", type=path, help="output folder (default: runs)")
        self.add_argument(
            "--overwrite", action="store_true", help="replace an existing run instead of numbering the new one"
        )
        self.add_argument("--resume", metavar="RUN_DIR", type=path, help=resume)

    def parse_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse as `Parser` does and require a config or a run to resume; the help lists the keys of the config."""
        if any(token in ("-h", "--help") for token in argv):
            self.print_help()
            print("\nkeys of the config, which are options too:\n")
            print(help_of(self.kind))
            self.exit()
        args, overrides = super().parse_overrides(argv)
        if (args.config is None) == (args.resume is None):
            raise UserError(f"{self.command}: name a CONFIG to train, or a run to resume with --resume RUN_DIR.")
        if args.resume is not None and (args.out is not None or args.overwrite):
            option = "--overwrite" if args.overwrite else "--out"
            raise UserError(f"{self.command}: {option} is for a new run; --resume continues in {args.resume}.")
        args.out = args.out or Path("runs")
        return args, overrides


def say_result(run: Run, unit: str, show: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Print how a training ended, with its steps in the given unit, and return its result.

    Raises:
        UserError: If result.json is missing or broken.
    """
    result = run.result
    if result is None:
        raise UserError(f"{run} holds no {RESULT}; --resume continues the run.")
    print(f"{result['status']}: {result['steps']:,} {unit} in {result['seconds']:,.0f} s, in {run}")
    try:
        if result["evaluation"]:
            show(result["evaluation"])
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.folder / RESULT} is broken: its evaluation cannot be shown ({type(error).__name__}: {error}); "
            "delete it, and --resume writes it again."
        ) from None
    return result


def say_resume(run: Run, result: Mapping[str, Any]) -> None:
    """Print the command that continues a training that was stopped."""
    if result["status"] == "interrupted":
        print(f"resume:   {shlex.join(['bistable-rl', run.config.COMMAND, '--resume', str(run)])}")


def exit_code(result: Mapping[str, Any]) -> int:
    """Return the exit code of a training: 0 if it finished, 128 + the number of the signal if one stopped it."""
    if result["status"] != "interrupted":
        return 0
    return stopping.exit_code(getattr(signal, str(result.get("signal")), None))
