"""POPGym's CartPoles: balance a pole when only the cart's position and the angle are seen, with or without noise."""

import math
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_number, check_numbers, check_size
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations, PopgymEnv
from bistable_rl.envs.popgym.noise import add_noise
from bistable_rl.envs.single_env import SingleEnv

GRAVITY, POLE_MASS, TOTAL_MASS, HALF_LENGTH, FORCE, TAU = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
X_LIMIT, ANGLE_LIMIT = 2.4, 12 * 2 * math.pi / 360
START = 0.05
RANDOM_STEPS = 22.2
"""The mean length of an episode with random pushes, of 100 steps or more at most."""


class PopgymPositionOnlyCartPoleVectorEnv(PopgymEnv):
    """POPGym: balance a pole on a cart; the velocities are not seen.

    This is PositionOnlyCartPole, and with `noise_sigma` NoisyPositionOnlyCartPole, of Morad et al. (2023), "POPGym:
    Benchmarking Partially Observable Reinforcement Learning", ICLR (popgym 1.0.7, `popgym.envs.position_only_cartpole`
    and `noisy_position_only_cartpole`) on gymnasium's CartPole-v1 (Barto, Sutton and Anderson 1983). Without noise
    `length` is 200 in Easy, 400 in Medium, 600 in Hard; with noise it is 200, and `noise_sigma` 0.1, 0.2 and 0.3.

    ## Action Space
    `Discrete(2)`: push the cart to the left (0) or to the right (1).

    ## Observation Space
    `Box((2,))`: the position of the cart, from -4.8 to 4.8, and the angle of the pole in radians, from -0.419 to 0.419,
    each with normal noise, clipped to the limits, as in popgym. With `previous_action` the previous action, one-hot
    (that of action 0 at the first step), and (1, 0), or (0, 1) at the first step, follow: `Box((6,))`.

    ## Rewards
    1/`length` at every step. `optimal_return` is 1, a bound. The return of the best player without memory is not known;
    `memoryless_return` is that of a player who pushes at random and keeps the pole up for 22.2 steps on average.

    ## Starting State
    Position, velocity, angle and angular velocity are drawn uniformly from -0.05 to 0.05. `options={"cue": four}` sets
    them.

    ## Episode End
    The episode terminates when the cart is beyond ±2.4 or the angle beyond ±0.2095 (12°), and is truncated after
    `length` steps; both can happen at once. `info["is_success"]` says whether the pole is still up.

    ## Arguments
    - `length`: the greatest number of steps, at least 100.
    - `noise_sigma`: the standard deviation of the noise.
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("x",)
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
        high = np.array([2 * X_LIMIT, 2 * ANGLE_LIMIT], np.float32)
        super().__init__(
            shown=Box(-high, high, dtype=np.float32), acted=Discrete(2), previous_action=previous_action, **options
        )
        self.limit = high
        self.x = np.zeros((self.num_envs, 4))  # position, velocity, angle, angular velocity
        self.memoryless_return = RANDOM_STEPS / length

    def _begin(self, i: Copies) -> None:
        self.x[i] = START * (2 * rng.uniform(self.keys[i, None], rng.ONCE + np.arange(4)) - 1)

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        if cue.shape[-1:] != (4,):
            raise ValueError(f"cue must be position, velocity, angle and angular velocity, got {cue}")
        self.x[i] = check_numbers("cue", cue, START)

    def _play(self, actions: np.ndarray) -> StepResult:
        _, speed, angle, turning = self.x.T
        cos, sin = np.cos(angle), np.sin(angle)
        pushed = (np.where(actions == 1, FORCE, -FORCE) + POLE_MASS * HALF_LENGTH * turning**2 * sin) / TOTAL_MASS
        inertia = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cos**2 / TOTAL_MASS)
        turning_acceleration = (GRAVITY * sin - cos * pushed) / inertia
        acceleration = pushed - POLE_MASS * HALF_LENGTH * turning_acceleration * cos / TOTAL_MASS
        changes = (speed, acceleration, turning, turning_acceleration)
        self.x = self.x + TAU * np.stack(changes, 1)
        fallen = (abs(self.x[:, 0]) > X_LIMIT) | (abs(self.x[:, 2]) > ANGLE_LIMIT)
        return np.full(self.num_envs, 1 / self.horizon), fallen, self.t >= self.horizon - 1, {"is_success": ~fallen}

    def _show(self, i: Copies, observations: Observations) -> None:
        observations[:] = self.x[i, ::2]
        if self.noise_sigma:
            add_noise(observations, self.noise_sigma, self.limit, self.keys[i], self.t[i])

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return "position {:.3f}, angle {:.3f}".format(*self._shown(k))

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return f"velocity {self.x[k, 1]:.3f}, angular velocity {self.x[k, 3]:.3f}"


class PopgymPositionOnlyCartPoleEnv(SingleEnv):
    """One copy of `PopgymPositionOnlyCartPoleVectorEnv`."""

    vector_class = PopgymPositionOnlyCartPoleVectorEnv
