"""The memory of recurrent layers, computed before it is allocated."""

from collections.abc import Mapping
from typing import Any

from bistable_rl.cells import check_options, get_cell

MORE_THAN_ANYTHING = 2**63
"""Returned where even the number of bytes overflows."""

LARGEST_MEMORY = 4096
"""Largest memory_size of an LMU that is built to be counted, because its Ā is computed in float64 even on "meta"."""


def layers_bytes(
    cell: str, input_size: int, hidden_size: int, num_layers: int, cell_kwargs: Mapping[str, Any] | None = None
) -> int:
    """Return the bytes of the float32 parameters of recurrent layers.

    Args:
        cell: A key of `CELLS`.
        input_size: I, number of input features.
        hidden_size: H, number of units of each layer.
        num_layers: Number of layers.
        cell_kwargs: The cell's own options.

    Raises:
        ValueError: If there is no such cell, it has no such option, or an option is out of range.
        TypeError: If a switch is neither True nor False.
    """
    options = dict(cell_kwargs or {})
    check_options(cell, options)
    memory = options.get("memory_size")
    if isinstance(memory, int) and memory > LARGEST_MEMORY:
        return 8 * memory**2
    try:
        layers = [get_cell(cell)(width, hidden_size, device="meta", **options) for width in (input_size, hidden_size)]
    except (RuntimeError, OverflowError, TypeError):  # more numbers than 64 bits can count
        return MORE_THAN_ANYTHING
    first, other = (sum(parameter.numel() for parameter in layer.parameters()) for layer in layers)
    return 4 * (first + (num_layers - 1) * other)
