"""The current state of torch (transforms, tracing), read from private names where there are no public ones.

tests/test_transforms.py fails if torch drops one of them or changes its meaning.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def transforms_active() -> bool:
    """Return whether a transform of torch.func is running: `vmap`, `grad`, `jvp`, ..."""
    return torch._C._are_functorch_transforms_active()


def forward_mode_active() -> bool:
    """Return whether forward-mode AD is active."""
    return forward_ad._current_level >= 0


def modes_active() -> bool:
    """Return whether a dispatch mode sees every operation: that of make_fx, FlopCounterMode, ..."""
    return torch._C._len_torch_dispatch_stack() > 0


def is_batched_gradient(tensor: Tensor) -> bool:
    """Return whether a tensor is a batch of gradients of `torch.autograd.grad(..., is_grads_batched=True)`."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def is_watched() -> bool:
    """Return whether torch.compile traces this, or a dispatch mode sees every operation."""
    return torch.compiler.is_compiling() or modes_active()


def is_traced(x: Tensor) -> bool:
    """Return whether operators on x must go through torch's dispatcher, because something there traces them."""
    return is_watched() or type(x) is not Tensor or torch.jit.is_tracing()


def transform() -> str | None:
    """Return why only torch's own operations work here and custom ones do not; None where both do."""
    if transforms_active():
        return "only the reference runs under a transform of torch.func"
    if forward_mode_active():
        return "only the reference runs under forward-mode AD"
    return None
