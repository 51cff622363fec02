"""The single-step path, for acting: one step on the CPU without gradients, where B is small and latency counts.

The C++ of a step takes a few microseconds; every view, copy or attribute lookup before it takes about as long again. A
step packs the weights first, which costs more than the step itself; `fix` packs them once for many steps, for a caller
who promises not to change them meanwhile. Only `Cell.act` enters this path. Inputs that the compiled code cannot read
as they are go to `ops.scan`, which also reports errors.
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
from bistable_rl.kernels.dispatch import choose, note
from bistable_rl.kernels.interface import Batch, Weights
from bistable_rl.kernels.table import get_kernel
from bistable_rl.kernels.torch_state import is_traced


class StepWeights(NamedTuple):
    """A cell's weights for the compiled step: packed, or in place."""

    cell: str
    dtype: torch.dtype
    input_size: int
    hidden_size: int
    state_size: int
    run: Callable[..., int]  # the library's function that runs the step
    head: tuple[int, ...]  # its first arguments
    memory: object  # the memory that those point into


def pack(cell: str, weights: Weights) -> StepWeights | None:
    """Pack the current weights, for any number of steps; the tensors may then change or be freed.

    Args:
        cell: A key of `KERNELS`.
        weights: The cell's weights.

    Returns:
        The packed weights; None if the compiled code was not built, or cannot read the weights.
    """
    if not cpu.available()[0]:
        return None
    weights = Weights(*(None if w is None else w.contiguous().resolve_neg() for w in weights))  # type: ignore[arg-type]
    if in_place(cell, weights) is None:
        return None
    kernel, (I, H) = get_kernel(cell), (weights.weight_ih.shape[1], weights.weight_hh.shape[1])
    S = kernel.state_size(H)
    no_steps = Batch(weights.weight_ih.new_empty(0, 0, I), weights.weight_ih.new_empty(0, S))
    call = cpu.describe(kernel, [], (*no_steps, *weights))
    library = cpu.library()
    memory = torch.empty(library.brl_packed_bytes(ctypes.byref(call)) + 64, dtype=torch.uint8)
    address = (memory.data_ptr() + 63) & ~63
    library.brl_pack(ctypes.byref(call), ctypes.c_void_p(address))
    return StepWeights(cell, weights.weight_ih.dtype, I, H, S, _compiled()[0], (address,), memory)


def in_place(cell: str, weights: Weights) -> StepWeights | None:
    """Take the weights in place, for one step, which packs them itself.

    Args:
        cell: A key of `KERNELS`.
        weights: The cell's weights.

    Returns:
        The weights; None if the compiled code cannot read them.
    """
    weight_ih, weight_hh, bias_ih, _ = weights
    dtype, kernel = weight_ih.dtype, get_kernel(cell)
    if dtype not in cpu.DTYPES or weight_ih.dim() != 2 or weight_hh.dim() != 2:
        return None
    I, H = weight_ih.shape[1], weight_hh.shape[1]
    pointers = []
    for weight, shape in zip(weights, kernel.weight_shapes(weights, I, H), strict=True):
        if weight is None:
            pointers.append(0)
            continue
        if weight.shape != shape or not _is_readable(weight, dtype) or not (pointer := weight.data_ptr()):
            return None
        pointers.append(pointer)
    sizes = (kernel.index, dtype.itemsize, I, H, 0 if bias_ih is None else len(bias_ih))
    return StepWeights(cell, dtype, I, H, kernel.state_size(H), _compiled()[1], (*sizes, *pointers), weights)


Owner = Hashable
Packed = tuple[StepWeights, tuple[Tensor | None, ...]]
"""Packed weights, and the parameters that they were made from."""


class _Scope:
    """A block of `fix`, for this thread only: another thread may train the same module, and uses its weights."""

    def __init__(self, packed: Mapping[Owner, Packed]) -> None:
        self.packed = packed
        self.thread = threading.get_ident()
        self.open = True  # an asyncio task that was made inside keeps its context, and with it the scope, for ever


_scopes: ContextVar[tuple[_Scope, ...]] = ContextVar("scopes of fixed weights", default=())
if hasattr(os, "register_at_fork"):  # a child forked inside a scope would never leave it
    os.register_at_fork(after_in_child=lambda: _scopes.set(()))


@contextmanager
def fix(packed: Mapping[Owner, Packed]) -> Iterator[None]:
    """Let `fixed` find packed weights by their owners, in this thread and task, inside the `with` block.

    The innermost block counts. Blocks may end in any order and in any thread, as the blocks of generators do.
    """
    scope = _Scope(packed)
    _scopes.set((*_scopes.get(), scope))
    try:
        yield
    finally:
        scope.open = False
        _scopes.set(tuple(other for other in _scopes.get() if other.open))


def fixed(owner: Owner, parameters: Iterable[Tensor | None]) -> StepWeights | None:
    """Return the packed weights of an owner inside `fix`, if they were made from these very parameters."""
    for scope in reversed(_scopes.get()):
        found = scope.packed.get(owner)
        if found is not None and scope.open and scope.thread == threading.get_ident():
            return found[0] if all(map(operator.is_, parameters, found[1])) else None
    return None


def serves(cell: str, x: Tensor, state: Tensor) -> bool:
    """Return whether `step` may run: the compiled kernels would, and nothing traces torch's operations.

    Args:
        cell: A key of `KERNELS`.
        x: The input.
        state: The state; it need not be a tensor.

    Raises:
        ValueError: If the backend asked for cannot serve this, see `choose`.
    """
    if torch.is_grad_enabled() or is_traced(x) or type(state) is not Tensor or torch.is_autocast_enabled("cpu"):
        return False
    return x.is_cpu and choose(cell, "cpu", x.dtype).backend == "cpu"


def step(
    weights: StepWeights, x: Tensor, state: Tensor, resets: Tensor | None, initial: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Run one step, if the compiled code can read the tensors as they are; otherwise do nothing.

    Args:
        weights: From `pack` or `in_place`.
        x: (1, B, I), float32 or float64, contiguous and on the CPU, as the others.
        state: (1, B, S).
        resets: (1, B), bool or uint8: nonzero restores `initial` before the step. None: no resets.
        initial: (S,), the state that a reset restores; None is zero.

    Returns:
        The outputs (1, B, H) and the new state (1, B, S), which share no memory; or None.
    """
    cell, dtype, I, H, S, run, head, _ = weights
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
    note(cell, "cpu")
    return outputs, new_state


def _is_readable(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor is dense, contiguous and of this dtype on the CPU."""
    return (
        tensor.is_cpu
        and tensor.dtype == dtype
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
    )


@cache
def _compiled() -> tuple[Callable[..., int], Callable[..., int]]:
    """The library's `brl_step` and `brl_step_once`, which take addresses and sizes."""
    library = cpu.library()
    try:
        module = importlib.import_module("bistable_rl.kernels._cpu")
    except ImportError:  # built without Python's headers: the same through ctypes, which is slower
        return library.brl_step, library.brl_step_once
    return module.step, module.step_once
