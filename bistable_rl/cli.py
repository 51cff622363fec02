"""The `bistable-rl` command: the door to everything, and where an error becomes one sentence."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence

from bistable_rl import stopping
from bistable_rl.commands.analyze import analyze
from bistable_rl.commands.benchmark import benchmark
from bistable_rl.commands.compare import compare
from bistable_rl.commands.data import data
from bistable_rl.commands.doctor import doctor
from bistable_rl.commands.evaluate import evaluate
from bistable_rl.commands.figures import figures
from bistable_rl.commands.list import list_names
from bistable_rl.commands.parser import HelpShown
from bistable_rl.commands.play import play
from bistable_rl.commands.reproduce import reproduce
from bistable_rl.commands.speed import speed
from bistable_rl.commands.tensorboard import tensorboard
from bistable_rl.commands.train import train
from bistable_rl.config import UserError, unknown
from bistable_rl.runs import RunFailedError

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "benchmark": benchmark,
    "reproduce": reproduce,
    "compare": compare,
    "evaluate": evaluate,
    "play": play,
    "analyze": analyze,
    "figures": figures,
    "tensorboard": tensorboard,
    "speed": speed,
    "data": data,
    "list": list_names,
    "doctor": doctor,
}


def _help() -> str:
    lines = [f"  {name:<11} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: bistable-rl COMMAND ...",
            "",
            "Recurrent cells that keep a memory by themselves, and agents that use them.",
            "",
            "commands:",
            *lines,
            "",
            "`bistable-rl COMMAND --help` tells more; start with `bistable-rl train rl/copy_first`.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's error becomes one sentence and exit code 2, a failed run exit code 1."""
    warnings.formatwarning = lambda message, *_: f"bistable-rl: {message}\n"  # a sentence, without the line of code
    others, threading.excepthook = threading.excepthook, _thread_failed
    try:
        with stopping.raising():
            code = _run(list(sys.argv[1:] if argv is None else argv))
            sys.stdout.flush()  # a reader that has gone away is met here, not when Python ends
            return code
    except UserError as error:
        print(f"bistable-rl: {error}", file=sys.stderr)
        return 2
    except RunFailedError as error:
        print(f"bistable-rl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print("bistable-rl: stopped", file=sys.stderr)
        return stopping.exit_code(stopped.args[0] if stopped.args else None)
    except SystemExit as error:
        asked = "" if error.code is None else repr(error.code)
        print(f"bistable-rl: an environment or a library called sys.exit({asked}), which ended this.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `bistable-rl list envs | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        threading.excepthook = others


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Print what a thread died of, but for a disk that TensorBoard's writer met: the command says that itself."""
    if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(failure)


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"bistable-rl {version('bistable-rl')}")
        return 0
    if argv[0] not in COMMANDS:
        raise UserError(unknown("command", argv[0], COMMANDS))
    try:
        return COMMANDS[argv[0]](argv[1:])
    except HelpShown:
        return 0


if __name__ == "__main__":
    sys.exit(main())
