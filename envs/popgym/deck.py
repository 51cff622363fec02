"""Decks of cards, and the base class of the environments that deal them."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_int
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies
from bistable_rl.envs.popgym.base import PopgymEnv

Cards = npt.NDArray[np.int64]

CARDS = 52
"""The cards of one deck."""

KINDS = {"colors": 2, "suits": 4, "ranks": 13}
"""The numbers of colours, suits and ranks."""

SUITS = "sdch"
"""The suits in popgym's order: spades, diamonds, clubs, hearts."""


def kind_of(kind: str, cards: np.ndarray) -> Cards:
    """Return the colour, suit or rank of cards, numbered as in popgym: by rank, then by suit."""
    cards = cards.astype(np.int64)
    return (cards >> 2) % 13 if kind == "ranks" else cards & (KINDS[kind] - 1)


def check_decks(name: str, cue: np.ndarray, num_cards: int) -> np.ndarray:
    """Check that the last axis holds the cards of a deck in some order."""
    if cue.dtype.kind not in "iu" or cue.shape[-1:] != (num_cards,) or (np.sort(cue) != np.arange(num_cards)).any():
        raise ValueError(f"{name} must be the numbers from 0 to {num_cards - 1} in some order, got {cue}")
    return cue


class DeckEnv(PopgymEnv):
    """An environment of POPGym that deals the cards of shuffled decks.

    A subclass sets `scale`, and counts right answers with `_grade`.

    Args:
        num_decks: The number of decks shuffled together.
        **options: The arguments of `PopgymEnv`.
    """

    STATE: ClassVar[tuple[str, ...]] = ("deck", "right")
    CUE_NDIM: ClassVar[int] = 1
    scale: float
    """The reward of a right answer."""

    def __init__(
        self,
        *,
        num_decks: int,
        shown: gymnasium.Space[Any],
        acted: Discrete,
        previous_action: bool,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.num_decks = check_num_decks(num_decks)
        self.num_cards = CARDS * self.num_decks
        super().__init__(shown=shown, acted=acted, previous_action=previous_action, **options)
        self.deck = np.zeros((self.num_envs, self.num_cards), np.uint16)  # in the order of dealing
        self.right = np.zeros(self.num_envs, np.int64)  # the number of right answers so far
        self.never = np.zeros(self.num_envs, np.bool_)

    def _begin(self, i: Copies) -> None:
        self.deck[i] = rng.permutations(self.keys[i], 0, self.num_cards)
        self.right[i] = 0

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        self.deck[i] = check_decks("cue", cue, self.num_cards)

    def _dealt(self, i: Copies, kind: str, index: npt.NDArray[np.int64] | int) -> Cards:
        """Return the kinds of the cards that are dealt `index`-th in the copies `i`; the last card if there is none."""
        return kind_of(kind, self.deck[i, np.minimum(index, self.num_cards - 1)])

    def _grade(self, right: npt.NDArray[np.bool_], asked: npt.NDArray[np.bool_] | bool = True) -> np.ndarray:
        """Return the rewards of answers, and count the right ones."""
        self.right = self.right + (right & asked)
        return np.where(asked, np.where(right, self.scale, -self.scale), 0.0)


def check_num_decks(num_decks: int) -> int:
    """Check the number of decks, and return it."""
    return check_int("num_decks", num_decks, 1, 1000)


def chance(rate: float) -> float:
    """Return the return, from -1 to 1, of a player whose answers are right at the given rate."""
    return 2 * rate - 1
