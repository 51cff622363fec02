"""Run a command of `bistable-rl` for a grid: python -m bistable_rl.compare.child COMMAND ...

The grid holds the other end of this process's standard input. When the grid dies, however it dies, that end closes,
and the run stops as if by Ctrl-C, with a checkpoint, instead of running on unseen.
"""

from __future__ import annotations

import _thread
import os
import runpy
import sys
import threading


def stop_when_closed(pipe: int) -> None:
    """Wait until the other end of a pipe is closed, then interrupt the main thread."""
    while os.read(pipe, 1024):
        pass
    _thread.interrupt_main()


if __name__ == "__main__":
    threading.Thread(target=stop_when_closed, args=(sys.stdin.fileno(),), daemon=True).start()
    runpy.run_module("bistable_rl.cli", run_name="__main__", alter_sys=True)
