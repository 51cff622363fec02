"""The T-mazes of Ni et al. (2023): a corridor that must be walked without a wasted step."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_int, check_size, check_symbols
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchedEnv, BatchOptions, Copies, StepResult
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.t_maze import DOWN, LEFT, RIGHT, UP


class FixedHorizonTMazeVectorEnv(BatchedEnv):
    """A goal shown at an oracle, once, decides which way to turn at the end of a corridor, at the last step.

    The oracle is at x = 0, the junction at x = `oracle` + `length`, the goal one step up or down from it. The player
    starts at x = `oracle`. Unlike in `bistable_rl/TMaze-v0`, an episode has a fixed length, which is exactly enough for
    the way to the oracle and to the goal. The goal is seen only at the first visit of the oracle. A wasted step costs.

    These are the T-mazes of Ni, Ma, Eysenbach and Bacon (2023), "When Do Transformers Shine in RL? Decoupling Memory
    from Credit Assignment", NeurIPS (their code's `TMazeClassicPassive` and `TMazeClassicActive`): passive, where the
    player starts at the oracle (`oracle` 0), and active, where it must go there first (1).

    ## Action Space
    `Discrete(4)`: 0 right, 1 up, 2 left, 3 down. A step against a wall goes nowhere.

    ## Observation Space
    `Box(-1, 1, (2,))`: (0, g) at the first visit of the oracle, where g is 1 if the goal is up and -1 if it is down;
    (0, 0) in the corridor and at a later visit; (1, y) at the junction (y = 0) and in the arms up (1) and down (-1).

    ## Rewards
    At the last step 1 if it ends in the arm with the goal, else 0. At every other step -1/L if x < t - `oracle`, where
    t is the number of steps including this one, else 0. `optimal_return` is 1. Without memory the best player goes
    right and turns either way, so `memoryless_return` is 1/2.

    ## Starting State
    The goal is up or down with probability 1/2. `options={"cue": 0}` sets up, 1 down.

    ## Episode End
    The episode terminates after L + 2 `oracle` + 1 steps. `info["is_success"]` says whether it ended at the goal.

    ## Arguments
    - `length`: L, the steps from the start to the junction, at least 1.
    - `oracle`: the steps from the start to the oracle, to the left of it.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("x", "y", "cue", "visit")

    def __init__(self, *, length: int = 50, oracle: int = 0, **options: Unpack[BatchOptions]) -> None:
        self.length = check_size("length", length)
        self.oracle = check_int("oracle", oracle, 0, length)
        super().__init__(
            observation_space=Box(-1, 1, (2,), np.float32),
            action_space=Discrete(4),
            **options,
        )
        self.x = np.zeros(self.num_envs, np.int64)
        self.y = np.zeros(self.num_envs, np.int64)  # 0 in the corridor, 1 in the arm up, -1 in the arm down
        self.cue = np.zeros(self.num_envs, np.int64)  # 0 up, 1 down
        self.visit = np.zeros(self.num_envs, np.int64)  # the step of the first visit of the oracle, or -1
        self.horizon = length + 2 * oracle + 1
        self.optimal_return = 1.0
        self.memoryless_return = 0.5

    def _begin(self, i: Copies) -> None:
        self.x[i] = self.oracle
        self.y[i] = 0
        self.cue[i] = rng.integers(self.keys[i], rng.ONCE, 2)
        self.visit[i] = -1 if self.oracle else 0

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.cue[i] = check_symbols("cue", cue, 2)

    def _advance(self, actions: np.ndarray) -> StepResult:
        end = self.oracle + self.length
        along = (actions == RIGHT).astype(np.int64) - (actions == LEFT)
        across = (actions == UP).astype(np.int64) - (actions == DOWN)
        junction = self.x == end
        self.x = np.where(self.y == 0, np.clip(self.x + along, 0, end), self.x)
        self.y = np.where(junction, np.clip(self.y + across, -1, 1), 0)
        t = self.t + 1
        self.visit = np.where((self.visit < 0) & (self.x == 0), t, self.visit)
        over = t >= self.horizon
        success = self.y == 1 - 2 * self.cue
        reward = np.where(over, success, np.where(self.x < t - self.oracle, -1 / self.length, 0.0))
        return reward, over, np.zeros(self.num_envs, np.bool_), {"is_success": success}

    def _observe(self, i: Copies) -> npt.NDArray[np.float32]:
        observations = self._blank(i)
        observations[:, 0] = self.x[i] == self.oracle + self.length
        observations[:, 1] = np.where(self.visit[i] == self.t[i], 1 - 2 * self.cue[i], self.y[i])
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        if self.visit[k] == self.t[k]:
            return f"the goal is {self.memory_text(k)}"
        return ["the junction", "the arm up", "the arm down"][self.y[k]] if self._junction(k) else "the corridor"

    def _junction(self, k: int) -> bool:
        return bool(self.x[k] == self.oracle + self.length)

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return "up" if self.cue[k] == 0 else "down"

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        picture = np.zeros((3, self.oracle + self.length + 1, 3), np.uint8)
        picture[1], picture[:, -1] = 90, 90
        picture[2 * self.cue[k], -1] = (40, 200, 80)
        picture[1 - self.y[k], self.x[k]] = (255, 180, 40)
        return picture


class FixedHorizonTMazeEnv(SingleEnv):
    """One copy of `FixedHorizonTMazeVectorEnv`."""

    vector_class = FixedHorizonTMazeVectorEnv
