"""A cell run backwards in time, for bidirectional layers."""

import torch
from torch import Tensor

from bistable_rl.cells.base import Cell


def scan_backwards(
    cell: Cell, x: Tensor, state: Tensor | None, resets: Tensor | None, batch_sizes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run a cell over each sequence from its end, as `Cell.scan` runs it from its start.

    A reset restores the initial state after its step instead of before it: the segments between resets stay separate.
    """
    if batch_sizes is None:
        if resets is not None:
            resets = torch.cat([torch.zeros_like(resets[:1]), resets.flip(0)[:-1]])
        output, h_n = cell.scan(x.flip(0), state, resets)
        return output.flip(0), h_n
    reverse, previous, first = _packed_indices(batch_sizes)
    reverse = reverse.to(x.device)
    if resets is not None:
        resets = resets[reverse][previous.to(x.device)].masked_fill(first.to(x.device), 0)
    output, h_n = cell.scan(x[reverse], state, resets, batch_sizes)
    return output[reverse], h_n


def _packed_indices(batch_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the rows of packed sequences go when each sequence is reversed.

    For each row (N,): the row that replaces it in its reversed sequence; the row of the step before it, or itself in
    the first step; whether it belongs to the first step.
    """
    T, B, N = len(batch_sizes), int(batch_sizes[0]), int(batch_sizes.sum())
    offsets = batch_sizes.cumsum(0) - batch_sizes
    steps, rows, sequences = (torch.arange(n, device="cpu") for n in (T, N, B))
    t = torch.repeat_interleave(steps, batch_sizes, output_size=N)
    b = rows - offsets[t]
    lengths = (batch_sizes > sequences.unsqueeze(1)).sum(1)
    return offsets[lengths[b] - 1 - t] + b, offsets[(t - 1).clamp(min=0)] + b, t == 0
