"""Checks of packed sequences: with a wrong size a kernel would read uninitialised memory."""

import torch
from torch import Tensor


def require(condition: Tensor, problem: str) -> None:
    """Raise a ValueError with this problem unless the condition, one bool, is true; a RuntimeError in compiled code."""
    if torch.compiler.is_compiling():  # the graph cannot branch on data, but it can stop
        torch._assert_async(condition, problem)
    elif not condition:
        raise ValueError(problem)


def check_batch_sizes(batch_sizes: Tensor, rows: int) -> None:
    """Check the sizes of packed sequences.

    Args:
        batch_sizes: How many sequences reach each step, as in a `PackedSequence`.
        rows: N, the number of rows of all sequences.

    Raises:
        ValueError: If it is not (T,) int64 on the CPU, T >= 1, positive, never growing and N in sum.
    """
    if batch_sizes.dim() != 1 or batch_sizes.dtype != torch.int64 or not batch_sizes.is_cpu:
        raise ValueError(
            f"batch_sizes must be (T,) int64 on the CPU, got {tuple(batch_sizes.shape)} {batch_sizes.dtype} "
            f"on {batch_sizes.device}"
        )
    if not len(batch_sizes):
        raise ValueError("batch_sizes must have at least one step")
    if torch.compiler.is_compiling():
        sound = (batch_sizes[1:] <= batch_sizes[:-1]).all() & (batch_sizes[-1] > 0) & (batch_sizes.sum() == rows)
        require(sound, "batch_sizes must be positive, never grow and sum to the rows of the packed input")
        return
    sizes = batch_sizes.tolist()
    if sizes[-1] < 1 or sizes != sorted(sizes, reverse=True) or sum(sizes) != rows:
        shown = str(sizes) if len(sizes) <= 8 else f"[{', '.join(map(str, sizes[:8]))}, ...] of {len(sizes)} steps"
        raise ValueError(
            f"batch_sizes must be positive, never grow and sum to the {rows} rows of the packed input, got {shown}"
        )


def check_order(sorted_indices: Tensor | None, unsorted_indices: Tensor | None, batch_size: int) -> None:
    """Check the order in which the sequences were sorted.

    Args:
        sorted_indices: (B,), the sequence at each place; None if they were not sorted.
        unsorted_indices: (B,), the inverse; None if they were not sorted.
        batch_size: B.

    Raises:
        ValueError: If they are not permutations of 0 .. B-1, and inverse to each other.
    """
    for name, indices in (("sorted_indices", sorted_indices), ("unsorted_indices", unsorted_indices)):
        if indices is None or indices.is_meta:
            continue
        problem = f"{name} of the packed input must be a permutation of its sequences"
        if indices.shape != (batch_size,) or indices.dtype != torch.int64:
            raise ValueError(f"{problem}, (B,) int64; got {tuple(indices.shape)} {indices.dtype}")
        require((indices.sort().values == torch.arange(batch_size, device=indices.device)).all(), problem)
    if sorted_indices is not None and unsorted_indices is not None and not sorted_indices.is_meta:
        require(
            (sorted_indices.argsort() == unsorted_indices).all(),
            "unsorted_indices of the packed input must be the inverse of sorted_indices",
        )
