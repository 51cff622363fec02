"""Further loggers that a config names: SB3's csv and json, W&B, and your own `package:Name`.

After every update they get the values in SB3's logger. metrics.csv and TensorBoard are always written.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import JSONOutputFormat, KVWriter, filter_excluded_keys

from bistable_rl.errors import UserError, one_sentence, user_errors
from bistable_rl.runs.config import to_dict
from bistable_rl.runs.files import inside, read_json, write_json, write_text
from bistable_rl.runs.folder import PROGRESS_CSV, PROGRESS_JSON, WANDB
from bistable_rl.runs.keys import named_part
from bistable_rl.runs.named import built, resolve
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment

STEPS = "time/total_timesteps"


class ProgressCSV(KVWriter):
    """progress.csv: one column for every logged name, including those of the user's callbacks.

    Args:
        folder: The run folder.
        first_step: Rows from this step on are dropped; they are written again.

    Raises:
        UserError: If an existing file has no column of steps.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._path = inside(folder, PROGRESS_CSV)
        rows = self._rows() if self._path.exists() else []
        self._columns = list(rows[0]) if rows else []
        self._rewrite([row for row in rows if (row[STEPS] or "").isdecimal() and int(row[STEPS]) < first_step])

    def _rows(self) -> list[dict[str, str]]:
        with self._path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
        if rows and STEPS not in rows[0]:
            raise UserError(f"{self._path} is broken: it has no column {STEPS}; move it away to begin a new one.")
        return rows

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._path, text.getvalue())

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append a row."""
        row = _simple(filter_excluded_keys(key_values, key_excluded, "csv"))
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite(self._rows())
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(row)

    def close(self) -> None:
        """Do nothing: the file is open only while it is written."""


class ProgressJSON(JSONOutputFormat):
    """progress.json: one JSON object per line, as SB3 writes it.

    Args:
        folder: The run folder.
        first_step: Lines from this step on are dropped; they are written again.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        path = inside(folder, PROGRESS_JSON)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        write_text(path, "".join(line + "\n" for line in lines if _step_of(line) < first_step))
        self.file = path.open("a", encoding="utf-8")


def _step_of(line: str) -> float:
    """Return the step of a line of progress.json; infinity if the line is broken."""
    try:
        return int(json.loads(line)[STEPS])
    except (ValueError, LookupError, TypeError):
        return float("inf")


class WandB(KVWriter):
    """Weights & Biases. A resumed run continues under its id, which wandb.json in the run folder holds.

    Args:
        run: The run.
        experiment: The experiment; it becomes W&B's config.
        kwargs: Arguments of `wandb.init`, such as `project`, in addition to ours or in place of them.

    Raises:
        UserError: If wandb is missing or fails to start.
    """

    def __init__(self, run: Run, experiment: Experiment, kwargs: Mapping[str, Any]) -> None:
        wandb, kept = import_wandb(), inside(run.folder, WANDB)
        ours = {
            "project": "bistable-rl",
            "group": experiment.name,
            "name": f"{experiment.name}/{run.folder.name}",
            "config": to_dict(experiment),
            "dir": str(run.folder),
            "id": _id_of(kept) if kept.exists() else None,
            "resume": "allow",
        }
        try:
            self._run = wandb.init(**{**ours, **kwargs})
        except Exception as error:  # no account, no network, an unknown argument
            raise UserError(f"loggers: wandb cannot start: {type(error).__name__}: {one_sentence(error)}") from None
        write_json(kept, {"id": str(self._run.id)})

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Log the numbers and texts at a step."""
        self._run.log(_simple(filter_excluded_keys(key_values, key_excluded, "wandb")), step=step)

    def close(self) -> None:
        """Finish W&B's run."""
        self._run.finish()


def _id_of(file: Path) -> str:
    found = read_json(file).get("id")
    if not isinstance(found, str):
        raise UserError(f"{file} is broken: it has no id; move it away to begin a new run of W&B.")
    return found


def import_wandb() -> Any:
    """Return the package wandb.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise UserError("loggers: wandb is not installed; install it with pip install 'bistable-rl[wandb]'.") from None
    return wandb


def _simple(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers, as Python numbers, and the texts; leave out pictures and histograms."""
    numbers = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: value for name, value in numbers.items() if isinstance(value, int | float | str)}


KNOWN: dict[str, type[KVWriter]] = {"csv": ProgressCSV, "json": ProgressJSON, "wandb": WandB}


def check_loggers(experiment: Experiment) -> None:
    """Check the names of an experiment's loggers, and that the packages that they need are installed.

    Raises:
        UserError: If one is unknown, missing or refused.
    """
    for name, kwargs in map(named_part, experiment.loggers):
        with user_errors("loggers", ValueError):
            kind = resolve("logger", name, KNOWN, KVWriter)
            if kwargs and kind in (ProgressCSV, ProgressJSON):
                raise ValueError(f"{name} takes no arguments, got {', '.join(kwargs)}")
        if kind is WandB:
            import_wandb()


def open_loggers(run: Run, experiment: Experiment, first_step: int) -> Iterator[KVWriter]:
    """Open the loggers of an experiment one by one, each when the iterator reaches it.

    Args:
        run: The run.
        experiment: The experiment.
        first_step: The step at which the training starts.

    Yields:
        SB3's interface to each logger. Like SB3's loggers, a logger of the user is called with the run folder; it also
        gets its kwargs.

    Raises:
        UserError: If a logger cannot be built.
    """
    for name, kwargs in map(named_part, experiment.loggers):
        with user_errors("loggers", ValueError):
            kind: Callable[..., KVWriter] = resolve("logger", name, KNOWN, KVWriter)
            if kind is WandB:
                yield WandB(run, experiment, kwargs)
            elif kind in (ProgressCSV, ProgressJSON):
                yield kind(run.folder, first_step)
            else:
                with built("logger", kind, kwargs):  # type: ignore[arg-type]
                    made = kind(str(run.folder), **kwargs)
                yield made
