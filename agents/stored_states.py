"""The states from which sequences begin: stored, burned in, refreshed (Kapturowski et al. 2019)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bistable_rl.agents.buffer import RolloutBuffer
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.sequences import Minibatch


def start_states(policy: RecurrentPolicy, buffer: RolloutBuffer, minibatch: Minibatch) -> Tensor:
    """Return the states (K, B, S) before the sequences of a minibatch.

    A sequence that begins an episode starts in the initial state. Any other sequence starts in its stored state. With a
    burn-in it starts in the state reached from an earlier stored one with the current weights, without gradient.
    """
    sequences = buffer.sequences
    state = policy.initial_state(len(minibatch.sequences))
    continued = np.flatnonzero(~sequences.fresh[minibatch.sequences])
    if not len(continued):
        return state
    chosen = minibatch.sequences[continued]
    steps, copies = sequences.step[chosen], sequences.copy[chosen]
    for step in np.unique(steps).tolist():
        columns, time = torch.from_numpy(copies[steps == step]).to(state.device), buffer.anchors[step]
        stored = buffer.states[time].index_select(1, columns)
        if buffer.burn_in:
            stored = _run(policy, buffer, stored, time, time + buffer.burn_in, columns)
        state = state.index_copy(1, torch.from_numpy(continued[steps == step]).to(state.device), stored)
    return state


def refresh(policy: RecurrentPolicy, buffer: RolloutBuffer, last_state: Tensor) -> tuple[Tensor, float]:
    """Recompute the stored states with the current weights.

    Args:
        policy: The policy.
        buffer: The rollout with its stored states; all are recomputed from the oldest one.
        last_state: (K, n, S) the current state, after the last step.

    Returns:
        The recomputed state after the last step, and the staleness: the mean over sequences of ‖old - new‖ / ‖new‖, for
        the states within episodes and the last state.
    """
    end = buffer.context + buffer.n_steps
    state, before, drifts = buffer.states[0], 0, []
    for time in sorted({*buffer.kept_times, end}):
        state, before = _run(policy, buffer, state, before, time), time
        if time >= buffer.context:
            old = last_state if time == end else buffer.states[time]
            resets = buffer.dones[-1] if time == end else buffer.episode_starts[time]  # the old state is not used there
            drift = torch.linalg.vector_norm(old - state, dim=(0, 2))
            drift = drift / torch.linalg.vector_norm(state, dim=(0, 2)).clamp(min=1e-6)
            drifts.append(drift[torch.from_numpy(~resets).to(drift.device)])
        if time in buffer.states:
            buffer.states[time] = state
    all_drifts = torch.cat(drifts)
    return state, float(all_drifts.nan_to_num().mean()) if len(all_drifts) else 0.0


@torch.no_grad()
def _run(
    policy: RecurrentPolicy, buffer: RolloutBuffer, state: Tensor, begin: int, end: int, copies: Tensor | None = None
) -> Tensor:
    """Return the state at time `end`, computed from the state at `begin`, for all copies or some."""
    if begin == end:
        return state
    obs, episode_starts = buffer.steps(begin, end, copies)
    return policy.advance(obs, state, episode_starts)
