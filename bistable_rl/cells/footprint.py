"""The memory of recurrent layers, computed before it is allocated."""

from collections.abc import Mapping
from typing import Any

import torch

from bistable_rl.cells import CELLS, Cell, check_options, get_cell
from bistable_rl.errors import one_sentence

MORE_THAN_ANYTHING = 2**63
"""Returned where even the number of bytes overflows."""

LARGEST_MEMORY = 4096
"""Largest memory_size of an LMU that is built to be counted, because its Ā is computed in float64 even on "meta"."""


COUNTABLE = 2**24
"""Sizes up to this give numbers of parameters that 64 bits can count."""


def layers_bytes(
    cell: str | type[Cell],
    input_size: int,
    hidden_size: int,
    num_layers: int,
    cell_kwargs: Mapping[str, Any] | None = None,
) -> int:
    """Return the bytes of the float32 parameters of recurrent layers; a cell of the user's own is tried for a step.

    Args:
        cell: The cell, as `get_cell` takes it.
        input_size: I, number of input features.
        hidden_size: H, number of units of each layer.
        num_layers: Number of layers.
        cell_kwargs: The cell's own options.

    Raises:
        ValueError: If there is no such cell, it has no such option, an option is out of range, or the cell fails.
        TypeError: If a switch is neither True nor False.
    """
    options = dict(cell_kwargs or {})
    check_options(cell, options)
    memory = options.get("memory_size")
    if isinstance(memory, int) and memory > LARGEST_MEMORY:
        return 8 * memory**2
    try:
        layers = [get_cell(cell)(width, hidden_size, device="meta", **options) for width in (input_size, hidden_size)]
        if cell not in CELLS:
            layers[0].scan(torch.zeros(1, 1, input_size, device="meta"))
    except ValueError:
        raise
    except Exception as error:  # a cell of the user's own can raise anything
        if max(input_size, hidden_size) > COUNTABLE:
            return MORE_THAN_ANYTHING
        name = cell if isinstance(cell, str) else cell.__name__
        raise ValueError(f"cell {name} fails: {type(error).__name__}: {one_sentence(error)}") from error
    first, other = (sum(parameter.numel() for parameter in layer.parameters()) for layer in layers)
    return 4 * (first + (num_layers - 1) * other)
