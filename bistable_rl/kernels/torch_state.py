"""What torch is doing to operations here and now, asked of its private names, for which there are no public ones.

tests/test_transforms.py fails if torch drops one or changes what it says.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def transforms_active() -> bool:
    """Whether a transform of torch.func runs this: `vmap`, `grad`, `jvp`, ..."""
    return torch._C._are_functorch_transforms_active()


def forward_mode_active() -> bool:
    """Whether a level of forward-mode AD is entered."""
    return forward_ad._current_level >= 0


def modes_active() -> bool:
    """Whether a dispatch mode sees every operation: that of make_fx, of FlopCounterMode, ..."""
    return torch._C._len_torch_dispatch_stack() > 0


def is_batched_gradient(tensor: Tensor) -> bool:
    """Whether it stands for a batch of gradients, from `torch.autograd.grad(..., is_grads_batched=True)`."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)
