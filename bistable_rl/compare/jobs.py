"""A job of a grid: an experiment, its run folder, and the hash that identifies its result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bistable_rl.errors import UserError
from bistable_rl.runs.config import to_dict
from bistable_rl.runs.keys import default_of
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment

IRRELEVANT = ("name", "device", "checkpoint", "loggers")
"""Top-level keys that do not affect a run's numbers."""

RENAMED: dict[str, str] = {}
"""The old name of each key that was renamed after rows were committed; the old name is hashed."""

FORMER_DEFAULTS: dict[str, Any] = {"policy.net_arch": [], "algorithm.ent_coef": 0.0, "algorithm.popart": False}
"""The former defaults of keys that were off by default when rows were committed, and no longer are."""


@dataclass(frozen=True)
class Job:
    """One run of a grid.

    Attributes:
        label: The run's name without its seed, such as "gru with chrono initialisation"; all seeds share it.
        config: The whole experiment or benchmark.
        folder: Its run folder.
        keys: The grid's keys and this job's values, such as {"policy.cell": "gru"}.
    """

    label: str
    config: Experiment | Benchmark
    folder: Path
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name, for display."""
        return f"{self.label}, seed {self.config.seed}"

    @property
    def hash(self) -> str:
        """The hash of every key that changes a number of the run."""
        return config_hash(self.config)


def config_hash(config: Experiment | Benchmark) -> str:
    """Return 16 hexadecimal digits, equal for two experiments that give the same numbers."""
    text = json.dumps(hashed_keys(config), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hashed_keys(config: Experiment | Benchmark) -> dict[str, Any]:
    """Return the keys and values that are hashed, by full names such as `policy.cell`.

    The hash must stay the same when the package changes, or finished runs would not be recognised. So a renamed key
    keeps its old name (`RENAMED`), and a key is left out when its value is its default and that default is off (null,
    false, 0 or empty): a new option that is off by default changes no hash. Where such a default has changed, its old
    value is still left out (`FORMER_DEFAULTS`). Name, device, checkpoints and loggers are left out too.
    """
    keys = {key: value for key, value in _keys(config).items() if key.split(".")[0] not in IRRELEVANT}
    return {RENAMED.get(key, key): value for key, value in keys.items()}


def _keys(section: Any, prefix: str = "") -> dict[str, Any]:
    """Return the keys of a configuration by their full names, without those that are off, as by default."""
    keys: dict[str, Any] = {}
    for spec in dataclasses.fields(section):
        value = getattr(section, spec.name)
        if dataclasses.is_dataclass(value):
            keys.update(_keys(value, f"{prefix}{spec.name}."))
            continue
        default = FORMER_DEFAULTS.get(prefix + spec.name, default_of(spec))
        if default or json.dumps(value) != json.dumps(default):  # 0, 0.0 and false are equal to Python
            keys[prefix + spec.name] = value
    return keys


def prepare(job: Job) -> None:
    """Make the job's run folder with its config.yaml, or check that the existing one is this job's.

    The job's hash is kept in job.json, because a training drops the keys from config.yaml that its cell does not use.

    Raises:
        UserError: If the folder holds another experiment, or cannot be written to.
    """
    run = Run(job.folder)
    if not run.exists:
        run.write_job(job.hash, job.config)
    elif not is_there(job):
        there = Run.open(job.folder).config
        key, have, want = next(_differences(to_dict(there), to_dict(job.config)), ("something", "another", "this one"))
        raise UserError(
            f"{job.folder} holds a run of another experiment ({key} is {have!r} there and {want!r} here); "
            "choose another --out, or delete that folder."
        )


def is_there(job: Job) -> bool:
    """Return whether the job's folder, which exists, holds this job's run.

    Raises:
        UserError: If it is no run folder, or its config is broken.
    """
    run = Run.open(job.folder)
    return job.hash in (config_hash(run.config), run.job_hash)


def _differences(have: Mapping[str, Any], want: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in have.keys() | want.keys():
        a, b = have.get(key), want.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif a != b and (prefix + key).split(".")[0] not in IRRELEVANT:
            yield prefix + key, a, b
