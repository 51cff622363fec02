"""The memory of a network: the time constant of each unit, and the survival of a cue under noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import e

import numpy as np
import torch
from torch import Tensor

from bistable_rl.dynamics.gates import slow_gate
from bistable_rl.dynamics.sequences import layer_outputs, one_way
from bistable_rl.rnn import RNN


@torch.no_grad()
def time_constants(rnn: RNN, x: Tensor) -> np.ndarray:
    """Measure for how many steps each unit keeps a state that is forced on it.

    Unit by unit, its memory is set to +1 in one copy of its layer and to -1 in another; both copies then see the same
    inputs. The time constant is the first step at which their distance, averaged over the sequences, is below 1/e of
    the initial one.

    Args:
        rnn: Layers of a cell with a slow gate, in one direction. A unit's memory is h, or an LSTM's cell state.
        x: (T, B, I) sequences, time first: the inputs while the units must remember.

    Returns:
        (L, H) steps, from 1 to T; infinity where the memory outlasts the sequences.

    Raises:
        ValueError: If the cell has no slow gate, or the layers run in two directions.
    """
    slow_gate(rnn)
    cells = one_way(rnn)
    seen = [x, *layer_outputs(cells, x)]
    T, B, H = x.shape[0], x.shape[1], rnn.hidden_size
    constants = np.full((len(cells), H), np.inf)
    units = torch.arange(H)
    for layer, cell in enumerate(cells):
        start = cell.initial_state(B).repeat(2, H, 1, 1)  # (2, H, B, S): both copies for each unit
        for copy, value in enumerate((1.0, -1.0)):
            for first in {0, cell.memory.start}:
                start[copy, units, :, first + units] = value
        state = start.flatten(0, 2)
        for t in range(T):
            state = cell(seen[layer][t].repeat(2 * H, 1), state)
            memory = state[:, cell.memory].unflatten(0, (2, H, B))
            apart = (memory[0] - memory[1]).abs().mean(1).diagonal().cpu().numpy() / 2
            constants[layer][(apart < 1 / e) & np.isinf(constants[layer])] = t + 1
    return constants


@dataclass(frozen=True)
class Survival:
    """Accuracy with which a cue can be decoded from each layer.

    Attributes:
        accuracy: (L, T) share of sequences whose cue is decoded correctly after step t.
        chance: Accuracy of always guessing the most frequent cue.
    """

    accuracy: np.ndarray
    chance: float

    @property
    def steps(self) -> np.ndarray:
        """(L,) steps until the accuracy falls below halfway between 1 and chance; infinity if it never does."""
        below = self.accuracy < (1 + self.chance) / 2
        return np.where(below.any(1), below.argmax(1), np.inf)


@torch.no_grad()
def survival(rnn: RNN, x: Tensor, cues: Tensor | np.ndarray) -> Survival:
    """Measure how long the first input of sequences, their cue, can be decoded from a network under noise.

    At every step and for every layer, the decoded cue is the one whose mean output is nearest. The means come from one
    half of the sequences and are tested on the other half, and vice versa.

    Args:
        rnn: The layers, in one direction.
        x: (T, n, I) sequences, time first: each has its cue first and then its own noise.
        cues: (n,) integers, the cue of each sequence; at least 2 cues with at least 2 sequences each.

    Raises:
        ValueError: If the layers run in two directions, or a cue has too few sequences.
    """
    labels = np.asarray(cues)
    names, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if labels.shape != x.shape[1:2] or len(names) < 2 or counts.min() < 2:
        raise ValueError(
            f"cues must be ({x.shape[1]},), with at least 2 different cues and 2 sequences of each, got "
            f"{labels.tolist()}"
        )
    h = torch.stack(layer_outputs(one_way(rnn), x)).cpu().numpy()  # (L, T, n, H)
    half = np.zeros(len(labels), bool)
    for k in range(len(names)):
        half[np.flatnonzero(index == k)[::2]] = True
    correct = np.zeros((*h.shape[:2], len(labels)))
    for known in (half, ~half):
        means = np.stack([h[:, :, known & (index == k)].mean(2) for k in range(len(names))], -2)  # (L, T, K, H)
        tested = h[:, :, ~known]
        # ‖h - m‖² = ‖h‖² - 2 h·m + ‖m‖², of which ‖h‖² is the same for every mean
        distance = (means**2).sum(-1)[:, :, None] - 2 * tested @ means.swapaxes(-1, -2)
        correct[:, :, ~known] = distance.argmin(-1) == index[~known]
    return Survival(correct.mean(-1), float(counts.max() / counts.sum()))
