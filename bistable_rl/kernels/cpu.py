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
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

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
    sizes, batch, weights = _checked(kernel, batch, weights)
    x, H = batch.x, weights.weight_hh.shape[1]
    outputs, last = x.new_empty(*x.shape[:-1], H), torch.empty_like(batch.state)
    n, kept, padded = kernel.saved_shape(x.shape[:-1].numel(), H, recompute=recompute)
    saved = x.new_empty(n, kept if save else 0, padded)
    call = describe(kernel, sizes, batch, weights)
    call.outputs, call.last_state = outputs.data_ptr(), last.data_ptr()
    # Without a backward pass nothing is saved; where nothing would be saved anyway, there is no pointer to it.
    call.saved = saved.data_ptr() if saved.numel() else None
    call.recompute = recompute
    check(library().brl_forward(ctypes.byref(call)))
    return outputs, last, saved


def backward(
    kernel: Kernel, batch: Batch, weights: Weights, results: Results, *, recompute: bool, need_x: bool
) -> Gradients:
    """Return the gradients of everything that `forward` was given, see `Backend.backward`."""
    sizes, batch, weights = _checked(kernel, batch, weights)
    check_results(kernel, batch, weights.weight_hh.shape[1], results, recompute=recompute)
    results = Results(*map(_readable, results))  # type: ignore[arg-type]
    call = describe(kernel, sizes, batch, weights)
    call.outputs, call.saved, call.grad_outputs, call.grad_last = map(_pointer, results)
    call.recompute = recompute
    given = {**batch._asdict(), **weights._asdict(), **({} if need_x else {"x": None})}
    gradients = Gradients(*(_like(given[name]) for name in Gradients._fields))
    for name, gradient in zip(Gradients._fields, gradients, strict=True):
        setattr(call, "grad_" + name, _pointer(gradient))
    check(library().brl_backward(ctypes.byref(call)))
    return gradients


class Call(ctypes.Structure):
    """`struct Call` of cpu.cpp."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("kind", "bytes", "T", "B", "N", "I", "H", "threads", "recompute", "bias_ih_size")
        ),
        *((name, ctypes.c_void_p) for name in (*Batch._fields, *Weights._fields, "packed")),
        *((name, ctypes.c_void_p) for name in ("outputs", "last_state", "saved", "grad_outputs", "grad_last")),
        *(("grad_" + name, ctypes.c_void_p) for name in Gradients._fields),
    )


def describe(kernel: Kernel, sizes: list[int], batch: Batch, weights: Weights) -> Call:
    """Fill in what all calls of the library have in common.

    Args:
        kernel: The cell's row of `KERNELS`.
        sizes: How many sequences reach each step.
        batch: The sequences, checked and contiguous; the caller keeps them alive, as the weights.
        weights: The weights, checked and contiguous.
    """
    x, bias_ih = batch.x, weights.bias_ih
    return Call(
        kernel.index,
        x.element_size(),
        len(sizes),
        len(batch.state),
        x.shape[:-1].numel(),
        x.shape[-1],
        weights.weight_hh.shape[1],
        torch.get_num_threads(),
        0,
        0 if bias_ih is None else len(bias_ih),
        *map(_pointer, batch),
        *map(_pointer, weights),
    )


def _checked(kernel: Kernel, batch: Batch, weights: Weights) -> tuple[list[int], Batch, Weights]:
    """The sizes of the steps, and the tensors as the library can read them."""
    sizes, x = check_inputs(kernel, batch, weights), batch.x
    if x.dtype not in DTYPES or not x.is_cpu:
        raise ValueError(f"the C++ kernels take float32 and float64 on the CPU, not {x.dtype} on {x.device}")
    return sizes, Batch(*map(_readable, batch)), Weights(*map(_readable, weights))  # type: ignore[arg-type]


def _readable(tensor: Tensor | None) -> Tensor | None:
    """The tensor itself, or a copy whose memory holds its numbers one after the other."""
    return None if tensor is None else tensor.contiguous().resolve_neg()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.empty_like(tensor)


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
        return None, "the C++ kernels were built from another version of their sources; install again"
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
        raise MemoryError("no memory for the workspace of the CPU kernels")
    if status:
        raise RuntimeError(f"the CPU kernels returned the unknown status {status}")
