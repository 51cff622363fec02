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

KINDS: dict[str, int] = {"brc": 0, "nbrc": 1, "gru": 2, "lstm": 3}
DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

# Rows kept for the backward pass in `saved`, by kind: (with the gates, with `recompute`).
_SAVED_ROWS = {"brc": (0, 0), "nbrc": (3, 0), "gru": (4, 0), "lstm": (5, 1)}
_GATES = {"brc": 3, "nbrc": 3, "gru": 3, "lstm": 4}

_INTERFACE = 2  # of the binary, as in cpu.cpp

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
    """
    call = describe(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, batch_sizes, initial)
    c = call.c
    given = [_contiguous(t) for t in (grad_outputs, grad_final, outputs, saved)]
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


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)


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
    """Fill in what `forward` and `backward` have in common.

    A wrong shape here would be read as memory beyond the tensor, so shapes are asserted.
    """
    H, I = weight_ih.shape[0] // _GATES[kind], x.shape[-1]
    S = state_size(kind, H)
    if batch_sizes is None:
        T, B = x.shape[:2]
        N = T * B
    else:
        T, N = batch_sizes.shape[0], x.shape[0]
        B = int(batch_sizes[0]) if T else 0
        assert batch_sizes.dtype == torch.int64
        assert int(batch_sizes.sum()) == N
    recurrent = {"brc": (2, H), "nbrc": (2 * H, H)}.get(kind, (_GATES[kind] * H, H))
    assert x.dtype in DTYPES
    assert weight_ih.shape == (_GATES[kind] * H, I)
    assert weight_hh.shape == recurrent
    assert bias_ih is None or bias_ih.shape[0] in ((2 * H, 3 * H) if kind in ("brc", "nbrc") else (_GATES[kind] * H,))
    assert bias_hh is None or bias_hh.shape[0] == recurrent[0]
    assert state is None or state.shape == (B, S)
    assert initial is None or initial.shape == (S,)
    assert resets is None or (resets.numel() == N and resets.element_size() == 1)
    floats = [x, state, initial, weight_ih, weight_hh, bias_ih, bias_hh]
    assert all(t is None or (t.dtype == x.dtype and t.device.type == "cpu") for t in floats)

    tensors = [_contiguous(t) for t in (batch_sizes, resets, *floats)]
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
    library.brl_step.argtypes = (*[ctypes.c_void_p] * 7, ctypes.c_int64, ctypes.c_int64)
    return library, library.brl_isa().decode()


def library() -> ctypes.CDLL:
    """The compiled library, where it can be used."""
    found, why = _load()
    if found is None:
        raise RuntimeError(why)
    return found


def check(status: int) -> None:
    """Raise what the status of a call says."""
    if status:
        raise MemoryError("no memory for the workspace of the CPU kernels")
