"""The fast path in plain torch: any device, any dtype, gradients by hand.

Time is cut into chunks small enough for a chunk's projections and gates to stay in cache. Everything that does not
depend on the step before is computed for a whole chunk at once; `torch_cells` has the steps. `triton_scan` shares all
of this except the loops over a chunk's steps.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from bistable_rl.kernels.checks import check_inputs, check_results
from bistable_rl.kernels.interface import Batch, Gradients, Kernel, Results, Weights
from bistable_rl.kernels.products import product, write_product

# A chunk's projections should stay in a core's second-level cache; on other devices fewer, larger operations win.
_CHUNK_BYTES = {"cpu": 1 << 20}
_OTHER_CHUNK_BYTES = 1 << 26


class Chunk(NamedTuple):
    """Consecutive steps: how many sequences each has, the rows of them all, and which rows are reset."""

    sizes: list[int]
    start: int
    end: int
    flags: Tensor | None


class Values(NamedTuple):
    """What the backward pass knows of a chunk's rows.

    Attributes:
        gates: (rows, G, H), contiguous in its last dimension only.
        extra: (rows, H), likewise, where the cell has one; see `torch_cells`.
        before: (rows, S), the states before each step, after resets.
    """

    gates: Tensor
    extra: Tensor | None
    before: Tensor


# Run a chunk's steps: (kernel, chunk, weights, initial, gates, state, outputs, extra) -> the state after them (B, S).
# Gates (rows, G·H) hold the projected input and become the gates' values; outputs and extra (rows, H) are written.
Steps = Callable[[Kernel, Chunk, Weights, Tensor | None, Tensor, Tensor, Tensor, Tensor | None], Tensor]
# The same backwards: (kernel, chunk, weight_hh, values, grad_outputs, carried, grad_gates, grad_initial) -> the
# gradient of the state before the chunk (B, S). Carried, the gradient of the state after it, may be overwritten;
# grad_gates is written; the gradient that resets cut off is added to grad_initial (S,).
StepsBack = Callable[
    [Kernel, Chunk, Tensor, Values, Tensor | None, Tensor, Tensor, Tensor | None],
    Tensor,
]


def forward(
    kernel: Kernel, batch: Batch, weights: Weights, *, save: bool, recompute: bool, steps: Steps | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a whole sequence, see `Backend.forward`; `steps` runs a chunk's steps."""
    sizes = check_inputs(kernel, batch, weights, bfloat16=True)
    batch, weights = batch.contiguous(), weights.contiguous()
    x, last, _, initial, _ = batch
    H, rows = weights.weight_hh.shape[1], x.flatten(0, -2)
    outputs = x.new_empty(len(rows), H)
    n, kept, padded = kernel.saved_shape(len(rows), H, recompute=recompute)
    saved = x.new_empty(n, kept if save else 0, padded)
    saved[..., H:] = 0  # the C++ backward pass reads it, and 0 times NaN is NaN
    bias = _input_bias(kernel, weights)
    for chunk in _chunks(sizes, batch, kernel.gates * H):
        now = slice(chunk.start, chunk.end)
        gates = product(rows[now], weights.weight_ih.T, bias)
        extra = None if kernel.extra is None else x.new_empty(len(gates), H)
        last = (steps or _steps)(kernel, chunk, weights, initial, gates, last, outputs[now], extra)
        if saved.shape[1] >= kernel.gates:
            _saved_gates(kernel, saved[now], H).copy_(gates.view(-1, kernel.gates, H))
        if extra is not None and saved.shape[1]:
            saved[now, kernel.extra, :H] = extra
    # `last` may be a view of `outputs` or the state that was given; the result must share memory with neither.
    return outputs.view(*x.shape[:-1], H), last.clone(), saved


