"""The base class of POPGym's environments: flat observations, and the previous action as in POPGym's trainings."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.spaces import Tuple as TupleSpace
from gymnasium.spaces.utils import flatten_space
from typing_extensions import Unpack

from bistable_rl.checks import check_bool
from bistable_rl.envs.base import BatchedEnv, BatchOptions, Copies, StepResult
from bistable_rl.envs.render import heat

Observations = npt.NDArray[Any]


class PopgymEnv(BatchedEnv):
    """A batched environment of POPGym (Morad et al. 2023, ICLR), equal step for step to that of popgym 1.0.7.

    Observations are popgym's, flattened by `gymnasium.spaces.flatten`: discrete ones are one-hot. With
    `previous_action` they are those of `popgym.wrappers.Antialias(PreviousAction(env))`, which POPGym's authors used in
    every training: the observation, the previous action (the first one, or zeros, at the first step), and (1, 0), or
    (0, 1) at the first step. The previous reward is never seen.

    A subclass implements `_show` and `_play` instead of `_observe` and `_advance`.

    Args:
        shown: popgym's observation space of one copy.
        acted: popgym's action space of one copy.
        previous_action: Whether the observation holds the previous action and the mark of the first step.
        action_space: The action space of one copy, if it is not `acted`.
        **options: The arguments of `BatchedEnv`.
    """

    optimal_return = 1.0
    DTYPE: ClassVar[type[np.generic]] = np.float32
    """The type of the observations."""

    def __init__(
        self,
        *,
        shown: gymnasium.Space[Any],
        acted: Box | Discrete | MultiDiscrete,
        previous_action: bool,
        action_space: gymnasium.Space[Any] | None = None,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.previous_action = check_bool("previous_action", previous_action)
        flat = flatten_space(TupleSpace((shown, acted, Discrete(2)) if previous_action else (shown,)))
        assert isinstance(flat, Box)
        self._acted = acted
        self._width = int(np.prod(flatten_space(shown).shape or ()))
        super().__init__(
            observation_space=Box(flat.low.astype(self.DTYPE), flat.high.astype(self.DTYPE), dtype=self.DTYPE),
            action_space=acted if action_space is None else action_space,
            **options,
        )
        sizes = np.atleast_1d(acted.nvec) if isinstance(acted, MultiDiscrete) else np.ones(1, np.int64)
        self._starts = np.cumsum(sizes) - sizes  # where each discrete action's one-hot begins
        self.previous = np.zeros((self.num_envs, *(acted.shape or ())), acted.dtype)

    def _show(self, i: Copies, observations: Observations) -> None:
        """Write popgym's observations of the copies `i` at step `self.t` into arrays of zeros."""
        raise NotImplementedError

    def _play(self, actions: np.ndarray) -> StepResult:
        """Apply every copy's action, in popgym's form, at step `self.t`."""
        raise NotImplementedError

    def _as_popgyms(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions as actions of popgym's space."""
        return actions

    def _state_names(self) -> tuple[str, ...]:
        return (*super()._state_names(), *(["previous"] if self.previous_action else []))

    def _start(self, i: Copies) -> None:
        super()._start(i)
        self.previous[i] = 0

    def _advance(self, actions: np.ndarray) -> StepResult:
        actions = self._as_popgyms(actions)
        if self.previous_action:
            self.previous = actions.copy()
        return self._play(actions)

    def _observe(self, i: Copies) -> Observations:
        observations = np.zeros((len(i), self._size), self.DTYPE)
        self._show(i, observations[:, : self._width])
        if self.previous_action:
            self._show_previous(i, observations[:, self._width :])
        return observations

    def _show_previous(self, i: Copies, observations: Observations) -> None:
        """Write the previous actions and the marks of the first step into arrays of zeros."""
        if isinstance(self._acted, Box):
            observations[:, :-2] = self.previous[i]
        else:
            columns = self.previous[i].reshape(len(i), -1) + self._starts
            observations[np.arange(len(i))[:, None], columns] = 1
        observations[:, -2] = self.t[i] > 0
        observations[:, -1] = self.t[i] == 0

    def _shown(self, k: int) -> Observations:
        """Return popgym's observation of copy `k`."""
        return self._observe(np.array([k]))[0, : self._width]

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        return heat(self._observe(np.array([k]))[0])
