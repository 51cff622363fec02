"""`bistable-rl tune`: carry out a study and write its report, or estimate how long it takes."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import optuna

from bistable_rl import figure_style
from bistable_rl.compare.check import Check
from bistable_rl.compare.estimate import duration, train_briefly
from bistable_rl.compare.launchers import Launcher
from bistable_rl.errors import RunFailedError
from bistable_rl.runs.files import inside, make_folder
from bistable_rl.runs.progress import say_measuring
from bistable_rl.tune.objective import Objective
from bistable_rl.tune.report import BEST, PAGE, finished, summary, write_report, write_trials
from bistable_rl.tune.storage import Storage, counted, sqlite_url, turn
from bistable_rl.tune.trials import SECONDS, WHY, Tuner
from bistable_rl.tune.tuning import Plan, check_plan, read

FOLDER, DATABASE = "tune", "study.db"
"""The folder of all studies in the output folder, and the file that is the storage of one."""


def tune(
    path: Path,
    out: Path,
    launcher: Launcher,
    check: Check[Mapping[str, Collection[str]]],
    *,
    storage: str | None = None,
    trials: int | None = None,
    dry_run: bool = False,
    command: list[str],
) -> None:
    """Carry out the remaining trials of a study, then write its report into `out/tune/<name>`.

    Args:
        path: The study's config file.
        out: The output folder.
        launcher: The launcher of the runs.
        check: As in `bistable_rl.tune.tuning.check_plan`.
        storage: The URL of the storage (default: an SQLite file in the study's folder).
        trials: The number of all trials, instead of the number in the file.
        dry_run: Only print the number of remaining trials and the time that they take.
        command: The command that the report quotes.

    Raises:
        UserError: If something in the file is wrong (then nothing is written), the storage cannot be opened or holds
            another study of that name, matplotlib is not installed, or a file cannot be written.
        RunFailedError: If no trial has finished, or the storage fails.
    """
    figure_style.check_installed()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plan = read(path)
    total, folder = trials or plan.tuning.trials, out / FOLDER / plan.tuning.name
    objective = Objective(plan, check_plan(plan, check))
    database = folder / DATABASE
    if dry_run and storage is None and not database.exists():
        _estimate(plan, None, total, launcher)
        return
    if storage is None:
        with turn(make_folder(folder)):  # two processes at once would make the same tables
            kept = Storage(sqlite_url(inside(folder, DATABASE)))
    else:
        kept = Storage(storage)
    study = kept.study(plan, len(plan.tuning.seeds) * objective.evaluations, create=not dry_run)
    if dry_run:
        _estimate(plan, study, total, launcher)
        return
    assert study is not None
    make_folder(folder)
    Tuner(plan, objective, study, kept, folder, launcher, total, lambda: write_trials(folder, plan, study)).carry_out()
    words = [word.replace(storage or kept.shown, kept.shown) for word in command]
    with kept.errors(RunFailedError):
        _finish(folder, plan, study, shlex.join(words))


def _finish(folder: Path, plan: Plan, study: optuna.Study, command: str) -> None:
    """Write the report and print a summary."""
    write_trials(folder, plan, study)
    if not finished(study):
        why = [trial.user_attrs[WHY] for trial in study.get_trials(deepcopy=False) if WHY in trial.user_attrs]
        raise RunFailedError(f"no trial has finished, of {summary(study)}" + (f"; the first: {why[0]}" if why else "."))
    report = write_report(folder, plan, study, command)
    best = study.best_trial
    print(f"best:   trial {best.number}, {plan.tuning.objective.name} {best.value:.6g}: {folder / BEST}")
    print(f"report: {report}, {folder / PAGE}, of {summary(study)}")
    print(f"train:  bistable-rl {plan.kind.COMMAND} {folder / BEST}")


def _estimate(plan: Plan, study: optuna.Study | None, total: int, launcher: Launcher) -> None:
    """Print how many trials have ended, how many remain, and how long the remaining ones take if none is pruned."""
    trials = [] if study is None else counted(study.get_trials(deepcopy=False))
    ended = [trial for trial in trials if trial.state.is_finished()]
    left = max(0, total - len(ended))
    line = f"{plan.tuning.name}  {len(ended)} finished, {left} to do"
    if left:
        known = [trial.user_attrs[SECONDS] for trial in (finished(study) if study is not None else ())]
        if not known:
            say_measuring("the base", 1, 1)
        seeds = len(plan.tuning.seeds)
        seconds = float(np.mean(known)) if known else seeds * train_briefly(plan.config({}), launcher)
        print(f"{line}, about {duration(seconds)} each")
        slots = launcher.slots
        line = f"{left} trials to do, at most about {duration(left * seconds / slots)} with {slots} at once"
    print(line)
