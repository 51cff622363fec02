"""How long a network remembers: the time constant of each unit, and the survival of a cue under noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import e

import numpy as np
import torch
from torch import Tensor

from bistable_rl.dynamics.attractors import one_way
from bistable_rl.dynamics.gates import gate_trace, gates_of
from bistable_rl.rnn import RNN


@torch.no_grad()
def time_constants(rnn: RNN, x: Tensor) -> np.ndarray:
    """Measure how many steps each unit keeps a state that was forced on it.

    Unit by unit, its memory is set to +1 in one copy of the network's layer and to -1 in another; both see the same
    inputs. The time constant is the first step at which the two, on average over the sequences, are nearer than 1/e of
    the distance they started from.

    Args:
        rnn: Layers of BRC, nBRC, GRU or LSTM, in one direction. A unit's memory is h; an LSTM's is its cell state.
        x: (T, B, I) sequences, time first: what the network sees while it has to remember.

    Returns:
        (L, H) steps, from 1 to T; infinity where the memory outlasts the sequences.

    Raises:
        ValueError: As `gate_trace`.
    """
    gates_of(rnn.cell)
    cells = one_way(rnn)
    outputs = gate_trace(rnn, x).h
    T, B, H = x.shape[0], x.shape[1], rnn.hidden_size
    constants = np.full((len(cells), H), np.inf)
    units = torch.arange(H)
    for layer, cell in enumerate(cells):
        seen = x if layer == 0 else torch.from_numpy(outputs[layer - 1]).to(x)
        blocks = cell.initial_state(B).unflatten(-1, (-1, H)).repeat(2, H, 1, 1, 1)  # (2, H, B, S / H, H)
        for copy, value in enumerate((1.0, -1.0)):
            blocks[copy, units, :, :, units] = value
        state = blocks.flatten(-2).flatten(0, 2)
        for t in range(T):
            state = cell(seen[t].repeat(2 * H, 1), state)
            memory = state[:, -H:].unflatten(0, (2, H, B))
            apart = (memory[0] - memory[1]).abs().mean(1).diagonal().cpu().numpy() / 2
            constants[layer][(apart < 1 / e) & np.isinf(constants[layer])] = t + 1
    return constants


@dataclass(frozen=True)
class Survival:
    """How well a cue can be read from each layer.

    Attributes:
        accuracy: (L, T) share of sequences whose cue is read right after step t.
        chance: The share that guessing reads right.
    """

    accuracy: np.ndarray
    chance: float

    @property
    def steps(self) -> np.ndarray:
        """(L,) steps until the accuracy falls below halfway between 1 and chance; infinity where it never does."""
        below = self.accuracy < (1 + self.chance) / 2
        return np.where(below.any(1), below.argmax(1), np.inf)


def survival(rnn: RNN, x: Tensor, cues: Tensor | np.ndarray) -> Survival:
    """Measure how long the cue that sequences begin with can be read from the network while noise goes on.

    At every step and for every layer, the cue is read as the one whose mean output is nearest. The means come from one
    half of the sequences, the reading is tried on the other half, and the other way round.

    Args:
        rnn: Layers of BRC, nBRC, GRU or LSTM, in one direction.
        x: (T, n, I) sequences, time first: each begins with its cue and goes on with noise of its own.
        cues: (n,) integers, the cue of each sequence; at least 2 cues with 2 sequences or more each.

    Raises:
        ValueError: As `gate_trace`, or there are too few sequences of a cue.
    """
    labels = np.asarray(cues)
    names, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if labels.shape != x.shape[1:2] or len(names) < 2 or counts.min() < 2:
        raise ValueError(
            f"cues must be ({x.shape[1]},), at least 2 different ones and 2 sequences of each, got {labels.tolist()}"
        )
    h = gate_trace(rnn, x).h  # (L, T, n, H)
    half = np.zeros(len(labels), bool)
    for k in range(len(names)):
        half[np.flatnonzero(index == k)[::2]] = True
    right = np.zeros((*h.shape[:2], len(labels)))
    for known in (half, ~half):
        means = np.stack([h[:, :, known & (index == k)].mean(2) for k in range(len(names))], -2)  # (L, T, K, H)
        tried = h[:, :, ~known]
        # ‖h - m‖² = ‖h‖² - 2 h·m + ‖m‖², of which ‖h‖² is the same for every mean
        distance = (means**2).sum(-1)[:, :, None] - 2 * tried @ means.swapaxes(-1, -2)
        right[:, :, ~known] = distance.argmin(-1) == index[~known]
    return Survival(right.mean(-1), float(counts.max() / counts.sum()))
