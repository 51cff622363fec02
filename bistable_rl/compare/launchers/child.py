"""Run a command of `bistable-rl` for a grid, in a process that `bistable_rl.compare.launchers.local` has started.

The grid holds the other end of this process's standard input. When the grid dies, that end closes. The run then stops
as if by Ctrl-C, with a checkpoint, instead of running on unseen.
"""

from __future__ import annotations

import _thread
import os
import runpy
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from bistable_rl.runs import user_modules


def stop_when_closed(pipe: int) -> None:
    """Wait until the other end of a pipe is closed, then interrupt the main thread."""
    while os.read(pipe, 1024):
        pass
    _thread.interrupt_main()


def main(folders: Sequence[str]) -> None:
    """Run the command that `sys.argv` names.

    Args:
        folders: The folders where the grid finds the user's own modules; the run finds them there too.
    """
    threading.Thread(target=stop_when_closed, args=(sys.stdin.fileno(),), daemon=True).start()
    user_modules.search(map(Path, folders))
    runpy.run_module("bistable_rl.cli", run_name="__main__", alter_sys=True)
