"""A run folder that no training has begun in yet."""

from pathlib import Path

from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment


def new_run(config: Experiment | Benchmark, out: Path, *, overwrite: bool = False) -> Path:
    """Make the folder of a new run and return it."""
    with Run.create(config, out, overwrite=overwrite) as run:
        return run.folder
