"""Who called sys.exit: an environment, or the user's own callback, logger or network."""

from __future__ import annotations

import traceback

import gymnasium
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from torch import nn

from bistable_rl.runs.schema import Experiment

KINDS = {"callback": BaseCallback, "logger": KVWriter, "network": nn.Module}
NOT_THEIRS = ("bistable_rl", "stable_baselines3", "torch")
"""Packages whose classes only call others and never exit."""


def exited(experiment: Experiment, error: SystemExit) -> str:
    """Return who called sys.exit, the innermost caller on the stack, as a sentence without its full stop."""
    called = f"called sys.exit({'' if error.code is None else repr(error.code)})"
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        own = frame.f_locals.get("self")
        if isinstance(own, gymnasium.Env | VectorEnv):
            break
        module, name = type(own).__module__, type(own).__qualname__
        for kind, base in KINDS.items():
            if isinstance(own, base) and module.partition(".")[0] not in NOT_THEIRS:
                return f"the {kind} {module}:{name} {called}"
    return f"the environment {experiment.env.id} {called}"
