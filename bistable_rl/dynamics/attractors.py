"""How many attractors recurrent layers can reach: VAA and VAA*.

Lambrechts, De Geeter, Vecoven, Ernst and Drion, "Warming up recurrent neural networks to maximise reachable
multistability greatly improves learning", Neural Networks 166, 2023. Start states come from sequences, a constant input
lets them settle, and the variability amongst attractors is the share of the settled states that are different.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from bistable_rl.cells import Cell
from bistable_rl.rnn import RNN

EPSILON = 1e-4
"""States nearer than this are one attractor."""
CHUNK = 100
"""Steps settled at once: outputs are only kept for so many."""


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
    """Return VAA*, the smooth stand-in for `vaa` whose gradient drives states apart.

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
    """What `attractors` found in E estimates from n start states each.

    Attributes:
        vaa: (E,) VAA of the whole network, all layers' states together.
        vaa_star: (E, L) VAA* of each layer on its own.
        starts: n.
    """

    vaa: np.ndarray
    vaa_star: np.ndarray
    starts: int

    @property
    def count(self) -> float:
        """Mean number of attractors reached, from 1 to n."""
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
    """Count the attractors that a network reaches from the states its sequences bring it to.

    Each estimate cuts every sequence at a random step and lets the states settle under one constant N(0, 1) input,
    shared by all of them: for VAA the whole network, for VAA* each layer on its own.

    Args:
        rnn: The layers, in one direction.
        x: (T, n, I) sequences, time first whatever `rnn.batch_first` says; at least 2.
        lengths: (n,) how many steps of each sequence count, 1 to T; None is all.
        steps: How long the states settle (10,000 in the authors' code).
        estimates: E, how often all of it is done (10 in the authors' code), each time with other cuts and another
            constant input.
        seed: Of cuts and inputs.

    Raises:
        ValueError: rnn, x or lengths do not fit, or a number is below 1.
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
        """Settle (L, E · n, S) under one input an estimate; returns (E, n, L · S)."""
        u = constant(estimates, some[0].input_size, generator, x)
        last = settle(some, states, u.repeat_interleave(n, 0), steps)
        return last.transpose(0, 1).flatten(1).unflatten(0, (estimates, n))

    network = vaa(settled(cells, starts))
    layers = [vaa_star(settled([cell], starts[i : i + 1])) for i, cell in enumerate(cells)]
    return Attractors(network.cpu().numpy(), torch.stack(layers, -1).cpu().numpy(), n)


def one_way(rnn: RNN) -> list[Cell]:
    """Return the layers of a network that runs in one direction.

    Raises:
        ValueError: It runs in two.
    """
    if rnn.bidirectional:
        raise ValueError("the layers must run in one direction, got bidirectional=True")
    return list(rnn.cells)  # type: ignore[arg-type]


def check_sequences(rnn: RNN, x: Tensor, lengths: Tensor | None) -> None:
    """Refuse sequences that do not fit the network.

    Raises:
        ValueError: They do not.
    """
    if x.dim() != 3 or x.shape[-1] != rnn.input_size or x.shape[0] < 1 or x.shape[1] < 2:
        raise ValueError(f"the sequences must be (T, n, {rnn.input_size}) with n at least 2, got {tuple(x.shape)}")
    if lengths is not None and (
        lengths.shape != x.shape[1:2] or int(lengths.min()) < 1 or int(lengths.max()) > x.shape[0]
    ):
        raise ValueError(f"lengths must be ({x.shape[1]},), each from 1 to {x.shape[0]}; got {lengths.tolist()}")


def cut(x: Tensor, lengths: Tensor | None, generator: torch.Generator) -> Tensor:
    """Draw a length from 1 to its own for every sequence of (T, n, I); returns (n,) on the CPU."""
    whole = torch.full((x.shape[1],), x.shape[0]) if lengths is None else lengths.cpu()
    return 1 + (torch.rand(x.shape[1], generator=generator) * whole).long().clamp(max=whole - 1)


def constant(number: int, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw inputs (number, size) from N(0, 1), on the device and of the dtype of `like`."""
    return torch.randn(number, size, generator=generator).to(like)


def end_states(rnn: RNN, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return every layer's state (L, n, S) at the end of the sequences (T, n, I)."""
    if lengths is None:
        _, states = rnn(x.transpose(0, 1) if rnn.batch_first else x)
    else:
        _, states = rnn(pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False))
    last: Tensor = states
    return last


def settle(cells: Sequence[Cell], states: Tensor, u: Tensor, steps: int) -> Tensor:
    """Return the states (L, n, S) of stacked cells after `steps` steps of a constant input u, (n, I) or (1, I)."""
    last = list(states.unbind(0))
    for start in range(0, steps, CHUNK):
        x = u.expand(min(CHUNK, steps - start), states.shape[1], -1)
        for i, cell in enumerate(cells):
            x, last[i] = cell.scan(x, last[i].contiguous())
    return torch.stack(last)
