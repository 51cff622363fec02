"""POPGym's Autoencode: see a deck of cards, then name their suits in reverse order."""

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.spaces import Tuple as TupleSpace
from typing_extensions import Unpack

from bistable_rl.envs.base import BatchOptions, Copies, StepResult
from bistable_rl.envs.popgym.base import Observations
from bistable_rl.envs.popgym.deck import SUITS, DeckEnv, chance
from bistable_rl.envs.single_env import SingleEnv

PLAY, WATCH = range(2)


class PopgymAutoencodeVectorEnv(DeckEnv):
    """POPGym: see a deck of cards, then name their suits in reverse order.

    The player watches the N = 52 `num_decks` cards of a shuffled deck, one per step, and then names all of them, the
    last one first. The memory must hold a stack of N facts.

    This is Autoencode of Morad et al. (2023), "POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR
    (popgym 1.0.7, `popgym.envs.autoencode`); `num_decks` is 1 in Easy, 2 in Medium, 3 in Hard.

    ## Action Space
    `Discrete(4)`: the suit that the player names.

    ## Observation Space
    `Box(0, 1, (6,))`: (0, 1) while the player watches, (1, 0) from the last card on, where the answers begin; the suit
    of the card, one-hot, and suit 0 once there is none. popgym's is `Tuple(Discrete(2), Discrete(4))`. With
    `previous_action` the previous action, one-hot (that of action 0 at the first step), and (1, 0), or (0, 1) at the
    first step, follow: `Box((12,))`.

    ## Rewards
    1/N for a right answer, -1/N for a wrong one; 0 while the player watches. `optimal_return` is 1. Without memory the
    first answer is in view and each other is right with probability 1/4, so `memoryless_return` is -0.46 in Easy.

    ## Starting State
    The deck is shuffled. `options={"cue": deck}` sets it: the numbers 0 to N - 1 in the order of dealing; card c has
    the suit c mod 4.

    ## Episode End
    The episode terminates after 2 N - 1 steps. `info["is_success"]` says whether all answers were right.

    ## Arguments
    - `num_decks`: the number of decks shuffled together.
    - `previous_action`: whether the observation holds the previous action and the mark of the first step.

    ## Version History
    - v0: first version.
    """

    def __init__(self, *, num_decks: int = 1, previous_action: bool = False, **options: Unpack[BatchOptions]) -> None:
        super().__init__(
            num_decks=num_decks,
            shown=TupleSpace((Discrete(2), Discrete(4))),
            acted=Discrete(4),
            previous_action=previous_action,
            **options,
        )
        self.horizon = 2 * self.num_cards - 1
        self.scale = 1 / self.num_cards
        self.memoryless_return = chance((1 + (self.num_cards - 1) / 4) / self.num_cards)

    def _play(self, actions: np.ndarray) -> StepResult:
        right = actions == self._dealt(self.copies, "suits", 2 * self.num_cards - 2 - self.t)
        reward = self._grade(right, self.t >= self.num_cards - 1)
        return reward, self.t == self.horizon - 1, self.never.copy(), {"is_success": self.right == self.num_cards}

    def _show(self, i: Copies, observations: Observations) -> None:
        t, last = self.t[i], self.num_cards - 1
        rows = np.arange(len(i))
        observations[rows, np.where(t < last, WATCH, PLAY)] = 1
        observations[rows, 2 + np.where(t <= last, self._dealt(i, "suits", t), 0)] = 1

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        card = SUITS[self._shown(k)[2:].argmax()] if self.t[k] < self.num_cards else "nothing"
        return card + ("  ANSWER NOW" if self.t[k] >= self.num_cards - 1 else "")

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text: the cards that will be asked for."""
        left = min(self.t[k] + 1, 2 * self.num_cards - 1 - self.t[k])
        return "".join(SUITS[suit] for suit in self._dealt(np.full(left, k), "suits", np.arange(left)))


class PopgymAutoencodeEnv(SingleEnv):
    """One copy of `PopgymAutoencodeVectorEnv`."""

    vector_class = PopgymAutoencodeVectorEnv
