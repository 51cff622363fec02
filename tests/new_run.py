"""New runs: the folder alone, or a training in another process."""

import os
import subprocess
import sys
import time
from pathlib import Path

from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment


def new_run(config: Experiment | Benchmark, out: Path, *, overwrite: bool = False) -> Path:
    """Make the folder of a new run and return it."""
    with Run.create(config, out, overwrite=overwrite) as run:
        return run.folder


def started(config: Path, out: Path, *options: str, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Start the command that trains the small experiment almost for ever; return once it has two checkpoints."""
    arguments = ["train", str(config), "--total_steps", "100000000", "--out", str(out), *options]
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "bistable_rl.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while len(Run(out / "small" / "nbrc-seed0").checkpoints.all()) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process
