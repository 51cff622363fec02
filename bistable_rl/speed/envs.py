"""Environment steps per second: our batched environments against SB3's `DummyVecEnv` of single environments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.checks import check_choice
from bistable_rl.envs import ENVIRONMENTS, make_batched_env, make_env
from bistable_rl.runs.progress import say_measuring
from bistable_rl.speed.table import print_table
from bistable_rl.speed.timing import median_seconds

SIZES = (1, 64, 1024)

ORIGINALS: dict[str, tuple[str, dict[str, Any]]] = {
    "bistable_rl/MiniGridMemory-v0": ("MiniGrid-MemoryS7-v0", {"agent_view_size": 3}),
}
"""By our environment, the equal environment of another package: its id and arguments."""


@dataclass(frozen=True)
class Speed:
    """Steps per second of one environment; each copy's step counts as one.

    Attributes:
        env_id: The environment, with its default arguments.
        num_envs: The number of copies.
        batched: Steps per second of the batched environment.
        adapter: Steps per second of the batched environment in `BatchedVecEnv`, as SB3 steps it.
        one_by_one: Steps per second of single environments in SB3's `DummyVecEnv`.
        original: Steps per second of the other package's environment in SB3's `DummyVecEnv`, if there is one.
    """

    env_id: str
    num_envs: int
    batched: float
    adapter: float
    one_by_one: float
    original: float | None


def measure(env_id: str, num_envs: int, *, seconds: float = 0.3, rounds: int = 3) -> Speed:
    """Measure one environment, in processor time.

    Args:
        env_id: A key of `ENVIRONMENTS`.
        num_envs: The number of copies.
        seconds: The least duration of a timing.
        rounds: How often each form of the environment is timed.
    """
    envs: dict[str, Any] = {
        "batched": make_batched_env(env_id, num_envs=num_envs),
        "adapter": BatchedVecEnv(make_batched_env(env_id, num_envs=num_envs)),
        "one_by_one": DummyVecEnv([lambda: Monitor(make_env(env_id))] * num_envs),
    }
    if env_id in ORIGINALS:
        original_id, kwargs = ORIGINALS[env_id]
        envs["original"] = DummyVecEnv([lambda: Monitor(make_env(original_id, kwargs=kwargs))] * num_envs)
    steps = {name: _stepper(env) for name, env in envs.items()}
    rates = {name: num_envs / each for name, each in median_seconds(steps, rounds=rounds, seconds=seconds).items()}
    for env in envs.values():
        env.close()
    return Speed(env_id, num_envs, rates["batched"], rates["adapter"], rates["one_by_one"], rates.get("original"))


def speed_envs(env_ids: Sequence[str] = (), *, sizes: Sequence[int] = SIZES, seconds: float = 0.3) -> list[Speed]:
    """Measure environments and print a table.

    Args:
        env_ids: Keys of `ENVIRONMENTS`; by default all that can be built here (LineDigits needs its images).
        sizes: The numbers of copies.
        seconds: The least duration of a timing.

    Raises:
        ValueError: If an id is unknown, or an environment of `env_ids` cannot be built.
    """
    for env_id in env_ids:
        check_choice("environment", env_id, ENVIRONMENTS)
    speeds: list[Speed] = []
    chosen = list(env_ids or ENVIRONMENTS)
    for i, env_id in enumerate(chosen, 1):
        say_measuring(env_id, i, len(chosen))
        try:
            speeds += [measure(env_id, num_envs, seconds=seconds) for num_envs in sizes]
        except ValueError as error:
            if env_ids:
                raise
            print(f"not measured: {error}")
    print_table(
        "steps per second on one core; 3x: batched is three times as fast",
        ["environment"],
        ["copies", "batched", "in SB3", "singly", "", "original", ""],
        map(_row, speeds),
    )
    return speeds


def _row(speed: Speed) -> list[str]:
    row = [speed.env_id.removeprefix("bistable_rl/"), str(speed.num_envs), _short(speed.batched), _short(speed.adapter)]
    for rate in (speed.one_by_one, speed.original):
        row += [_short(rate), f"{speed.batched / rate:.3g}x"] if rate else ["", ""]
    return row


def _stepper(env: Any) -> Callable[[], object]:
    """Return a function that takes a step with the next of 32 random actions."""
    space = env.action_space if hasattr(env, "single_action_space") else batch_space(env.action_space, env.num_envs)
    space.seed(0)
    actions = itertools.cycle([np.asarray(space.sample()) for _ in range(32)])
    env.reset()
    return lambda: env.step(next(actions))


def _short(rate: float) -> str:
    """Return a rate as text with about three digits."""
    return f"{rate / 1e6:.2f}M" if rate >= 1e6 else f"{rate / 1e3:.3g}k"
