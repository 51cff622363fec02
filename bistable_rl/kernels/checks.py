"""Checks that protect memory: a kernel trusts every size when it reads and writes.

They raise errors and use no `assert`, so they also run under `python -O`.
"""

import torch
from torch import Tensor

from bistable_rl.kernels.interface import Batch, Kernel, Results, Weights
from bistable_rl.kernels.packed import check_batch_sizes


def check_inputs(kernel: Kernel, batch: Batch, weights: Weights, *, bfloat16: bool = False) -> list[int]:
    """Check every shape, dtype and device, for all backends.

    Args:
        kernel: The cell's row of `KERNELS`.
        batch: The sequences.
        weights: The cell's weights.
        bfloat16: Whether the matrices may be of bfloat16 where x is of float32.

    Returns:
        How many sequences reach each step, (T,).

    Raises:
        ValueError: If a tensor is not as `Batch` and `Weights` say.
    """
    x, state, resets, initial, batch_sizes = batch
    if x.dim() != (3 if batch_sizes is None else 2):
        raise ValueError(
            f"x must be (T, B, I), or (N, I) with batch_sizes; got {tuple(x.shape)} with"
            + ("out batch_sizes" if batch_sizes is None else " batch_sizes")
        )
    if batch_sizes is None:
        sizes = [x.shape[1]] * x.shape[0]
    else:
        check_batch_sizes(batch_sizes, x.shape[0])
        sizes = batch_sizes.tolist()
    B = x.shape[1] if batch_sizes is None else sizes[0]
    if weights.weight_hh.dim() != 2:
        raise ValueError(f"weight_hh must have 2 dimensions, got {tuple(weights.weight_hh.shape)}")
    I, H = x.shape[-1], weights.weight_hh.shape[1]
    S = kernel.state_size(H)
    if not x.is_floating_point() or x.layout != torch.strided:
        raise ValueError(f"x must be a dense tensor of floating-point numbers, got {x.dtype}, {x.layout}")
    _check("x", x, tuple(x.shape), x)
    if weights.bias_hh is not None and kernel.bistable:
        raise ValueError(f"{kernel.name} has no bias_hh")
    for name, tensor, shape in zip(weights._fields, weights, kernel.weight_shapes(weights, I, H), strict=True):
        if tensor is not None:
            rounded = bfloat16 and tensor.dtype == torch.bfloat16 and _may_be_rounded(name, kernel, x)
            _check(name, tensor, shape, x, tensor.dtype if rounded else None)
    _check("state", state, (B, S), x)
    if initial is not None:
        _check("initial", initial, (S,), x)
    if resets is not None:
        if resets.element_size() != 1:
            raise ValueError(f"resets must be of torch.bool or torch.uint8, got {resets.dtype}")
        _check("resets", resets, tuple(x.shape[:-1]), x, resets.dtype)
    return sizes


def check_results(kernel: Kernel, batch: Batch, H: int, results: Results, *, recompute: bool) -> None:
    """Check the other tensors of a backward pass, whose inputs have passed `check_inputs`.

    Raises:
        ValueError: If a tensor does not have the shape, dtype or device that `forward` gave it.
    """
    x, steps = batch.x, batch.x.shape[:-1]
    _check("outputs", results.outputs, (*steps, H), x)
    _check("saved", results.saved, kernel.saved_shape(steps.numel(), H, recompute=recompute), x)
    if results.grad_outputs is not None:
        _check("grad_outputs", results.grad_outputs, (*steps, H), x)
    if results.grad_last is not None:
        _check("grad_last", results.grad_last, tuple(batch.state.shape), x)


def _may_be_rounded(name: str, kernel: Kernel, x: Tensor) -> bool:
    """Whether this weight is a matrix, which `products.rounded` may have rounded."""
    return x.dtype == torch.float32 and (name == "weight_ih" or (name == "weight_hh" and kernel.matrices > 0))


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], x: Tensor, dtype: torch.dtype | None = None) -> None:
    dtype = dtype or x.dtype
    if tensor.shape != shape or tensor.dtype != dtype or tensor.device != x.device or tensor.layout != x.layout:
        raise ValueError(
            f"{name} must be {shape} of {dtype} on {x.device}, got {tuple(tensor.shape)} of {tensor.dtype} on "
            f"{tensor.device}" + ("" if tensor.layout == x.layout else f", {tensor.layout}")
        )
    if not tensor.data_ptr() and tensor.numel() and not tensor.is_meta:
        raise ValueError(f"{name} has no memory: its storage was resized to nothing")
