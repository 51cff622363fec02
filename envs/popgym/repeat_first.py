"""POPGym's RepeatFirst: at every step, name the suit of the first card."""

import numpy as np
from gymnasium.spaces import Discrete
from typing_extensions import Unpack

from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations
from bistable_rl.envs.popgym.deck import SUITS, DeckEnv, chance
from bistable_rl.envs.single_env import SingleEnv


class PopgymRepeatFirstVectorEnv(DeckEnv):
    """POPGym: at every step, name the suit of the first card.

    The player sees the N = 52 `num_decks` cards of a shuffled deck, one per step. The first one is the fact to keep; it
    is marked only with `previous_action`. The reward says at every step whether the answer was right.

    This is RepeatFirst of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR
    (popgym 1.0.7, `popgym.envs.repeat_first`); `num_decks` is 1 in Easy, 8 in Medium, 16 in Hard.

    ## Action Space
    `Discrete(4)`: the suit that the player names.

    ## Observation Space
    `Box(0, 1, (4,))`: the suit of the card, one-hot; popgym's is `Discrete(4)`. With `previous_action` the previous
    action, one-hot (that of action 0 at the first step), and (1, 0), or (0, 1) at the first step, follow: `Box((10,))`.

    ## Rewards
    1/(N - 1) for the suit of the first card, -1/(N - 1) for another. `optimal_return` is 1. Without memory the best
    answer is the suit in view: right at the first step, and at each later one with probability (N/4 - 1)/(N - 1), so
    `memoryless_return` is -0.50 in Easy. (The previous action is a memory, and is not counted with the observation.)

    ## Starting State
    The deck is shuffled. `options={"cue": deck}` sets it: the numbers 0 to N - 1 in the order of dealing; card c has
    the suit c mod 4.

    ## Episode End
    The episode terminates after N - 1 steps. `info["is_success"]` says whether all answers were right.

    ## Arguments
    - `num_decks`: the number of decks shuffled together.
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    def __init__(self, *, num_decks: int = 1, previous_action: bool = False, **options: Unpack[BatchOptions]) -> None:
        super().__init__(
            num_decks=num_decks, shown=Discrete(4), acted=Discrete(4), previous_action=previous_action, **options
        )
        self.horizon = self.num_cards - 1
        self.scale = 1 / self.horizon
        right = 1 + (self.horizon - 1) * (self.num_cards / 4 - 1) / self.horizon
        self.memoryless_return = chance(right / self.horizon)

    def _play(self, actions: np.ndarray) -> StepResult:
        reward = self._grade(actions == self._dealt(self.copies, "suits", 0))
        return reward, self.t == self.horizon - 1, self.never.copy(), {"is_success": self.right == self.horizon}

    def _show(self, i: Copies, observations: Observations) -> None:
        observations[np.arange(len(i)), self._dealt(i, "suits", self.t[i])] = 1

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        return SUITS[self._shown(k).argmax()]

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return SUITS[self._dealt(np.array([k]), "suits", 0)[0]]


class PopgymRepeatFirstEnv(SingleEnv):
    """One copy of `PopgymRepeatFirstVectorEnv`."""

    vector_class = PopgymRepeatFirstVectorEnv
