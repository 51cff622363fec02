"""The weights of GRU and LSTM by the names that torch.nn.GRU and torch.nn.LSTM give them.

Torch's `weight_ih_l1_reverse` is `cells.3.weight_ih` here.
"""

import re
from collections.abc import Iterable

from torch import nn

CELLS = ("gru", "lstm")
"""The cells that torch has too."""

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def place(name: str, bidirectional: bool) -> str | None:
    """Translate torch's name of a weight to the name here; None if torch has no such weight."""
    found = re.fullmatch(rf"({'|'.join(WEIGHTS)})_l(\d+)(_reverse)?", name)
    if found is None or (found[3] and not bidirectional):
        return None
    index = int(found[2]) * (2 if bidirectional else 1) + bool(found[3])
    return f"cells.{index}.{found[1]}"


def all_weights(cells: Iterable[nn.Module]) -> list[list[nn.Parameter]]:
    """Return the weights of each cell in torch's order."""
    return [[w for name in WEIGHTS if (w := getattr(cell, name)) is not None] for cell in cells]
