"""The data that SB3's callbacks read: the rollout as numpy arrays, and the variables of a step by SB3's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from bistable_rl.agents.buffer import RolloutBuffer

COMPUTED = ("values", "log_probs")
"""Variables of a step that are computed when a callback reads them: acting needs neither."""


class RolloutArrays:
    """A rollout of T steps and n copies under the names, shapes and types that SB3's RolloutBuffer has before training.

    On the CPU the arrays share the memory of the rollout; from a GPU they are copied at each access.

    Attributes:
        observations: (T, n, ...), (T, n, 1) for one discrete number, a dictionary by key if the space is a Dict.
        actions: (T, n, ...), (T, n, 1) for one discrete action.
        action_masks: (T, n, A) of 0 and 1, as in MaskablePPO; None if the environment offers no masks.
        rewards: (T, n), without the values that bootstrapping adds at a time limit.
        episode_starts: (T, n) of 0 and 1.
        values: (T, n), once the rollout is complete.
        log_probs: (T, n), likewise.
        advantages: (T, n), likewise.
        returns: (T, n), likewise.
        buffer_size: T.
        n_envs: n.
    """

    def __init__(self, rollout: RolloutBuffer) -> None:
        self._rollout = rollout
        self.buffer_size, self.n_envs = rollout.n_steps, rollout.n_envs

    @property
    def observations(self) -> Any:
        """The observations."""
        obs, first = self._rollout.obs, self._rollout.context
        if isinstance(obs, dict):
            return {key: _with_an_axis(part[first:]) for key, part in obs.items()}
        return _with_an_axis(obs[first:])

    @property
    def actions(self) -> np.ndarray:
        """The actions, before they are clipped."""
        return _array(self._rollout.actions).reshape(self.buffer_size, self.n_envs, -1)

    @property
    def action_masks(self) -> np.ndarray | None:
        """The action masks."""
        masks = self._rollout.action_masks
        return None if masks is None else _array(masks).astype(np.float32)

    @property
    def rewards(self) -> np.ndarray:
        """The rewards."""
        return _array(self._rollout.rewards)

    @property
    def episode_starts(self) -> np.ndarray:
        """Where an episode starts."""
        return self._rollout.episode_starts[self._rollout.context :].astype(np.float32)

    @property
    def values(self) -> np.ndarray:
        """The values, with the weights of the rollout."""
        return _array(self._rollout.values)

    @property
    def log_probs(self) -> np.ndarray:
        """The log-probabilities of the actions, with the weights of the rollout."""
        return _array(self._rollout.log_probs)

    @property
    def advantages(self) -> np.ndarray:
        """The advantages."""
        return _array(self._rollout.advantages)

    @property
    def returns(self) -> np.ndarray:
        """The targets of the values."""
        return _array(self._rollout.returns)

    def size(self) -> int:
        """Return the number of steps so far, of each copy."""
        return self._rollout.filled


class StepLocals(dict[str, Any]):
    """A callback's `locals`; values (n, 1) and log-probabilities (n,) of a step are computed when they are read.

    Args:
        compute: Computes both from the variables of a step.
        variables: The variables so far.
    """

    def __init__(self, compute: Callable[[dict[str, Any]], tuple[Tensor, Tensor]], variables: dict[str, Any]) -> None:
        super().__init__(variables)
        self._compute = compute

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (name in COMPUTED and super().__contains__("obs_tensor"))

    def __missing__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return self._compute(self)[COMPUTED.index(name)]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a variable, or the default."""
        try:
            return self[name]
        except KeyError:
            return default


def lend(callback: Any, variables: StepLocals) -> None:
    """Let a callback, and the callbacks that SB3 nests in it, read the variables of the next steps."""
    if isinstance(callback, BaseCallback):
        callback.locals = variables
        for child in (*getattr(callback, "callbacks", ()), getattr(callback, "callback", None)):
            lend(child, variables)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _with_an_axis(tensor: Tensor) -> np.ndarray:
    """Return the steps of all copies; a single number per step gets its own axis, as in SB3."""
    return _array(tensor.unsqueeze(-1) if tensor.ndim == 2 else tensor)
