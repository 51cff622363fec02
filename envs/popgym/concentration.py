"""POPGym's Concentration: turn up pairs of equal cards."""

import math
from collections import Counter, defaultdict
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete, MultiDiscrete
from typing_extensions import Unpack

from bistable_rl.checks import check_choice
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations
from bistable_rl.envs.popgym.deck import CARDS, KINDS, DeckEnv, check_num_decks, kind_of
from bistable_rl.envs.render import heat
from bistable_rl.envs.single_env import SingleEnv


class PopgymConcentrationVectorEnv(DeckEnv):
    """POPGym: turn up pairs of equal cards, of which two are seen at a time.

    The N = 52 `num_decks` cards of a shuffled deck lie face down. The player turns up one card per step. Two equal
    cards stay face up. Two different cards are seen together once, and lie face down again at the next step. The memory
    must hold the kind and the place of each card.

    This is Concentration of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning",
    ICLR (popgym 1.0.7, `popgym.envs.concentration`); (`num_decks`, `deck_type`) is (1, colors) in Easy, (2, colors) in
    Medium, (1, ranks) in Hard.

    ## Action Space
    `Discrete(N)`: the place of the card that the player turns up.

    ## Observation Space
    `Box(0, 1, (N (K + 1),), uint8)`: for each place the kind of the card (one of K), or face down, one-hot; popgym's is
    `MultiDiscrete([K + 1] * N)`. With `previous_action` the previous action, one-hot (that of action 0 at the first
    step), and (1, 0), or (0, 1) at the first step, follow.

    ## Rewards
    2/N for a pair; -2/H for two cards that are not a pair; -1/H for a card that is face up already, or -2/H if it is
    the second. H is the greatest number of steps. `optimal_return` is 1, a bound that only luck reaches: the mean
    return of the best player is not known. That of the best player without memory is not known either;
    `memoryless_return` is the exact mean of a player who turns up cards at random, -0.19 in Easy.

    ## Starting State
    The deck is shuffled. `options={"cue": deck}` sets it: the numbers 0 to N - 1 in the order of their places; card c
    has the colour c mod 2, the rank (c mod 52) // 4.

    ## Episode End
    The episode terminates when all cards are face up, and is truncated after H = ceil(2 N - N/(2 N - 1)) steps.
    `info["is_success"]` says whether all cards are face up.

    ## Arguments
    - `num_decks`: the number of decks shuffled together.
    - `deck_type`: what makes two cards equal: "colors" (K = 2) or "ranks" (K = 13).
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    DTYPE = np.uint8
    STATE: ClassVar[tuple[str, ...]] = (*DeckEnv.STATE, "seen", "up", "first", "last", "turn_down")

    def __init__(
        self,
        *,
        num_decks: int = 1,
        deck_type: str = "colors",
        previous_action: bool = False,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.deck_type = check_choice("deck_type", deck_type, ("colors", "ranks"))
        n = CARDS * check_num_decks(num_decks)
        self.kinds = KINDS[deck_type]
        super().__init__(
            num_decks=num_decks,
            shown=MultiDiscrete([self.kinds + 1] * n),
            acted=Discrete(n),
            previous_action=previous_action,
            **options,
        )
        self.horizon = limit(n)
        self.scale = 1 / (n // 2)
        self.failure = -1 / self.horizon
        # `right` counts the pairs
        self.seen = np.zeros((self.num_envs, n * (self.kinds + 1)), np.uint8)  # the observation
        self.up = np.zeros((self.num_envs, n), np.bool_)  # in a pair
        self.first = np.full(self.num_envs, -1, np.int64)  # the card turned up that waits for a second, or -1
        self.last = np.zeros((2, self.num_envs), np.int64)  # the two cards turned up last
        self.turn_down = np.zeros(self.num_envs, np.bool_)  # whether they lie face down again at the next step

    @property
    def memoryless_return(self) -> float:  # type: ignore[override]
        """The expected return of a player who turns up cards at random."""
        return random_return(self.num_cards, self.kinds)

    def _begin(self, i: Copies) -> None:
        super()._begin(i)
        self.seen[i] = np.tile(np.arange(self.kinds + 1) == self.kinds, self.num_cards)
        self.up[i] = False
        self.first[i] = -1
        self.turn_down[i] = False

    def _turn(self, i: Copies, places: npt.NDArray[np.int64], up: bool) -> npt.NDArray[np.int64]:
        """Turn one card of each of the copies `i` face up or down, and return their kinds."""
        start = places * (self.kinds + 1)
        kind = kind_of(self.deck_type, self.deck[i, places])
        self.seen[i, start + kind] = up
        self.seen[i, start + self.kinds] = not up
        return kind

    def _play(self, actions: np.ndarray) -> StepResult:
        i = np.flatnonzero(self.turn_down)
        for place in self.last[:, i]:
            self._turn(i, place, False)
        kind = self._turn(self.copies, actions, True)

        first, second = self.first, self.first >= 0
        already = self.up[self.copies, actions]
        same = kind == kind_of(self.deck_type, self.deck[self.copies, first])
        pair = second & ~already & same & (first != actions)
        reward = np.where(pair, self.scale, np.where(already | second, (1 + second) * self.failure, 0.0))
        i = np.flatnonzero(pair)
        self.up[i, first[i]] = self.up[i, actions[i]] = True
        self.right = self.right + pair
        self.last = np.stack([first, np.where(already, first, actions)])
        self.turn_down = second & ~pair
        self.first = np.where(second | already, -1, actions)
        all_up = self.right == self.num_cards // 2
        return reward, pair & all_up, self.t >= self.horizon - 1, {"is_success": all_up}

    def _show(self, i: Copies, observations: Observations) -> None:
        observations[:] = self.seen if i is self.copies else self.seen[i]

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text: a dot for a card that lies face down."""
        shown = self._shown(k).reshape(self.num_cards, -1).argmax(1)
        return " ".join("." if kind == self.kinds else str(kind) for kind in shown)

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text: all cards, including those not seen yet."""
        return " ".join(map(str, kind_of(self.deck_type, self.deck[k])))

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        shown = self._shown(k).reshape(self.num_cards, -1).argmax(1)
        return heat(*np.where(shown == self.kinds, 0, 2 * shown / (self.kinds - 1) - 1).reshape(-1, 13))


def limit(num_cards: int) -> int:
    """Return the greatest number of steps of an episode."""
    return math.ceil(2 * num_cards - num_cards / (2 * num_cards - 1))


@cache
def random_return(num_cards: int, kinds: int) -> float:
    """Return the expected return of a player who turns up cards at random, one of all cards at every step."""
    success, failure, total = 2 / num_cards, -1 / limit(num_cards), 0.0
    # states: the pairs left of each kind, and the pairs left of the kind that waits for a second card, or 0
    chances = {((num_cards // kinds // 2,) * kinds, 0): 1.0}
    for _ in range(limit(num_cards)):
        after: defaultdict[tuple[tuple[int, ...], int], float] = defaultdict(float)
        for (pairs, waiting), p in chances.items():
            if waiting:
                match = p * (2 * waiting - 1) / num_cards
                total += match * success + 2 * (p - match) * failure
                after[pairs, 0] += p - match
                left = list(pairs)
                left[left.index(waiting)] -= 1
                if any(left):
                    after[tuple(sorted(left)), 0] += match
            else:
                up = p * (1 - 2 * sum(pairs) / num_cards)
                total += up * failure
                after[pairs, 0] += up
                for size, number in Counter(pairs).items():
                    if size:
                        after[pairs, size] += p * number * 2 * size / num_cards
        chances = after
    return total


class PopgymConcentrationEnv(SingleEnv):
    """One copy of `PopgymConcentrationVectorEnv`."""

    vector_class = PopgymConcentrationVectorEnv
