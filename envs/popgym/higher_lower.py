"""POPGym's HigherLower: will the next card be higher or lower?"""

from functools import cache
from math import lgamma

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete
from typing_extensions import Unpack

from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations
from bistable_rl.envs.popgym.deck import CARDS, KINDS, DeckEnv
from bistable_rl.envs.single_env import SingleEnv

HIGHER, LOWER = range(2)
RANKS = KINDS["ranks"]


class PopgymHigherLowerVectorEnv(DeckEnv):
    """POPGym: will the next card be higher or lower than the one in view?

    The player sees the N = 52 `num_decks` cards of a shuffled deck, one per step. The card in view carries most of the
    information; a memory that counts the cards of each rank knows which ones are left.

    This is HigherLower of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR
    (popgym 1.0.7, `popgym.envs.higher_lower`); `num_decks` is 1 in Easy, 2 in Medium, 3 in Hard.

    ## Action Space
    `Discrete(2)`: 0 higher, 1 lower.

    ## Observation Space
    `Box(0, 1, (13,))`: the rank of the card, one-hot; popgym's is `Discrete(13)`. With `previous_action` the previous
    action, one-hot (that of action 0 at the first step), and (1, 0), or (0, 1) at the first step, follow: `Box((17,))`.

    ## Rewards
    1/N for a right guess, -1/N for a wrong one, 0 if the next card has the same rank. `optimal_return` is that of a
    player who counts the cards, exactly: the sum over steps and ranks of E|H - L| / (cards left), where H and L are the
    higher and lower cards left, hypergeometric; 0.53 in Easy. `memoryless_return` is that of a player who goes by the
    card in view, 84/169 = 0.50.

    ## Starting State
    The deck is shuffled. `options={"cue": deck}` sets it: the numbers 0 to N - 1 in the order of dealing; card c has
    the rank (c mod 52) // 4.

    ## Episode End
    The episode terminates after N - 1 steps. `info["is_success"]` says whether the return is at least
    `reward_threshold`.

    ## Arguments
    - `num_decks`: the number of decks shuffled together.
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    def __init__(self, *, num_decks: int = 1, previous_action: bool = False, **options: Unpack[BatchOptions]) -> None:
        super().__init__(
            num_decks=num_decks, shown=Discrete(RANKS), acted=Discrete(2), previous_action=previous_action, **options
        )
        self.horizon = self.num_cards - 1
        self.scale = 1 / self.num_cards
        self.memoryless_return = sum(abs(12 - 2 * rank) for rank in range(RANKS)) / RANKS**2

    @property
    def optimal_return(self) -> float:  # type: ignore[override]
        """The expected return of a player who knows which cards are left."""
        return counting_return(self.num_decks)

    def _play(self, actions: np.ndarray) -> StepResult:
        now, after = (self._dealt(self.copies, "ranks", self.t + later) for later in (0, 1))
        higher = after > now
        differ = after != now
        right = higher == (actions == HIGHER)
        reward = np.where(differ, np.where(right, self.scale, -self.scale), 0.0)
        self.right = self.right + np.where(differ, np.where(right, 1, -1), 0)
        ended = self.t == self.horizon - 1
        success = np.zeros_like(ended)
        if ended.any():
            success = self.right * self.scale >= self.reward_threshold
        return reward, ended, self.never.copy(), {"is_success": success}

    def _show(self, i: Copies, observations: Observations) -> None:
        observations[np.arange(len(i)), self._dealt(i, "ranks", self.t[i])] = 1

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return str(self._shown(k).argmax())

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text: the cards of each rank that were seen."""
        index = np.arange(self.t[k] + 1)
        return str(np.bincount(self._dealt(np.full(len(index), k), "ranks", index), minlength=RANKS))


@cache
def counting_return(num_decks: int) -> float:
    """Return the expected return of a player who knows which cards are left."""
    cards, each = CARDS * num_decks, 4 * num_decks  # each: the cards of a rank
    log_factorial = np.array([lgamma(n + 1) for n in range(cards)])

    def log_choose(n: int, k: np.ndarray) -> npt.NDArray[np.float64]:
        inside = (k >= 0) & (k <= n)
        safe = np.where(inside, k, 0)
        return np.where(inside, log_factorial[n] - log_factorial[safe] - log_factorial[n - safe], -np.inf)

    total = 0.0
    for rank in range(RANKS):
        above, below = each * (12 - rank), each * rank
        higher, lower = np.arange(above + 1)[:, None], np.arange(below + 1)
        log_ways = log_choose(above, higher) + log_choose(below, lower)
        for left in range(1, cards):
            log_p = log_ways + log_choose(each - 1, left - higher - lower) - log_choose(cards - 1, np.array(left))
            total += float((np.exp(log_p) * abs(higher - lower)).sum()) / left
    return total / RANKS / cards


class PopgymHigherLowerEnv(SingleEnv):
    """One copy of `PopgymHigherLowerVectorEnv`."""

    vector_class = PopgymHigherLowerVectorEnv
