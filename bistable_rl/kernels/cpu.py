"""Compiled CPU kernels of BRC, nBRC, GRU and LSTM: the binding of `cpu.cpp`.

Pure functions on contiguous CPU tensors, float32 or float64: nothing given is changed, everything returned is
new, and nothing here knows autograd. Three calls do the work, and each takes the parameters in one order::

    outputs, final_state, saved = forward(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, ...)
    gradients = backward(kind, grad_outputs, grad_final, x, state, resets, weight_ih, ..., outputs, saved, ...)
    state = step(kind, x, state, weight_ih, weight_hh, bias_ih, bias_hh)          # one step, no gradients

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
import weakref
from collections import OrderedDict
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

KINDS: dict[str, int] = {"brc": 0, "nbrc": 1, "gru": 2, "lstm": 3}
DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

# Rows kept for the backward pass in `saved`, by kind: (with the gates, with `recompute`).
_SAVED_ROWS = {"brc": (0, 0), "nbrc": (3, 0), "gru": (4, 0), "lstm": (5, 1)}
_GATES = {"brc": 3, "nbrc": 3, "gru": 3, "lstm": 4}

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
    call = _describe(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, batch_sizes, initial)
    c, T, B, N, H = call.c, call.T, call.B, call.N, call.H
    outputs = x.new_empty((N, H) if batch_sizes is not None else (T, B, H))
    final_state = x.new_empty(B, state_size(kind, H))
    saved = x.new_empty(saved_shape(kind, N, H, recompute=recompute) if save else (N, 0, -(-H // 16) * 16))
    c.outputs, c.final_state = outputs.data_ptr(), final_state.data_ptr()
    # Without a backward pass nothing is kept; where nothing would be kept anyway, there is no pointer to it.
    c.saved = saved.data_ptr() if saved.numel() else None
    c.recompute = recompute
    _check(_library().brl_forward(ctypes.byref(c)))
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
    call = _describe(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, batch_sizes, initial)
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
    _check(_library().brl_backward(ctypes.byref(c)))
    return gradients


def step(
    kind: str,
    x: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    resets: Tensor | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """One step without gradients, by the shortest way: for acting, where B is small and latency is everything.

    The weights are packed once and kept as long as the tensors live and are not modified.

    Args:
        kind: one of `KINDS`.
        x: (B, I).
        state: (B, S).
        weight_ih: see the table above, as for `weight_hh`, `bias_ih`, `bias_hh`.
        weight_hh: see above.
        bias_ih: see above.
        bias_hh: see above.
        resets: (B,), bool or uint8: where it is true the state is replaced by `initial` before the step.
        initial: (S,), the state that a reset restores; None is zero.

    Returns:
        The new state (B, S); its first H columns are the output.
    """
    parameters = (weight_ih, weight_hh, bias_ih, bias_hh)
    packed = _packed(kind, parameters)
    x, state = x.contiguous(), state.contiguous()
    B = x.shape[0]
    assert (x.shape[1], state.shape[1]) == packed.sizes
    assert state.shape[0] == B
    assert x.dtype == state.dtype == weight_ih.dtype
    new_state = torch.empty_like(state)
    resets, initial = _contiguous(resets), _contiguous(initial)
    assert resets is None or (resets.shape == (B,) and resets.element_size() == 1)
    assert initial is None or (initial.shape == state.shape[1:] and initial.dtype == x.dtype)
    arguments = (
        x.data_ptr(),
        state.data_ptr(),
        None if resets is None else resets.data_ptr(),
        None if initial is None else initial.data_ptr(),
        new_state.data_ptr(),
        B,
        torch.get_num_threads(),
    )
    library = _library()
    status = library.brl_step(packed.address, *arguments)
    if status == _STALE:
        packed = _packed(kind, parameters, renew=True)
        status = library.brl_step(packed.address, *arguments)
    _check(status)
    return new_state


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


class _Described(NamedTuple):
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


def _describe(
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
) -> _Described:
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
    return _Described(c, T, B, N, H, tensors)


# ---- packed weights, kept for `step` ----

_STALE = 2  # what brl_step answers when the weights changed without a new version (through `.data`)
_CACHE_SIZE = 64

Parameters = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


class _Packed(NamedTuple):
    """Weights in the kernels' layout, and how to know whether they still are those of the tensors."""

    owners: tuple[weakref.ref[Tensor] | None, ...]
    places: tuple[int, ...]
    versions: tuple[int, ...]
    memory: tuple[Tensor, ...]  # the packed weights, and copies of those that were not contiguous
    address: int
    sizes: tuple[int, int]  # I, S


