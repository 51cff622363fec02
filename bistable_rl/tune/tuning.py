"""A study's config file: a base experiment, the search space, and the objective.

name: copy_first
base: rl/copy_first                  # a shipped config, a path, or an experiment written out here
changes: {evaluation.horizons: [500]}
space:                               # see `bistable_rl.tune.space`
  policy.cell: [nbrc, gru]
objective: {name: success@500}
trials: 30
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna

from bistable_rl.compare.base import FIXED, Kind, check_seeds, read_with_base
from bistable_rl.compare.check import Check, checked
from bistable_rl.errors import UserError, shown, unknown
from bistable_rl.runs.config import build, set_key
from bistable_rl.runs.keys import NonNegativeInt, PositiveInt, Section, Seed, meaning, setting
from bistable_rl.runs.schema import TUNE, Benchmark, Experiment, check_folder_name
from bistable_rl.tune.space import Dimension, draw, read_space

DRAWS = 20
"""The number of trials drawn with a value before the value is said to fit no values of the other keys."""


@dataclass
class ObjectiveConfig(Section):
    """The metric at the end of training that a study optimises."""

    name: str = setting(
        "mean_reward",
        "A metric of the evaluations, of that at another horizon (`success@500`) or with a kind of stream there "
        "(`success@500/constant`), or the worst of its streams (`success@500/worst`).",
    )
    better: Literal["higher", "lower"] = setting("higher", "Whether `higher` or `lower` values are better.")


@dataclass
class PrunerConfig(Section):
    """The rule that stops trials early, based on their evaluations during training."""

    name: Literal["median", "hyperband", "none"] = setting(
        "median", "`median`: worse than the median of the finished trials; `hyperband`; or `none`."
    )
    warmup: NonNegativeInt = setting(0, "Evaluations before a trial may be stopped.")
    startup_trials: NonNegativeInt = setting(5, "With `median`, finished trials before one may be stopped.")
    reduction_factor: PositiveInt = setting(3, "With `hyperband`, of how many trials one goes on.")


@dataclass
class SamplerConfig(Section):
    """How the values of a trial are drawn."""

    name: Literal["tpe", "random"] = setting("tpe", "`tpe` (Bergstra et al. 2011) or `random`.")
    startup_trials: NonNegativeInt = setting(10, "With `tpe`, finished or stopped trials before it serves.")
    seed: Seed = setting(0, "Seeds the draws.")


@dataclass
class Tuning(Section):
    """A study."""

    name: str = field(metadata=meaning("Names the study, and its folder in the output folder's `tune`."))
    space: dict[str, Any] = field(metadata=meaning("The values of each key, `{policy.cell: [nbrc, gru]}`."))
    changes: dict[str, Any] = setting(dict, "Changes to the base in every trial, `{total_steps: 100000}`.")
    seeds: list[Seed] = setting(lambda: [0], "Every trial is trained with each; the mean is the objective.")
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    trials: PositiveInt = setting(50, "The trials of all workers and machines together.")
    pruner: PrunerConfig = field(default_factory=PrunerConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def check(self, prefix: str = "") -> None:
        """Check the name and the seeds, and that at least one key is varied."""
        check_folder_name("name", self.name)
        check_seeds(self.seeds)
        if not self.space:
            raise ValueError("space must have at least one key, such as {policy.cell: [nbrc, gru]}.")
        if self.pruner.reduction_factor < 2:
            raise ValueError("pruner.reduction_factor must be an integer above 1.")


@dataclass(frozen=True)
class Plan:
    """A study that has been read.

    Attributes:
        path: The file of the study.
        tuning: The keys of the file.
        kind: The kind of training.
        base: The keys of the base, with the changes applied.
        space: The keys that are varied.
    """

    path: Path
    tuning: Tuning
    kind: Kind
    base: Mapping[str, Any]
    space: list[Dimension]

    def config(self, values: Mapping[str, Any]) -> Experiment | Benchmark:
        """Return the training of a trial, with the first seed.

        Raises:
            UserError: If the values are incompatible.
        """
        data = copy.deepcopy(dict(self.base))
        for key, value in values.items():
            set_key(self.kind, data, key, value, str(self.path))
        return build(self.kind, data | {"name": self.tuning.name, "seed": self.tuning.seeds[0]}, str(self.path))


def read(path: Path) -> Plan:
    """Read a study from a file.

    Raises:
        UserError: If anything is wrong; one sentence names the file and the first wrong key.
    """
    tuning, kind, base, _ = read_with_base(path, TUNE, Tuning)
    for key, value in tuning.changes.items():
        if key in FIXED or key in tuning.space:
            why = "set by the study's own name and seeds" if key in FIXED else "varied by space"
            raise UserError(f"{path}: changes.{key} is {why}; leave it out.")
        set_key(kind, base, key, value, f"{path}, changes")
    plan = Plan(path, tuning, kind, base, read_space(kind, base, tuning.space, path))
    plan.config({})  # the base with its changes is an experiment too
    return plan


def check_plan(plan: Plan, check: Check[Mapping[str, Collection[str]]]) -> Collection[str]:
    """Check that every choice and both ends of every range can be trained with some values of the other keys.

    Args:
        plan: The study.
        check: Checks the configuration of a run and returns the possible objectives: by name, the columns of
            metrics.csv, of which the worst value counts.

    Returns:
        The columns of the objective.

    Raises:
        UserError: If one of them cannot be trained, or no run reports the objective.
    """
    name = plan.tuning.objective.name
    known = checked(plan.config({}), check, str(plan.path))
    if name not in known:
        raise UserError(f"{plan.path}: objective.name: {unknown('metric', name, known)}")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))  # in memory
    by_key = {one.key: one for one in plan.space}
    for one in plan.space:
        for end in one.ends:
            refused = None
            for _ in range(DRAWS):
                study.enqueue_trial({**_conditions(one, by_key), one.key: end})
                values = draw(plan.space, study.ask())
                try:
                    checked(plan.config(values), check, f"{plan.path}, space, with {one.key} {shown(values[one.key])}")
                    break
                except UserError as error:
                    refused = error
            else:
                assert refused is not None
                raise refused
    return known[name]


def _conditions(one: Dimension, by_key: Mapping[str, Dimension]) -> dict[str, Any]:
    """Return choices of other keys, in their stored form, with which a key is varied."""
    found: dict[str, Any] = {}
    for key, allowed in one.when.items():
        other = by_key[key]
        found |= {key: next(label for label, value in other.values.items() if value == allowed[0])}
        found |= _conditions(other, by_key)
    return found
