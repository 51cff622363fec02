"""The plain loop over time: any cell, any device, any dtype. Every other backend is tested against it.

It is the only backend that supports forward-mode AD, `torch.func`, batched gradients and second derivatives, because it
consists of torch's own operations.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bistable_rl.kernels.interface import Batch, Gradients, Kernel, Results, Weights
from bistable_rl.kernels.packed import check_batch_sizes
from bistable_rl.kernels.torch_state import transform

Step = Callable[[Tensor, Tensor], Tensor]
"""One step of a cell: (inputs (B, P), state (B, S)) -> the next state (B, S)."""

Equation = Callable[[Weights, Tensor, Tensor], Tensor]
"""A step as a function of the weights, too."""

_EQUATIONS: dict[str, Equation] = {}


def equation(cell: str) -> Callable[[Equation], Equation]:
    """Register the equation of a cell that has kernels; the cell's own file in `bistable_rl.cells` does so."""

    def register(step: Equation) -> Equation:
        _EQUATIONS[cell] = step
        return step

    return register


def project(weights: Weights, x: Tensor) -> Tensor:
    """W_ih x + b_ih: x (..., I) -> (..., G·H); a bias that the candidate lacks is 0."""
    weight_ih, _, bias, _ = weights
    if bias is not None and len(bias) < len(weight_ih):
        bias = nn.functional.pad(bias, (0, len(weight_ih) - len(bias)))
    return nn.functional.linear(x, weight_ih, bias)


def forward(
    kernel: Kernel, batch: Batch, weights: Weights, *, save: bool, recompute: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a whole sequence, see `Backend.forward`. Nothing is saved: autograd follows each operation."""
    step = partial(_EQUATIONS[kernel.name], weights)
    inputs = batch._replace(x=project(weights, batch.x))
    outputs, last = scan(step, inputs, output_size=weights.weight_hh.shape[1], recompute=recompute)
    return outputs, last, outputs.new_empty(0)


def backward(
    kernel: Kernel, batch: Batch, weights: Weights, results: Results, *, recompute: bool, need_x: bool
) -> Gradients:
    """Return the gradients of all inputs that require one, see `Backend.backward`, by running the sequence again.

    The gradients can be differentiated where gradients are enabled, and be batched and transformed anywhere.
    """
    create_graph = torch.is_grad_enabled()
    gradients: dict[str, Tensor | None] = dict.fromkeys(Gradients._fields)
    with torch.enable_grad():
        # Views, so that the gradients stop at this scan and still are functions of the inputs.
        batch, weights = Batch(*map(_view, batch)), Weights(*map(_view, weights))  # type: ignore[arg-type]
        outputs, last, _ = forward(kernel, batch, weights, save=True, recompute=recompute)
        ends = [(outputs, results.grad_outputs), (last, results.grad_last)]
        ends = [(result, grad) for result, grad in ends if grad is not None and result.requires_grad]
        given = {**batch._asdict(), **weights._asdict()}
        wanted = {name: t for name, t in given.items() if t is not None and t.requires_grad}
        if ends:
            found = torch.autograd.grad(
                [result for result, _ in ends],
                list(wanted.values()),
                [grad for _, grad in ends],
                create_graph=create_graph,
                allow_unused=True,
            )
            gradients.update(zip(wanted, found, strict=True))
    return Gradients(**gradients)


def _view(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.view_as(tensor)


def scan(
    step: Step, inputs: Batch, *, output_size: int, recompute: bool = False, name: str = "the cell"
) -> tuple[Tensor, Tensor]:
    """Apply a step at every time step, in order.

    Args:
        step: One step of a cell.
        inputs: The sequences, with the projected input (T, B, P), or (N, P) when packed, for x.
        output_size: H; the first H entries of the state are the output.
        recompute: Keep about √T states for the backward pass and compute the others again. Ignored under a transform of
            torch.func and under forward-mode AD, neither of which can do so.
        name: The cell's class, for the error message.

    Returns:
        The outputs (T, B, H), or (N, H) when packed, and the last state of each sequence (B, S).

    Raises:
        ValueError: If batch_sizes is malformed.
        RuntimeError: If the first step returns a state of another shape.
    """
    x, state, resets, initial, batch_sizes = inputs
    if batch_sizes is None:
        sizes = [x.shape[1]] * x.shape[0]
    else:
        check_batch_sizes(batch_sizes, x.shape[0])
        sizes = batch_sizes.tolist()
    if not sizes:
        return x.new_empty(0, *x.shape[1:-1], output_size), state.clone()
    rows = x.flatten(0, 1) if batch_sizes is None else x
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
            name,
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
    name: str,
) -> tuple[Tensor, Tensor]:
    """Run the steps of `sizes`; returns their outputs (sum(sizes), H) and the last state of each sequence."""
    steps = rows.split(sizes)
    resets = [None] * len(sizes) if masks is None else masks.split(sizes)
    outputs: list[Tensor] = []
    finished = []
    for x, reset in zip(steps, resets, strict=True):
        if len(x) < len(state):
            finished.append(state[len(x) :])
            state = state[: len(x)]
        if reset is not None:
            state = torch.where(reset, initial, state)
        before = state
        state = step(x, before)
        if not outputs and state.shape != before.shape:
            raise RuntimeError(
                f"{name}.step returned shape {tuple(state.shape)}; "
                f"it must return (B, state_size) = {tuple(before.shape)}"
            )
        outputs.append(state[:, :output_size])
    return torch.cat(outputs), torch.cat([state, *reversed(finished)]) if finished else state
