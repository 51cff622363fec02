"""Compiled CPU kernels of BRC, nBRC, GRU and LSTM: the binding of `cpu.cpp`.

Pure functions on contiguous CPU tensors, float32 or float64: nothing given is changed, everything returned is
new, and nothing here knows autograd. Two calls do the work, and each takes the parameters in one order::

    outputs, final_state, saved = forward(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, ...)
    gradients = backward(kind, grad_outputs, grad_final, x, state, resets, weight_ih, ..., outputs, saved, ...)

A single step without gradients has a way of its own, `cpu_step`.

Names for shapes: `T` steps, `B` sequences, `I` inputs, `H` units, `S` state width (2H for the LSTM, whose state
is `h | c`; H for the others), `N` rows, which is T·B, or the sum of `batch_sizes` for packed sequences.

| kind | weight_ih | weight_hh | bias_ih | bias_hh | order of the rows |
|---|---|---|---|---|---|
| brc | (3H, I) | (2, H) | (2H,), (3H,) or None | None | a, c, candidate (weight_hh: a, c) |
| nbrc | (3H, I) | (2H, H) | (2H,), (3H,) or None | None | a, c, candidate (weight_hh: a, c) |
| gru | (3H, I) | (3H, H) | (3H,) or None | (3H,) or None | r, z, n, as torch |
| lstm | (4H, I) | (4H, H) | (4H,) or None | (4H,) or None | i, f, g, o, as torch |

The library is loaded once, after torch, and borrows the threads of torch's OpenMP runtime; it never brings one of
its own. Results don't depend on the run, only on the number of threads (the order of summation in the gradients
of the parameters).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bistable_rl.kernels.packed import check_batch_sizes

Parameters = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""weight_ih, weight_hh, bias_ih and bias_hh, of the shapes in the table above."""

KINDS: dict[str, int] = {"brc": 0, "nbrc": 1, "gru": 2, "lstm": 3}
DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

# Rows kept for the backward pass in `saved`, by kind: (with the gates, with `recompute`).
_SAVED_ROWS = {"brc": (0, 0), "nbrc": (3, 0), "gru": (4, 0), "lstm": (5, 1)}
_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_GATES = {"brc": 3, "nbrc": 3, "gru": 3, "lstm": 4}

_INTERFACE = 3  # of the binary, as in cpu.cpp
_NO_MEMORY = 1  # what a call of it returns, as in cpu.cpp; 0 is success

# A process forked after this import may have inherited an OpenMP runtime without its threads.
_IMPORTED_IN = os.getpid()


class Gradients(NamedTuple):
    """What `backward` returns: one gradient for each input, of its shape; None where there is no such input."""

    x: Tensor | None
    state: Tensor | None
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    initial: Tensor | None


def available() -> tuple[bool, str]:
    """Whether the compiled library can be used here, and why not, or which instruction set it runs."""
    library, why = _load()
    return library is not None, why


def state_size(kind: str, hidden_size: int) -> int:
    """The width S of the state."""
    return 2 * hidden_size if kind == "lstm" else hidden_size


def parameter_shapes(
    kind: str, input_size: int, hidden_size: int, bias_ih: Tensor | None = None
) -> tuple[tuple[int, ...], ...]:
    """The shapes of weight_ih, weight_hh, bias_ih and bias_hh, as in the table above.

    The bistable cells have two for bias_ih, without the candidate's and with it: the given one decides. They have no
    bias_hh, so no shape is right for it.
    """
    I, H, gates = input_size, hidden_size, _GATES[kind] * hidden_size
    if kind not in ("brc", "nbrc"):
        return (gates, I), (gates, H), (gates,), (gates,)
    bias = gates if bias_ih is not None and bias_ih.shape == (gates,) else 2 * H
    return (gates, I), (2 if kind == "brc" else 2 * H, H), (bias,), (-1,)


