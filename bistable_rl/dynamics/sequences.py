"""The layers of a network and the sequences that they run on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from bistable_rl.cells import Cell
from bistable_rl.rnn import RNN


def one_way(rnn: RNN) -> list[Cell]:
    """Return the layers of a network that runs in one direction.

    Raises:
        ValueError: If it is bidirectional.
    """
    if rnn.bidirectional:
        raise ValueError("the layers must run in one direction, got bidirectional=True")
    return rnn.layers


def check_sequences(rnn: RNN, x: Tensor, lengths: Tensor | None) -> None:
    """Check that there are at least two sequences (T, n, I) and that their lengths (n,) fit.

    Raises:
        ValueError: If they do not.
    """
    if x.dim() != 3 or x.shape[-1] != rnn.input_size or x.shape[0] < 1 or x.shape[1] < 2:
        raise ValueError(f"the sequences must be (T, n, {rnn.input_size}) with n at least 2, got {tuple(x.shape)}")
    if lengths is not None and (
        lengths.shape != x.shape[1:2] or int(lengths.min()) < 1 or int(lengths.max()) > x.shape[0]
    ):
        raise ValueError(f"lengths must be ({x.shape[1]},), each from 1 to {x.shape[0]}; got {lengths.tolist()}")


def cut(x: Tensor, lengths: Tensor | None, generator: torch.Generator) -> Tensor:
    """Draw a length (n,), on the CPU, for every sequence of (T, n, I), from 1 to its own length."""
    whole = torch.full((x.shape[1],), x.shape[0]) if lengths is None else lengths.cpu()
    return 1 + (torch.rand(x.shape[1], generator=generator) * whole).long().clamp(max=whole - 1)


def end_states(rnn: RNN, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return every layer's state (L, n, S) at the end of the sequences (T, n, I)."""
    if lengths is None:
        _, states = rnn(x.transpose(0, 1) if rnn.batch_first else x)
    else:
        _, states = rnn(pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False))
    last: Tensor = states
    return last


def layer_outputs(cells: Sequence[Cell], x: Tensor) -> list[Tensor]:
    """Return the outputs (T, n, H) of every layer on sequences (T, n, I), without dropout."""
    outputs = []
    for cell in cells:
        x, _ = cell.scan(x)
        outputs.append(x)
    return outputs
