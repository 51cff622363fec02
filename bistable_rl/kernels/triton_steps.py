"""The steps of a chunk on CUDA where the recurrent matrices are too wide for the chip: two launches a step.

One is the product with all recurrent matrices, torch's (cuBLAS), with its choice of TensorFloat-32. The other is a
Triton kernel with everything else: gates, new state, and the reset before the next step; backwards the gradients of the
gates' arguments from the gates themselves. Where a chunk of the same shape comes again, all its launches are one CUDA
graph.
"""

from collections.abc import Callable, Sequence

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from bistable_rl.kernels import cuda_graphs
from bistable_rl.kernels.interface import Kernel, Weights
from bistable_rl.kernels.torch_scan import Chunk, Values, restored
from bistable_rl.kernels.triton_cells import (
    bistable_step,
    bistable_step_back,
    gru_step,
    gru_step_back,
    lstm_step,
    lstm_step_back,
)

_UNITS = 128  # units of one sequence in a program
_FEW = 16  # steps too few to be worth a graph, which copies what it reads and writes


def steps(
    kernel: Kernel,
    chunk: Chunk,
    weights: Weights,
    initial: Tensor | None,
    gates: Tensor,
    state: Tensor,
    outputs: Tensor,
    extra: Tensor | None,
) -> Tensor:
    """Run a chunk's steps, see `torch_scan.Steps`."""
    state, flags = state.clone(), chunk.flags
    if flags is not None:
        now = slice(chunk.sizes[0])
        state[now] = restored(state[now], flags[now], initial)
    _run(
        _forward,
        kernel,
        chunk,
        read={"weight_hh": weights.weight_hh, "bias_hh": weights.bias_hh, "flags": flags, "initial": initial},
        changed={"gates": gates, "state": state},
        written={"outputs": outputs, "extra": extra},
    )
    return state


def steps_back(
    kernel: Kernel,
    chunk: Chunk,
    weight_hh: Tensor,
    values: Values,
    grad_outputs: Tensor | None,
    carried: Tensor,
    grad_gates: Tensor,
    grad_initial: Tensor | None,
) -> Tensor:
    """Run a chunk's steps backwards, see `torch_scan.StepsBack`."""
    flags = chunk.flags
    cut = None if flags is None or grad_initial is None else torch.zeros_like(carried)
    _run(
        _backward,
        kernel,
        chunk,
        read={**values._asdict(), "weight_hh": weight_hh, "grad_outputs": grad_outputs, "flags": flags},
        changed={"carried": carried, "cut": cut},
        written={"grad_gates": grad_gates},
    )
    if flags is not None:
        before, flag = carried[: chunk.sizes[0]], flags[: chunk.sizes[0]].unsqueeze(1)
        if grad_initial is not None and cut is not None:
            grad_initial += cut.sum(0) + torch.where(flag, before, 0).sum(0)
        before.masked_fill_(flag, 0)
    return carried


def _run(
    function: Callable[..., None],
    kernel: Kernel,
    chunk: Chunk,
    *,
    read: cuda_graphs.Tensors,
    changed: cuda_graphs.Tensors,
    written: cuda_graphs.Tensors,
) -> None:
    sizes = tuple(chunk.sizes)
    # The lengths of packed sequences seldom come again.
    if len(sizes) > _FEW and sizes[-1] == sizes[0] and cuda_graphs.usable(changed):
        cuda_graphs.run(function, (kernel, sizes), read=read, changed=changed, written=written)
    else:
        function(kernel, sizes, **read, **changed, **written)