def saved_shape(kind: str, rows: int, hidden_size: int, *, recompute: bool = False) -> tuple[int, int, int]:
    """The shape of `saved`: (N, K, H rounded up to a multiple of 16).

    K is 0 for brc (its backward pass recomputes everything from the outputs), 3 for nbrc (a, c, candidate), 4 for
    gru (W_n h + b, r, z, n), 5 for lstm (i, f, g, o, c); with `recompute` 0, 0, 0 and 1 (c).
    """
    kept = _SAVED_ROWS[kind][1 if recompute else 0]
    return rows, kept, -(-hidden_size // 16) * 16


def forward(
    kind: str,
    x: Tensor,
    state: Tensor | None,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    batch_sizes: Tensor | None = None,
    initial: Tensor | None = None,
    save: bool = True,
    recompute: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a whole sequence.

    Args:
        kind: one of `KINDS`.
        x: (T, B, I), or (N, I) with `batch_sizes`.
        state: (B, S), the state before the first step. None: `initial` for every sequence, or zero.
        resets: (T, B), or (N,) with `batch_sizes`, bool or uint8; where it is true the state is replaced by
            `initial` (or zero) before the step. None: no resets.
        weight_ih: see the table above, as for `weight_hh`, `bias_ih`, `bias_hh`.
        weight_hh: see above.
        bias_ih: see above.
        bias_hh: see above.
        batch_sizes: (T,) int64, positive and not increasing: how many of the B = batch_sizes[0] sequences reach
            each step, as in `torch.nn.utils.rnn.PackedSequence`.
        initial: (S,), the state that a reset restores; None is zero.
        save: whether a backward pass will follow. If not, `saved` is empty (N, 0, ...).
        recompute: keep only what can't be computed again from the outputs (see `saved_shape`). `backward` has to
            be told the same. Costs 5-35 % of the time, and bounds the memory.

    Returns:
        `outputs` (T, B, H) or (N, H); `final_state` (B, S), each sequence's state after its own last step, never
        an alias of `state`; `saved`, of `saved_shape(kind, N, H, recompute=recompute)`, for `backward`.

    Raises:
        ValueError: if a tensor is not of the shape, dtype or device that it has to be.
        MemoryError: if there is no memory for the workspace.
    """
    call = describe(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, batch_sizes, initial)
    c, T, B, N, H = call.c, call.T, call.B, call.N, call.H
    outputs = x.new_empty((N, H) if batch_sizes is not None else (T, B, H))
    final_state = x.new_empty(B, state_size(kind, H))
    saved = x.new_empty(saved_shape(kind, N, H, recompute=recompute) if save else (N, 0, -(-H // 16) * 16))
    c.outputs, c.final_state = outputs.data_ptr(), final_state.data_ptr()
    # Without a backward pass nothing is kept; where nothing would be kept anyway, there is no pointer to it.
    c.saved = saved.data_ptr() if saved.numel() else None
    c.recompute = recompute
    check(library().brl_forward(ctypes.byref(c)))
    return outputs, final_state, saved


def backward(
    kind: str,
    grad_outputs: Tensor | None,
    grad_final: Tensor | None,
    x: Tensor,
    state: Tensor | None,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    *,
    batch_sizes: Tensor | None = None,
    initial: Tensor | None = None,
    recompute: bool = False,
    need_x: bool = True,
) -> Gradients:
    """The gradients of everything that `forward` was given.

    Args:
        kind: as in `forward`.
        grad_outputs: the gradient of `outputs`, of its shape; None is zero (cheaper than a tensor of zeros).
        grad_final: the gradient of `final_state` (B, S); None is zero.
        x: as given to `forward`, like `state`, `resets`, the parameters, `batch_sizes`, `initial`, `recompute`.
        state: see `forward`.
        resets: see `forward`.
        weight_ih: see `forward`.
        weight_hh: see `forward`.
        bias_ih: see `forward`.
        bias_hh: see `forward`.
        outputs: what `forward` returned.
        saved: what `forward` returned with `save=True`.
        batch_sizes: see `forward`.
        initial: see `forward`.
        recompute: see `forward`.
        need_x: whether the gradient of x is wanted; without it `Gradients.x` is None and some work is saved.

    Returns:
        `Gradients`, each of its input's shape: x (None unless `need_x`), state, weight_ih, weight_hh, bias_ih,
        bias_hh, initial; None for an input that was None.

    Raises:
        ValueError: if a tensor is not of the shape, dtype or device that it has to be.
        MemoryError: if there is no memory for the workspace.
    """
    call = describe(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, batch_sizes, initial)
    check_results(kind, x, call.B, call.H, grad_outputs, grad_final, outputs, saved, recompute=recompute)
    c = call.c
    given = [_readable(t) for t in (grad_outputs, grad_final, outputs, saved)]
    c.grad_outputs, c.grad_final, c.outputs, c.saved = (_pointer(t) for t in given)
    c.recompute = recompute
    gradients = Gradients(
        x=torch.empty_like(x, memory_format=torch.contiguous_format) if need_x else None,
        state=_like(state),
        weight_ih=torch.empty_like(weight_ih, memory_format=torch.contiguous_format),
        weight_hh=torch.empty_like(weight_hh, memory_format=torch.contiguous_format),
        bias_ih=_like(bias_ih),
        bias_hh=_like(bias_hh),
        initial=_like(initial),
    )
    for name, gradient in zip(Gradients._fields, gradients, strict=True):
        setattr(c, "grad_" + name, _pointer(gradient))
    check(library().brl_backward(ctypes.byref(c)))
    return gradients


_NUMBERS = ("kind", "bytes", "T", "B", "N", "I", "H", "threads", "recompute", "bias_ih_size")
_POINTERS = (
    *("batch_sizes", "resets", "x", "state", "initial", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "packed"),
    *("outputs", "final_state", "saved", "grad_outputs", "grad_final"),
    *("grad_" + name for name in Gradients._fields),
)


class _Call(ctypes.Structure):
    """`struct Call` of cpu.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _NUMBERS),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


class Described(NamedTuple):
    """A call with its inputs filled in, its sizes, and the tensors it points into, to keep them alive."""

    c: Any
    T: int
    B: int
    N: int
    H: int
    tensors: list[Tensor | None]


def _readable(tensor: Tensor | None) -> Tensor | None:
    """The tensor itself, or a copy whose memory holds its numbers one after the other."""
    return None if tensor is None else tensor.contiguous().resolve_neg()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)


