"""bistable-rl: recurrent cells that keep a memory by themselves, and agents that use them.

The public names are imported on first use, so importing the package does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bistable_rl.agents.agent import Agent, load
    from bistable_rl.agents.api import evaluate, resume, train
    from bistable_rl.agents.export import export
    from bistable_rl.cells import CELLS
    from bistable_rl.cells.base import fixed_weights
    from bistable_rl.dynamics.attractors import attractors
    from bistable_rl.dynamics.bifurcation import bifurcation
    from bistable_rl.dynamics.gates import gate_trace
    from bistable_rl.dynamics.memory import survival, time_constants
    from bistable_rl.dynamics.warmup import warm_up
    from bistable_rl.kernels import use_backend
    from bistable_rl.rnn import (
        BRC,
        GORU,
        GRU,
        LMU,
        LSTM,
        NBRC,
        PBRC,
        RNN,
        HalfPBRC,
        PlasticGRU,
        from_torch,
        make_rnn,
    )
    from bistable_rl.runs.run import Run
    from bistable_rl.runs.schema import Experiment

_HOMES = {
    "bistable_rl.agents.agent": ("Agent", "load"),
    "bistable_rl.agents.api": ("evaluate", "resume", "train"),
    "bistable_rl.agents.export": ("export",),
    "bistable_rl.cells": ("CELLS",),
    "bistable_rl.cells.base": ("fixed_weights",),
    "bistable_rl.dynamics.attractors": ("attractors",),
    "bistable_rl.dynamics.bifurcation": ("bifurcation",),
    "bistable_rl.dynamics.gates": ("gate_trace",),
    "bistable_rl.dynamics.memory": ("survival", "time_constants"),
    "bistable_rl.dynamics.warmup": ("warm_up",),
    "bistable_rl.kernels": ("use_backend",),
    "bistable_rl.rnn": (
        *("BRC", "NBRC", "GRU", "LSTM", "GORU", "LMU", "PlasticGRU", "PBRC", "HalfPBRC"),
        *("RNN", "make_rnn", "from_torch"),
    ),
    "bistable_rl.runs.run": ("Run",),
    "bistable_rl.runs.schema": ("Experiment",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BRC",
    "CELLS",
    "GORU",
    "GRU",
    "LMU",
    "LSTM",
    "NBRC",
    "PBRC",
    "RNN",
    "Agent",
    "Experiment",
    "HalfPBRC",
    "PlasticGRU",
    "Run",
    "attractors",
    "bifurcation",
    "evaluate",
    "export",
    "fixed_weights",
    "from_torch",
    "gate_trace",
    "load",
    "make_rnn",
    "resume",
    "survival",
    "time_constants",
    "train",
    "use_backend",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
