"""The sampler and the pruner of a study: how Optuna draws a trial's values, and which trials it stops."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from bistable_rl.runs.seeds import derived_seed
from bistable_rl.tune.tuning import PrunerConfig, SamplerConfig


class SeededSampler(BaseSampler):
    """Draws every value with a separate seed, derived from the study's seed, the trial's number and the key's name.

    So no draw depends on the process that makes it, or on how often the study was stopped and continued before.

    Args:
        make: Makes a sampler from a seed.
        seed: The seed of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: all values are drawn one by one, because not every trial varies every key."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw the value of a key."""
        seed = derived_seed(self._seed, trial.number, zlib.crc32(param_name.encode())) % 2**32
        return self._make(seed).sample_independent(study, trial, param_name, param_distribution)


def make_sampler(config: SamplerConfig) -> BaseSampler:
    """Return the sampler of a study."""

    def make(seed: int) -> BaseSampler:
        if config.name == "random":
            return RandomSampler(seed)
        return TPESampler(n_startup_trials=config.startup_trials, seed=seed)

    return SeededSampler(make, config.seed)


def make_pruner(config: PrunerConfig, evaluations: int) -> BasePruner:
    """Return the pruner of a study; its steps are the evaluations, counted from 1.

    Args:
        config: The keys of the pruner.
        evaluations: The number of evaluations in a complete trial.
    """
    if config.name == "median":
        return MedianPruner(config.startup_trials, n_warmup_steps=config.warmup + 1)
    if config.name == "hyperband":
        first = config.warmup + 1
        return HyperbandPruner(first, max(first, evaluations), config.reduction_factor)
    return NopPruner()
