"""The action masks that an environment offers, by its method `action_masks()` or by `info["action_mask"]`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.action_masks import MASKS, Masks, as_gymnasium, checked
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.errors import RunFailedError, one_sentence

IN_INFO = "action_mask"
"""The key of an info that holds a mask, as in gymnasium's Taxi."""


class EnvMasks:
    """The masks of the last observations of an environment's copies, if the environment offers masks.

    The method gives the masks if there is one; otherwise they are read from the infos. Where an episode has just begun,
    the info is that of its reset, not that of the last episode's end.

    Args:
        env: The copies, which have just been reset; None for an environment whose masks are not used.

    Attributes:
        now: (n, A) of bool; None if the environment offers no masks.

    Raises:
        RunFailedError: If a mask is missing, does not fit the actions or allows no action; `see` raises it too.
    """

    def __init__(self, env: VecEnv | None) -> None:
        self.env = env
        self.now: Masks | None = None
        self._asks = env is not None and _has_method(env)
        self._reads = env is not None and not self._asks and all(IN_INFO in info for info in _reset_infos(env))
        self._is_new = env is not None
        if env is not None and (self._asks or self._reads):
            self.see(np.ones(env.num_envs, np.bool_), ())

    def see(self, starts: npt.NDArray[np.bool_], infos: Sequence[Mapping[str, Any]]) -> None:
        """Read the masks of the observations that a step has returned.

        Args:
            starts: (n,) whether an episode starts with the observation.
            infos: The infos of the step.
        """
        if self._asks or self._reads:
            assert self.env is not None
            try:
                masks = _ask(self.env) if self._asks else _read(self.env, starts, infos)
                self.now = checked(masks, self.env.action_space, self.env.num_envs)
            except ValueError as error:
                raise RunFailedError(f"env: {one_sentence(error)}") from None
        elif self._is_new:
            self._is_new = False
            if any(IN_INFO in info for info in infos):
                warnings.warn(f"step returns info[{IN_INFO!r}], but reset does not, so no masks are used", stacklevel=3)

    @property
    def given(self) -> dict[str, Any]:
        """The masks as the argument of an agent's `predict`; empty if there are none."""
        return {} if self.now is None else {MASKS: self.now}

    def tensors(self, device: torch.device) -> dict[str, Any]:
        """Return the masks as the argument of a policy's `step`; empty if there are none."""
        return {} if self.now is None else {MASKS: torch.from_numpy(self.now).to(device)}

    def sample(self, space: spaces.Space) -> np.ndarray:
        """Return an action for each copy, drawn from the allowed ones by the space's own generator."""
        assert self.env is not None
        if self.now is None:
            return np.stack([space.sample() for _ in range(self.env.num_envs)])
        return np.stack([space.sample(mask=as_gymnasium(mask, space)) for mask in self.now])


def takes_masks(agent: Any) -> bool:
    """Return whether an agent's `predict` has an argument for masks."""
    parameters = inspect.signature(agent.predict).parameters
    return MASKS in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _has_method(env: VecEnv) -> bool:
    try:
        return env.has_attr(MASKS)
    except Exception:  # a VecEnv from elsewhere may not let us query its copies
        return False


def _ask(env: VecEnv) -> Any:
    inner = env.unwrapped
    return inner.action_masks() if isinstance(inner, BatchedVecEnv) else env.env_method(MASKS)


def _reset_infos(env: VecEnv) -> Sequence[Mapping[str, Any]]:
    return env.unwrapped.reset_infos  # a wrapper has its own list, which is always empty


def _read(env: VecEnv, starts: npt.NDArray[np.bool_], infos: Sequence[Mapping[str, Any]]) -> list[Any]:
    resets = _reset_infos(env)
    masks = [(resets if start else infos)[copy].get(IN_INFO) for copy, start in enumerate(starts.tolist())]
    for copy, mask in enumerate(masks):
        if mask is None:
            raise ValueError(
                f"info[{IN_INFO!r}] of copy {copy} is missing; if reset returns a mask, every step must return one"
            )
    return masks
