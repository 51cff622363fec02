"""bistable-rl: recurrent cells that keep a memory by themselves, and agents that use them.

The names below are resolved when they are first used, so that importing the package loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bistable_rl.agents.agent import Agent, load
    from bistable_rl.cells import CELLS
    from bistable_rl.rnn import BRC, GRU, LSTM, NBRC, RNN, make_rnn

_HOMES = {
    "Agent": "bistable_rl.agents.agent",
    "load": "bistable_rl.agents.agent",
    "CELLS": "bistable_rl.cells",
    "BRC": "bistable_rl.rnn",
    "GRU": "bistable_rl.rnn",
    "LSTM": "bistable_rl.rnn",
    "NBRC": "bistable_rl.rnn",
    "RNN": "bistable_rl.rnn",
    "make_rnn": "bistable_rl.rnn",
}

__all__ = ["BRC", "CELLS", "GRU", "LSTM", "NBRC", "RNN", "Agent", "load", "make_rnn"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
