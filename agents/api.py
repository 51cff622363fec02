"""`bistable_rl.train`, `resume` and `evaluate`: the commands of these names in Python.

    run = bistable_rl.train("rl/t_maze", {"policy.cell": "gru", "seed": 1})
    print(run.result["evaluation"]["success_rate"])
    agent = bistable_rl.load(run)

They print two things only, on stderr: the file of an imported package, and the options that a cell cannot use.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bistable_rl.agents import training
from bistable_rl.agents.evaluate_run import evaluate_run, evaluate_run_at
from bistable_rl.checks import check_int
from bistable_rl.errors import UserError, user_errors
from bistable_rl.runs import user_modules
from bistable_rl.runs.config import build, find_config
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment, load_config

Source = str | os.PathLike[str] | Mapping[str, Any] | Experiment
"""An experiment: the name of a shipped config, a YAML file, the content of such a file, or an `Experiment`."""


def read_experiment(experiment: Source, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Return an experiment from a name, a file or plain data; a given `Experiment` is not changed.

    Args:
        experiment: As of `train`.
        overrides: As of `train`.

    Raises:
        UserError: If there is no such config, or a key is unknown, missing or wrong.
    """
    changes = overrides or {}
    if isinstance(experiment, Experiment | Mapping):
        user_modules.search([])
        whole = dataclasses.asdict(experiment) if isinstance(experiment, Experiment) else dict(experiment)
        return build(Experiment, copy.deepcopy(whole), "experiment", changes)
    path = find_config(os.fspath(experiment))
    user_modules.search([path.parent])
    return load_config(Experiment, path, changes)


def train(
    experiment: Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str] = "runs",
    overwrite: bool = False,
    progress_bar: bool = False,
    stop: threading.Event | None = None,
) -> Run:
    """Train an agent into a new run folder, as `bistable-rl train CONFIG --KEY VALUE` does.

    Args:
        experiment: The name of a shipped config (`"rl/t_maze"`), a YAML file, a mapping with the content of such a
            file, or an `Experiment`. Where a key takes `package:Name`, Python takes the class too; the run keeps its
            name.
        overrides: Keys to change, by their full names, such as `{"policy.cell": "gru", "env.kwargs.length": 100}`.
        out: The output folder; the run goes to `out/<name>/<cell>-seed<k>`.
        overwrite: Replace an existing run instead of numbering the new one.
        progress_bar: Show the progress and the evaluations on stderr.
        stop: An event. When another thread sets it, the training ends at the next step, with a checkpoint; the status
            is then "interrupted".

    Returns:
        The run, with `run.folder`, `run.result` (the content of result.json) and `run.metrics.rows()`;
        `bistable_rl.load(run)` is its agent.

    Raises:
        UserError: If something in the experiment is wrong (then nothing has been written), or the disk is full.
        RunFailedError: If a NaN, or an error of the environment or a callback, ended the training.
        KeyboardInterrupt: If Ctrl-C or another signal stopped it, after its checkpoint; `resume` continues it.
    """
    read = read_experiment(experiment, overrides)
    return _ended(training.train(read, Path(out), overwrite=overwrite, stop=stop, progress_bar=progress_bar))


def resume(
    run: Run | str | os.PathLike[str],
    *,
    total_steps: int | None = None,
    progress_bar: bool = False,
    stop: threading.Event | None = None,
) -> Run:
    """Resume a run from its last checkpoint, as `bistable-rl train --resume RUN_DIR` does; a finished run stays as is.

    Args:
        run: The run or its folder.
        total_steps: Environment steps to train for, in place of the number in its config.
        progress_bar: As of `train`.
        stop: As of `train`.

    Returns:
        The run.

    Raises:
        UserError: If something in the folder is wrong, another process trains in it, or the disk is full.
        RunFailedError: As of `train`.
        KeyboardInterrupt: As of `train`.
    """
    opened = Run.open(run)
    opened.experiment({} if total_steps is None else {"total_steps": total_steps})  # refuses a wrong number
    training.resume(opened, total_steps=total_steps, stop=stop, progress_bar=progress_bar)
    return _ended(opened)


def _ended(run: Run | Path) -> Run:
    """Return the run after its training has ended; raise if a signal ended it."""
    ended = Run.open(run)
    result = ended.result
    if result is not None and result["status"] == "interrupted" and result["signal"] is not None:
        raise KeyboardInterrupt
    return ended


def evaluate(
    run: Run | str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    episodes: int = 100,
    best: bool = False,
    max_episode_steps: int | None = None,
    horizons: Sequence[int] = (),
    streams: Sequence[str] = (),
) -> dict[str, Any]:
    """Play episodes with the agent of a run, as `bistable-rl evaluate RUN_DIR` does.

    `--figure` has no counterpart here; the counterpart of `--adversary` is `bistable_rl.agents.adversary.attack`.

    Args:
        run: The run or its folder, finished or stopped.
        overrides: Keys of its environment to change, such as `{"env.kwargs.length": 100}`.
        episodes: The number of episodes. With horizons or streams, this many at each of them, and as many again with
            sampled actions.
        best: Load the checkpoint with the best evaluation instead of the last one.
        max_episode_steps: Steps in which an episode must end; None for the number in the run's config.
        horizons: Values of the argument that sets the environment's horizon.
        streams: Kinds of streams of distractors.

    Returns:
        The content of the file that `--json` writes: `run`, `steps` (of the training) and `env`; and `success_rate`,
        `return_mean`, `return_std`, `length_mean` and `episodes`. With horizons or streams: `argument`, `trained`, and
        in `horizons` one row for each.

    Raises:
        UserError: If there is no run, an override is wrong, or the environment does not fit the agent.
        RunFailedError: If the environment fails during an episode.
    """
    with user_errors("evaluate", ValueError):
        check_int("episodes", episodes, 1)
        if max_episode_steps is not None:
            check_int("max_episode_steps", max_episode_steps, 1)
    changes = overrides or {}
    for key in changes:
        if key.split(".")[0] != "env" or key == "env.num_envs":
            raise UserError(
                f"overrides: {key} cannot be changed; keys of the environment such as env.kwargs.length can."
            )
    if not horizons and not streams:
        return evaluate_run(run, changes, best=best, episodes=episodes, max_episode_steps=max_episode_steps)
    return evaluate_run_at(
        run,
        changes,
        horizons=horizons,
        streams=streams,
        episodes=episodes,
        best=best,
        max_episode_steps=max_episode_steps,
    )
