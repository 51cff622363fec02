"""A training in miniature, for tests of grids: python fake_run.py RUN_DIR.

It keeps a run folder as the real ones do (config, environment, metrics, result), a step every few milliseconds, goes on
from its last step when it was killed, and computes numbers from cell, seed and step alone. The cell "goru" fails.
Where the environment variable FAKE_RUN_GATE names a file, a run ends only once that file exists.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:  # it is to start quickly
    from bistable_rl.compare.jobs import Job

STEPS = 8
SECONDS = 0.03  # a step takes


def command(job: Job) -> Sequence[str]:
    """Return the command that runs a job."""
    return [sys.executable, __file__, str(job.folder)]


def success(cell: str, seed: int, step: int) -> float:
    """Return the success rate after a number of steps, up to STEPS."""
    best = {"nbrc": 1.0, "brc": 0.9, "gru": 0.5, "lstm": 0.6}[cell]
    return round(best * step / STEPS - 0.01 * seed, 6)


def run(folder: Path) -> int:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    cell, seed, every = config["policy"]["cell"], config["seed"], config["total_steps"] // STEPS
    with (folder / "starts").open("a") as starts:
        print(f"{os.environ['OMP_NUM_THREADS']}:{os.getpid()}", file=starts)
    environment = {"date": "2026-01-01T00:00:00+00:00", "commit": "c0ffee", "processor": "P", "cores": 2}
    environment |= {"device": "cpu", "threads": 1}
    (folder / "environment.json").write_text(json.dumps(environment))
    interrupted = {"status": "interrupted", "steps": 0, "seconds": 0, "evaluation": None}
    (folder / "result.json").write_text(json.dumps(interrupted))
    if cell == "goru":
        print("bistable-rl: the gradient became NaN.", file=sys.stderr)
        return 1
    metrics = folder / "metrics.csv"
    if not metrics.exists():
        metrics.write_text("time/total_timesteps,time/time_elapsed,train/loss,eval/success_rate\n")
    with metrics.open() as file:
        done = [row for row in csv.DictReader(file) if row["eval/success_rate"]]
    lines = [f"{row['time/total_timesteps']},{row['time/time_elapsed']},,{row['eval/success_rate']}\n" for row in done]
    metrics.write_text("time/total_timesteps,time/time_elapsed,train/loss,eval/success_rate\n" + "".join(lines))
    for step in range(len(done) + 1, STEPS + 1):
        time.sleep(SECONDS)
        with metrics.open("a") as file:
            file.write(f"{step * every},{step * SECONDS},0.5,{success(cell, seed, step)}\n")
    gate = Path(os.environ.get("FAKE_RUN_GATE", folder))
    while not gate.exists():
        time.sleep(SECONDS)
    final = {"success_rate": success(cell, seed, STEPS), "return_mean": None}
    result = {"status": "finished", "steps": STEPS * every, "seconds": 1.5, "peak_memory_mb": 100, "evaluation": final}
    (folder / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    sys.exit(run(Path(sys.argv[1])))
