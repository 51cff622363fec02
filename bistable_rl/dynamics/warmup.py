"""Warm-up: make recurrent layers multistable before they are trained.

Lambrechts et al. 2023 (see `dynamics.attractors`): gradient steps on VAA* make the end states of the task's own
sequences settle at different attractors. A GRU or an LSTM thus gains the long memory that a bistable cell has by its
equation. The price is that the weights move away from their initialisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bistable_rl.cells import Cell
from bistable_rl.dynamics.attractors import Attractors, attractors, constant, settle, vaa_star
from bistable_rl.dynamics.sequences import check_sequences, cut, end_states, one_way
from bistable_rl.rnn import RNN

TARGET = 0.95
"""Target of VAA*; 1 would push states apart without end."""
GROWTH, LONGEST = 10, 200
"""The settling time is at most 1 + GROWTH · step, and at most LONGEST."""


@dataclass(frozen=True)
class WarmUp:
    """The result of `warm_up`.

    Attributes:
        before: Attractors reached before the warm-up.
        after: Attractors reached after it, with the same cuts and inputs.
        loss: (steps,) mean over layers of (VAA* - 0.95)².
    """

    before: Attractors
    after: Attractors
    loss: np.ndarray

    def summary(self) -> dict[str, int | float | list[float]]:
        """Return the result as plain numbers; each pair is before and after."""
        return {
            "steps": len(self.loss),
            "vaa_star": [float(self.before.vaa_star.mean()), float(self.after.vaa_star.mean())],
            "attractors": [self.before.count, self.after.count],
            "of": self.before.starts,
        }


def warm_up(
    rnn: RNN,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    steps: int = 100,
    learning_rate: float = 1e-2,
    batch_size: int = 32,
    truncate: bool = True,
    seed: int = 0,
) -> WarmUp:
    """Train the weights of a network, in place, towards one reachable attractor per sequence.

    Step k runs a batch of sequences, lets each layer on its own settle from its end states for a random 1 to
    min(1 + 10k, 200) steps under one constant N(0, 1) input, and takes an Adam step on the mean over layers of
    (VAA* - 0.95)². It is meant for GRU, LSTM, BRC and nBRC, and works with any cell.

    Args:
        rnn: The layers, in one direction.
        x: (T, n, I) sequences like those of the task, at least 2, time first.
        lengths: (n,) length of each sequence; None is T.
        steps: Gradient steps.
        learning_rate: Step size of Adam.
        batch_size: Sequences per step, drawn without replacement; at most n.
        truncate: Cut each sequence at a random step, as the paper does in supervised learning; in reinforcement
            learning it uses whole episodes.
        seed: Seed of batches, cuts, settling times and inputs. No other random generator is used.

    Raises:
        ValueError: If an argument is out of range or does not fit, or the loss becomes NaN.
    """
    cells = one_way(rnn)
    check_sequences(rnn, x, lengths)
    if steps < 1 or batch_size < 2:
        raise ValueError(f"steps must be at least 1 and batch_size at least 2, got {steps} and {batch_size}")
    generator = torch.Generator().manual_seed(seed)
    n = x.shape[1]
    sample = torch.randperm(n, generator=generator)[:batch_size]
    sampled = x[:, sample], None if lengths is None else lengths[sample]
    training = rnn.training
    rnn.eval()  # without dropout: the attractors are those of the whole network
    before = attractors(rnn, *sampled, seed=seed)
    optimizer = torch.optim.Adam(rnn.parameters(), lr=learning_rate)
    losses = []
    for k in range(steps):
        batch = torch.randperm(n, generator=generator)[:batch_size]
        inputs, ends = x[:, batch], None if lengths is None else lengths[batch]
        states = end_states(rnn, inputs, cut(inputs, ends, generator) if truncate else ends)
        settling = int(torch.randint(1, min(1 + GROWTH * k, LONGEST) + 1, (), generator=generator))
        loss = (_diversity(cells, states, settling, generator) - TARGET).square().mean()
        if not bool(torch.isfinite(loss)):
            raise ValueError(f"the warm-up's loss became {loss.item()} at step {k}; a smaller learning_rate may help")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    optimizer.zero_grad()
    after = attractors(rnn, *sampled, seed=seed)
    rnn.train(training)
    return WarmUp(before, after, np.array(losses))


def _diversity(cells: Sequence[Cell], states: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Return each layer's VAA* (L,) after it has settled on its own from its states (L, n, S) under one input."""
    settled = [
        settle([cell], states[i : i + 1], constant(1, cell.input_size, generator, states), steps)[0]
        for i, cell in enumerate(cells)
    ]
    return torch.stack([vaa_star(state) for state in settled])
