"""Training steps per second: our recurrent PPO against sb3-contrib's, with and without sb3-contrib's loop over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sb3_contrib import RecurrentPPO as TheirPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor, nn

from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.runs.progress import say_measuring
from bistable_rl.speed import floor
from bistable_rl.speed.recall import Recall
from bistable_rl.speed.table import print_table
from bistable_rl.speed.timing import median_seconds, one_thread

N_STEPS, HIDDEN_SIZE = 128, 128
CELLS = ("nbrc", "brc", "gru", "lstm")
STOCK, ONE_CALL = "sb3-contrib", "sb3-contrib, one call"
PRODUCT = "product"  # timed in turns with the algorithms


@dataclass(frozen=True)
class Setting:
    """The sizes of an update: copies of the environment, steps per minibatch, and passes over the rollout."""

    num_envs: int
    batch_size: int
    n_epochs: int

    def __str__(self) -> str:
        return f"{self.num_envs}, {self.batch_size}, {self.n_epochs}"


SETTINGS = (Setting(8, 128, 10), Setting(8, 256, 4), Setting(64, 1024, 4))


@dataclass(frozen=True)
class Speed:
    """The speed and the memory of one algorithm at one setting.

    Attributes:
        algorithm: `STOCK`, `ONE_CALL`, or the cell of our algorithm.
        setting: The setting.
        steps_per_second: Environment steps of all copies per second of processor time, on one thread: the median of
            interleaved rollouts with their updates.
        rollout_bytes: The memory of the rollout, in bytes.
        share_of_peak: The time of the floor (see `floor`) divided by the measured time, in [0, 1]; None for
            sb3-contrib's algorithms.
    """

    algorithm: str
    setting: Setting
    steps_per_second: float
    rollout_bytes: int
    share_of_peak: float | None


class OneCallPolicy(RecurrentActorCriticPolicy):
    """sb3-contrib's policy without its loop over time; episodes may start only at the start of a sequence."""

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: nn.LSTM
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        n = lstm_states[0].shape[1]
        x = features.reshape(n, -1, lstm.input_size).transpose(0, 1)
        continues = 1.0 - episode_starts.reshape(n, -1)[:, 0].view(1, n, 1)
        output, state = lstm(x, (continues * lstm_states[0], continues * lstm_states[1]))
        return output.transpose(0, 1).flatten(0, 1), state


def make_algorithm(name: str, setting: Setting) -> OnPolicyAlgorithm:
    """Return an algorithm that trains on `Recall`.

    All algorithms have one recurrent layer, shared by actor and critic, and linear heads on it. In our algorithm the
    value loss also trains that layer; sb3-contrib prevents this.

    Args:
        name: `STOCK`, `ONE_CALL`, or a cell for our algorithm.
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
            policy_kwargs={"cell": name, "hidden_size": HIDDEN_SIZE, "critic": "shared", "net_arch": []},
            **common,
        )
    policy_kwargs = {
        "lstm_hidden_size": HIDDEN_SIZE, "shared_lstm": True, "enable_critic_lstm": False, "net_arch": [],
    }  # fmt: skip
    return TheirPPO("MlpLstmPolicy" if name == STOCK else OneCallPolicy, env, policy_kwargs=policy_kwargs, **common)


def rollout_bytes(algorithm: OnPolicyAlgorithm) -> int:
    """Return the memory of an algorithm's rollout, in bytes."""
    if isinstance(algorithm, RecurrentPPO):
        return algorithm.rollout.nbytes()
    buffer: Any = algorithm.rollout_buffer
    return sum(value.nbytes for value in vars(buffer).values() if isinstance(value, np.ndarray))


def iteration(algorithm: OnPolicyAlgorithm, setting: Setting) -> Callable[[], object]:
    """Return a function that collects a rollout and updates the policy."""
    return lambda: algorithm.learn(N_STEPS * setting.num_envs, reset_num_timesteps=False)


def measure(setting: Setting, *, cells: Sequence[str] = CELLS, rounds: int = 5) -> list[Speed]:
    """Measure all algorithms at one setting, in processor time on one thread.

    Args:
        setting: The setting.
        cells: The cells of our algorithm.
        rounds: The number of timed rollouts with their updates.

    Returns:
        One `Speed` per algorithm: `STOCK`, `ONE_CALL`, then ours by cell.
    """
    algorithms = {name: make_algorithm(name, setting) for name in (STOCK, ONE_CALL, *cells)}
    runs = {name: iteration(algorithm, setting) for name, algorithm in algorithms.items()}
    with one_thread():
        seconds = median_seconds({**runs, PRODUCT: floor.product()}, rounds=rounds)
    peak = floor.PRODUCT_OPERATIONS / seconds[PRODUCT]
    speeds = []
    for name, algorithm in algorithms.items():
        steps_per_second = N_STEPS * setting.num_envs / seconds[name]
        policy, share = algorithm.policy, None
        if isinstance(policy, RecurrentPolicy):
            share = steps_per_second * floor.operations_per_step(policy, setting.n_epochs) / peak
        speeds.append(Speed(name, setting, steps_per_second, rollout_bytes(algorithm), share))
    return speeds


def speed_ppo(*, settings: Sequence[Setting] = SETTINGS, rounds: int = 5) -> list[Speed]:
    """Measure all algorithms at several settings and print a table.

    Args:
        settings: The settings.
        rounds: The timed rollouts with their updates.

    Returns:
        All measurements.
    """
    speeds: list[Speed] = []
    rows: list[list[str]] = []
    for i, setting in enumerate(settings, 1):
        say_measuring(f"{setting.num_envs} copies", i, len(settings))
        measured = measure(setting, rounds=rounds)
        speeds += measured
        stock, one_call = measured[:2]
        rows += [
            [
                str(setting),
                speed.algorithm,
                f"{speed.steps_per_second:,.0f}",
                f"{speed.steps_per_second / stock.steps_per_second:.1f}x",
                f"{speed.steps_per_second / one_call.steps_per_second:.1f}x",
                "" if speed.share_of_peak is None else f"{100 * speed.share_of_peak:.0f}",
                f"{speed.rollout_bytes / 1e6:.2f}",
                f"{speed.rollout_bytes / stock.rollout_bytes:.3f}",
            ]
            for speed in measured
        ]
        rows.append([])
    print_table(
        f"recurrent PPO, H = {HIDDEN_SIZE}, {N_STEPS} steps a copy, one thread, processor time",
        ["copies, batch, epochs", "algorithm"],
        ["env steps/s", "of stock", "of one call", "% of peak", "rollout MB", "of stock"],
        rows,
    )
    return speeds
