"""The `bistable-rl` command, where every error becomes one sentence and an exit code."""

from __future__ import annotations

import sys

try:  # Ctrl-C during an import is answered too
    import errno
    import threading
    import warnings
    from collections.abc import Callable, Sequence

    from bistable_rl.commands import streams
    from bistable_rl.commands.analyze import analyze
    from bistable_rl.commands.benchmark import benchmark
    from bistable_rl.commands.certify import certify
    from bistable_rl.commands.compare import compare
    from bistable_rl.commands.data import data
    from bistable_rl.commands.doctor import doctor
    from bistable_rl.commands.evaluate import evaluate
    from bistable_rl.commands.export import export
    from bistable_rl.commands.figures import figures
    from bistable_rl.commands.list import list_names
    from bistable_rl.commands.parser import HelpShown
    from bistable_rl.commands.play import play
    from bistable_rl.commands.reproduce import reproduce
    from bistable_rl.commands.speed import speed
    from bistable_rl.commands.tensorboard import tensorboard
    from bistable_rl.commands.train import train
    from bistable_rl.commands.tune import tune
    from bistable_rl.errors import DISK_FULL, RunFailedError, UserError, shown, unknown
    from bistable_rl.runs import stopping
except KeyboardInterrupt:
    print("bistable-rl: stopped", file=sys.stderr)
    raise SystemExit(130) from None

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "benchmark": benchmark,
    "reproduce": reproduce,
    "compare": compare,
    "tune": tune,
    "evaluate": evaluate,
    "certify": certify,
    "export": export,
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
    lines = [f"  {name:<11} {(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: bistable-rl COMMAND ...",
            "",
            "Recurrent cells that keep a memory by themselves, and agents that use them.",
            "",
            "commands:",
            *lines,
            "",
            "See `bistable-rl COMMAND --help` for the arguments; start with `bistable-rl train rl/copy_first`.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 2 for a user's error, 1 for a failure, each told in one sentence.

    Any other exception is a bug and leaves with its traceback.
    """
    warnings.formatwarning = lambda message, *_: f"bistable-rl: {message}\n"  # without the line of code
    others, threading.excepthook = threading.excepthook, _thread_failed
    code = 0
    try:
        streams.prepare()
        with stopping.raising():
            code = _run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        streams.say(error)
        cause = error.__cause__ or error.__context__  # `from None` hides the context, and keeps it
        code = 1 if isinstance(cause, OSError) and cause.errno in DISK_FULL else 2
    except RunFailedError as error:
        streams.say(error)
        code = 1
    except KeyboardInterrupt as stopped:
        streams.say("stopped")
        code = stopping.exit_code(stopped.args[0] if stopped.args else None)
    except SystemExit as left:  # from other code, such as an environment
        given = "" if left.code is None else shown(left.code)
        streams.say(f"stopped: code that is not part of bistable-rl called sys.exit({given}).")
        code = 1
    except MemoryError as error:
        streams.say(f"out of memory{f' ({error})' if str(error) else ''}; try smaller sizes.")
        code = 1
    except RecursionError:
        streams.say("stopped: the input is nested too deeply.")
        code = 1
    except OSError as error:
        code = _system_failed(error)
    finally:
        threading.excepthook = others
        if _output_is_lost():
            code = code or 1
        streams.settle(sys.stderr)
    return code


def _system_failed(error: OSError) -> int:
    """Report an error of the operating system; return the exit code."""
    if error.errno == errno.EPIPE and any(map(streams.has_no_reader, (sys.stdout, sys.stderr))):
        return 0  # `bistable-rl list envs | head -1`
    if error.filename is not None:
        streams.say(f"{shown(str(error.filename))}: {error.strerror}.")
        return 2
    if error.errno is None:
        raise error
    if not _output_is_lost():
        full = "a file or the standard output cannot be written: " if error.errno in DISK_FULL else ""
        streams.say(f"{full}{error.strerror}.")
    return 1


def _output_is_lost() -> bool:
    """Flush the standard output; report and return whether that fails, unless its reader has gone away."""
    error = streams.settle(sys.stdout)
    if error is None or error.errno == errno.EPIPE:
        return False
    streams.say(f"the standard output cannot be written: {error.strerror}.")
    return True


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Print the error of a thread, except TensorBoard's writer's of a disk, which the command reports itself."""
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