def backward(
    kernel: Kernel,
    batch: Batch,
    weights: Weights,
    results: Results,
    *,
    recompute: bool,
    need_x: bool,
    steps_back: StepsBack | None = None,
) -> Gradients:
    """Return the gradients of all inputs, see `Backend.backward`; `steps_back` runs a chunk's steps."""
    sizes, H = check_inputs(kernel, batch, weights, bfloat16=True), weights.weight_hh.shape[1]
    check_results(kernel, batch, H, results, recompute=recompute)
    batch, weights = batch.contiguous(), weights.contiguous()
    x, state, _, initial, _ = batch
    weight_ih, weight_hh, _, _ = weights
    rows, states = x.flatten(0, -2), _states(kernel, results, H)
    grad_outputs, grad_last = results.grad_outputs, results.grad_last
    if grad_outputs is not None:
        grad_outputs = grad_outputs.reshape(-1, H).contiguous()
    carried = torch.zeros_like(state)
    if grad_last is not None:
        carried.copy_(grad_last)

    grad_x = torch.empty_like(rows) if need_x else None
    grad_weights = Weights(*(None if w is None else torch.zeros_like(w, dtype=x.dtype) for w in weights))  # type: ignore[arg-type]
    grad_initial = None if initial is None else torch.zeros_like(initial)

    for chunk in reversed(list(_chunks(sizes, batch, kernel.gates * H))):
        now = slice(chunk.start, chunk.end)
        before = _states_before(states, state, sizes, chunk)
        if chunk.flags is not None:
            before = restored(before, chunk.flags, initial)
        gates, extra = _gates(kernel, rows[now], before, weights, results.saved[now])
        grad_gates = x.new_empty(len(before), kernel.gates, H)
        carried = (steps_back or _steps_back)(
            kernel,
            chunk,
            weight_hh,
            Values(gates, extra, before),
            None if grad_outputs is None else grad_outputs[now],
            carried,
            grad_gates,
            grad_initial,
        )
        if grad_x is not None:
            write_product(grad_x[now], grad_gates.flatten(1), weight_ih)
        _add_grad_weights(kernel, grad_weights, rows[now], before, gates, grad_gates)

    return Gradients(
        x=None if grad_x is None else grad_x.view(x.shape),
        state=carried,
        **grad_weights._asdict(),
        initial=grad_initial,
    )


def _add_grad_weights(
    kernel: Kernel, total: Weights, rows: Tensor, before: Tensor, gates: Tensor, grad_gates: Tensor
) -> None:
    """Add the gradients of the weights over a chunk to their totals; grad_gates (rows, G, H) may be overwritten."""
    flat = grad_gates.flatten(1)
    total.weight_ih.addmm_(flat.T, rows)
    if total.bias_ih is not None:  # a missing candidate's bias has no gradient
        total.bias_ih.add_(flat.sum(0)[: len(total.bias_ih)])
    if not kernel.matrices:
        total.weight_hh.add_((grad_gates[:, :2] * before.unsqueeze(1)).sum(0))
        return
    if kernel.reset_candidate:  # W_n h + b enters the candidate through r
        grad_gates[:, 2] *= gates[:, 0]
    if total.bias_hh is not None:
        total.bias_hh.add_(flat.sum(0))
    total.weight_hh.addmm_(flat[:, : len(total.weight_hh)].T, before[:, : gates.shape[-1]])


def _steps(
    kernel: Kernel,
    chunk: Chunk,
    weights: Weights,
    initial: Tensor | None,
    gates: Tensor,
    state: Tensor,
    outputs: Tensor,
    extra: Tensor | None,
) -> Tensor:
    start = 0
    for size in chunk.sizes:
        now = slice(start, start + size)
        before = state[:size]
        if chunk.flags is not None:
            before = restored(before, chunk.flags[now], initial)
        new = kernel.step(gates[now], before, weights, outputs[now], None if extra is None else extra[now])
        state = new if size == len(state) else torch.cat([new, state[size:]])
        start += size
    return state


