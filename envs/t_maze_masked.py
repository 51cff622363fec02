"""TMazeMasked: the T-maze of `bistable_rl/TMaze-v0` with an action mask, so that no step is taken against a wall."""

import numpy as np
import numpy.typing as npt

from bistable_rl.envs.phases import Phases
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.t_maze import DOWN, LEFT, RIGHT, UP, TMazeVectorEnv


class MaskedTMazeVectorEnv(TMazeVectorEnv):
    """The T-maze whose action mask forbids every step against a wall: what is left to learn is to remember the goal.

    It is `bistable_rl/TMaze-v0` (Bakker 2001) in everything but its action mask.

    ## Action Space
    `Discrete(4)`: 0 right, 1 up, 2 left, 3 down. `action_masks()`, (n, 4) of bool, or (4,) for one copy, says which are
    allowed now: right in the corridor, left except at the entrance, up and down at the junction. A player who takes a
    forbidden action steps against a wall. The random steps of `stochasticity` are not masked.

    ## Observation Space
    That of `bistable_rl/TMaze-v0`, `Box(0, 1, (4,))`: one-hot of goal up, goal down, corridor, junction; zeros in the
    arms. `previous_action_reward` and `distractors` extend it in the same way as there.

    ## Rewards
    4 for the arm with the goal, -0.1 for the other arm and for a step against a wall, else 0. `optimal_return` and
    `memoryless_return` are those of `bistable_rl/TMaze-v0`, whose best players never step against a wall.

    ## Starting State
    The player is at x = 0; the goal is up or down with probability 1/2. `options={"cue": 0}` sets up, 1 down.

    ## Episode End
    The episode terminates in an arm and is truncated after 3 `length` - 1 steps. `info["is_success"]` says whether the
    goal was reached.

    ## Arguments
    - `length`: the length of the corridor, at least 1.
    - `stochasticity`: the probability of a random step in the corridor; there is none at the junction.
    - `previous_action_reward`: whether the observation holds the previous action and reward.
    - `distractors`: the kind of stream of the distractors, one of `bistable_rl.envs.streams.KINDS`; None for none.
    - `num_symbols`: the number of symbols of the distractors, at least 2.

    ## Version History
    - v0: first version.
    """

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are allowed in each copy, (n, 4)."""
        return self.masks_ahead(1)[0]

    def masks_ahead(self, steps: int) -> npt.NDArray[np.bool_]:
        """Return which actions are allowed now and after each step to the right, (steps, n, 4)."""
        x = np.minimum(self.x + np.arange(steps)[:, None], self.length)
        masks = np.zeros((*x.shape, 4), np.bool_)
        masks[..., RIGHT] = x < self.length
        masks[..., LEFT] = x > 0
        masks[..., UP] = masks[..., DOWN] = x == self.length
        return masks

    def phases(self, t: int | None = None) -> Phases | None:
        """Return None: proofs and the search for the worst distractors do not know which actions are forbidden."""
        return None


class MaskedTMazeEnv(SingleEnv):
    """One copy of `MaskedTMazeVectorEnv`."""

    vector_class = MaskedTMazeVectorEnv
    batch: MaskedTMazeVectorEnv

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are allowed, (4,)."""
        return self.batch.action_masks()[0]
