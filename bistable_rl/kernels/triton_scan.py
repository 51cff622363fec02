"""The kernels for CUDA devices, in Triton: a chunk's steps in one launch, everything around them as in `torch_scan`.

BRC is one elementwise scan: a thread keeps its units' states in registers from the first step to the last. The others
give 16 sequences to a program, which keeps their states on the chip, and the recurrent matrices where they fit. The
backward kernels compute only what depends on the step after: the gradient of each row's state. The gates' gradients are
that gradient times the factors of `torch_cells`, for all rows at once. Wider matrices are left to `triton_steps`.

On the CPU the kernels run in Triton's interpreter (TRITON_INTERPRET=1), which is for testing them.
"""

from typing import Any

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor
from triton.backends.nvidia.compiler import CUDAOptions  # type: ignore[import-not-found, import-untyped, unused-ignore]

from bistable_rl.kernels import torch_scan, triton_steps
from bistable_rl.kernels.interface import Batch, Gradients, Kernel, Results, Weights
from bistable_rl.kernels.products import is_wide
from bistable_rl.kernels.torch_scan import Chunk, Values
from bistable_rl.kernels.triton_cells import bistable_step, gru_step, lstm_step

# The exact product of float32, and the bytes that a weight then takes: the sum of three numbers of bfloat16, or of two
# of TensorFloat-32 in versions of Triton before that.
_EXACT = ("bf16x6", 6) if "bf16x6" in CUDAOptions.allowed_dot_input_precisions else ("tf32x3", 8)
_SEQUENCES = 16  # sequences of a program: the least that a tensor core takes
_ELEMENTS = 128  # states of a program of BRC