def _steps_back(
    kernel: Kernel,
    chunk: Chunk,
    weight_hh: Tensor,
    values: Values,
    grad_outputs: Tensor | None,
    carried: Tensor,
    grad_gates: Tensor,
    grad_initial: Tensor | None,
) -> Tensor:
    end, H, factors = len(grad_gates), weight_hh.shape[1], kernel.factors(*values, weight_hh)
    for size in reversed(chunk.sizes):
        now, grad = slice(end - size, end), carried[:size]
        if grad_outputs is not None:
            grad[:, :H] += grad_outputs[now]
        grad = kernel.step_back([factor[now] for factor in factors], grad, grad_gates[now], weight_hh)
        if chunk.flags is not None:
            flag = chunk.flags[now].unsqueeze(1)
            if grad_initial is not None:
                grad_initial += torch.where(flag, grad, 0).sum(0)
            grad = grad.masked_fill_(flag, 0)
        if size == len(carried):
            carried = grad
        else:
            carried[:size] = grad
        end -= size
    return carried


def _chunks(sizes: list[int], batch: Batch, width: int) -> Iterator[Chunk]:
    """Cut time into chunks of rows of this width."""
    x, flags = batch.x, None if batch.resets is None else batch.resets.reshape(-1) != 0
    rows = max(1, _CHUNK_BYTES.get(x.device.type, _OTHER_CHUNK_BYTES) // (width * x.element_size()))
    steps: list[int] = []
    start = end = 0
    for size in [*sizes, None]:
        if steps and (size is None or end + size - start > rows):
            yield Chunk(steps, start, end, None if flags is None else flags[start:end])
            steps, start = [], end
        if size is not None:
            steps.append(size)
            end += size


def restored(before: Tensor, flags: Tensor, initial: Tensor | None) -> Tensor:
    """Return `before` (n, S), with the initial state where flags (n,) say so."""
    if initial is None:
        return before.masked_fill(flags.unsqueeze(1), 0)
    return torch.where(flags.unsqueeze(1), initial, before)


def _states(kernel: Kernel, results: Results, H: int) -> Tensor:
    """The state after each row (N, S)."""
    outputs = results.outputs.reshape(-1, H)
    return outputs if kernel.states == 1 else torch.cat([outputs, results.saved[:, -1, :H]], 1)


def _states_before(states: Tensor, first: Tensor, sizes: list[int], chunk: Chunk) -> Tensor:
    """The state before each row of a chunk (rows, S), before any reset."""
    start, steps = chunk.start, chunk.sizes
    if start == 0:
        parts = [first[: steps[0]]]
    else:
        # The rows of the step before the chunk's first end where the chunk begins.
        size, row = 0, 0
        for size in sizes:
            row += size
            if row == start:
                break
        parts = [states[start - size : start - size + steps[0]]]
    row = start
    for size, following in pairwise(steps):
        parts.append(states[row : row + following])
        row += size
    return torch.cat(parts)


def _input_bias(kernel: Kernel, weights: Weights) -> Tensor | None:
    """The bias that the projection of the input adds (G·H,): a missing candidate's is 0, an LSTM's two are one."""
    weight_ih, _, bias_ih, bias_hh = weights
    if bias_hh is not None and not kernel.reset_candidate:
        return bias_hh if bias_ih is None else bias_ih + bias_hh
    if bias_ih is not None and len(bias_ih) < len(weight_ih):
        return torch.nn.functional.pad(bias_ih, (0, len(weight_ih) - len(bias_ih)))
    return bias_ih


def _saved_gates(kernel: Kernel, saved: Tensor, H: int) -> Tensor:
    """The gates (rows, G, H) among the saved values."""
    first = 1 if kernel.extra == 0 else 0
    return saved[:, first : first + kernel.gates, :H]


def _gates(
    kernel: Kernel, rows: Tensor, before: Tensor, weights: Weights, saved: Tensor
) -> tuple[Tensor, Tensor | None]:
    """A chunk's gates (rows, G, H) and extra (rows, H): saved, or computed again from the states before each step."""
    n, H = len(rows), weights.weight_hh.shape[1]
    if saved.shape[1] >= kernel.gates:
        return _saved_gates(kernel, saved, H), None if kernel.extra is None else saved[:, kernel.extra, :H]
    gates, output = product(rows, weights.weight_ih.T, _input_bias(kernel, weights)), rows.new_empty(n, H)
    extra = None if kernel.extra is None else rows.new_empty(n, H)
    kernel.step(gates, before, weights, output, extra)
    return gates.view(n, kernel.gates, H), extra
