"""POPGym's MineSweeper: view all squares without a mine, of which only the last one is seen."""

from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete, MultiDiscrete
from typing_extensions import Unpack

from bistable_rl.checks import check_int, check_size, check_symbols
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations, PopgymEnv
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv

MINE, VIEWED, NUMBER = 128, 64, 15
"""What is on a square, as bits; the lowest are the number of mines on it and around it."""


class PopgymMineSweeperVectorEnv(PopgymEnv):
    """POPGym: view all squares without a mine; only the number of mines around the last one is seen.

    The player names one square per step and sees how many mines lie on it and around it, but not the board. The memory
    must hold the viewed squares and their numbers.

    This is MineSweeper of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR
    (popgym 1.0.7, `popgym.envs.minesweeper`); (`size`, `num_mines`) is (4, 2) in Easy, (6, 6) in Medium, (8, 10) in
    Hard.

    ## Action Space
    `MultiDiscrete([size, size])`: row and column of the square.

    ## Observation Space
    `Box(0, 1, (min(num_mines + 1, 10),))`: the number of mines on the square and the eight around it, one-hot; 0 at the
    first step; popgym's is `Discrete(min(num_mines + 1, 10))`. With `previous_action` the previous row and column, each
    one-hot (those of square (0, 0) at the first step), and (1, 0), or (0, 1) at the first step, follow. Only they tell
    which square the number is about.

    ## Rewards
    With C = `size`² - `num_mines`, 1/C for a square viewed the first time, -0.5/(C - 2) for one viewed before,
    -0.5 - 1/C for a mine. `optimal_return` is 1, a bound: no player avoids every mine, and the mean return of the best
    player is not known. That of the best player without memory is not known either; `memoryless_return` is the exact
    mean of a player who names squares at random, -0.27 in Easy.

    ## Starting State
    The mines are drawn without replacement. `options={"cue": squares}` sets them: `num_mines` different numbers, row
    times `size` plus column.

    ## Episode End
    The episode terminates at a mine and when all C squares have been viewed, and is truncated after C steps.
    `info["is_success"]` says whether all have been viewed.

    ## Arguments
    - `size`: the rows and columns of the board.
    - `num_mines`: the number of mines, from 1 to `size`² - 3.
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("board", "num_viewed", "number")
    CUE_NDIM: ClassVar[int] = 1

    def __init__(
        self,
        *,
        size: int = 4,
        num_mines: int = 2,
        previous_action: bool = False,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.size = check_size("size", size, 2)
        squares = size**2
        self.num_mines = check_int("num_mines", num_mines, 1, squares - 3, ", three squares fewer than the board has")
        super().__init__(
            shown=Discrete(min(num_mines + 1, 10)),
            acted=MultiDiscrete([size, size]),
            previous_action=previous_action,
            **options,
        )
        self.width = size + 2  # boards have a border of squares without mines, and are flat
        self._inside = ((np.arange(size)[:, None] + 1) * self.width + np.arange(size) + 1).ravel()
        self.board = np.zeros((self.num_envs, self.width**2), np.uint8)
        self.num_viewed = np.zeros(self.num_envs, np.int64)
        self.number = np.zeros(self.num_envs, np.int64)  # the content of the observation
        self.horizon = squares - num_mines
        self.success_reward = 1 / self.horizon
        self.mine_reward = -0.5 - self.success_reward
        self.again_reward = -0.5 / (self.horizon - 2)

    @cached_property
    def memoryless_return(self) -> float:  # type: ignore[override]
        """The expected return of a player who names squares at random."""
        squares, total = self.size**2, 0.0
        viewed = np.arange(self.horizon + 1) / squares
        new = self.horizon / squares - viewed
        p = np.eye(1, self.horizon + 1)[0]  # the distribution of the number of squares viewed so far
        rewards = new * self.success_reward + viewed * self.again_reward
        rewards += self.num_mines / squares * self.mine_reward
        for _ in range(self.horizon):
            p[-1] = 0  # all viewed: the end
            total += float(p @ rewards)
            p = p * viewed + np.r_[0, (p * new)[:-1]]
        return total

    def _begin(self, i: Copies) -> None:
        squares = rng.permutations(self.keys[i], 0, self.size**2)[:, : self.num_mines]
        self._lay(i, squares)
        self.num_viewed[i] = 0
        self.number[i] = 0

    def _lay(self, i: Copies, squares: npt.NDArray[np.int64]) -> None:
        mines = np.arange(len(i))[:, None], self._inside[squares]
        around = np.zeros((len(i), self.width**2), np.uint8)
        around[mines] = 1
        for step in (1, self.width):  # along the rows, then across them
            line = around.copy()
            around[:, step:] += line[:, :-step]
            around[:, :-step] += line[:, step:]
        around[mines] += MINE
        self.board[i] = around

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        check_symbols("cue", cue, self.size**2)
        if cue.shape[-1:] != (self.num_mines,) or (np.diff(np.sort(cue)) == 0).any():
            raise ValueError(f"cue must be {self.num_mines} different squares, got {cue}")
        self._lay(i, cue)

    def _play(self, actions: np.ndarray) -> StepResult:
        square = (actions[:, 0] + 1) * self.width + actions[:, 1] + 1
        there = self.board[self.copies, square]
        mine, again = there >= MINE, there & VIEWED > 0
        reward = np.where(mine, self.mine_reward, np.where(again, self.again_reward, self.success_reward))
        new = ~mine & ~again
        self.board[self.copies, square] = np.where(mine, there, there | VIEWED)
        self.num_viewed = self.num_viewed + new
        self.number = (there & NUMBER).astype(np.int64)
        success = self.num_viewed == self.horizon
        terminated = mine | success
        return reward, terminated, (self.t == self.horizon - 1) & ~terminated, {"is_success": success}

    def _show(self, i: Copies, observations: Observations) -> None:
        observations[np.arange(len(i)), self.number[i]] = 1

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return str(self._shown(k).argmax())

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text: the squares viewed, row by row."""
        squares = [str(there & NUMBER) if there & VIEWED else "." for there in self.board[k, self._inside]]
        return "/".join("".join(squares[row : row + self.size]) for row in range(0, self.size**2, self.size))

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        board = self.board[k, self._inside].reshape(self.size, self.size)
        return heat(*np.where(board >= MINE, -1, board & VIEWED > 0))


class PopgymMineSweeperEnv(SingleEnv):
    """One copy of `PopgymMineSweeperVectorEnv`."""

    vector_class = PopgymMineSweeperVectorEnv