_cache: OrderedDict[tuple[int, ...], _Packed] = OrderedDict()
_cache_lock = Lock()


def _is_fresh(found: _Packed, parameters: Parameters) -> bool:
    owners, places, versions = found.owners, found.places, found.versions
    for i, p in enumerate(parameters):  # a plain loop: this is a tenth of the time of a step
        owner = owners[i]
        if p is None or owner is None:
            if p is not owner:
                return False
        elif owner() is not p or p._version != versions[i] or p.data_ptr() != places[i]:
            return False
    return True


def _packed(kind: str, parameters: Parameters, *, renew: bool = False) -> _Packed:
    """The packed parameters: those kept from an earlier call, or new ones.

    Kept ones are good if they were made from the very same tensor objects, at the same place in memory, in the same
    version.
    """
    key = tuple([id(p) for p in parameters])
    found = _cache.get(key)
    if found is not None and not renew and _is_fresh(found, parameters):
        return found
    try:
        places = tuple([0 if p is None else p.data_ptr() for p in parameters])
        versions = tuple([0 if p is None else p._version for p in parameters])
    except RuntimeError:  # tensors made in inference mode have no version: nothing can be kept
        return _pack(kind, parameters, (), ())
    made = _pack(kind, parameters, places, versions)
    with _cache_lock:
        for other in [k for k, v in _cache.items() if any(o is not None and o() is None for o in v.owners)]:
            del _cache[other]
        _cache[key] = made
        _cache.move_to_end(key)
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return made


def _pack(kind: str, parameters: Parameters, places: tuple[int, ...], versions: tuple[int, ...]) -> _Packed:
    w_ih, w_hh, b_ih, b_hh = parameters
    inputs, S = w_ih.shape[1], state_size(kind, w_ih.shape[0] // _GATES[kind])
    call = _describe(kind, w_ih.new_empty(1, 0, inputs), None, None, w_ih, w_hh, b_ih, b_hh, None, None)
    library = _library()
    size = library.brl_packed_bytes(ctypes.byref(call.c))
    memory = torch.empty(size + 64, dtype=torch.uint8)
    address = (memory.data_ptr() + 63) & ~63
    library.brl_pack(ctypes.byref(call.c), ctypes.c_void_p(address))
    owners = tuple([None if p is None else weakref.ref(p) for p in parameters])
    # The library looks into the weights again at every step: a contiguous copy has to live as long.
    copies = [t for t in call.tensors[-4:] if t is not None and all(t is not p for p in parameters)]
    return _Packed(owners, places, versions, (memory, *copies), address, (inputs, S))


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
    library.brl_initialise(int(os.getpid() != _IMPORTED_IN))
    library.brl_isa.restype = ctypes.c_char_p
    library.brl_packed_bytes.restype = ctypes.c_size_t
    library.brl_step.argtypes = (*[ctypes.c_void_p] * 6, ctypes.c_int64, ctypes.c_int64)
    return library, library.brl_isa().decode()


def _library() -> ctypes.CDLL:
    library, why = _load()
    if library is None:
        raise RuntimeError(why)
    return library


def _check(status: int) -> None:
    if status:
        raise MemoryError("no memory for the workspace of the CPU kernels")
