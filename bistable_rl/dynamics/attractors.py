"""The number of attractors that recurrent layers can reach: VAA and VAA*.

Lambrechts, De Geeter, Vecoven, Ernst and Drion, "Warming up recurrent neural networks to maximise reachable
multistability greatly improves learning", Neural Networks 166, 2023. Sequences give the start states, which then settle
under a constant input; the variability amongst attractors (VAA) is the share of different settled states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bistable_rl.cells import Cell
from bistable_rl.dynamics.sequences import check_sequences, cut, end_states, one_way
from bistable_rl.rnn import RNN

EPSILON = 1e-4
"""States closer than this belong to one attractor."""
CHUNK = 100
"""Steps settled in one call, whose outputs are all in memory."""


def vaa(states: Tensor) -> Tensor:
    """Return the variability amongst attractors: mean over i of 1 / (number of states within ε of state i).

    Args:
        states: (..., n, S), settled states.

    Returns:
        (...), from 1/n (all the same) to 1 (all different); n times it is the number of attractors reached.
    """
    near = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist") < EPSILON
    return (1 / near.sum(-1)).mean(-1)


def vaa_star(states: Tensor) -> Tensor:
    """Return VAA*, a smooth surrogate of `vaa` whose gradient drives states apart.

        d_ij = ‖tanh h_i - tanh h_j‖,  C_i = Σ_j [1 - relu(d_ij - ε) / (d_ij + 1e-6)],  VAA* = mean_i 1 / C_i

    Args:
        states: (..., n, S).

    Returns:
        (...), from 1/n to 1.
    """
    squashed = torch.tanh(states)
    # Σ (x_i - x_j)² by matrix products would lose the small distances
    distance = torch.cdist(squashed, squashed, compute_mode="donot_use_mm_for_euclid_dist")
    near = 1 - torch.relu(distance - EPSILON) / (distance + 1e-6)
    return (1 / near.sum(-1)).mean(-1)


@dataclass(frozen=True)
class Attractors:
    """The result of `attractors`: E estimates from n start states each.

    Attributes:
        vaa: (E,) VAA of the whole network, the states of all layers together.
        vaa_star: (E, L) VAA* of each layer on its own.
        starts: n.
    """

    vaa: np.ndarray
    vaa_star: np.ndarray
    starts: int

    @property
    def count(self) -> float:
        """Number of attractors reached, from 1 to n: the mean of the E estimates, so seldom a whole number."""
        return float(self.starts * self.vaa.mean())


@torch.no_grad()
def attractors(
    rnn: RNN,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    steps: int = 2_000,
    estimates: int = 5,
    seed: int = 0,
) -> Attractors:
    """Count the attractors that a network reaches from the end states of sequences.

    Each estimate cuts every sequence at a random step and lets the states settle under one constant N(0, 1) input,
    shared by all of them: for VAA the whole network, for VAA* each layer on its own.

    Args:
        rnn: The layers, in one direction.
        x: (T, n, I) sequences, at least 2, time first even with `rnn.batch_first`.
        lengths: (n,) length of each sequence, 1 to T; None is T.
        steps: Steps of settling (10,000 in the authors' code).
        estimates: E, number of estimates, each with its own cuts and constant input (10 in the authors' code).
        seed: Seed of cuts and inputs.

    Raises:
        ValueError: If rnn, x or lengths do not fit, or a number is below 1.
    """
    cells = one_way(rnn)
    check_sequences(rnn, x, lengths)
    if steps < 1 or estimates < 1:
        raise ValueError(f"steps and estimates must be at least 1, got {steps} and {estimates}")
    generator = torch.Generator().manual_seed(seed)
    n = x.shape[1]
    cuts = torch.cat([cut(x, lengths, generator) for _ in range(estimates)])
    starts = end_states(rnn, x.repeat(1, estimates, 1), cuts)  # (L, E · n, S)

    def settled(some: Sequence[Cell], states: Tensor) -> Tensor:
        """Settle (L, E · n, S) under one input per estimate; return (E, n, L · S)."""
        u = constant(estimates, some[0].input_size, generator, x)
        last = settle(some, states, u.repeat_interleave(n, 0), steps)
        return last.transpose(0, 1).flatten(1).unflatten(0, (estimates, n))

    network = vaa(settled(cells, starts))
    layers = [vaa_star(settled([cell], starts[i : i + 1])) for i, cell in enumerate(cells)]
    return Attractors(network.cpu().numpy(), torch.stack(layers, -1).cpu().numpy(), n)


def constant(number: int, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw inputs (number, size) from N(0, 1), on the device and of the dtype of `like`."""
    return torch.randn(number, size, generator=generator).to(like)


def settle(cells: Sequence[Cell], states: Tensor, u: Tensor, steps: int) -> Tensor:
    """Return the states (L, n, S) of stacked cells after `steps` steps of a constant input u, (n, I) or (1, I)."""
    last = list(states.unbind(0))
    for start in range(0, steps, CHUNK):
        x = u.expand(min(CHUNK, steps - start), states.shape[1], -1)
        for i, cell in enumerate(cells):
            x, last[i] = cell.scan(x, last[i].contiguous())
    return torch.stack(last)
