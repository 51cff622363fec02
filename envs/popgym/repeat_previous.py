"""POPGym's RepeatPrevious: at every step, name the suit of the card of k - 1 steps ago."""

import numpy as np
from gymnasium.spaces import Discrete
from typing_extensions import Unpack

from bistable_rl.checks import check_int
from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations
from bistable_rl.envs.popgym.deck import CARDS, SUITS, DeckEnv, chance, check_num_decks
from bistable_rl.envs.single_env import SingleEnv


class PopgymRepeatPreviousVectorEnv(DeckEnv):
    """POPGym: at every step, name the suit of the k-th last card, counted from the card in view.

    The player sees the N = 52 `num_decks` cards of a shuffled deck, one per step, and must keep the last k of them in
    order. Unlike in `bistable_rl/RepeatPrevious-v0`, the cards are drawn without replacement, k counts the card
    in view, and the card after the last answer is shown.

    This is RepeatPrevious of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning",
    ICLR (popgym 1.0.7, `popgym.envs.repeat_previous`); (`num_decks`, `k`) is (1, 4) in Easy, (2, 32) in Medium, (3, 64)
    in Hard.

    ## Action Space
    `Discrete(4)`: the suit that the player names.

    ## Observation Space
    `Box(0, 1, (4,))`: the suit of the card, one-hot; popgym's is `Discrete(4)`. With `previous_action` the previous
    action, one-hot (that of action 0 at the first step), and (1, 0), or (0, 1) at the first step, follow: `Box((10,))`.

    ## Rewards
    Once k cards are seen, 1/(N - k) for the suit of the card of k - 1 steps ago, -1/(N - k) for another; 0 before.
    `optimal_return` is 1. Without memory the best answer is a suit that is not in view, right with probability
    (N/4)/(N - 1), so `memoryless_return` is -0.49 in Easy.

    ## Starting State
    The deck is shuffled. `options={"cue": deck}` sets it: the numbers 0 to N - 1 in the order of dealing; card c has
    the suit c mod 4.

    ## Episode End
    The episode terminates after N - 1 steps. `info["is_success"]` says whether all answers were right.

    ## Arguments
    - `num_decks`: the number of decks shuffled together.
    - `k`: the number of cards to keep, from 2 (1 would ask for the card in view) to N - 1.
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self, *, num_decks: int = 1, k: int = 4, previous_action: bool = False, **options: Unpack[BatchOptions]
    ) -> None:
        most = CARDS * check_num_decks(num_decks) - 1
        self.k = check_int("k", k, 2, most, ", fewer than the cards")
        super().__init__(
            num_decks=num_decks, shown=Discrete(4), acted=Discrete(4), previous_action=previous_action, **options
        )
        self.horizon = most
        self.answers = self.num_cards - k
        self.scale = 1 / self.answers
        self.memoryless_return = chance(self.num_cards / 4 / most)

    def _play(self, actions: np.ndarray) -> StepResult:
        asked = self.t >= self.k - 1
        right = actions == self._dealt(self.copies, "suits", np.maximum(self.t - self.k + 1, 0))
        reward = self._grade(right, asked)
        return reward, self.t == self.horizon - 1, self.never.copy(), {"is_success": self.right == self.answers}

    def _show(self, i: Copies, observations: Observations) -> None:
        observations[np.arange(len(i)), self._dealt(i, "suits", self.t[i])] = 1

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return SUITS[self._shown(k).argmax()]

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text: the last cards, the oldest first."""
        index = np.arange(max(0, self.t[k] - self.k + 1), self.t[k] + 1)
        return "".join(SUITS[suit] for suit in self._dealt(np.full(len(index), k), "suits", index))


class PopgymRepeatPreviousEnv(SingleEnv):
    """One copy of `PopgymRepeatPreviousVectorEnv`."""

    vector_class = PopgymRepeatPreviousVectorEnv
