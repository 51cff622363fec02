"""Sums of embeddings, one per category, whose gradient is a matrix product; torch's gradient is added row by row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from bistable_rl.kernels.torch_state import is_traced, transform

FEW = 32
"""The most rows of a table for which a product is faster; MiniGrid has 11 objects, 6 colours and 4 states."""


def sum_of_embeddings(categories: Tensor, tables: Iterable[nn.Module]) -> Tensor:
    """Return the sum (N, D) of one row of each table.

    Args:
        categories: (C, N) integers, the rows of the C tables.
        tables: C embeddings of D numbers.
    """
    weights: list[Any] = [table.weight for table in tables]
    followed = is_traced(categories) or transform() or torch.is_autocast_enabled(categories.device.type)
    if torch.is_grad_enabled() and not (followed or categories.is_cuda):
        rows = int(categories.max()) + 1
        if rows <= FEW:
            total: Tensor = _Sum.apply(categories.contiguous(), rows, *weights)
            return total
    return torch.stack([embedding(row, weight) for row, weight in zip(categories, weights, strict=True)]).sum(0)


class _Sum(torch.autograd.Function):
    """The sum of one row of each table; only the first `rows` of a table are used."""

    @staticmethod
    def forward(ctx: Any, categories: Tensor, rows: int, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(categories)
        ctx.rows, ctx.shapes = rows, [weight.shape for weight in weights]
        total = weights[0].index_select(0, categories[0])
        for row, weight in zip(categories[1:], weights[1:], strict=True):
            total += weight.index_select(0, row)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (categories,), (grad,) = ctx.saved_tensors, gradients
        found: list[Tensor | None] = [None, None]
        for row, shape in zip(categories, ctx.shapes, strict=True):
            one_hot = grad.new_zeros(ctx.rows, len(row)).scatter_(0, row.unsqueeze(0), 1.0)
            found.append(torch.cat([one_hot @ grad, grad.new_zeros(shape[0] - ctx.rows, shape[1])]))
        return tuple(found)
