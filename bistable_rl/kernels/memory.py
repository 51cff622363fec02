"""Reuse of the memory of large temporaries: the first access to new memory can take as long as the work on it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

# The allocator itself keeps what is smaller.
SMALLEST_BYTES = 4 * 2**20
_DTYPES = (torch.float32, torch.float64)  # of those that numpy has

_free: ContextVar[list[Tensor] | None] = ContextVar("free blocks", default=None)


@contextmanager
def reused() -> Iterator[None]:
    """Let `empty` reuse the memory of tensors that it made and that were freed, in this `with` block and thread.

    The memory is kept until the block ends, so the block should hold many calls with tensors of similar sizes. A tensor
    may outlive the block, and may die in another thread.
    """
    token = _free.set([])
    try:
        yield
    finally:
        _free.reset(token)


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised tensor with the dtype and device of another."""
    size = math.prod(shape) * like.element_size()
    free = _free.get()
    if free is None or size < SMALLEST_BYTES or not like.is_cpu or like.dtype not in _DTYPES:
        return like.new_empty(shape)
    block = _take(free, size)
    # The tensor keeps the array alive, and the death of the array, after the tensor's and all its views', frees the
    # block.
    array = block.view(like.dtype)[: math.prod(shape)].numpy().reshape(shape)
    weakref.finalize(array, free.append, block).atexit = False
    return torch.from_numpy(array)


def _take(free: list[Tensor], size: int) -> Tensor:
    """Take the smallest block that is large enough, or replace those that are a little too small by a new one."""
    fitting = [i for i, block in enumerate(free) if size <= len(block) <= 2 * size]
    if fitting:
        return free.pop(min(fitting, key=lambda i: len(free[i])))
    free[:] = [block for block in free if not size / 2 < len(block) < size]
    # minibatches differ in size; a multiple of 64 holds whole numbers of any type
    return torch.empty((size + size // 8 + 63) // 64 * 64, dtype=torch.uint8)
