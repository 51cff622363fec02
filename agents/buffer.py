"""What an agent has lived through since its last update, and the states from which its memory is run again.

States are kept only where a sequence can begin within an episode: at the rollout's first step and at every
`bptt_length` steps from there. Every other sequence begins an episode, with the initial state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.sequences import Packed, Sequences
from bistable_rl.runs.capacity import check_memory

Observations = Tensor | dict[str, Tensor]


class Rollout:
    """T steps of n copies, and the last C steps before them, from which states can be computed anew.

    Time is counted from the oldest step kept: the rollout itself is C..C+T-1.

    Args:
        n_steps: T.
        n_envs: n.
        observation_space: Space of one observation.
        action_space: Space of one action.
        device: Where the tensors live.
        bptt_length: The longest sequence, in steps; None for no limit.
        burn_in: Steps run without gradient before a sequence that begins within an episode, at most `bptt_length`.
        refresh: Whether `refresh` will be called; the rollout before is then kept too.

    Raises:
        UserError: There is not so much memory.

    Attributes:
        actions: (T, n, ...).
        rewards: (T, n).
        episode_starts: (C + T, n) whether an episode starts with that step.
        episode_ends: (T, n) whether the episode ended with that step.
        bootstraps: (T, n) the value of what followed a step that ended an episode: 0, or V of the last observation
            where a time limit cut it.
        last_values: (n,) V of the observation after the rollout's last step.
        values: (T, n) V when the rollout was made.
        log_probs: (T, n) of the actions, when the rollout was made.
        advantages: (T, n).
        returns: (T, n) what the values are to become.
    """

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

        parts = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
        seen = sum(int(np.prod(part.shape or ())) * np.dtype(part.dtype).itemsize for part in parts)
        done = int(np.prod(action_space.shape or ())) * np.dtype(action_space.dtype).itemsize
        check_memory(
            f"a rollout of n_steps {T} in {n} copies (num_envs)",
            n * ((C + T) * (seen + done + 1) + T * 25),  # below: six float32 and a byte for each step
            device,
        )

        def empty(space: spaces.Space) -> Tensor:
            assert space.shape is not None
            dtype = torch.from_numpy(np.zeros(0, space.dtype)).dtype
            return torch.zeros(C + T, n, *space.shape, dtype=dtype, device=device)

        if isinstance(observation_space, spaces.Dict):
            self.observations: Observations = {key: empty(space) for key, space in observation_space.spaces.items()}
        else:
            self.observations = empty(observation_space)
        self.actions = empty(action_space)[C:]
        self.rewards = torch.zeros(T, n, device=device)
        self.episode_starts = np.zeros((C + T, n), np.bool_)
        self.episode_ends = np.zeros((T, n), np.bool_)
        self.bootstraps = torch.zeros(T, n, device=device)
        self.last_values = torch.zeros(n, device=device)
        self.values = torch.zeros(T, n, device=device)
        self.log_probs = torch.zeros(T, n, device=device)
        self.advantages = torch.zeros(T, n, device=device)
        self.returns = torch.zeros(T, n, device=device)
        # the moments whose states are kept: where runs-up to sequences begin, and what the next rollout needs
        first = C - burn_in
        self._anchors = {k: first + k for k in range(0, T, bptt_length or T)}
        self._next = {T: 0, T + first: first}
        self.states: dict[int, Tensor] = {}
        self._t = 0

    def begin(self, state: Tensor) -> None:
        """Start a new rollout, with the state before its first step (K, n, S)."""
        T, C = self.n_steps, self.context
        if self._t == T:
            for tensor in self._parts():
                tensor[:C] = tensor[T:].clone()
            self.episode_starts[:C] = self.episode_starts[T:].copy()
            self.states = {new: self.states[old] for old, new in self._next.items()}
        else:  # nothing lies before: every copy starts an episode now
            self.states = {0: state, C - self.burn_in: state}
        self.bootstraps.zero_()
        self._t = 0

    def add(
        self,
        observation: Observations,
        episode_starts: np.ndarray,
        state: Tensor,
        actions: Tensor,
        rewards: np.ndarray,
        episode_ends: np.ndarray,
    ) -> None:
        """Append a step: what was seen, the state before it, and what came of it."""
        now = self.context + self._t
        if isinstance(self.observations, dict):
            assert isinstance(observation, dict)
            for key, part in self.observations.items():  # an environment may order its keys otherwise than its space
                part[now] = observation[key]
        else:
            assert isinstance(observation, Tensor)
            self.observations[now] = observation
        self.episode_starts[now] = episode_starts
        if now in self._next or now in self._anchors.values():
            self.states[now] = state
        self.actions[self._t] = actions
        self.rewards[self._t] = torch.from_numpy(rewards)
        self.episode_ends[self._t] = episode_ends
        self._t += 1

    def end(self, state: Tensor) -> None:
        """Note the state after the last step, and find the sequences."""
        end = self.context + self.n_steps
        if end in self._next:
            self.states[end] = state
        self.sequences = Sequences(self.episode_starts[self.context :], self.bptt_length)

    def rows(self, tensor: Tensor, packed: Packed) -> Tensor:
        """Return the rows (N, ...) of a tensor (T, n, ...) in packed order."""
        return tensor.flatten(0, 1).index_select(0, torch.from_numpy(packed.rows).to(tensor.device))

    def observed(self, packed: Packed) -> Observations:
        """Return the observations (N, ...) in packed order."""
        return _like(self.observations, [self.rows(part, packed) for part in self.observed_parts()])

    def observed_parts(self) -> list[Tensor]:
        """Return the observations (T, n, ...): one tensor, or one for each key of a Dict."""
        return [part[self.context :] for part in self._parts()]

    def start_states(self, policy: RecurrentPolicy, packed: Packed) -> Tensor:
        """Return the states (K, B, S) before the packed sequences, run up to them where `burn_in` says so."""
        sequences = self.sequences
        state = policy.initial_state(len(packed.sequences))
        within = np.flatnonzero(~sequences.fresh[packed.sequences])
        if not len(within):
            return state
        steps, copies = sequences.step[packed.sequences[within]], sequences.copy[packed.sequences[within]]
        for step in np.unique(steps).tolist():
            places, anchor = within[steps == step], self._anchors[step]
            columns = torch.from_numpy(copies[steps == step]).to(state.device)
            kept = self.states[anchor].index_select(1, columns)
            if self.burn_in:
                kept = self._run(policy, kept, anchor, anchor + self.burn_in, columns)
            state = state.index_copy(1, torch.from_numpy(places).to(state.device), kept)
        return state

    def refresh(self, policy: RecurrentPolicy, last_state: Tensor) -> tuple[Tensor, float]:
        """Compute the kept states anew, with the present weights.

        Args:
            policy: The policy.
            last_state: (K, n, S) the state after the last step, as it is.

        Returns:
            The state after the last step, computed anew, and the staleness: the mean over sequences of
            ‖kept - new‖ / ‖new‖, of the states within episodes and of the last.
        """
        end = self.context + self.n_steps
        state, before, drifts = self.states[0], 0, []
        for moment in sorted({*self._next, *self._anchors.values(), end}):
            state = self._run(policy, state, before, moment)
            before = moment
            kept = last_state if moment == end else self.states[moment]
            if moment >= self.context:  # what an episode's start wipes out is no matter
                wiped = self.episode_ends[-1] if moment == end else self.episode_starts[moment]
                lasting = torch.from_numpy(~wiped)
                change = torch.linalg.vector_norm(kept - state, dim=(0, 2))
                drift = change / torch.linalg.vector_norm(state, dim=(0, 2)).clamp(min=1e-6)
                drifts.append(drift[lasting.to(drift.device)])
            if moment in self.states:
                self.states[moment] = state
        return state, float(torch.cat(drifts).nan_to_num().mean()) if len(torch.cat(drifts)) else 0.0

    @torch.no_grad()
    def _run(
        self, policy: RecurrentPolicy, state: Tensor, begin: int, end: int, columns: Tensor | None = None
    ) -> Tensor:
        """Return the state at `end`, from the one at `begin`, for all copies or for some."""
        if begin == end:
            return state
        parts, starts = [part[begin:end] for part in self._parts()], torch.from_numpy(self.episode_starts[begin:end])
        starts = starts.to(state.device)
        if columns is not None:
            parts, starts = [part.index_select(1, columns) for part in parts], starts.index_select(1, columns)
        return policy.advance(_like(self.observations, parts), state, starts)

    def _parts(self) -> list[Tensor]:
        return _values(self.observations)

    def get_state(self) -> dict[str, np.ndarray]:
        """Return copies of what the next rollout takes over from this one: nothing, unless this one is complete."""
        T = self.n_steps
        if self._t < T:
            return {}
        arrays = {f"context/{i}": part[T:].cpu().numpy().copy() for i, part in enumerate(self._parts())}
        arrays |= {f"state/{moment}": self.states[moment].cpu().numpy().copy() for moment in self._next}
        return {**arrays, "episode_starts": self.episode_starts[T:].copy()}

    def set_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what `get_state` returned, here or in another rollout made with the same arguments.

        Raises:
            KeyError, ValueError, RuntimeError: The arrays come from a rollout of other arguments.
        """
        if not arrays:
            return
        T = self.n_steps
        for i, part in enumerate(self._parts()):
            part[T:] = torch.from_numpy(arrays[f"context/{i}"].copy())
        self.episode_starts[T:] = arrays["episode_starts"]
        device = self.rewards.device
        self.states = {moment: torch.from_numpy(arrays[f"state/{moment}"].copy()).to(device) for moment in self._next}
        self._t = T

    def nbytes(self) -> int:
        """Return the memory of the rollout, in bytes."""
        tensors = [v for v in vars(self).values() if isinstance(v, Tensor)]
        tensors += [*self._parts(), *self.states.values()]
        distinct: dict[int, Any] = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(distinct.values()) + self.episode_starts.nbytes + self.episode_ends.nbytes


def _values(observations: Observations) -> list[Tensor]:
    return list(observations.values()) if isinstance(observations, dict) else [observations]


def _like(observations: Observations, parts: list[Tensor]) -> Observations:
    """Return parts in the form of the observations."""
    return dict(zip(observations, parts, strict=True)) if isinstance(observations, dict) else parts[0]
