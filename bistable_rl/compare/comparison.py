"""A comparison's config file: a base experiment, what is varied, and the seeds; and the jobs it makes.

name: gru_vs_nbrc
base: rl/t_maze                     # a shipped config, a path, or an experiment written out here
variants:                           # each a name and what it changes
  nbrc: {policy.cell: nbrc}
  gru with help: {policy.cell: gru, policy.cell_kwargs: {c_bias: chrono, t_max: 60}}
grid: {env.kwargs.length: [20, 50]} # each key with its values; every variant is run with each
seeds: [0, 1, 2, 3, 4]
metric: {name: success_rate, threshold: 0.95}
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError, shown, unknown
from bistable_rl.runs.config import NAME_BYTES, Seed, build, find_config, read_yaml
from bistable_rl.runs.schema import COMPARE, Benchmark, Experiment, check_command, check_name, kind_of

VARIANT = "variant"
WRITTEN = (
    *("report", "report.md", "report.html", "summary.csv", "runs.csv", "curves.csv"),
    *("curves.png", "final.png", "horizons.png"),
)
"""What lies beside the folders of the variants."""
TASK_SECTIONS = ("env", "task")
"""Keys in here change the question that is asked; runs are compared only with runs that were asked the same."""


@dataclass
class MetricConfig:
    """What is compared.

    Args:
        name: A metric of the evaluations, such as `success_rate` or `mean_reward`.
        threshold: What counts as solved, for steps and seconds to threshold (null: not asked).
        better: Whether `higher` or `lower` is better.
    """

    name: str = "success_rate"
    threshold: float | None = None
    better: Literal["higher", "lower"] = "higher"


@dataclass
class Comparison:
    """A grid of runs.

    Args:
        name: Names the comparison's folder below the output folder.
        seeds: Every combination is run with each.
        variants: What each variant changes in the base, by its name: `{policy.cell: gru}`.
        grid: The values of each key.
        metric: What is compared.
    """

    name: str
    seeds: list[Seed]
    variants: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    metric: MetricConfig = field(default_factory=MetricConfig)

    def check(self, source: str) -> None:
        """Check what a type alone cannot.

        Raises:
            UserError: What is wrong.
        """
        check_name(self.name, source)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"{source}: seeds must be a list of different seeds, not {shown(self.seeds)}.")
        for label, changes in self.variants.items():
            if not re.search(r"\w", label):
                raise UserError(f"{source}: variants.{shown(label)}: a variant's name must hold a letter or a digit.")
            if not isinstance(changes, dict):
                raise UserError(
                    f"{source}: variants.{label} must map keys to values, such as {{policy.cell: gru}}, "
                    f"not {shown(changes)}."
                )
        for key, values in self.grid.items():
            if not isinstance(values, list) or not values:
                raise UserError(f"{source}: grid.{key} must be a list of values, not {shown(values)}.")
            for label in (label for label, changes in self.variants.items() if key in changes):
                raise UserError(f"{source}: {key} is set by variants.{label} and varied by grid; keep one of them.")


def read(path: Path, out: Path) -> tuple[Comparison, list[Job]]:
    """Return a comparison and its jobs, with run folders `out/<name>/<label>/seed<k>`.

    Raises:
        UserError: The first thing that is wrong, in one sentence that names the file and the key.
    """
    data = read_yaml(path)
    check_command(data, path, COMPARE)
    if "base" not in data:
        raise UserError(f"{path}: the key base is missing: a shipped config, a path, or an experiment.")
    base = data.pop("base")
    comparison = build(Comparison, data, str(path))
    kind, base = _base(base, comparison.name, path)
    jobs: list[Job] = []
    for keys, changes in _combinations(comparison):
        label = describe(keys) or kind_label(kind, base)
        where = f"{path}, {label}"
        varied = copy.deepcopy(base)
        for key, value in changes.items():
            _check_key(kind, key, where)
            _lay(varied, key, value, where)
        config = build(kind, varied | {"name": comparison.name}, where)
        folder = out / comparison.name / _folder_name(label, where)
        jobs += [Job(label, replace(config, seed=seed), folder / f"seed{seed}", keys) for seed in comparison.seeds]
    _check_distinct(jobs, path)
    return comparison, jobs


def folders(path: Path) -> list[Path]:
    """Return the folders of the files that a comparison is written in: its own, and its base's.

    Raises:
        UserError: The file cannot be read, or there is no such base.
    """
    base = read_yaml(path).get("base")
    return [path.parent, *([find_config(base).parent] if isinstance(base, str) else [])]


def describe(keys: Mapping[str, Any]) -> str:
    """Return what a combination is called, in a line of printable text: "gru with help, length 50"."""
    bare = (VARIANT, "policy.cell", "network.cell")
    text = ", ".join(str(value) if key in bare else f"{key.split('.')[-1]} {value}" for key, value in keys.items())
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _folder_name(label: str, where: str) -> str:
    """Return what the folder of a variant's runs is called: never hidden, nor `..`.

    Raises:
        UserError: The name is too long, or that of a file which the comparison writes.
    """
    name = re.sub(r"[^\w.+-]+|^\.+", "_", label)
    if len(name.encode()) > NAME_BYTES:
        raise UserError(f"{where}: the name of a folder has {NAME_BYTES} bytes at most, this one more.")
    if name in WRITTEN:
        raise UserError(f"{where}: {name} is what a comparison writes beside its variants; name the variant otherwise.")
    return name


def panel(keys: Mapping[str, Any]) -> str:
    """Return the question that a run was asked, "" if all were asked the same."""
    return describe({key: value for key, value in keys.items() if key.split(".")[0] in TASK_SECTIONS})


def series(keys: Mapping[str, Any]) -> str:
    """Return what is compared with others that were asked the same."""
    return describe({key: value for key, value in keys.items() if key.split(".")[0] not in TASK_SECTIONS})


def kind_label(kind: type[Experiment] | type[Benchmark], base: Mapping[str, Any]) -> str:
    """Return the label of a comparison that varies nothing but the seed: its cell."""
    return build(kind, copy.deepcopy(dict(base)), "base").cell


def _base(base: Any, name: str, path: Path) -> tuple[type[Experiment] | type[Benchmark], dict[str, Any]]:
    """Return the kind and the keys of the base, checked."""
    if isinstance(base, str):
        source, prefix = str(find_config(base)), ""
        base = read_yaml(Path(source))
    elif isinstance(base, dict):
        source, prefix = str(path), "base."
        base = {"name": name, **base}
    else:
        raise UserError(f"{path}: base must be a config's name or path, or an experiment, not {shown(base)}.")
    kind = kind_of(base)
    if kind is None:
        raise UserError(f"{source}: {prefix}env, for agents, or {prefix}task, for supervised training, is missing.")
    build(kind, copy.deepcopy(base), source, prefix=prefix)
    return kind, base


def _combinations(comparison: Comparison) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield what each combination is told apart by, and what it changes in the base."""
    variants = comparison.variants or {"": {}}
    for (label, changes), values in itertools.product(variants.items(), itertools.product(*comparison.grid.values())):
        point = dict(zip(comparison.grid, values, strict=True))
        told = {key: value for key, value in point.items() if len(comparison.grid[key]) > 1}
        yield ({VARIANT: label} if label else {}) | told, changes | point


