"""How fast the environments are: batched, through SB3's adapter, and one copy after the other."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector.utils import batch_space
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.envs import ENVIRONMENTS, make_batched_env, make_env
from bistable_rl.errors import unknown
from bistable_rl.runs.progress import say_measuring

SIZES = (1, 64, 1024)

ORIGINALS: dict[str, tuple[str, dict[str, Any]]] = {
    "bistable_rl/MiniGridMemory-v0": ("MiniGrid-MemoryS7-v0", {"agent_view_size": 3}),
}
"""The environment of another package that does the same as one of ours with its default arguments."""


@dataclass(frozen=True)
class Speed:
    """Steps a second of one environment, each copy's step counted.

    Attributes:
        env_id: The environment, with its default arguments.
        num_envs: Copies.
        batched: Of the batched environment.
        adapter: Of the same through `BatchedVecEnv`, as SB3 steps it.
        one_by_one: Of SB3's `DummyVecEnv` of single ones.
        original: Of SB3's `DummyVecEnv` of the other package's environment, where there is one.
    """

    env_id: str
    num_envs: int
    batched: float
    adapter: float
    one_by_one: float
    original: float | None


def measure(env_id: str, num_envs: int, *, seconds: float = 0.3, repeats: int = 3) -> Speed:
    """Measure one environment: medians of repeats that take turns.

    Args:
        env_id: One of ENVIRONMENTS.
        num_envs: Copies.
        seconds: How long each way is stepped each time, at least.
        repeats: How often.
    """
    ways: dict[str, Any] = {
        "batched": make_batched_env(env_id, num_envs=num_envs),
        "adapter": BatchedVecEnv(make_batched_env(env_id, num_envs=num_envs)),
        "one_by_one": DummyVecEnv([lambda: Monitor(make_env(env_id))] * num_envs),
    }
    if env_id in ORIGINALS:
        original_id, kwargs = ORIGINALS[env_id]
        ways["original"] = DummyVecEnv([lambda: Monitor(make_env(original_id, kwargs=kwargs))] * num_envs)
    steppers = {name: _stepper(env) for name, env in ways.items()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, step in steppers.items():
            rates[name].append(num_envs * _rate(step, seconds))
    for env in ways.values():
        env.close()
    median = {name: statistics.median(values) for name, values in rates.items()}
    return Speed(env_id, num_envs, median["batched"], median["adapter"], median["one_by_one"], median.get("original"))


def _stepper(env: Any) -> Callable[[], object]:
    """Return a function that makes one step in all copies, with the next of some random actions."""
    space = env.action_space if hasattr(env, "single_action_space") else batch_space(env.action_space, env.num_envs)
    space.seed(0)
    actions = [np.asarray(space.sample()) for _ in range(32)]
    env.reset()
    turn = iter(range(10**12))
    return lambda: env.step(actions[next(turn) % len(actions)])


def _rate(step: Callable[[], object], seconds: float) -> float:
    """Return how often `step` can be called in a second of processor time, in which other jobs don't count."""
    start, count = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        step()
        count += 1
    return count / spent


def speed_envs(env_ids: Sequence[str] = (), *, sizes: Sequence[int] = SIZES, seconds: float = 0.3) -> list[Speed]:
    """Measure environments and print a table.

    Args:
        env_ids: Some of ENVIRONMENTS; none means all that can be made here (LineDigits needs its images).
        sizes: Numbers of copies.
        seconds: How long each way is stepped each time, at least.

    Raises:
        ValueError: If an id is unknown, or an environment that was asked for can't be made.
    """
    for env_id in env_ids:
        if env_id not in ENVIRONMENTS:
            raise ValueError(unknown("environment", env_id, ENVIRONMENTS))
    table = Table(title="steps a second on one core, and how many times as many", box=None, padding=(0, 1, 0, 0))
    table.add_column("environment", no_wrap=True)
    for column in ("copies", "batched", "in SB3", "singly", "", "original", ""):
        table.add_column(column, justify="right", no_wrap=True)
    speeds: list[Speed] = []
    asked = list(env_ids or ENVIRONMENTS)
    for i, env_id in enumerate(asked, 1):
        say_measuring(env_id, i, len(asked))
        try:
            speeds += [measure(env_id, num_envs, seconds=seconds) for num_envs in sizes]
        except ValueError as error:
            if env_ids:
                raise
            print(f"not measured: {error}")
    for speed in speeds:
        cells = [_short(speed.batched), _short(speed.adapter)]
        for rate in (speed.one_by_one, speed.original):
            cells += [_short(rate), f"{speed.batched / rate:.3g}x"] if rate else ["", ""]
        table.add_row(speed.env_id.removeprefix("bistable_rl/"), str(speed.num_envs), *cells)
    Console().print(table)
    return speeds


def _short(rate: float) -> str:
    """Return a rate in three digits or so."""
    return f"{rate / 1e6:.2f}M" if rate >= 1e6 else f"{rate / 1e3:.3g}k"
