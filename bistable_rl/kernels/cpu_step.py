"""One step on the CPU without gradients, by the shortest way: for acting, where B is small and latency is everything.

The C++ of a step takes a few microseconds; as much again is spent by each view, copy or look at a module on the way to
it. A step packs the weights first, which costs more than the step itself; `fix` packs them once for many steps, for
somebody who promises not to change them meanwhile.
"""

from __future__ import annotations

import ctypes
import importlib
import operator
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from bistable_rl.kernels import cpu


class Weights(NamedTuple):
    """A cell's weights, as a step takes them: packed, or where they are."""

    dtype: torch.dtype
    input_size: int
    hidden_size: int
    state_size: int
    run: Callable[..., int]  # what runs the step in the library
    head: tuple[int, ...]  # its first arguments
    memory: object  # what those point into


def pack(kind: str, parameters: cpu.Parameters) -> Weights | None:
    """Pack weights as they are now; the tensors may then change or go.

    Args:
        kind: one of `cpu.KINDS`.
        parameters: weight_ih, weight_hh, bias_ih and bias_hh.

    Returns:
        The weights, for any number of steps; None if they are not as the compiled code takes them, or it was not built.
    """
    if not cpu.available()[0]:
        return None
    weight_ih, weight_hh, bias_ih, bias_hh = (None if p is None else p.contiguous().resolve_neg() for p in parameters)
    if weight_ih is None or weight_hh is None or unpacked(kind, (weight_ih, weight_hh, bias_ih, bias_hh)) is None:
        return None
    I, H = weight_ih.shape[1], weight_hh.shape[1]
    no_steps = weight_ih.new_empty(0, 0, I)
    call = cpu.describe(kind, no_steps, None, None, weight_ih, weight_hh, bias_ih, bias_hh, None, None)
    library = cpu.library()
    memory = torch.empty(library.brl_packed_bytes(ctypes.byref(call.c)) + 64, dtype=torch.uint8)
    address = (memory.data_ptr() + 63) & ~63
    library.brl_pack(ctypes.byref(call.c), ctypes.c_void_p(address))
    return Weights(weight_ih.dtype, I, H, cpu.state_size(kind, H), _compiled()[0], (address,), memory)


def unpacked(kind: str, parameters: cpu.Parameters) -> Weights | None:
    """Weights where they are: a step packs them for itself.

    Args:
        kind: one of `cpu.KINDS`.
        parameters: weight_ih, weight_hh, bias_ih and bias_hh.

    Returns:
        The weights, for one step; None if they are not as the compiled code takes them.
    """
    weight_ih, weight_hh, bias_ih, _ = parameters
    dtype = weight_ih.dtype
    if dtype not in cpu.DTYPES or weight_ih.dim() != 2 or weight_hh.dim() != 2:
        return None
    I, H = weight_ih.shape[1], weight_hh.shape[1]
    pointers = []
    for parameter, shape in zip(parameters, cpu.parameter_shapes(kind, I, H, bias_ih), strict=True):
        if parameter is None:
            pointers.append(0)
            continue
        if parameter.shape != shape or not _is_readable(parameter, dtype) or not (pointer := parameter.data_ptr()):
            return None
        pointers.append(pointer)
    sizes = (cpu.KINDS[kind], dtype.itemsize, I, H, 0 if bias_ih is None else len(bias_ih))
    return Weights(dtype, I, H, cpu.state_size(kind, H), _compiled()[1], (*sizes, *pointers), parameters)


Owner = Hashable
Packed = tuple[Weights, tuple[Tensor | None, ...]]
"""Packed weights, and the parameters that they were made from."""


class _Scope:
    """A block of `fix`; of this thread alone, since another one that trains the same module sees its weights."""

    def __init__(self, packed: Mapping[Owner, Packed]) -> None:
        self.packed = packed
        self.thread = threading.get_ident()
        self.open = True  # a task of asyncio that was made inside keeps its context, and with it the scope, for ever


_scopes: ContextVar[tuple[_Scope, ...]] = ContextVar("scopes of fixed weights", default=())
if hasattr(os, "register_at_fork"):  # a child forked inside a scope would never leave it
    os.register_at_fork(after_in_child=lambda: _scopes.set(()))


@contextmanager
def fix(packed: Mapping[Owner, Packed]) -> Iterator[None]:
    """Let `fixed` find packed weights by their owners, in this thread and task, inside the `with` block.

    Where blocks are nested the inner one counts. As those of generators do, they may end in any order and thread.
    """
    scope = _Scope(packed)
    _scopes.set((*_scopes.get(), scope))
    try:
        yield
    finally:
        scope.open = False
        _scopes.set(tuple(other for other in _scopes.get() if other.open))


def fixed(owner: Owner, parameters: Iterable[Tensor | None]) -> Weights | None:
    """The packed weights of an owner inside `fix`, if they were made from these very parameters."""
    for scope in reversed(_scopes.get()):
        found = scope.packed.get(owner)
        if found is not None and scope.open and scope.thread == threading.get_ident():
            return found[0] if all(map(operator.is_, parameters, found[1])) else None
    return None


def step(
    weights: Weights, x: Tensor, state: Tensor, resets: Tensor | None, initial: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Run one step, if the tensors are as the compiled code takes them; whatever else they are, nothing is done.

    Args:
        weights: from `pack` or `unpacked`.
        x: (1, B, I), float32 or float64, contiguous and on the CPU, as the others.
        state: (1, B, S).
        resets: (1, B), bool or uint8: where it is true the state is replaced by `initial` (or zero) before the step.
            None: no resets.
        initial: (S,), the state that a reset restores; None is zero.

    Returns:
        The outputs (1, B, H) and the new state (1, B, S), which share nothing; or None.
    """
    dtype, I, H, S, run, head, _ = weights
    shape = x.shape
    if len(shape) != 3 or shape[0] != 1 or shape[2] != I:
        return None
    B = shape[1]
    if state.shape != (1, B, S) or not _is_readable(x, dtype) or not _is_readable(state, dtype):
        return None
    if resets is not None and not (
        resets.shape == shape[:2] and resets.element_size() == 1 and _is_readable(resets, resets.dtype)
    ):
        return None
    if initial is not None and not (initial.shape == (S,) and _is_readable(initial, dtype)):
        return None
    outputs, new_state = x.new_empty(1, B, H), torch.empty_like(state)
    x_address, state_address = x.data_ptr(), state.data_ptr()
    if B and not (x_address and state_address):  # a storage that was resized to nothing
        return None
    status = run(
        *head,
        x_address,
        state_address,
        0 if resets is None else resets.data_ptr(),
        0 if initial is None else initial.data_ptr(),
        outputs.data_ptr(),
        new_state.data_ptr(),
        B,
        torch.get_num_threads(),
    )
    if status:
        cpu.check(status)
    return outputs, new_state


def _is_readable(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor's numbers lie in memory one after the other, as they are."""
    return (
        tensor.is_cpu
        and tensor.dtype == dtype
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
    )


@cache
def _compiled() -> tuple[Callable[..., int], Callable[..., int]]:
    """`brl_step` and `brl_step_once` of the library, on addresses and sizes."""
    library = cpu.library()
    try:
        module = importlib.import_module("bistable_rl.kernels._cpu")
    except ImportError:  # built without Python's headers: the same, at the price of ctypes
        return library.brl_step, library.brl_step_once
    return module.step, module.step_once
