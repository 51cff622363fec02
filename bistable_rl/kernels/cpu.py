"""The compiled CPU kernels of BRC, nBRC, GRU and LSTM: the binding of `cpp/cpu.cpp`.

They run on CPU tensors, float32 or float64, and know no autograd. A single step without gradients has its own road,
`cpu_step`.

The library is loaded once, after torch, and borrows the threads of torch's OpenMP runtime; it never brings its own.
Results do not depend on the run, only on the number of threads (which sets the order of summation in the gradients of
the weights).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from bistable_rl.kernels import memory
from bistable_rl.kernels.checks import check_inputs, check_results
from bistable_rl.kernels.interface import Batch, Gradients, Kernel, Results, Weights

DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

_INTERFACE = 4  # of the binary, as in cpu.cpp
_NO_MEMORY = 1  # the status of a call, as in cpu.cpp; 0 is success

# A process forked after this import may have inherited an OpenMP runtime without its threads.
_IMPORTED_IN = os.getpid()


def available() -> tuple[bool, str]:
    """Return whether the compiled library can be used here, and which instruction set it runs, or why it cannot."""
    library, why = _load()
    return library is not None, why


def forward(
    kernel: Kernel, batch: Batch, weights: Weights, *, save: bool, recompute: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a whole sequence, see `Backend.forward`. `recompute` costs 5-35 % of the time, and bounds the memory."""
    sizes, inputs = _checked(kernel, batch, weights)
    x, H = batch.x, weights.weight_hh.shape[1]
    steps = x.shape[:-1]
    n, kept, padded = kernel.saved_shape(steps.numel(), H, recompute=recompute)
    outputs, saved = memory.empty((*steps, H), x), memory.empty((n, kept if save else 0, padded), x)
    last = _like(batch.state)
    call = describe(kernel, sizes, inputs, (outputs, last, saved), recompute)
    check(library().brl_forward(ctypes.byref(call)))
    return outputs, last, saved


def backward(
    kernel: Kernel, batch: Batch, weights: Weights, results: Results, *, recompute: bool, need_x: bool
) -> Gradients:
    """Return the gradients of everything that `forward` was given, see `Backend.backward`."""
    sizes, inputs = _checked(kernel, batch, weights)
    check_results(kernel, batch, weights.weight_hh.shape[1], results, recompute=recompute)
    outputs, saved, grad_outputs, grad_last = map(_readable, results)
    gradients = Gradients(
        x=memory.empty(tuple(batch.x.shape), batch.x) if need_x else None,
        state=_like(batch.state),
        weight_ih=_like(weights.weight_ih),
        weight_hh=_like(weights.weight_hh),
        bias_ih=None if weights.bias_ih is None else _like(weights.bias_ih),
        bias_hh=None if weights.bias_hh is None else _like(weights.bias_hh),
        initial=None if batch.initial is None else _like(batch.initial),
    )
    call = describe(kernel, sizes, inputs, (outputs, None, saved, grad_outputs, grad_last, *gradients), recompute)
    check(library().brl_backward(ctypes.byref(call)))
    return gradients


_NUMBERS = ("kind", "bytes", "T", "B", "N", "I", "H", "threads", "recompute", "bias_ih_size")
_INPUTS = (*Batch._fields, *Weights._fields)
_RESULTS = ("outputs", "last_state", "saved", "grad_outputs", "grad_last")


class Call(ctypes.Structure):
    """`struct Call` of cpu.cpp; a pointer may be null where there is no tensor."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _NUMBERS),
        *((name, ctypes.c_void_p) for name in (*_INPUTS, *_RESULTS)),
        *(("grad_" + name, ctypes.c_void_p) for name in Gradients._fields),
        ("packed", ctypes.c_void_p),
    )


Tensors = Sequence[Tensor | None]


def describe(kernel: Kernel, sizes: list[int], inputs: Tensors, results: Tensors = (), recompute: bool = False) -> Call:
    """Fill in a call of the library, whose tensors the caller keeps alive.

    Args:
        kernel: The cell's row of `KERNELS`.
        sizes: How many sequences reach each step.
        inputs: The fields of `Batch` and `Weights`, checked and readable.
        results: The tensors that the library reads beside them and writes, in the order of the structure.
        recompute: Whether only what cannot be computed again is saved.
    """
    x, state, _, _, _, _, weight_hh, bias_ih, _ = inputs
    assert x is not None
    assert state is not None
    assert weight_hh is not None
    shape = x.shape
    return Call(
        kernel.index,
        x.element_size(),
        len(sizes),
        state.shape[0],
        shape[:-1].numel(),
        shape[-1],
        weight_hh.shape[1],
        torch.get_num_threads(),
        recompute,
        0 if bias_ih is None else bias_ih.shape[0],
        *[None if t is None else t.data_ptr() for t in inputs],
        *[None if t is None else t.data_ptr() for t in results],
    )


def _checked(kernel: Kernel, batch: Batch, weights: Weights) -> tuple[list[int], Tensors]:
    """The sizes of the steps, and the inputs as the library can read them."""
    sizes, x = check_inputs(kernel, batch, weights), batch.x
    if x.dtype not in DTYPES or not x.is_cpu:
        raise ValueError(f"the C++ kernels take float32 and float64 on the CPU, not {x.dtype} on {x.device}")
    return sizes, [_readable(t) for t in (*batch, *weights)]


def _readable(tensor: Tensor | None) -> Tensor | None:
    """The tensor itself, or a copy whose memory holds its numbers one after the other."""
    return None if tensor is None else tensor.contiguous().resolve_neg()


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason."""
    spec = importlib.util.find_spec("bistable_rl.kernels._cpu")
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None, "the C++ kernels were not built (no working C++ compiler at install?)"
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError as error:
        return None, f"the C++ kernels cannot be loaded: {error}"
    if not hasattr(library, "brl_interface") or library.brl_interface() != _INTERFACE:
        return None, "the C++ kernels were built from another version of their sources; install the package again"
    library.brl_initialise(int(os.getpid() != _IMPORTED_IN))
    library.brl_isa.restype = ctypes.c_char_p
    library.brl_packed_bytes.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.brl_step.argtypes = (*[pointer] * 7, *[number] * 2)
    library.brl_step_once.argtypes = (*[number] * 5, *[pointer] * 10, *[number] * 2)
    return library, library.brl_isa().decode()


def library() -> ctypes.CDLL:
    """Return the compiled library.

    Raises:
        RuntimeError: If it cannot be used here.
    """
    found, why = _load()
    if found is None:
        raise RuntimeError(why)
    return found


def check(status: int) -> None:
    """Raise the error that the status of a call stands for.

    Raises:
        MemoryError: If there was no memory for the workspace.
        RuntimeError: If the library returned an unknown status.
    """
    if status == _NO_MEMORY:
        raise MemoryError("not enough memory for the workspace of the CPU kernels")
    if status:
        raise RuntimeError(f"the CPU kernels returned the unknown status {status}")
