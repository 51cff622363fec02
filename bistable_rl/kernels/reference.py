"""The plain loop over time: any cell, any device, any dtype. The truth that every other backend is tested against."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bistable_rl.kernels.dispatch import transform
from bistable_rl.kernels.packed import check_batch_sizes

Step = Callable[[Tensor, Tensor], Tensor]


def scan(
    step: Step,
    inputs: Tensor,
    state: Tensor,
    *,
    output_size: int,
    initial: Tensor | None = None,
    resets: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """Apply `step` at every time step, in order.

    Args:
        step: one step of a cell, `(inputs (B, F), state (B, S)) -> state (B, S)`.
        inputs: (T, B, F), or (N, F) when packed: the N rows of all sequences, time-major, as in a `PackedSequence`.
        state: (B, S), the state before the first step.
        output_size: H; the first H entries of the state are the output.
        initial: (S,), the state that a reset restores; None is zero.
        resets: (T, B), or (N,) when packed; nonzero restores `initial` before that step.
        batch_sizes: (T,) int64 on the CPU, when packed: how many sequences reach step t, never growing.
        recompute: keep about √T states for the backward pass and compute the others again; not under a transform of
            torch.func or forward-mode AD, neither of which can do so.

    Returns:
        The outputs (T, B, H), or (N, H) when packed, and the last state of each sequence (B, S).

    Raises:
        ValueError: if batch_sizes is not as it has to be.
    """
    if batch_sizes is None:
        sizes = [inputs.shape[1]] * inputs.shape[0]
    else:
        check_batch_sizes(batch_sizes, inputs.shape[0])
        sizes = batch_sizes.tolist()
    if not sizes:
        return inputs.new_empty(0, *inputs.shape[1:-1], output_size), state.clone()
    rows = inputs.flatten(0, 1) if batch_sizes is None else inputs
    masks = None if resets is None else (resets != 0).reshape(-1, 1)
    if initial is None:
        initial = state.new_zeros(state.shape[-1])

    recompute = recompute and torch.is_grad_enabled() and transform() is None
    length = max(1, math.isqrt(len(sizes))) if recompute else len(sizes)
    outputs, finished, start = [], [], 0
    for first in range(0, len(sizes), length):
        chunk = sizes[first : first + length]
        finished.append(state[chunk[0] :])
        state, end = state[: chunk[0]], start + sum(chunk)
        arguments = (
            step, rows[start:end], state, initial, None if masks is None else masks[start:end], chunk, output_size,
        )  # fmt: skip
        if length < len(sizes):
            output, state = checkpoint(_chunk, *arguments, use_reentrant=False)
        else:
            output, state = _chunk(*arguments)
        # Sequences that end inside the chunk come back with the state they ended in.
        finished.append(state[chunk[-1] :])
        state, start = state[: chunk[-1]], end
        outputs.append(output)
    result = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    last = torch.cat([state, *reversed(finished)])
    return (result.view(len(sizes), sizes[0], output_size) if batch_sizes is None else result), last


def _chunk(
    step: Step,
    rows: Tensor,
    state: Tensor,
    initial: Tensor,
    masks: Tensor | None,
    sizes: list[int],
    output_size: int,
) -> tuple[Tensor, Tensor]:
    """Run the steps of `sizes`; returns their outputs (sum(sizes), H) and the last state of each sequence."""
    steps = rows.split(sizes)
    resets = [None] * len(sizes) if masks is None else masks.split(sizes)
    outputs, finished = [], []
    for x, reset in zip(steps, resets, strict=True):
        if len(x) < len(state):
            finished.append(state[len(x) :])
            state = state[: len(x)]
        if reset is not None:
            state = torch.where(reset, initial, state)
        state = step(x, state)
        outputs.append(state[:, :output_size])
    return torch.cat(outputs), torch.cat([state, *reversed(finished)]) if finished else state