def _forward(
    kernel: Kernel,
    sizes: Sequence[int],
    *,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    flags: Tensor | None,
    initial: Tensor | None,
    gates: Tensor,
    state: Tensor,
    outputs: Tensor,
    extra: Tensor | None,
) -> None:
    """Run all steps; state (B, S) becomes the states after them."""
    rows, H = weight_hh.shape
    products = gates.new_empty(len(state), rows) if kernel.reset_candidate else None
    flags = None if flags is None else flags.view(torch.uint8)
    row = 0
    for size, following in zip(sizes, [*sizes[1:], 0], strict=True):
        h = state[:size, :H]
        if products is not None:
            torch.mm(h, weight_hh.T, out=products[:size])
        else:
            gates[row : row + size, :rows].addmm_(h, weight_hh.T)
        _step[(size, triton.cdiv(H, _UNITS))](
            gates, products, bias_hh, state, flags, initial, outputs, extra, row, following, H,
            N=kernel.matrices, BLOCK=_UNITS,
        )  # fmt: skip
        row += size


def _backward(
    kernel: Kernel,
    sizes: Sequence[int],
    *,
    gates: Tensor,
    extra: Tensor | None,
    before: Tensor,
    weight_hh: Tensor,
    grad_outputs: Tensor | None,
    flags: Tensor | None,
    carried: Tensor,
    cut: Tensor | None,
    grad_gates: Tensor,
) -> None:
    """Run all steps backwards; carried (B, S) becomes the gradients of the states before them, before the first reset.

    Cut (B, S) receives what the other resets cut off.
    """
    rows, H = weight_hh.shape
    products = gates.new_empty(len(carried), rows) if kernel.reset_candidate else None
    flags = None if flags is None else flags.view(torch.uint8)
    flat, row, following = grad_gates.flatten(1), len(grad_gates), 0
    for size in reversed(sizes):
        row -= size
        _step_back[(size, triton.cdiv(H, _UNITS))](
            gates, extra, before, grad_outputs, carried, flags, cut, grad_gates, products, row, following,
            gates.stride(0), gates.stride(1), 0 if extra is None else extra.stride(0), H,
            N=kernel.matrices, BLOCK=_UNITS,
        )  # fmt: skip
        through = flat[row : row + size, :rows] if products is None else products[:size]
        carried[:size, :H].addmm_(through, weight_hh)
        following = size


