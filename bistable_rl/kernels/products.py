"""The product with a weight matrix, which may be of bfloat16 where everything else is of float32.

The operands are then rounded to bfloat16 and their products summed in float32.
"""

import torch
from torch import Tensor

from bistable_rl.kernels.interface import Kernel, Weights

_WIDEST = 512  # bytes of a row of a recurrent matrix that a GPU keeps on its chip: 128 units in float32


def is_wide(kernel: Kernel, weight_hh: Tensor, dtype: torch.dtype) -> bool:
    """Return whether the recurrent matrices are too wide for a GPU's chip, in the dtype of everything else."""
    return kernel.matrices > 0 and weight_hh.shape[1] * dtype.itemsize > _WIDEST


def rounded(kernel: Kernel, weights: Weights) -> Weights:
    """Return the weights with their matrices in bfloat16: those of the input, and recurrent ones kept on the chip."""
    keep = not kernel.matrices or is_wide(kernel, weights.weight_hh, weights.weight_hh.dtype)
    return weights._replace(
        weight_ih=weights.weight_ih.bfloat16(),
        weight_hh=weights.weight_hh if keep else weights.weight_hh.bfloat16(),
    )


def product(rows: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows @ matrix + bias, (n, k) and (k, m) -> (n, m), in the dtype of the rows."""
    if rows.dtype == matrix.dtype:
        return rows @ matrix if bias is None else torch.addmm(bias, rows, matrix)
    rounded = rows.to(matrix.dtype)
    if rows.is_cuda:
        result = torch.mm(rounded, matrix, out_dtype=rows.dtype)
    else:  # the same numbers: a product of two of bfloat16 is exact in float32
        result = rounded.to(rows.dtype) @ matrix.to(rows.dtype)
    return result if bias is None else result.add_(bias)


def write_product(out: Tensor, rows: Tensor, matrix: Tensor) -> None:
    """Write rows @ matrix to `out` (n, m)."""
    if rows.dtype == matrix.dtype:
        torch.mm(rows, matrix, out=out)
    else:
        out.copy_(product(rows, matrix))


def add_product(total: Tensor, rows: Tensor, matrix: Tensor) -> Tensor:
    """Add rows @ matrix to the total (n, m), and return it."""
    if rows.dtype == matrix.dtype:
        return total.addmm_(rows, matrix)
    return total.add_(product(rows, matrix))
