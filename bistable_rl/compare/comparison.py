"""The config file of a comparison (a base experiment, the variants and the seeds), and its jobs.

name: gru_vs_nbrc
base: rl/t_maze                     # a shipped config, a path, or an experiment written out here
variants:                           # a name and its changes to the base
  nbrc: {policy.cell: nbrc}
  gru, chrono: {policy.cell: gru, policy.cell_kwargs: {c_bias: chrono, t_max: 60}}
grid: {env.kwargs.length: [20, 50]} # each key with its values; every variant is run with each
seeds: [0, 1, 2, 3, 4]
metric: {name: success_rate, threshold: 0.95}
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bistable_rl.compare.base import check_seeds, check_varied, read_with_base
from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError, shown, user_errors
from bistable_rl.runs.config import build, set_key
from bistable_rl.runs.keys import Finite, Section, Seed, meaning, setting
from bistable_rl.runs.schema import COMPARE, check_folder_name

VARIANT = "variant"
WRITTEN = (
    *("report", "report.md", "report.html", "summary.csv", "runs.csv", "curves.csv"),
    *("curves.png", "final.png", "horizons.png"),
)
"""The names that a variant's folder must not have: other files and folders beside it."""
TASK_SECTIONS = ("env", "task")
"""Keys in these sections change the task; only runs of the same task are compared with each other."""


@dataclass
class MetricConfig(Section):
    """The metric that is compared."""

    name: str = setting("success_rate", "A metric of the evaluations, such as `success_rate` or `mean_reward`.")
    threshold: Finite | None = setting(None, "The value that counts as solved (null: none).")
    better: Literal["higher", "lower"] = setting("higher", "Whether `higher` or `lower` values are better.")


@dataclass
class Comparison(Section):
    """A grid of runs."""

    name: str = field(metadata=meaning("Names the comparison's folder in the output folder."))
    seeds: list[Seed] = field(metadata=meaning("Every combination is run with each."))
    variants: dict[str, Any] = setting(dict, "The changes of each variant to the base, `{gru: {policy.cell: gru}}`.")
    grid: dict[str, Any] = setting(dict, "The values of each key.")
    metric: MetricConfig = field(default_factory=MetricConfig)

    def check(self, prefix: str = "") -> None:
        """Check the name, the seeds, the variants and the grid."""
        check_folder_name("name", self.name)
        check_seeds(self.seeds)
        for label, changes in self.variants.items():
            if not re.search(r"\w", label):
                raise ValueError(f"variants.{shown(label)}: a variant's name must contain a letter or a digit.")
            if not isinstance(changes, dict):
                example = "{policy.cell: gru}"
                raise ValueError(f"variants.{label} must map keys to values, such as {example}, not {shown(changes)}.")
        for key, values in self.grid.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"grid.{key} must be a list of values, not {shown(values)}.")
            for label in (label for label, changes in self.variants.items() if key in changes):
                raise ValueError(f"{key} is set by variants.{label} and varied by grid; keep one of them.")


def read(path: Path, out: Path) -> tuple[Comparison, list[Job]]:
    """Return a comparison and its jobs, with run folders `out/<name>/<label>/seed<k>`.

    Raises:
        UserError: If anything is wrong; one sentence names the file and the first wrong key.
    """
    comparison, kind, base, cell = read_with_base(path, COMPARE, Comparison)
    jobs: list[Job] = []
    for keys, changes in _combinations(comparison):
        label = describe(keys)
        where = f"{path}, {label or cell}"
        varied = copy.deepcopy(base)
        for key, value in changes.items():
            set_key(kind, varied, key, value, where)
            check_varied(key, where, "comparison")
        config = build(kind, varied | {"name": comparison.name}, where)
        label = label or config.cell
        folder = out / comparison.name / _folder_name(label, where)
        jobs += [Job(label, replace(config, seed=seed), folder / f"seed{seed}", keys) for seed in comparison.seeds]
    _check_distinct(jobs, path)
    return comparison, jobs


def describe(keys: Mapping[str, Any]) -> str:
    """Return the label of a combination, in a line of printable text: "gru, length 50"."""
    bare = (VARIANT, "policy.cell", "network.cell")
    text = ", ".join(str(value) if key in bare else f"{key.split('.')[-1]} {value}" for key, value in keys.items())
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def panel(keys: Mapping[str, Any]) -> str:
    """Return the label of a run's task, "" if all runs have the same."""
    return describe({key: value for key, value in keys.items() if key.split(".")[0] in TASK_SECTIONS})


def series(keys: Mapping[str, Any]) -> str:
    """Return the label of a variant, among the runs of one task."""
    return describe({key: value for key, value in keys.items() if key.split(".")[0] not in TASK_SECTIONS})


def _folder_name(label: str, where: str) -> str:
    """Return the name of a variant's folder, which is neither hidden nor `..`."""
    name = re.sub(r"[^\w.+-]+|^\.+", "_", label)
    with user_errors(where, ValueError):
        check_folder_name("the name of a variant", name)
    if name in WRITTEN:
        raise UserError(f"{where}: every comparison writes a file named {name}; give the variant another name.")
    return name


def _combinations(comparison: Comparison) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the keys that tell each combination from the others, and its changes to the base."""
    variants = comparison.variants or {"": {}}
    for (label, changes), values in itertools.product(variants.items(), itertools.product(*comparison.grid.values())):
        point = dict(zip(comparison.grid, values, strict=True))
        varied = {key: value for key, value in point.items() if len(comparison.grid[key]) > 1}
        yield ({VARIANT: label} if label else {}) | varied, changes | point


def _check_distinct(jobs: list[Job], path: Path) -> None:
    """Refuse jobs that would share a folder, or give the same numbers under two names."""
    for what, problem in (("folder", "need different names"), ("hash", "are the same experiment")):
        seen: dict[Any, Job] = {}
        for job in jobs:
            other = seen.setdefault(getattr(job, what), job)
            if other is not job:
                raise UserError(f"{path}: {other.label!r} and {job.label!r} {problem}.")