def check_inputs(
    kind: str,
    x: Tensor,
    state: Tensor | None,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    batch_sizes: Tensor | None,
    initial: Tensor | None,
) -> list[int]:
    """Check every shape, dtype and device, for all backends: a kernel trusts them when it reads and writes memory.

    Returns:
        How many sequences reach each step, (T,).

    Raises:
        ValueError: if a tensor is not as in the table above.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kernel {kind!r}; choices: {', '.join(KINDS)}")
    if x.dim() != (3 if batch_sizes is None else 2):
        raise ValueError(
            f"x must be (T, B, I), or (N, I) with batch_sizes; got {tuple(x.shape)} with"
            + ("out batch_sizes" if batch_sizes is None else " batch_sizes")
        )
    if batch_sizes is None:
        sizes = [x.shape[1]] * x.shape[0]
    else:
        check_batch_sizes(batch_sizes, x.shape[0])
        sizes = batch_sizes.tolist()
    B = x.shape[1] if batch_sizes is None else sizes[0]
    if weight_hh.dim() != 2:
        raise ValueError(f"weight_hh must have 2 dimensions, got {tuple(weight_hh.shape)}")
    I, H = x.shape[-1], weight_hh.shape[1]
    S = state_size(kind, H)
    if not x.is_floating_point() or x.layout != torch.strided:
        raise ValueError(f"x must be a dense tensor of floating-point numbers, got {x.dtype}, {x.layout}")
    _check("x", x, tuple(x.shape), x)
    if bias_hh is not None and kind in ("brc", "nbrc"):
        raise ValueError(f"{kind} has no bias_hh")
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    for name, tensor, shape in zip(_WEIGHTS, weights, parameter_shapes(kind, I, H, bias_ih), strict=True):
        if tensor is not None:
            _check(name, tensor, shape, x)
    if state is not None:
        _check("state", state, (B, S), x)
    if initial is not None:
        _check("initial", initial, (S,), x)
    if resets is not None:
        if resets.element_size() != 1:
            raise ValueError(f"resets must be of torch.bool or torch.uint8, got {resets.dtype}")
        _check("resets", resets, tuple(x.shape[:-1]), x, resets.dtype)
    return sizes


def check_results(
    kind: str,
    x: Tensor,
    B: int,
    H: int,
    grad_outputs: Tensor | None,
    grad_final: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    *,
    recompute: bool,
) -> None:
    """Check what a backward pass is given beside the inputs.

    Raises:
        ValueError: if a tensor is not of the shape, dtype or device that `forward` gave it.
    """
    _check("outputs", outputs, (*x.shape[:-1], H), x)
    _check("saved", saved, saved_shape(kind, x.shape[:-1].numel(), H, recompute=recompute), x)
    if grad_outputs is not None:
        _check("grad_outputs", grad_outputs, tuple(outputs.shape), x)
    if grad_final is not None:
        _check("grad_final", grad_final, (B, state_size(kind, H)), x)


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], x: Tensor, dtype: torch.dtype | None = None) -> None:
    dtype = dtype or x.dtype
    if tensor.shape != shape or tensor.dtype != dtype or tensor.device != x.device or tensor.layout != x.layout:
        raise ValueError(
            f"{name} must be {shape} of {dtype} on {x.device}, got {tuple(tensor.shape)} of {tensor.dtype} on "
            f"{tensor.device}" + ("" if tensor.layout == x.layout else f", {tensor.layout}")
        )
    if not tensor.data_ptr() and tensor.numel() and not tensor.is_meta:
        raise ValueError(f"{name} has no memory: its storage was resized to nothing")


def describe(
    kind: str,
    x: Tensor,
    state: Tensor | None,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    batch_sizes: Tensor | None,
    initial: Tensor | None,
) -> Described:
    """Check and fill in what `forward` and `backward` have in common.

    Raises:
        ValueError: if a tensor is not as `check_inputs` says, or not of float32 or float64 on the CPU.
    """
    sizes = check_inputs(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, batch_sizes, initial)
    if x.dtype not in DTYPES or not x.is_cpu:
        raise ValueError(f"the C++ kernels take float32 and float64 on the CPU, not {x.dtype} on {x.device}")
    T, N, I, H = len(sizes), x.shape[:-1].numel(), x.shape[-1], weight_hh.shape[1]
    B = x.shape[1] if batch_sizes is None else sizes[0]
    floats = [x, state, initial, weight_ih, weight_hh, bias_ih, bias_hh]
    tensors = [_readable(t) for t in (batch_sizes, resets, *floats)]
    c = _Call(
        KINDS[kind],
        x.element_size(),
        T,
        B,
        N,
        I,
        H,
        torch.get_num_threads(),
        0,
        0 if bias_ih is None else bias_ih.shape[0],
        *(_pointer(t) for t in tensors),
    )
    return Described(c, T, B, N, H, tensors)


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason."""
    spec = importlib.util.find_spec("bistable_rl.kernels._cpu")
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None, "the C++ kernels were not built (no working C++ compiler at install?)"
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError as error:
        return None, f"the C++ kernels can't be loaded: {error}"
    if not hasattr(library, "brl_interface") or library.brl_interface() != _INTERFACE:
        return None, "the C++ kernels were built from another version of their sources; install again"
    library.brl_initialise(int(os.getpid() != _IMPORTED_IN))
    library.brl_isa.restype = ctypes.c_char_p
    library.brl_packed_bytes.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.brl_step.argtypes = (*[pointer] * 7, *[number] * 2)
    library.brl_step_once.argtypes = (*[number] * 5, *[pointer] * 10, *[number] * 2)
    return library, library.brl_isa().decode()


def library() -> ctypes.CDLL:
    """The compiled library, where it can be used."""
    found, why = _load()
    if found is None:
        raise RuntimeError(why)
    return found


def check(status: int) -> None:
    """Raise what the status of a call says.

    Raises:
        MemoryError: if there was no memory for the workspace.
        RuntimeError: if the library returned something else that is not success.
    """
    if status == _NO_MEMORY:
        raise MemoryError("no memory for the workspace of the CPU kernels")
    if status:
        raise RuntimeError(f"the CPU kernels returned the unknown status {status}")
