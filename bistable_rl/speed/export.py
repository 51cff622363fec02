"""The time of one step of an exported agent, compared with `predict` and with the same step in uncompiled torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from gymnasium import spaces

from bistable_rl.agents.agent import Agent
from bistable_rl.agents.export import describe, exported_step, program_of
from bistable_rl.agents.export_formats import FORMATS, check_installed, quiet
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.cells.base import fixed_weights
from bistable_rl.runs.progress import say_measuring
from bistable_rl.runs.schema import EnvConfig, Experiment
from bistable_rl.speed.table import print_table
from bistable_rl.speed.timing import median_seconds, one_thread

CELLS, COPIES = ("nbrc", "mixed", "gru", "lstm"), (1, 64)
INPUTS, UNITS, ACTIONS = 32, 64, 4
FIXED = "predict in fixed_weights"
"""`predict` inside `bistable_rl.fixed_weights`, as in a loop that only plays."""


@dataclass(frozen=True)
class Latency:
    """The time of one step of one agent.

    Attributes:
        cell: The cell of the agent's one layer of 64 units; it observes 32 numbers and has 4 discrete actions.
        copies: The number of copies that act at once.
        microseconds: By method: `predict`, `predict` in `fixed_weights`, "torch" (the step before its export), "pt2"
            and "onnx".
    """

    cell: str
    copies: int
    microseconds: dict[str, float]


def speed_export(
    cells: Sequence[str] = CELLS, copies: Sequence[int] = COPIES, *, rounds: int = 9, seconds: float = 0.1
) -> list[Latency]:
    """Measure exported agents on one thread, in processor time, and print a table.

    Args:
        cells: The cells.
        copies: The numbers of copies.
        rounds: How often each method is timed.
        seconds: The least duration of a timing.

    Raises:
        UserError: If a package of a format is missing.
    """
    for name in FORMATS:
        check_installed(name)
    measured = []
    with one_thread():
        for i, cell in enumerate(cells, 1):
            say_measuring(cell, i, len(cells))
            measured += _measure(cell, copies, rounds, seconds)
    names = list(measured[0].microseconds)
    rows = [
        [row.cell, str(row.copies), *(f"{time:,.0f}" for time in row.microseconds.values())]
        + [f"{row.microseconds[FIXED] / row.microseconds[name]:.2g}x" for name in FORMATS]
        for row in measured
    ]
    ratios = [f"{name}: times as fast" for name in FORMATS]
    print_table(f"microseconds a step; {FIXED} against each format", ["cell"], ["copies", *names, *ratios], rows)
    return measured


def _measure(cell: str, copies: Sequence[int], rounds: int, seconds: float) -> list[Latency]:
    space = spaces.Box(-1, 1, (INPUTS,))
    policy = RecurrentPolicy(
        space, spaces.Discrete(ACTIONS), lambda _: 0.0, cell=cell, hidden_size=UNITS, critic="shared", net_arch=[]
    )
    policy.set_training_mode(False)
    agent = Agent(policy, Experiment("speed", EnvConfig("none")), 0, space)
    step = exported_step(agent)
    with quiet():
        opened = {name: kind.open(kind.pack(program_of(step), describe(agent, step))) for name, kind in FORMATS.items()}
    found = []
    for n in copies:
        observation = np.random.default_rng(0).uniform(-1, 1, (n, INPUTS)).astype(np.float32)
        state = step.initial_state.numpy().repeat(n, 1)
        tensors, starts = (torch.from_numpy(observation), torch.from_numpy(state)), np.zeros(n, np.bool_)
        predict = partial(agent.predict, observation, (policy.initial_state(n).numpy(),), starts)
        runs: dict[str, Callable[[], object]] = {
            "predict": predict,
            FIXED: predict,
            "torch": torch.no_grad()(partial(step, *tensors)),
            **{name: partial(run, observation, state) for name, run in opened.items()},
        }
        times = median_seconds(runs, rounds=rounds, seconds=seconds, contexts={FIXED: partial(fixed_weights, policy)})
        found.append(Latency(cell, n, {name: round(time * 1e6, 1) for name, time in times.items()}))
    return found
