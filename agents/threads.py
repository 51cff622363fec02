"""Torch's threads: one thread if there is so little work that waking a second costs more than it saves.

torch itself wakes the second one for a softmax of 8 rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bistable_rl.agents.policy import RecurrentPolicy

SMALL_WORK = 4e7
"""The number of operations of a forward pass below which one thread runs it: about half a millisecond on a core."""


@contextmanager
def one_if(small: bool) -> Iterator[None]:
    """Let torch use one thread in the block if there is little work."""
    threads = torch.get_num_threads() if small else 1
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_small(policy: RecurrentPolicy, rows: int) -> bool:
    """Return whether a policy has little work for a number of rows on the CPU.

    Each weight is used once per row, except those of convolutions: with any convolution the answer is no.
    """
    weights = list(policy.parameters())
    if any(weight.dim() > 2 or not weight.is_cpu for weight in weights):
        return False
    return 2 * rows * sum(weight.numel() for weight in weights) < SMALL_WORK
