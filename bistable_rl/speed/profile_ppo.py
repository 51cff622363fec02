"""The share of each part in the time of recurrent PPO. The timers wrap its methods here; the algorithm has none."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch

from bistable_rl.agents import stored_states
from bistable_rl.agents.buffer import RolloutBuffer
from bistable_rl.agents.flat_gradient import Gradient
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.sequences import Sequences
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.runs.progress import say_measuring
from bistable_rl.speed.ppo import SETTINGS, Setting, iteration, make_algorithm
from bistable_rl.speed.table import print_table

# The time of a part excludes the parts that it calls.
PHASES = ("acting", "advantages", "learning")
TIMED_PARTS: tuple[tuple[Any, str, str], ...] = (
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
    """A part's share in the time of an iteration of the algorithm.

    Attributes:
        cell: The cell.
        setting: The setting.
        phase: One of `PHASES`.
        part: One of the parts in `TIMED_PARTS`, or `REST`.
        share: The share, in [0, 1].
    """

    cell: str
    setting: Setting
    phase: str
    part: str
    share: float


class _Stopwatch:
    """Adds up the seconds of each part; time counts for the part that was entered last."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._entered: list[str] = []
        self._since = 0.0

    @contextmanager
    def wrapping(self, owner: type, name: str, part: str) -> Iterator[None]:
        """Count the time of a method's calls inside the `with` block for a part."""
        function, own = getattr(owner, name), owner.__dict__.get(name)
        setattr(owner, name, self._wrapped(function, part))
        try:
            yield
        finally:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

    def _wrapped(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
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
    """Measure each part's share of the training time; within each phase the largest comes first.

    Args:
        cell: The cell.
        setting: The setting.
        iterations: The number of timed rollouts with their updates; one before them is not timed.
    """
    iterate = iteration(make_algorithm(cell, setting), setting)
    iterate()
    stopwatch = _Stopwatch()
    with ExitStack() as wrappings:
        for owner, name, part in TIMED_PARTS:
            wrappings.enter_context(stopwatch.wrapping(owner, name, part))
        for _ in range(iterations):
            iterate()
    total = sum(stopwatch.seconds.values())
    shares = [Share(cell, setting, *key, seconds / total) for key, seconds in stopwatch.seconds.items()]
    return sorted(shares, key=lambda share: (PHASES.index(share.phase), -share.share))


def profile_ppo(*, cells: Sequence[str] = ("nbrc",), settings: Sequence[Setting] = SETTINGS) -> list[Share]:
    """Measure each part's share of the training time and print a table with one column per setting.

    Args:
        cells: The cells.
        settings: The settings.
    """
    columns: dict[str, list[Share]] = {}
    for i, (cell, setting) in enumerate(itertools.product(cells, settings), 1):
        say_measuring(f"{cell}, {setting.num_envs} copies", i, len(cells) * len(settings))
        columns[f"{cell} {setting}"] = profile(cell, setting)
    rows = []
    for phase, part in [(share.phase, share.part) for share in next(iter(columns.values()))]:
        shares = [sum(s.share for s in column if (s.phase, s.part) == (phase, part)) for column in columns.values()]
        rows.append([phase, part, *(f"{100 * share:.1f}" for share in shares)])
    print_table("% of the time of training, by copies, batch, epochs", ["phase", "part"], list(columns), rows)
    return [share for column in columns.values() for share in column]