def _check_key(kind: Any, key: str, where: str) -> None:
    done: list[str] = []
    for part in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return  # below lie the keys of the environment, the task or the cell
        names = [spec.name for spec in dataclasses.fields(kind)]
        if part not in names:
            raise UserError(f"{where}: " + unknown("key", key, [".".join([*done, name]) for name in names]))
        done.append(part)
        kind = typing.get_type_hints(kind)[part]
    if dataclasses.is_dataclass(kind):
        names = [f"{key}.{spec.name}" for spec in dataclasses.fields(kind)]
        raise UserError(f"{where}: {key} is a section; set its keys: {', '.join(names)}.")
    if key in ("name", "seed"):
        raise UserError(f"{where}: {key} is not to be varied; the comparison's own name and seeds set it.")


def _lay(data: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, last = key.split(".")
    for part in parents:
        below = data.setdefault(part, {})
        if not isinstance(below, dict):
            raise UserError(f"{where}: {key} has {shown(below)} above it, which holds no keys.")
        data = below
    data[last] = value


def _check_distinct(jobs: list[Job], path: Path) -> None:
    """Refuse jobs that would share a folder, or give the same numbers under two names."""
    for what in ("folder", "hash"):
        seen: dict[Any, Job] = {}
        for job in jobs:
            other = seen.setdefault(getattr(job, what), job)
            if other is not job:
                same = "need different names" if what == "folder" else "are the same experiment"
                raise UserError(f"{path}: {other.label!r} and {job.label!r} {same}.")
