"""The rollout buffer: the steps since the last update, and the states from which sequences begin within an episode.

States are kept only where such a sequence can begin: at the rollout's first step and at every `bptt_length` steps after
it. Every other sequence begins an episode, in the initial state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from bistable_rl.agents.obs import map_obs, obs_parts
from bistable_rl.agents.sequences import Minibatch, Sequences
from bistable_rl.agents.spaces import spaces_of
from bistable_rl.runs.capacity import check_memory


class RolloutBuffer:
    """T steps of n copies, and the last C steps before them, from which states can be recomputed.

    Time is counted from the oldest step kept: the rollout itself is C..C+T-1.

    Args:
        n_steps: T.
        n_envs: n.
        observation_space: Space of one observation.
        action_space: Space of one action.
        device: Where the tensors live.
        bptt_length: The longest sequence, in steps; None for no limit.
        burn_in: Steps that are run again before a sequence that begins within an episode, at most `bptt_length`.
        refresh: Whether the states are refreshed; the previous rollout is then kept too.

    Raises:
        UserError: If there is too little memory.

    Attributes:
        obs: (C + T, n, ...), one tensor or one per key.
        actions: (T, n, ...).
        action_masks: (T, n, A) of bool if the actions were taken under masks; else None.
        rewards: (T, n).
        episode_starts: (C + T, n) whether an episode starts with that step.
        dones: (T, n) whether the episode ended with that step.
        bootstraps: (T, n) the value that follows the last step of an episode: 0, or V of the last observation where a
            time limit truncated the episode.
        last_values: (n,) V of the observation after the rollout's last step.
        values: (T, n) V when the rollout was made.
        log_probs: (T, n) log-probabilities of the actions when the rollout was made.
        advantages: (T, n).
        returns: (T, n) the targets of the values.
        states: (K, n, S) by time, before the steps that need one.
        anchors: For each step at which a sequence can begin within an episode, the time of its stored state, `burn_in`
            steps earlier.
        sequences: The pieces of episodes in the rollout, once it is complete.
    """

    sequences: Sequences

    def __init__(
        self,
        *,
        n_steps: int,
        n_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device,
        bptt_length: int | None = None,
        burn_in: int = 0,
        refresh: bool = False,
    ) -> None:
        T, n = n_steps, n_envs
        C = T if refresh else burn_in
        self.n_steps, self.n_envs, self.context = T, n, C
        self.bptt_length, self.burn_in = bptt_length, burn_in
        step_bytes = sum(map(_bytes_of, spaces_of(observation_space).values())) + _bytes_of(action_space)
        check_memory(
            f"a rollout of n_steps {T} in {n} copies (num_envs)",
            n * ((C + T) * (step_bytes + 1) + T * 25),  # below: six float32 and a byte for each step
            device,
        )

        def empty(space: spaces.Space) -> Tensor:
            assert space.shape is not None
            dtype = torch.from_numpy(np.zeros(0, space.dtype)).dtype
            return torch.zeros(C + T, n, *space.shape, dtype=dtype, device=device)

        if isinstance(observation_space, spaces.Dict):
            self.obs: PyTorchObs = {key: empty(space) for key, space in observation_space.spaces.items()}
        else:
            self.obs = empty(observation_space)
        self.actions = empty(action_space)[C:]
        self.action_masks: Tensor | None = None
        self.rewards = torch.zeros(T, n, device=device)
        self.episode_starts = np.zeros((C + T, n), np.bool_)
        self.dones = np.zeros((T, n), np.bool_)
        self.bootstraps = torch.zeros(T, n, device=device)
        self.last_values = torch.zeros(n, device=device)
        self.values = torch.zeros(T, n, device=device)
        self.log_probs = torch.zeros(T, n, device=device)
        self.advantages = torch.zeros(T, n, device=device)
        self.returns = torch.zeros(T, n, device=device)
        first = C - burn_in
        self.anchors = {k: first + k for k in range(0, T, bptt_length or T)}
        self._carried = {T: 0, T + first: first}  # times whose states the next rollout needs, and their times there
        self.states: dict[int, Tensor] = {}
        self._t = 0

    @property
    def kept_times(self) -> set[int]:
        """The times whose states are kept."""
        return {*self._carried, *self.anchors.values()}

    @property
    def filled(self) -> int:
        """The number of steps so far."""
        return self._t

    def begin(self, state: Tensor, num_choices: int = 0) -> None:
        """Start a new rollout, with the state before its first step (K, n, S).

        Args:
            state: The state before the first step.
            num_choices: A, the entries of an action mask; 0 for a rollout without masks.
        """
        T, C = self.n_steps, self.context
        if num_choices == 0:
            self.action_masks = None
        elif self.action_masks is None:
            check_memory(f"the action masks of a rollout of {T} steps", T * self.n_envs * num_choices, state.device)
            self.action_masks = torch.ones(T, self.n_envs, num_choices, dtype=torch.bool, device=state.device)
        if self._t == T:
            for part in obs_parts(self.obs):
                part[:C] = part[T:].clone()
            self.episode_starts[:C] = self.episode_starts[T:].copy()
            self.states = {new: self.states[old] for old, new in self._carried.items()}
        else:  # no earlier rollout: every copy starts an episode now
            self.states = {0: state, C - self.burn_in: state}
        self.bootstraps.zero_()
        self._t = 0

    def add(
        self,
        obs: PyTorchObs,
        episode_starts: np.ndarray,
        state: Tensor,
        actions: Tensor,
        rewards: np.ndarray,
        dones: np.ndarray,
        action_masks: Tensor | None = None,
    ) -> None:
        """Append a step: the observations, the state before it (K, n, S), actions, rewards, ends, and masks if any."""
        now = self.context + self._t
        if isinstance(self.obs, dict):
            assert isinstance(obs, dict)
            for key, part in self.obs.items():  # an environment may order its keys differently from its space
                part[now] = obs[key]
        else:
            assert isinstance(obs, Tensor)
            self.obs[now] = obs
        self.episode_starts[now] = episode_starts
        if now in self._carried or now in self.anchors.values():
            self.states[now] = state
        self.actions[self._t] = actions
        if self.action_masks is not None:
            assert action_masks is not None
            self.action_masks[self._t] = action_masks
        self.rewards[self._t] = torch.from_numpy(rewards)
        self.dones[self._t] = dones
        self._t += 1

    def end(self, state: Tensor) -> None:
        """Complete the rollout, with the state after its last step (K, n, S)."""
        end = self.context + self.n_steps
        if end in self._carried:
            self.states[end] = state
        self.sequences = Sequences(self.episode_starts[self.context :], self.bptt_length)

    def rows(self, tensor: Tensor, minibatch: Minibatch) -> Tensor:
        """Return the rows (N, ...) of a tensor (T, n, ...) in packed order."""
        return tensor.flatten(0, 1).index_select(0, torch.from_numpy(minibatch.rows).to(tensor.device))

    def obs_rows(self, minibatch: Minibatch) -> PyTorchObs:
        """Return the observations (N, ...) in packed order."""
        return map_obs(lambda part: self.rows(part[self.context :], minibatch), self.obs)

    def steps(self, begin: int, end: int, copies: Tensor | None = None) -> tuple[PyTorchObs, Tensor]:
        """Return observations and episode starts (t, n, ...) between two times, for all copies or some."""

        def of_copies(tensor: Tensor) -> Tensor:
            return tensor if copies is None else tensor.index_select(1, copies)

        starts = torch.from_numpy(self.episode_starts[begin:end]).to(self.rewards.device)
        return map_obs(lambda part: of_copies(part[begin:end]), self.obs), of_copies(starts)

    def get_state(self) -> dict[str, np.ndarray]:
        """Return copies of the arrays that the next rollout needs; none unless this rollout is complete."""
        T = self.n_steps
        if self._t < T:
            return {}
        arrays = {f"context/{i}": part[T:].cpu().numpy().copy() for i, part in enumerate(obs_parts(self.obs))}
        arrays |= {f"state/{time}": self.states[time].cpu().numpy().copy() for time in self._carried}
        return {**arrays, "episode_starts": self.episode_starts[T:].copy()}

    def set_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from arrays that `get_state` returned, from this buffer or another one with the same arguments.

        Raises:
            KeyError, ValueError, RuntimeError: If the arrays come from a buffer with other arguments.
        """
        if not arrays:
            return
        T = self.n_steps
        for i, part in enumerate(obs_parts(self.obs)):
            part[T:] = torch.from_numpy(arrays[f"context/{i}"].copy())
        self.episode_starts[T:] = arrays["episode_starts"]
        device = self.rewards.device
        self.states = {time: torch.from_numpy(arrays[f"state/{time}"].copy()).to(device) for time in self._carried}
        self._t = T

    def nbytes(self) -> int:
        """Return the memory of the buffer, in bytes."""
        tensors = [value for value in vars(self).values() if isinstance(value, Tensor)]
        tensors += [*obs_parts(self.obs), *self.states.values()]
        distinct: dict[int, Any] = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(distinct.values()) + self.episode_starts.nbytes + self.dones.nbytes


def _bytes_of(space: spaces.Space) -> int:
    return int(np.prod(space.shape or ())) * np.dtype(space.dtype).itemsize
