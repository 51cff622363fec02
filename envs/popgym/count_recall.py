"""POPGym's CountRecall: how often was this card seen?"""

from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete
from typing_extensions import Unpack

from bistable_rl.checks import check_choice
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations
from bistable_rl.envs.popgym.deck import CARDS, KINDS, DeckEnv, chance, check_decks, check_num_decks, kind_of
from bistable_rl.envs.single_env import SingleEnv


class PopgymCountRecallVectorEnv(DeckEnv):
    """POPGym: at every step, say how often a kind of card was seen.

    At every step a card of a shuffled deck is shown, and a second shuffled deck sets the kind of card (a colour, a suit
    or a rank) that is asked for. The player says how many cards of that kind it has seen, including the one in view.
    The memory must hold a count for every kind; the order does not matter.

    This is CountRecall of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR
    (popgym 1.0.7, `popgym.envs.count_recall`); (`num_decks`, `deck_type`) is (1, colors) in Easy, (2, suits) in Medium,
    (4, ranks) in Hard.

    ## Action Space
    `Discrete(C + 1)`: the count; there are C = 52 `num_decks` / K cards of each of K kinds.

    ## Observation Space
    `Box(0, 1, (2 K,))`: the kind of the card, one-hot, and the kind that is asked for, one-hot; popgym's is
    `MultiDiscrete([K, K])`. With `previous_action` the previous action, one-hot (that of action 0 at the first step),
    and (1, 0), or (0, 1) at the first step, follow: `Box((2 K + C + 3,))`.

    ## Rewards
    With N = 52 `num_decks`, 1/(N - 1) for the right count, -1/(N - 1) for another. `optimal_return` is 1. Without
    memory each count below C is as good as any: on average each of 0..C - 1 is the right one at N/(C + 1) of N steps
    whose card is not of the kind that is asked for, and each of 1..C - 1 at N/C of N steps whose card is. So
    `memoryless_return` is 2 (1 + (1 - 1/K) N/(C + 1))/(N - 1) - 1, -0.92 in Easy.

    ## Starting State
    Both decks are shuffled. `options={"cue": [deck, questions]}` sets them: each the numbers 0 to N - 1 in the order of
    dealing; card c has the colour c mod 2, the suit c mod 4, the rank (c mod 52) // 4.

    ## Episode End
    The episode terminates after N - 1 steps. `info["is_success"]` says whether all answers were right.

    ## Arguments
    - `num_decks`: the number of decks shuffled together, in both decks.
    - `deck_type`: what counts as a kind of card: "colors" (K = 2), "suits" (4) or "ranks" (13).
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = (*DeckEnv.STATE, "questions", "counts")
    CUE_NDIM: ClassVar[int] = 2

    def __init__(
        self,
        *,
        num_decks: int = 1,
        deck_type: str = "colors",
        previous_action: bool = False,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.deck_type = check_choice("deck_type", deck_type, KINDS)
        kinds = KINDS[deck_type]
        self.most = CARDS * check_num_decks(num_decks) // kinds  # C
        super().__init__(
            num_decks=num_decks,
            shown=MultiDiscrete([kinds, kinds]),
            acted=Discrete(self.most + 1),
            previous_action=previous_action,
            **options,
        )
        self.questions = np.zeros_like(self.deck)
        self.counts = np.zeros((self.num_envs, kinds), np.int64)  # of the cards seen so far
        self.horizon = self.num_cards - 1
        self.scale = 1 / self.horizon
        right = 1 + (1 - 1 / kinds) * self.num_cards / (self.most + 1)
        self.memoryless_return = chance(right / self.horizon)

    def _begin(self, i: Copies) -> None:
        super()._begin(i)
        self.questions[i] = rng.permutations(self.keys[i], self.num_cards, self.num_cards)
        self._count_first(i)

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        if cue.shape[-2:-1] != (2,):
            raise ValueError(f"cue must be two decks, one of cards and one of questions, got {cue}")
        check_decks("cue", cue, self.num_cards)
        self.deck[i], self.questions[i] = cue[..., 0, :], cue[..., 1, :]
        self._count_first(i)

    def _count_first(self, i: Copies) -> None:
        self.counts[i] = 0
        self.counts[i, self._dealt(i, self.deck_type, 0)] = 1

    def _asked(self, i: Copies) -> np.ndarray:
        return kind_of(self.deck_type, self.questions[i, np.minimum(self.t[i], self.horizon)])

    def _play(self, actions: np.ndarray) -> StepResult:
        reward = self._grade(actions == self.counts[self.copies, self._asked(self.copies)])
        self.counts[self.copies, self._dealt(self.copies, self.deck_type, self.t + 1)] += 1
        return reward, self.t == self.horizon - 1, self.never.copy(), {"is_success": self.right == self.horizon}

    def _show(self, i: Copies, observations: Observations) -> None:
        rows = np.arange(len(i))
        observations[rows, self._dealt(i, self.deck_type, self.t[i])] = 1
        observations[rows, self.counts.shape[1] + self._asked(i)] = 1

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        card, asked = self._shown(k).reshape(2, -1).argmax(1)
        return f"{card}, how many of {asked}?"

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text: the counts."""
        return str(self.counts[k])


class PopgymCountRecallEnv(SingleEnv):
    """One copy of `PopgymCountRecallVectorEnv`."""

    vector_class = PopgymCountRecallVectorEnv
