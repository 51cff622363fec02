"""Where the time of recurrent PPO goes: its parts are watched from outside, so that the algorithm holds no clock."""

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

from bistable_rl.agents import stored_states
from bistable_rl.agents.buffer import RolloutBuffer
from bistable_rl.agents.flat_gradient import Gradient
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.sequences import Sequences
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.runs.progress import say_measuring
from bistable_rl.speed.ppo import N_STEPS, SETTINGS, Setting, make_algorithm

# The phases of an iteration, and the parts within; the time of a part is its own, without that of parts it calls.
PHASES = ("acting", "advantages", "learning")
PARTS: tuple[tuple[Any, str, str], ...] = (
    (RecurrentPPO, "collect_rollouts", "acting"),
    (RecurrentPPO, "_evaluate_rollout", "advantages"),
    (RecurrentPPO, "train", "learning"),
    (BatchedVecEnv, "step_wait", "environment"),
    (RecurrentPolicy, "_advance", "memory"),
    (RecurrentPolicy, "step", "heads and sampling"),
    (RecurrentPolicy, "evaluate_packed", "heads"),
    (RecurrentPPO, "loss", "loss"),
    (Sequences, "pack", "packing"),
    (RolloutBuffer, "rows", "packing"),
    (stored_states, "start_states", "packing"),
    (torch.Tensor, "backward", "backward"),
    (torch.optim.Adam, "step", "optimizer"),
    (Gradient, "clip", "gradient norms"),
)
REST = "bookkeeping"


@dataclass(frozen=True)
class Share:
    """What a part of the algorithm takes of the whole.

    Attributes:
        cell: The cell.
        setting: The setting.
        phase: One of `PHASES`.
        part: What is done.
        share: Of the time of an iteration, in [0, 1].
    """

    cell: str
    setting: Setting
    phase: str
    part: str
    share: float


class _Watch:
    """Counts the seconds of whatever part was entered last and not left yet."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._entered: list[str] = []
        self._since = 0.0

    def watched(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._count()
            self._entered.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._count()
                self._entered.pop()

        return run

    def _count(self) -> None:
        now = time.perf_counter()
        if self._entered:
            phase = next(part for part in reversed(self._entered) if part in PHASES)
            part = self._entered[-1]
            self.seconds[phase, REST if part in PHASES else part] += now - self._since
        self._since = now


def profile(cell: str, setting: Setting, *, iterations: int = 5) -> list[Share]:
    """Measure what each part takes of training, the largest first within each phase.

    Args:
        cell: The cell.
        setting: The setting.
        iterations: Rollouts with their updates that are timed, after one that is not.
    """
    algorithm = make_algorithm(cell, setting)
    steps = N_STEPS * setting.num_envs
    algorithm.learn(steps)
    watch = _Watch()
    with ExitStack() as patches:
        for owner, name, part in PARTS:
            patches.enter_context(mock.patch.object(owner, name, watch.watched(getattr(owner, name), part)))
        algorithm.learn(steps * iterations, reset_num_timesteps=False)
    total = sum(watch.seconds.values())
    shares = [Share(cell, setting, *key, seconds / total) for key, seconds in watch.seconds.items()]
    return sorted(shares, key=lambda share: (PHASES.index(share.phase), -share.share))


def profile_ppo(*, cells: Sequence[str] = ("nbrc",), settings: Sequence[Setting] = SETTINGS) -> list[Share]:
    """Measure what each part takes of training and print a table, a column a setting.

    Args:
        cells: The cells.
        settings: The settings.
    """
    columns = {}
    for i, (cell, setting) in enumerate(itertools.product(cells, settings), 1):
        say_measuring(f"{cell}, {setting.num_envs} copies", i, len(cells) * len(settings))
        columns[cell, setting] = profile(cell, setting)
    table = Table(title="% of the time of training, by copies, batch, epochs", box=None, padding=(0, 1, 0, 0))
    for column in ("phase", "part"):
        table.add_column(column, no_wrap=True)
    for cell, setting in columns:
        table.add_column(f"{cell} {setting.num_envs}, {setting.batch_size}, {setting.n_epochs}", justify="right")
    first = next(iter(columns.values()))
    for phase, part in [(share.phase, share.part) for share in first]:
        cells_of_row = [
            f"{100 * sum(s.share for s in shares if (s.phase, s.part) == (phase, part)):.1f}"
            for shares in columns.values()
        ]
        table.add_row(phase, part, *cells_of_row)
    Console().print(table)
    return [share for shares in columns.values() for share in shares]
