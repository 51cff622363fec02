"""One step on the CPU without gradients, by the shortest way: for acting, where B is small and latency is everything.

The C++ of a step takes a few microseconds; as much again is spent by each view, copy or look at a module on the way to
it. So the weights are packed once, and kept as long as the tensors live and are not modified.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from bistable_rl.kernels import cpu

Parameters = tuple[Tensor, Tensor, Tensor | None, Tensor | None]

_STALE = 2  # what brl_step answers when the weights changed without a new version (through `.data`)
_CACHE_SIZE = 64


def step(
    kind: str,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None,
    parameters: Parameters,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Run one step, if the tensors are as the compiled code takes them; whatever else they are, nothing is done.

    Args:
        kind: one of `cpu.KINDS`.
        x: (1, B, I), float32 or float64, contiguous and on the CPU, as the others.
        state: (1, B, S).
        resets: (1, B), bool or uint8: where it is true the state is replaced by `initial` (or zero) before the step.
            None: no resets.
        parameters: weight_ih, weight_hh, bias_ih and bias_hh, as `cpu.forward` takes them.
        initial: (S,), the state that a reset restores; None is zero.

    Returns:
        The outputs (1, B, H) and the new state (1, B, S), which share nothing; or None.
    """
    weight, H = parameters[0], parameters[1].shape[1]
    shape, dtype = x.shape, x.dtype
    if not (x.is_cpu and state.is_cpu and weight.is_cpu and dtype == state.dtype == weight.dtype):
        return None
    if len(shape) != 3 or shape[0] != 1 or shape[2] != weight.shape[1]:
        return None
    B = shape[1]
    if state.shape != (1, B, cpu.state_size(kind, H)) or not (x.is_contiguous() and state.is_contiguous()):
        return None
    if resets is not None and not (
        resets.is_cpu and resets.shape == shape[:2] and resets.element_size() == 1 and resets.is_contiguous()
    ):
        return None
    assert initial is None or (initial.shape == state.shape[2:] and initial.dtype == dtype and initial.is_contiguous())
    packed = _packed(kind, parameters)
    outputs, new_state = x.new_empty(1, B, H), torch.empty_like(state)
    arguments = (
        x.data_ptr(),
        state.data_ptr(),
        0 if resets is None else resets.data_ptr(),
        0 if initial is None else initial.data_ptr(),
        outputs.data_ptr(),
        new_state.data_ptr(),
        B,
        torch.get_num_threads(),
    )
    status = _compiled()(packed.address, *arguments)
    if status == _STALE:
        packed = _packed(kind, parameters, renew=True)
        status = _compiled()(packed.address, *arguments)
    cpu.check(status)
    return outputs, new_state


@cache
def _compiled() -> Callable[..., int]:
    """`brl_step` of the library, on addresses and sizes."""
    library = cpu.library()
    try:
        module = importlib.import_module("bistable_rl.kernels._cpu")
    except ImportError:  # built without Python's headers: the same, at the price of ctypes
        return library.brl_step
    function: Callable[..., int] = module.step
    return function


class _Packed(NamedTuple):
    """Weights in the kernels' layout, and how to know whether they still are those of the tensors."""

    owners: tuple[weakref.ref[Tensor] | None, ...]
    places: tuple[int, ...]
    versions: tuple[int, ...]
    memory: tuple[Tensor, ...]  # the packed weights, and copies of those that were not contiguous
    address: int


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
    if len(made.memory) > 1:  # a copy does not follow its weights through `.data`
        return made
    with _cache_lock:
        for other in [k for k, v in _cache.items() if any(o is not None and o() is None for o in v.owners)]:
            del _cache[other]
        _cache[key] = made
        _cache.move_to_end(key)
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return made


def _pack(kind: str, parameters: Parameters, places: tuple[int, ...], versions: tuple[int, ...]) -> _Packed:
    nothing = parameters[0].new_empty(1, 0, parameters[0].shape[1])
    call = cpu.describe(kind, nothing, None, None, *parameters, None, None)
    library = cpu.library()
    memory = torch.empty(library.brl_packed_bytes(ctypes.byref(call.c)) + 64, dtype=torch.uint8)
    address = (memory.data_ptr() + 63) & ~63
    library.brl_pack(ctypes.byref(call.c), ctypes.c_void_p(address))
    owners = tuple([None if p is None else weakref.ref(p) for p in parameters])
    # The library looks into the weights again at every step: a contiguous copy has to live as long.
    copies = [t for t in call.tensors[-4:] if t is not None and all(t is not p for p in parameters)]
    return _Packed(owners, places, versions, (memory, *copies), address)
