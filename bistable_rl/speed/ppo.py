"""How fast recurrent PPO trains: ours beside sb3-contrib's, and where the time goes."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from rich.console import Console
from rich.table import Table
from sb3_contrib import RecurrentPPO as TheirPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor, nn

from bistable_rl.agents.buffer import Rollout
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchedEnv, Copies, StepResult
from bistable_rl.runs.progress import say_measuring

N_STEPS, HIDDEN_SIZE = 128, 128
CELLS = ("nbrc", "brc", "gru", "lstm")
STOCK, ONE_CALL = "sb3-contrib", "sb3-contrib, one call"


@dataclass(frozen=True)
class Setting:
    """What an update costs: copies, steps of a minibatch, and passes over the rollout."""

    num_envs: int
    batch_size: int
    n_epochs: int


SETTINGS = (Setting(8, 128, 10), Setting(8, 256, 4), Setting(64, 1024, 4))


@dataclass(frozen=True)
class Speed:
    """What one algorithm does at one setting.

    Attributes:
        algorithm: `STOCK`, `ONE_CALL`, or the cell with which ours trains.
        setting: The setting.
        steps_per_second: Environment steps a second of processor time, in which other jobs don't count, all copies
            together, on one thread: median of interleaved rollouts with their updates.
        rollout_bytes: Memory of the rollout.
    """

    algorithm: str
    setting: Setting
    steps_per_second: float
    rollout_bytes: int


class Recall(BatchedEnv):
    """One of four symbols is shown, and asked for after 9 to 59 steps: episodes of 10 to 60 steps, whoever plays."""

    STATE: ClassVar[tuple[str, ...]] = ("cue", "length")

    def __init__(self, num_envs: int) -> None:
        super().__init__(
            num_envs=num_envs,
            observation_space=Box(0, 1, (5,), np.float32),
            action_space=Discrete(4),
            autoreset_mode=AutoresetMode.SAME_STEP,
            render_mode=None,
        )
        self.cue, self.length = np.zeros((2, num_envs), np.int64)

    def _begin(self, i: Copies) -> None:
        self.cue[i] = rng.integers(self.keys[i], 0, 4)
        self.length[i] = 10 + rng.integers(self.keys[i], 1, 51)

    def _advance(self, actions: np.ndarray) -> StepResult:
        over = self.t == self.length - 1
        right = actions == self.cue
        return np.where(over & right, 1.0, 0.0), over, np.zeros(self.num_envs, np.bool_), {"is_success": right}

    def _observe(self, i: Copies) -> Any:
        observations = self._blank(i)
        observations[np.arange(len(i)), self.cue[i]] = self.t[i] == 0
        observations[:, 4] = self.t[i] == self.length[i] - 1
        return observations


class OneCallPolicy(RecurrentActorCriticPolicy):
    """sb3-contrib's policy without its loop over time: no episode starts within a sequence, only with it."""

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: nn.LSTM
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        n = lstm_states[0].shape[1]
        x = features.reshape(n, -1, lstm.input_size).transpose(0, 1)
        lasting = 1.0 - episode_starts.reshape(n, -1)[:, 0].view(1, n, 1)
        output, state = lstm(x, (lasting * lstm_states[0], lasting * lstm_states[1]))
        return output.transpose(0, 1).flatten(0, 1), state


def make_algorithm(name: str, setting: Setting) -> OnPolicyAlgorithm:
    """Return an algorithm that trains on `Recall`.

    All have one recurrent layer, which actor and critic share, and linear heads on it. In ours the value loss trains
    that layer too, which sb3-contrib stops.

    Args:
        name: `STOCK`, `ONE_CALL`, or the cell of ours.
        setting: The setting.
    """
    env = BatchedVecEnv(Recall(setting.num_envs))
    common: dict[str, Any] = {
        "n_steps": N_STEPS, "batch_size": setting.batch_size, "n_epochs": setting.n_epochs, "seed": 0, "device": "cpu",
    }  # fmt: skip
    if name not in (STOCK, ONE_CALL):
        return RecurrentPPO(
            "RecurrentPolicy",
            env,
            policy_kwargs={"cell": name, "hidden_size": HIDDEN_SIZE, "critic": "shared"},
            **common,
        )
    policy_kwargs = {
        "lstm_hidden_size": HIDDEN_SIZE, "shared_lstm": True, "enable_critic_lstm": False, "net_arch": [],
    }  # fmt: skip
    return TheirPPO("MlpLstmPolicy" if name == STOCK else OneCallPolicy, env, policy_kwargs=policy_kwargs, **common)


def rollout_bytes(algorithm: OnPolicyAlgorithm) -> int:
    """Return the memory of an algorithm's rollout, in bytes."""
    buffer: Any = algorithm.rollout_buffer
    if isinstance(buffer, Rollout):
        return buffer.nbytes()
    return sum(value.nbytes for value in vars(buffer).values() if isinstance(value, np.ndarray))


def measure(setting: Setting, *, cells: Sequence[str] = CELLS, rounds: int = 5) -> list[Speed]:
    """Measure all algorithms at one setting, in turn, so that a busy moment hits all alike; on one thread.

    Args:
        setting: The setting.
        cells: Cells with which ours trains.
        rounds: Rollouts with their updates that are timed, after one that is not.

    Returns:
        One `Speed` an algorithm: stock's, the one-call variant's, then ours by cell.
    """
    algorithms = {name: make_algorithm(name, setting) for name in (STOCK, ONE_CALL, *cells)}
    steps = N_STEPS * setting.num_envs
    rates: dict[str, list[float]] = {name: [] for name in algorithms}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(1 + rounds):
            for name, algorithm in algorithms.items():
                start = time.process_time()
                algorithm.learn(steps, reset_num_timesteps=False)
                rates[name].append(steps / (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    return [
        Speed(name, setting, statistics.median(rates[name][1:]), rollout_bytes(algorithm))
        for name, algorithm in algorithms.items()
    ]


def speed_ppo(*, settings: Sequence[Setting] = SETTINGS, rounds: int = 5) -> list[Speed]:
    """Measure all algorithms at several settings and print a table.

    Args:
        settings: The settings.
        rounds: Rollouts with their updates that are timed.

    Returns:
        All measurements.
    """
    table = Table(
        title=f"recurrent PPO, H = {HIDDEN_SIZE}, {N_STEPS} steps a copy, one thread, processor time",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("copies, batch, epochs", no_wrap=True)
    table.add_column("algorithm", no_wrap=True)
    for column in ("env steps/s", "of stock", "of one call", "rollout MB", "of stock"):
        table.add_column(column, justify="right", no_wrap=True)
    speeds: list[Speed] = []
    for i, setting in enumerate(settings, 1):
        say_measuring(f"{setting.num_envs} copies", i, len(settings))
        measured = measure(setting, rounds=rounds)
        speeds += measured
        stock, one_call = measured[:2]
        for speed in measured:
            table.add_row(
                f"{setting.num_envs}, {setting.batch_size}, {setting.n_epochs}",
                speed.algorithm,
                f"{speed.steps_per_second:,.0f}",
                f"{speed.steps_per_second / stock.steps_per_second:.1f}x",
                f"{speed.steps_per_second / one_call.steps_per_second:.1f}x",
                f"{speed.rollout_bytes / 1e6:.2f}",
                f"{speed.rollout_bytes / stock.rollout_bytes:.3f}",
                end_section=speed is measured[-1],
            )
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
    return speeds
