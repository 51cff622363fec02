"""TMaze: a goal shown at the entrance of a corridor decides which way to turn at its end."""

from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_bool, check_number, check_size, check_symbols
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.phases import Phases
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.streams import APART, Steps, Stream

RIGHT, UP, LEFT, DOWN = range(4)
GOAL, WRONG = 4.0, -0.1


class TMazeVectorEnv(DistractedEnv):
    """A goal shown at the entrance of a corridor decides which way to turn at its end.

    The player starts at x = 0, the only place where it sees whether the goal is up or down. The corridor leads right to
    the junction at x = `length`; the goal is one step up or down from it. Unlike in the other tasks, the player's own
    actions bring it to the step where it needs its memory.

    The maze is that of Bakker (2001), "Reinforcement Learning with Long Short-Term Memory", NIPS 14; rewards, horizon
    and the stochastic variant are those of Lambrechts, De Geeter, Vecoven, Ernst and Drion (2023), "Warming up
    recurrent neural networks to maximise reachable multistability greatly improves learning", Neural Networks 166.

    ## Action Space
    `Discrete(4)`: 0 right, 1 up, 2 left, 3 down.

    ## Observation Space
    `Box(0, 1, (4,))`: one-hot of goal up, goal down, corridor, junction; zeros in the arms. With
    `previous_action_reward` it is `Box((9,))`: the previous action, one-hot, and the previous reward, from -0.1 to 4,
    follow; they are zero at the first step. With `distractors` a symbol, one-hot of `num_symbols`, is added at the end;
    zeros at the first step and in the arms.

    ## Rewards
    4 for the arm with the goal, -0.1 for the other arm and for a step against a wall, else 0. A random step (see
    `stochasticity`) is rewarded like the action that the player chose.

    `optimal_return` is 4 P, where P is the probability that a player who always goes right reaches the junction while a
    step is left, computed from the distribution of x; P = 1 without stochasticity. The best player without memory
    does the same and turns either way at the junction, which looks the same for both goals, so `memoryless_return` is
    P (4 - 0.1) / 2. (The previous action and reward are a memory and are not counted as part of the observation.)

    ## Starting State
    The player is at x = 0; the goal is up or down with probability 1/2. `options={"cue": 0}` sets up, 1 down.

    ## Episode End
    The episode terminates in an arm and is truncated after 3 `length` - 1 steps. `info["is_success"]` says whether the
    goal was reached.

    ## Arguments
    - `length`: L, the length of the corridor, at least 1. An episode takes at least L + 1 and at most 3 L - 1 steps.
    - `stochasticity`: λ, the probability of a random step in the corridor; there is none at the junction.
    - `previous_action_reward`: whether the observation holds the previous action and reward.
    - `distractors`: the kind of stream of the distractors, one of `bistable_rl.envs.streams.KINDS`; None for none.
    - `num_symbols`: K, the number of symbols of the distractors, at least 2.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("x", "y", "cue", "previous")
    SHORTEST: ClassVar[int] = 1
    ARGUMENTS: ClassVar[tuple[str, ...]] = ("stochasticity", "previous_action_reward", "num_symbols")
    MEANWHILE: ClassVar[int | None] = RIGHT

    def __init__(
        self,
        *,
        length: int = 20,
        stochasticity: float = 0.0,
        previous_action_reward: bool = False,
        distractors: str | None = None,
        num_symbols: int = 8,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.length = check_size("length", length)
        self.stochasticity = check_number("stochasticity", stochasticity, maximum=1)
        self.previous_action_reward = check_bool("previous_action_reward", previous_action_reward)
        self.num_symbols = check_size("num_symbols", num_symbols, 2)
        self.size = 9 if previous_action_reward else 4  # the numbers of the observation before the distractor
        size = self.size + (0 if distractors is None else num_symbols)
        low = np.zeros(size, np.float32)
        high = np.ones(size, np.float32)
        if previous_action_reward:
            low[8], high[8] = WRONG, GOAL
        super().__init__(
            observation_space=Box(low, high, dtype=np.float32),
            action_space=Discrete(4),
            **options,
        )
        if distractors is not None:
            self.stream = Stream(distractors, self.num_envs, first=1, start=APART)
        self.x = np.zeros(self.num_envs, np.int64)
        self.y = np.zeros(self.num_envs, np.int64)  # 0 in the corridor, 1 in the arm up, -1 in the arm down
        self.cue = np.zeros(self.num_envs, np.int64)  # 0 up, 1 down
        self.previous = np.zeros((self.num_envs, 5), np.float32)  # action, one-hot, and reward
        self.horizon = 3 * length - 1

    @cached_property
    def _arrival(self) -> float:
        """The probability that a player who always goes right reaches the junction while a step is left."""
        if self.stochasticity == 0:
            return 1.0
        random = self.stochasticity / 4
        p = np.zeros(self.length + 1)
        p[0] = 1.0
        for _ in range(self.horizon - 1):
            moved = np.zeros_like(p)
            moved[1:] += (1 - 3 * random) * p[:-1]
            moved[:-1] += 2 * random * p[:-1]  # up and down: a wall
            moved[0] += random * p[0]
            moved[:-2] += random * p[1:-1]
            moved[-1] += p[-1]
            p = moved
        return min(float(p[-1]), 1.0)  # rounding

    @property
    def optimal_return(self) -> float:  # type: ignore[override]
        """The expected return of an optimal policy."""
        return GOAL * self._arrival

    @property
    def memoryless_return(self) -> float:  # type: ignore[override]
        """The expected return of the best policy that sees the current observation only."""
        return (GOAL + WRONG) / 2 * self._arrival

    def _begin(self, i: Copies) -> None:
        self.x[i] = 0
        self.y[i] = 0
        self.cue[i] = rng.integers(self.keys[i], rng.ONCE, 2)
        self.previous[i] = 0.0

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.cue[i] = check_symbols("cue", cue, 2)

    def _advance(self, actions: np.ndarray) -> StepResult:
        self._next_distractors()
        junction = self.x == self.length
        turns = (actions == UP) | (actions == DOWN)
        against_wall = np.where(junction, actions == RIGHT, turns | ((actions == LEFT) & (self.x == 0)))
        in_arm = junction & turns
        success = in_arm & (actions == np.where(self.cue == 0, UP, DOWN))
        reward = np.where(success, GOAL, np.where(in_arm | against_wall, WRONG, 0.0))

        done = actions
        if self.stochasticity > 0:
            random = ~junction & (rng.uniform(self.keys, 2 * self.t) < self.stochasticity)
            done = np.where(random, rng.integers(self.keys, 2 * self.t + 1, 4), actions)
        self.x = np.clip(self.x + (done == RIGHT) - (done == LEFT), 0, self.length)
        self.y = np.where(in_arm, np.where(actions == UP, 1, -1), 0)
        self.previous[:, :4] = actions[:, None] == np.arange(4)
        self.previous[:, 4] = reward
        truncated = ~in_arm & (self.t == self.horizon - 1)
        return reward, in_arm, truncated, {"is_success": success}

    def phases(self, t: int | None = None) -> Phases | None:
        """Return the admissible observations of a player who goes right; None with random steps or previous actions."""
        if self.stochasticity or self.previous_action_reward:
            return None
        symbols = self.num_symbols if self.stream is not None else 1
        size = self._size
        corridor = np.eye(symbols, size, self.size, dtype=np.float32)
        junction = corridor.copy()
        corridor[:, 2], junction[:, 3] = 1, 1
        right = np.array([[UP], [DOWN]]).repeat(symbols, 1)
        cue = np.eye(2, size, dtype=np.float32)
        return Phases(cue, corridor, corridor, junction, junction, np.arange(2), right, meanwhile=RIGHT)

    def _first_answer(self) -> npt.NDArray[np.int64] | int:
        if self.stochasticity or self.previous_action_reward:
            return 0
        return np.minimum(self.t + self.length - self.x, self.horizon - 1)

    def _pass(self, steps: npt.NDArray[np.int64]) -> None:
        self.x = self.x + steps
        self.previous[steps > 0] = np.eye(1, 5, RIGHT)

    def _observe_at(self, i: Copies, t: Steps, index: Steps) -> npt.NDArray[np.float32]:
        x, corridor = self.x[i] + t - self.t[i], self.y[i] == 0  # a later step is seen by a player who goes right
        observations = self._blank(i)
        observations[:, 0] = corridor & (x == 0) & (self.cue[i] == 0)
        observations[:, 1] = corridor & (x == 0) & (self.cue[i] == 1)
        observations[:, 2] = corridor & (x > 0) & (x < self.length)
        observations[:, 3] = corridor & (x == self.length)
        if self.previous_action_reward:
            observations[:, 4:9] = self.previous[i]
        if self.stream is not None:
            observations[:, self.size :] = self._one_hot(i, t, index, corridor & (t > 0))
        return observations

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        if self.y[k] != 0:
            return "an arm"
        place = "the junction" if self.x[k] == self.length else "the corridor"
        return (f"the goal is {self.memory_text(k)}" if self.x[k] == 0 else place) + self._distractor_text(k)

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return "up" if self.cue[k] == 0 else "down"

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        picture = np.zeros((3, self.length + 1, 3), np.uint8)
        picture[1], picture[:, -1] = 90, 90
        picture[2 * self.cue[k], -1] = (40, 200, 80)
        picture[1 - self.y[k], self.x[k]] = (255, 180, 40)
        return picture


class TMazeEnv(SingleEnv):
    """One copy of `TMazeVectorEnv`."""

    vector_class = TMazeVectorEnv
