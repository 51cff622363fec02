"""POPGym's Pendulums: swing up a pendulum when only its angle is seen, with or without noise."""

from math import pi
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box
from typing_extensions import Unpack

from bistable_rl.checks import check_number, check_numbers, check_size
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations, PopgymEnv
from bistable_rl.envs.popgym.noise import add_noise
from bistable_rl.envs.single_env import SingleEnv

TORQUE, MOST_SPEED, TAU = 2.0, 8.0, 0.05
HALF = 16.2736044 / 2
"""Half the greatest cost of a step."""
BEST_COST, RANDOM_COST = 137.5, 6.15
"""The mean cost of an episode of 100 steps or more with the best torques, by value iteration on a grid of angle and
speed, and that of one step with random ones."""


class PopgymPositionOnlyPendulumVectorEnv(PopgymEnv):
    """POPGym: swing a pendulum up and keep it there; its speed is not seen.

    This is PositionOnlyPendulum, and with `noise_sigma` NoisyPositionOnlyPendulum, of Morad et al. (2023), "POPGym:
    Benchmarking Partially Observable Reinforcement Learning", ICLR (popgym 1.0.7, `popgym.envs.position_only_pendulum`
    and `noisy_position_only_pendulum`) on gymnasium's Pendulum-v1. Without noise `length` is 200 in Easy, 150 in
    Medium, 100 in Hard; with noise it is 200, and `noise_sigma` 0.1, 0.2 and 0.3.

    ## Action Space
    `Box(-1, 1, (1,))`: an action a stands for the torque 2 a; popgym's own action is the torque, from -2 to 2.

    ## Observation Space
    `Box(-1, 1, (2,))`: cosine and sine of the angle, each with normal noise, clipped to ±1. With `previous_action` the
    previous torque, 0 at the first step, and (1, 0), or (0, 1) at the first step, follow: `Box((5,))`.

    ## Rewards
    (1 - cost/8.137)/`length`, where the cost of a step is angle² + 0.1 speed² + 0.001 torque² before the step, at most
    16.27; the angle is 0 upright. From a random start the swing up costs about 137.5 on average, so `optimal_return` is
    about 1 - 137.5/(8.137 `length`), for a player who sees angle and speed. The return of the best player without
    memory is not known; `memoryless_return` is that of a player with random torques, about 0.24 for any length.

    ## Starting State
    The angle is drawn uniformly from -π to π, the speed from -1 to 1. `options={"cue": [angle, speed]}` sets them.

    ## Episode End
    The episode is truncated after `length` steps. `info["is_success"]` says whether the return is at least
    `reward_threshold`.

    ## Arguments
    - `length`: the number of steps in an episode, at least 100.
    - `noise_sigma`: the standard deviation of the noise.
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("x", "returns")
    CUE_NDIM: ClassVar[int] = 1

    def __init__(
        self,
        *,
        length: int = 200,
        noise_sigma: float = 0.0,
        previous_action: bool = False,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.horizon = check_size("length", length, 100)
        self.noise_sigma = check_number("noise_sigma", noise_sigma)
        super().__init__(
            shown=Box(-1, 1, (2,), np.float32),
            acted=Box(-TORQUE, TORQUE, (1,), np.float32),
            action_space=Box(-1, 1, (1,), np.float32),
            previous_action=previous_action,
            **options,
        )
        self.x = np.zeros((self.num_envs, 2))  # angle and speed
        self.returns = np.zeros(self.num_envs)
        self.optimal_return = 1 - BEST_COST / HALF / length
        self.memoryless_return = 1 - RANDOM_COST / HALF

    def _begin(self, i: Copies) -> None:
        self.x[i] = np.array([pi, 1.0]) * (2 * rng.uniform(self.keys[i, None], rng.ONCE + np.arange(2)) - 1)
        self.returns[i] = 0.0

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        if cue.shape[-1:] != (2,):
            raise ValueError(f"cue must be angle and speed, got {cue}")
        check_numbers("the angle", cue[..., 0], pi)
        check_numbers("the speed", cue[..., 1], 1.0)
        self.x[i] = cue

    def _as_popgyms(self, actions: np.ndarray) -> np.ndarray:
        return actions.astype(np.float32) * np.float32(TORQUE)

    def _play(self, actions: np.ndarray) -> StepResult:
        angle, speed = self.x.T
        torque = actions[:, 0]
        cost = ((angle + pi) % (2 * pi) - pi) ** 2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = np.clip(speed + (15.0 * np.sin(angle) + 3.0 * torque) * TAU, -MOST_SPEED, MOST_SPEED)
        self.x = np.stack([angle + speed * TAU, speed], 1)
        reward = (HALF - cost) / HALF / self.horizon
        self.returns = self.returns + reward
        success = self.returns >= self.reward_threshold
        return reward, np.zeros(self.num_envs, np.bool_), self.t >= self.horizon - 1, {"is_success": success}

    def _show(self, i: Copies, observations: Observations) -> None:
        observations[:, 0] = np.cos(self.x[i, 0])
        observations[:, 1] = np.sin(self.x[i, 0])
        if self.noise_sigma:
            add_noise(observations, self.noise_sigma, np.ones(2, np.float32), self.keys[i], self.t[i])

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return "cosine {:.3f}, sine {:.3f}".format(*self._shown(k))

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return f"speed {self.x[k, 1]:.3f}"


class PopgymPositionOnlyPendulumEnv(SingleEnv):
    """One copy of `PopgymPositionOnlyPendulumVectorEnv`."""

    vector_class = PopgymPositionOnlyPendulumVectorEnv
