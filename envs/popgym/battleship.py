"""POPGym's Battleship: sink all ships of a board that is not seen."""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete, MultiDiscrete
from typing_extensions import Unpack

from bistable_rl.checks import check_int, check_size
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations, PopgymEnv
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv

TRIES = 16
"""The number of places of a ship that are drawn at once, until one is free."""


class PopgymBattleshipVectorEnv(PopgymEnv):
    """POPGym: sink all ships of a board that is not seen; only the last shot's hit or miss is.

    The memory must hold the squares that were shot at, and which of them were hits.

    This is Battleship of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR
    (popgym 1.0.7, `popgym.envs.battleship`); `size` is 8 in Easy, 10 in Medium, 12 in Hard.

    ## Action Space
    `MultiDiscrete([size, size])`: row and column of the shot.

    ## Observation Space
    `Box(0, 1, (2,))`: (0, 1) for a hit on a square that was not shot at before, (1, 0) for a miss and at the first
    step; popgym's is `Discrete(2)`. With `previous_action` the previous row and column, each one-hot (those of square
    (0, 0) at the first step), and (1, 0), or (0, 1) at the first step, follow. Only they tell where the shot went.

    ## Rewards
    1/S for a hit, where S is the number of the ships' squares, and -1/(`size`² - S) for a miss; shooting once at every
    square adds up to 0. `optimal_return` is 1, a bound: the mean return of the best player is not known. That of the
    best player without memory is not known either; `memoryless_return` is the exact mean of a player who shoots at
    random, -0.45 in Easy.

    ## Starting State
    Each ship in turn is placed uniformly among the places, across or down, that are free of the earlier ships.
    `options={"cue": board}` sets the board: `size`² numbers, row by row, 1 where a ship is.

    ## Episode End
    The episode terminates when all ships are sunk, and is truncated after `size`² steps; both can happen at once.
    `info["is_success"]` says whether all ships are sunk.

    ## Arguments
    - `size`: the rows and columns of the board.
    - `ship_sizes`: the lengths of the ships; there must be a place for each, wherever the earlier ships are.
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("board", "shot", "hits", "hit")
    CUE_NDIM: ClassVar[int] = 1

    def __init__(
        self,
        *,
        size: int = 8,
        ship_sizes: Sequence[int] = (2, 3, 3, 4),
        previous_action: bool = False,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.size = check_size("size", size)
        self._places = [_places(size, ship) for ship in check_ships(ship_sizes, size)]
        super().__init__(
            shown=Discrete(2), acted=MultiDiscrete([size, size]), previous_action=previous_action, **options
        )
        self.squares = sum(ship_sizes)
        self.board = np.zeros((self.num_envs, size**2), np.bool_)
        self.shot = np.zeros((self.num_envs, size**2), np.bool_)
        self.hits = np.zeros(self.num_envs, np.int64)
        self.hit = np.zeros(self.num_envs, np.bool_)  # the content of the observation
        self.horizon = size**2
        self.hit_reward = 1.0 / self.squares
        self.miss_reward = -1.0 / (self.horizon - self.squares)

    @cached_property
    def memoryless_return(self) -> float:  # type: ignore[override]
        """The expected return of a player who shoots at random."""
        hit = (self.squares - np.arange(self.squares)) / self.horizon
        p = np.eye(1, self.squares)[0]  # the distribution of the number of hits so far
        total = 0.0
        for _ in range(self.horizon):
            total += float(p @ (hit * self.hit_reward + (1 - hit) * self.miss_reward))
            p = p * (1 - hit) + np.r_[0, (p * hit)[:-1]]
        return total

    def _begin(self, i: Copies) -> None:
        self.board[i] = self._draw(self.keys[i])
        self.shot[i] = False
        self.hits[i] = 0
        self.hit[i] = False

    def _draw(self, keys: rng.Keys) -> npt.NDArray[np.bool_]:
        """Return boards (n, size²) by rejection, as popgym draws them."""
        boards = np.zeros((len(keys), self.horizon), np.bool_)
        for ship, places in enumerate(self._places):
            waiting, index = np.arange(len(keys)), ship << 20
            while len(waiting):
                tried = places[rng.integers(keys[waiting, None], index + np.arange(TRIES), len(places))]
                taken = np.logical_or.reduce(boards[waiting[:, None, None], tried], axis=2)
                first = taken.argmin(axis=1)
                found = ~taken[np.arange(len(waiting)), first]
                boards[waiting[found, None], tried[found, first[found]]] = True
                waiting, index = waiting[~found], index + TRIES
        return boards

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        if cue.shape[-1:] != (self.horizon,) or not np.isin(cue, (0, 1)).all() or (cue.sum(-1) != self.squares).any():
            raise ValueError(f"cue must be {self.horizon} numbers, {self.squares} of them 1, the others 0, got {cue}")
        self.board[i] = cue

    def _play(self, actions: np.ndarray) -> StepResult:
        square = actions[:, 0] * self.size + actions[:, 1]
        self.hit = self.board[self.copies, square] & ~self.shot[self.copies, square]
        self.shot[self.copies, square] = True
        self.hits = self.hits + self.hit
        success = self.hits == self.squares
        reward = np.where(self.hit, self.hit_reward, self.miss_reward)
        return reward, success, self.t >= self.horizon - 1, {"is_success": success}

    def _show(self, i: Copies, observations: Observations) -> None:
        observations[:, 0] = ~self.hit[i]
        observations[:, 1] = self.hit[i]

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return "hit" if self._shown(k)[1] else "miss"

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text: x a hit, o a miss, row by row."""
        squares = np.where(self.shot[k], np.where(self.board[k], "x", "o"), ".").reshape(self.size, self.size)
        return "/".join("".join(row) for row in squares)

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        return heat(*np.where(self.board[k], 1 - 2.0 * self.shot[k], 0).reshape(self.size, self.size))


def _places(size: int, ship: int) -> npt.NDArray[np.int64]:
    """Return the squares of a ship in each of its places, (places, ship)."""
    numbers = np.arange(size**2).reshape(size, size)
    across = np.lib.stride_tricks.sliding_window_view(numbers, ship, axis=1).reshape(-1, ship)
    down = np.lib.stride_tricks.sliding_window_view(numbers, ship, axis=0).reshape(-1, ship)
    return np.concatenate([across, down])


def check_ships(ship_sizes: Sequence[int], size: int) -> list[int]:
    """Check that each ship can be placed in turn, wherever the earlier ships are.

    A square blocks at most 2 s of the 2 size (size - s + 1) places of a ship of s squares.
    """
    if isinstance(ship_sizes, str) or not isinstance(ship_sizes, Sequence) or not len(ship_sizes):
        raise ValueError(f"ship_sizes must be a list of at least one length, not {ship_sizes!r}")
    ships = [check_int("a ship's size", ship, 1, size, ", the size of the board") for ship in ship_sizes]
    before = 0
    for ship in ships:
        if 2 * ship * before >= 2 * size * (size - ship + 1):
            raise ValueError(f"ships of {list(ship_sizes)} squares may not all find a place on a board of size {size}")
        before += ship
    if before >= size**2:
        raise ValueError(f"ships of {list(ship_sizes)} squares leave no square of a board of size {size} to miss")
    return ships


class PopgymBattleshipEnv(SingleEnv):
    """One copy of `PopgymBattleshipVectorEnv`."""

    vector_class = PopgymBattleshipVectorEnv
