"""A job of a grid: an experiment, the folder it runs in, and the hash by which its result is known again."""

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
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment

IRRELEVANT = ("name", "device", "checkpoint")
"""What changes no number of a run."""


@dataclass(frozen=True)
class Job:
    """One run of a grid.

    Attributes:
        label: What is compared, such as "gru with help"; jobs that differ in their seed only share it.
        config: The experiment or benchmark, whole.
        folder: Its run folder.
        keys: The grid's own keys and this job's values, such as {"policy.cell": "gru"}.
    """

    label: str
    config: Experiment | Benchmark
    folder: Path
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.label}, seed {self.config.seed}"

    @property
    def hash(self) -> str:
        """The hash of everything that changes a number of the run."""
        return config_hash(self.config)


def config_hash(config: Experiment | Benchmark) -> str:
    """Return 16 hexadecimal digits that two experiments share if they give the same numbers.

    Name, device and checkpoints are left out. So is a key whose default is off (null, false, 0 or empty) and that was
    left so: an option that is added to the package one day, and is off by default, makes no finished run unknown.
    """
    facts = {key: value for key, value in _facts(config).items() if key.split(".")[0] not in IRRELEVANT}
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _facts(section: Any, prefix: str = "") -> dict[str, Any]:
    """Return the keys of a configuration by their full names, without those that are off by default and now."""
    facts: dict[str, Any] = {}
    for spec in dataclasses.fields(section):
        value = getattr(section, spec.name)
        if dataclasses.is_dataclass(value):
            facts.update(_facts(value, f"{prefix}{spec.name}."))
            continue
        default = spec.default_factory() if spec.default_factory is not dataclasses.MISSING else spec.default
        if default or json.dumps(value) != json.dumps(default):  # 0, 0.0 and false are equal to Python
            facts[prefix + spec.name] = value
    return facts


def prepare(job: Job) -> None:
    """Make the job's run folder with its config.yaml, or see that the one there is this job's.

    Its hash is kept in job.json, for a training drops from config.yaml what its cell has no use for.

    Raises:
        UserError: The folder holds another experiment, or cannot be written to.
    """
    run = Run(job.folder)
    if not run.exists:
        run.write_job(job.hash, job.config)
        return
    there = Run.open(job.folder).config
    if job.hash not in (config_hash(there), run.job_hash):
        key, have, want = next(_differences(to_dict(there), to_dict(job.config)), ("something", "another", "this one"))
        raise UserError(
            f"{job.folder} holds a run of another experiment ({key} is {have!r} there and {want!r} here); "
            "name another --out, or delete that folder."
        )


def _differences(have: Mapping[str, Any], want: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in have.keys() | want.keys():
        a, b = have.get(key), want.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif a != b and (prefix + key).split(".")[0] not in IRRELEVANT:
            yield prefix + key, a, b