def forward(
    kernel: Kernel, batch: Batch, weights: Weights, *, save: bool, recompute: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a whole sequence, see `Backend.forward`."""
    return torch_scan.forward(kernel, batch, weights, save=save, recompute=recompute, steps=_steps)


def backward(
    kernel: Kernel, batch: Batch, weights: Weights, results: Results, *, recompute: bool, need_x: bool
) -> Gradients:
    """Return the gradients of all inputs, see `Backend.backward`."""
    return torch_scan.backward(
        kernel, batch, weights, results, recompute=recompute, need_x=need_x, steps_back=_steps_back
    )


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
    if is_wide(kernel, weights.weight_hh, gates.dtype):
        return triton_steps.steps(kernel, chunk, weights, initial, gates, state, outputs, extra)
    sizes, flags, (_, weight_hh, _, bias_hh) = chunk.sizes, chunk.flags, weights
    H, B, last = weight_hh.shape[1], len(state), torch.empty_like(state)
    dense, size, offset = _extents(sizes, B, state)
    common = {"HAS_FLAGS": flags is not None, "HAS_INITIAL": initial is not None, "DENSE": dense}
    pointers = (gates, weight_hh, state, _byte(flags, state), _or(initial, state), outputs, last, size, offset)
    if not kernel.matrices:
        grid = (triton.cdiv(B * H, _ELEMENTS),)
        _brc_forward[grid](*pointers, len(sizes), B, H, **common, BLOCK=_ELEMENTS, num_warps=_ELEMENTS // 32)
        return last
    padded, n = _padded(H), kernel.matrices
    _matrix_forward[(triton.cdiv(B, _SEQUENCES),)](
        *pointers, _or(bias_hh, state), _or(extra, state), len(sizes), B, H,
        **common, **_product(n, padded, weight_hh), HAS_BIAS=bias_hh is not None, N=n, M=_SEQUENCES, HP=padded,
        num_warps=8, num_stages=1,
    )  # fmt: skip
    return last


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
    if is_wide(kernel, weight_hh, carried.dtype):
        return triton_steps.steps_back(
            kernel, chunk, weight_hh, values, grad_outputs, carried, grad_gates, grad_initial
        )
    factors = kernel.factors(*values, weight_hh)
    sizes, flags = chunk.sizes, chunk.flags
    H, B = weight_hh.shape[1], len(carried)
    rows = carried.new_empty(len(grad_gates), carried.shape[1])  # the gradient of each row's state
    cut = torch.zeros_like(carried)  # the gradients that the resets cut off from the states before them
    before = torch.empty_like(carried)
    dense, size, offset = _extents(sizes, B, carried)
    common = {"HAS_FLAGS": flags is not None, "HAS_GRAD": grad_outputs is not None, "DENSE": dense}
    pointers = (_or(grad_outputs, rows), carried, _byte(flags, carried), rows, before, cut, size, offset)
    if not kernel.matrices:
        grid = (triton.cdiv(B * H, _ELEMENTS),)
        _brc_backward[grid](
            factors[1], *pointers, len(sizes), B, H, **common, BLOCK=_ELEMENTS, num_warps=_ELEMENTS // 32
        )
    else:
        padded, n, parts = _padded(H), kernel.matrices, _parts(kernel, factors)
        _matrix_backward[(triton.cdiv(B, _SEQUENCES),)](
            parts, weight_hh, *pointers, len(sizes), B, H, parts.shape[1],
            **common, **_product(n, padded, weight_hh), N=n, M=_SEQUENCES, HP=padded, num_warps=8, num_stages=1,
        )  # fmt: skip
    if kernel.states == 2:
        torch.mul(factors[0], rows[:, None, H:], out=grad_gates[:, :3])
        torch.mul(factors[1], rows[:, :H], out=grad_gates[:, 3])
    else:
        torch.mul(factors[0], rows.unsqueeze(1), out=grad_gates)
    if grad_initial is not None:
        grad_initial += cut.sum(0)
    return before


def _parts(kernel: Kernel, factors: list[Tensor]) -> Tensor:
    """The input of `_matrix_backward` (rows, P, H): a factor for each matrix, then those that bypass them."""
    if kernel.reset_candidate:
        d, through, r = factors
        return torch.cat([d[:, :2], (d[:, 2] * r).unsqueeze(1), through.unsqueeze(1)], 1)
    if kernel.states == 2:
        return torch.cat([factors[0], *(factor.unsqueeze(1) for factor in factors[1:])], 1)
    return torch.cat([factors[0][:, :2], factors[1].unsqueeze(1)], 1)


def _extents(sizes: list[int], B: int, like: Tensor) -> tuple[bool, Tensor, Tensor]:
    """Whether every step has all sequences; if not, also each step's size and first row, as tensors."""
    if sizes[-1] == B:
        return True, like, like
    size = torch.tensor(sizes, dtype=torch.int64)
    return False, size.to(like.device), (size.cumsum(0) - size).to(like.device)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """The tensor, or, where it is None, another one as a pointer that is never read."""
    return other if tensor is None else tensor


def _byte(flags: Tensor | None, other: Tensor) -> Tensor:
    return other if flags is None else flags.view(torch.uint8)


def _padded(H: int) -> int:
    return max(16, triton.next_power_of_2(H))


def _product(n: int, padded: int, weight_hh: Tensor) -> dict[str, Any]:
    """The options of the product with the n recurrent matrices: its precision, and whether they stay on the chip."""
    if not weight_hh.is_cuda:
        return {"PRECISION": "interpreted", "HOLD": True}
    if weight_hh.dtype != torch.float32:
        precision, bytes_each = "ieee", weight_hh.element_size()
    elif torch.get_float32_matmul_precision() == "highest":
        precision, bytes_each = _EXACT
    else:
        precision, bytes_each = "tf32", 4
    # The compiler adds 16 KB for the states of 16 sequences and 128 units.
    device: Any = torch.cuda.get_device_properties(weight_hh.device)
    room = device.shared_memory_per_block_optin - 128 * padded
    return {"PRECISION": precision, "HOLD": n * padded * padded * bytes_each <= room}


@triton.jit
def _brc_forward(  # type: ignore[no-untyped-def]
    gates, weight, state, flags, initial, outputs, last, sizes, offsets, T, B, H,
    HAS_FLAGS: tl.constexpr, HAS_INITIAL: tl.constexpr, DENSE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b, j, real = e // H, e % H, e < B * H
    h = tl.load(state + e, mask=real, other=0)
    w_a = tl.load(weight + j, mask=real, other=0)
    w_c = tl.load(weight + H + j, mask=real, other=0)
    start = h * 0
    if HAS_INITIAL:
        start = tl.load(initial + j, mask=real, other=0)
    for t in tl.range(0, T, num_stages=4):
        row, now = t * B + b, real
        if not DENSE:
            row, now = tl.load(offsets + t) + b, real & (b < tl.load(sizes + t))
        place = gates + row * 3 * H + j
        u_a = tl.load(place, mask=now, other=0)
        u_c = tl.load(place + H, mask=now, other=0)
        u_h = tl.load(place + 2 * H, mask=now, other=0)
        before = h
        if HAS_FLAGS:
            before = tl.where(tl.load(flags + row, mask=now, other=0) != 0, start, h)
        _, _, _, new = bistable_step(u_a + w_a * before, u_c + w_c * before, u_h, before)
        tl.store(outputs + row * H + j, new, mask=now)
        h = tl.where(now, new, h)
    tl.store(last + e, h, mask=real)


@triton.jit
def _brc_backward(  # type: ignore[no-untyped-def]
    through, grad_outputs, carried, flags, rows, before, cut, sizes, offsets, T, B, H,
    HAS_FLAGS: tl.constexpr, HAS_GRAD: tl.constexpr, DENSE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b, j, real = e // H, e % H, e < B * H
    grad = tl.load(carried + e, mask=real, other=0)
    lost = grad * 0
    for i in tl.range(0, T, num_stages=4):
        t = T - 1 - i
        row, now = t * B + b, real
        if not DENSE:
            row, now = tl.load(offsets + t) + b, real & (b < tl.load(sizes + t))
        place = row * H + j
        factor = tl.load(through + place, mask=now, other=0)
        if HAS_GRAD:
            grad += tl.load(grad_outputs + place, mask=now, other=0)
        tl.store(rows + place, grad, mask=now)
        passed = factor * grad
        if HAS_FLAGS:
            flag = tl.load(flags + row, mask=now, other=0) != 0
            lost += tl.where(flag & now, passed, 0)
            passed = tl.where(flag, 0, passed)
        grad = tl.where(now, passed, grad)
    tl.store(before + e, grad, mask=real)
    tl.store(cut + e, lost, mask=real)


@triton.jit
def _matrix(weight, g, H, HP: tl.constexpr, TRANSPOSED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gate's matrix (HP, HP), zero beyond H; transposed or not."""
    k, j = tl.arange(0, HP)[:, None], tl.arange(0, HP)[None, :]
    place = (g * H + j) * H + k if TRANSPOSED else (g * H + k) * H + j
    return tl.load(weight + place, mask=(k < H) & (j < H), other=0)


@triton.jit
def _dot(rows, matrix, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """The product of rows with a matrix, which may be of bfloat16, in the dtype of the rows."""
    rounded = rows.to(matrix.dtype)
    if PRECISION == "interpreted":  # the interpreter takes the bits of bfloat16 for integers
        return tl.dot(rounded.to(rows.dtype), matrix.to(rows.dtype), input_precision="ieee", out_dtype=rows.dtype)
    return tl.dot(rounded, matrix, input_precision=PRECISION, out_dtype=rows.dtype)


@triton.jit
def _matrix_forward(  # type: ignore[no-untyped-def]
    gates, weight, state, flags, initial, outputs, last, sizes, offsets, bias, kept, T, B, H,
    HAS_FLAGS: tl.constexpr, HAS_INITIAL: tl.constexpr, DENSE: tl.constexpr, HAS_BIAS: tl.constexpr,
    HOLD: tl.constexpr, N: tl.constexpr, M: tl.constexpr, HP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """N recurrent matrices: 2 for nBRC, 3 for GRU, 4 for LSTM. The products come first: each matrix is used once."""
    b = tl.program_id(0) * M + tl.arange(0, M)
    j = tl.arange(0, HP)[None, :]
    units = j < H
    real = (b < B)[:, None] & units
    S: tl.constexpr = 2 if N == 4 else 1  # widths of state, in H
    G: tl.constexpr = 4 if N == 4 else 3
    place = b[:, None] * S * H + j
    h = tl.load(state + place, mask=real, other=0)
    start = h * 0
    if HAS_INITIAL:
        start += tl.load(initial + j, mask=units, other=0)
    if N == 4:
        c = tl.load(state + place + H, mask=real, other=0)
        start_c = c * 0
        if HAS_INITIAL:
            start_c += tl.load(initial + H + j, mask=units, other=0)
    if HOLD:
        w_0 = _matrix(weight, 0, H, HP, True)
        w_1 = _matrix(weight, 1, H, HP, True)
        if N > 2:
            w_2 = _matrix(weight, 2, H, HP, True)
        if N > 3:
            w_3 = _matrix(weight, 3, H, HP, True)
    if HAS_BIAS and N == 3:
        b_0 = tl.load(bias + j, mask=units, other=0)
        b_1 = tl.load(bias + H + j, mask=units, other=0)
        b_2 = tl.load(bias + 2 * H + j, mask=units, other=0)
    for t in range(T):
        row, now = t * B + b, real
        if not DENSE:
            row, now = tl.load(offsets + t) + b, real & (b < tl.load(sizes + t))[:, None]
        gate = gates + row[:, None] * G * H + j
        out = row[:, None] * H + j
        u_0 = tl.load(gate, mask=now, other=0)
        u_1 = tl.load(gate + H, mask=now, other=0)
        u_2 = tl.load(gate + 2 * H, mask=now, other=0)
        before = h
        if HAS_FLAGS:
            flag = tl.load(flags + row[:, None], mask=now, other=0) != 0
            before = tl.where(flag, start, h)
        if not HOLD:
            w_0 = _matrix(weight, 0, H, HP, True)
            w_1 = _matrix(weight, 1, H, HP, True)
        u_0 += _dot(before, w_0, PRECISION)
        u_1 += _dot(before, w_1, PRECISION)
        if N > 2:
            if not HOLD:
                w_2 = _matrix(weight, 2, H, HP, True)
            m = _dot(before, w_2, PRECISION)
        if N == 2:
            g_0, g_1, g_2, new = bistable_step(u_0, u_1, u_2, before)
        if N == 3:
            if HAS_BIAS:
                u_0 += b_0
                u_1 += b_1
                m += b_2
            g_0, g_1, g_2, new = gru_step(u_0, u_1, u_2, m, before)
            tl.store(kept + out, m, mask=now)
        if N == 4:
            u_3 = tl.load(gate + 3 * H, mask=now, other=0)
            if not HOLD:
                w_3 = _matrix(weight, 3, H, HP, True)
            u_3 += _dot(before, w_3, PRECISION)
            before_c = c
            if HAS_FLAGS:
                before_c = tl.where(flag, start_c, c)
            g_0, g_1, g_2, g_3, new_c, new = lstm_step(u_0, u_1, u_2 + m, u_3, before_c)
            c = tl.where(now, new_c, c)
            tl.store(kept + out, new_c, mask=now)
            tl.store(gate + 3 * H, g_3, mask=now)
        tl.store(gate, g_0, mask=now)
        tl.store(gate + H, g_1, mask=now)
        tl.store(gate + 2 * H, g_2, mask=now)
        tl.store(outputs + out, new, mask=now)
        h = tl.where(now, new, h)
    tl.store(last + place, h, mask=real)
    if N == 4:
        tl.store(last + place + H, c, mask=real)


@triton.jit
def _matrix_backward(  # type: ignore[no-untyped-def]
    parts, weight, grad_outputs, carried, flags, rows, before, cut, sizes, offsets, T, B, H, P,
    HAS_FLAGS: tl.constexpr, HAS_GRAD: tl.constexpr, DENSE: tl.constexpr,
    HOLD: tl.constexpr, N: tl.constexpr, M: tl.constexpr, HP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Parts (rows, P, H): a factor for each matrix, then those that bypass them; for LSTM i, f, g, to_o, to_c, f."""
    b = tl.program_id(0) * M + tl.arange(0, M)
    j = tl.arange(0, HP)[None, :]
    real = (b < B)[:, None] & (j < H)
    S: tl.constexpr = 2 if N == 4 else 1
    place = b[:, None] * S * H + j
    grad = tl.load(carried + place, mask=real, other=0)
    lost = grad * 0
    if N == 4:
        grad_c = tl.load(carried + place + H, mask=real, other=0)
        lost_c = grad * 0
    if HOLD:
        w_0 = _matrix(weight, 0, H, HP, False)
        w_1 = _matrix(weight, 1, H, HP, False)
        if N > 2:
            w_2 = _matrix(weight, 2, H, HP, False)
        if N > 3:
            w_3 = _matrix(weight, 3, H, HP, False)
    for i in range(T):
        t = T - 1 - i
        row, now = t * B + b, real
        if not DENSE:
            row, now = tl.load(offsets + t) + b, real & (b < tl.load(sizes + t))[:, None]
        part = parts + row[:, None] * P * H + j
        out = row[:, None] * S * H + j
        if HAS_GRAD:
            grad += tl.load(grad_outputs + row[:, None] * H + j, mask=now, other=0)
        tl.store(rows + out, grad, mask=now)
        source = grad
        if N == 4:
            source = grad_c + tl.load(part + 4 * H, mask=now, other=0) * grad
            tl.store(rows + out + H, source, mask=now)
        if not HOLD:
            w_0 = _matrix(weight, 0, H, HP, False)
            w_1 = _matrix(weight, 1, H, HP, False)
        f_0 = tl.load(part, mask=now, other=0)
        f_1 = tl.load(part + H, mask=now, other=0)
        passed = _dot(f_0 * source, w_0, PRECISION)
        passed += _dot(f_1 * source, w_1, PRECISION)
        if N > 2:
            if not HOLD:
                w_2 = _matrix(weight, 2, H, HP, False)
            f_2 = tl.load(part + 2 * H, mask=now, other=0)
            passed += _dot(f_2 * source, w_2, PRECISION)
        if N == 4:
            if not HOLD:
                w_3 = _matrix(weight, 3, H, HP, False)
            f_3 = tl.load(part + 3 * H, mask=now, other=0)
            passed += _dot(f_3 * grad, w_3, PRECISION)
            passed_c = source * tl.load(part + 5 * H, mask=now, other=0)
        else:
            passed += source * tl.load(part + N * H, mask=now, other=0)
        if HAS_FLAGS:
            flag = tl.load(flags + row[:, None], mask=now, other=0) != 0
            lost += tl.where(flag & now, passed, 0)
            passed = tl.where(flag, 0, passed)
            if N == 4:
                lost_c += tl.where(flag & now, passed_c, 0)
                passed_c = tl.where(flag, 0, passed_c)
        grad = tl.where(now, passed, grad)
        if N == 4:
            grad_c = tl.where(now, passed_c, grad_c)
    tl.store(before + place, grad, mask=real)
    tl.store(cut + place, lost, mask=real)
    if N == 4:
        tl.store(before + place + H, grad_c, mask=real)
        tl.store(cut + place + H, lost_c, mask=real)
