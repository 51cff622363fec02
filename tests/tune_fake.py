"""A study of fake trainings, in a process that a test kills: python tune_fake.py CONFIG OUT [STORAGE]."""

import sys
from pathlib import Path

import fake_run

from bistable_rl.compare.launchers.local import LocalLauncher
from bistable_rl.runs.schema import Experiment
from bistable_rl.tune.command import tune


def check(experiment: Experiment) -> dict[str, list[str]]:
    """Return what a fake training can be judged by."""
    return {"success_rate": ["eval/success_rate"], "mean_reward": ["eval/mean_reward"]}


def study(path: Path, out: Path, storage: str | None = None, workers: int = 1, **options: bool | int) -> Path:
    """Carry out a study and return its folder."""
    launcher = LocalLauncher(workers, fake_run.command)
    trials, dry_run = options.get("trials"), bool(options.get("dry_run"))
    words = ["bistable-rl", "tune", path.name, *(["--storage", storage] if storage else [])]
    tune(path, out, launcher, check, storage=storage, trials=trials, dry_run=dry_run, command=words)
    return out / "tune" / "small"


if __name__ == "__main__":
    study(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if sys.argv[3:] else None)