# Row is the first of the step's rows, following the number of sequences that reach the next step. Both change every
# time, and what is not named here is compiled anew for some values. N recurrent matrices: 2 for nBRC, 3 for GRU, 4 for
# LSTM.
@triton.jit(do_not_specialize=["row", "following"])
def _step(  # type: ignore[no-untyped-def]
    gates, products, bias, state, flags, initial, outputs, extra, row, following, H,
    N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = j < H
    S: tl.constexpr = 2 if N == 4 else 1  # widths of state, in H
    G: tl.constexpr = 4 if N == 4 else 3
    gate = gates + (row + b) * G * H + j
    out = (row + b) * H + j
    place = state + b * S * H + j
    h = tl.load(place, mask=real, other=0)
    u_0 = tl.load(gate, mask=real, other=0)
    u_1 = tl.load(gate + H, mask=real, other=0)
    u_2 = tl.load(gate + 2 * H, mask=real, other=0)
    if N == 2:
        g_0, g_1, g_2, h = bistable_step(u_0, u_1, u_2, h)
    if N == 3:
        product = products + b * N * H + j
        u_0 += tl.load(product, mask=real, other=0)
        u_1 += tl.load(product + H, mask=real, other=0)
        m = tl.load(product + 2 * H, mask=real, other=0)
        if bias is not None:
            u_0 += tl.load(bias + j, mask=real, other=0)
            u_1 += tl.load(bias + H + j, mask=real, other=0)
            m += tl.load(bias + 2 * H + j, mask=real, other=0)
        g_0, g_1, g_2, h = gru_step(u_0, u_1, u_2, m, h)
        tl.store(extra + out, m, mask=real)
    if N == 4:
        u_3 = tl.load(gate + 3 * H, mask=real, other=0)
        c = tl.load(place + H, mask=real, other=0)
        g_0, g_1, g_2, g_3, c, h = lstm_step(u_0, u_1, u_2, u_3, c)
        tl.store(gate + 3 * H, g_3, mask=real)
        tl.store(extra + out, c, mask=real)
    tl.store(gate, g_0, mask=real)
    tl.store(gate + H, g_1, mask=real)
    tl.store(gate + 2 * H, g_2, mask=real)
    tl.store(outputs + out, h, mask=real)
    if flags is not None:
        reset = tl.load(flags + row + tl.num_programs(0) + b, mask=b < following, other=0) != 0
        start = h * 0
        if initial is not None:
            start = tl.load(initial + j, mask=real, other=0)
        h = tl.where(reset, start, h)
        if N == 4:
            if initial is not None:
                start = tl.load(initial + H + j, mask=real, other=0)
            c = tl.where(reset, start, c)
    tl.store(place, h, mask=real)
    if N == 4:
        tl.store(place + H, c, mask=real)


@triton.jit(do_not_specialize=["row", "following"])
def _step_back(  # type: ignore[no-untyped-def]
    gates, extra, before, grad_outputs, carried, flags, cut, grad_gates, products, row, following,
    gate_row, gate_width, extra_row, H, N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = j < H
    S: tl.constexpr = 2 if N == 4 else 1
    G: tl.constexpr = 4 if N == 4 else 3
    place = b * S * H + j
    grad = tl.load(carried + place, mask=real, other=0)
    if N == 4:
        grad_c = tl.load(carried + place + H, mask=real, other=0)
    if flags is not None:
        reset = tl.load(flags + row + tl.num_programs(0) + b, mask=b < following, other=0) != 0
        if cut is not None:
            lost = cut + place
            tl.store(lost, tl.load(lost, mask=real, other=0) + tl.where(reset, grad, 0), mask=real)
            if N == 4:
                tl.store(lost + H, tl.load(lost + H, mask=real, other=0) + tl.where(reset, grad_c, 0), mask=real)
        grad = tl.where(reset, 0, grad)
        if N == 4:
            grad_c = tl.where(reset, 0, grad_c)
    if grad_outputs is not None:
        grad += tl.load(grad_outputs + (row + b) * H + j, mask=real, other=0)
    gate = gates + (row + b) * gate_row + j
    g_0 = tl.load(gate, mask=real, other=0)
    g_1 = tl.load(gate + gate_width, mask=real, other=0)
    g_2 = tl.load(gate + 2 * gate_width, mask=real, other=0)
    state = before + (row + b) * S * H + j
    into = grad_gates + (row + b) * G * H + j
    if N == 2:
        h = tl.load(state, mask=real, other=0)
        d_0, d_1, d_2, grad = bistable_step_back(g_0, g_1, g_2, h, grad)
    if N == 3:
        h = tl.load(state, mask=real, other=0)
        m = tl.load(extra + (row + b) * extra_row + j, mask=real, other=0)
        d_0, d_1, d_2, d_m, grad = gru_step_back(g_0, g_1, g_2, m, h, grad)
        product = products + b * N * H + j
        tl.store(product, d_0, mask=real)
        tl.store(product + H, d_1, mask=real)
        tl.store(product + 2 * H, d_m, mask=real)
    if N == 4:
        g_3 = tl.load(gate + 3 * gate_width, mask=real, other=0)
        c = tl.load(state + H, mask=real, other=0)
        new_c = tl.load(extra + (row + b) * extra_row + j, mask=real, other=0)
        d_0, d_1, d_2, d_3, grad_c = lstm_step_back(g_0, g_1, g_2, g_3, new_c, c, grad, grad_c)
        grad = grad * 0  # h reaches the step through the matrices only
        tl.store(into + 3 * H, d_3, mask=real)
        tl.store(carried + place + H, grad_c, mask=real)
    tl.store(into, d_0, mask=real)
    tl.store(into + H, d_1, mask=real)
    tl.store(into + 2 * H, d_2, mask=real)
    tl.store(carried + place, grad, mask=real)
