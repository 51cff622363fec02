"""The cells that have kernels, one row per cell."""

from bistable_rl.kernels import torch_cells
from bistable_rl.kernels.interface import Kernel

# `saved` holds, in this order: nbrc a, c, candidate; gru W_n h + b, r, z, n; lstm i, f, g, o, c (with `recompute` only
# c). BRC's backward pass computes everything again from the outputs.
KERNELS: dict[str, Kernel] = {
    "brc": Kernel(
        "brc", index=0, gates=3, matrices=0, bistable=True, saved=0, recompute_saved=0,
        step=torch_cells.brc_step, factors=torch_cells.brc_factors, step_back=torch_cells.brc_step_back,
    ),
    "nbrc": Kernel(
        "nbrc", index=1, gates=3, matrices=2, bistable=True, saved=3, recompute_saved=0,
        step=torch_cells.nbrc_step, factors=torch_cells.nbrc_factors, step_back=torch_cells.nbrc_step_back,
    ),
    "gru": Kernel(
        "gru", index=2, gates=3, matrices=3, bistable=False, saved=4, recompute_saved=0, extra=0, reset_candidate=True,
        step=torch_cells.gru_step, factors=torch_cells.gru_factors, step_back=torch_cells.gru_step_back,
    ),
    "lstm": Kernel(
        "lstm", index=3, gates=4, matrices=4, bistable=False, saved=5, recompute_saved=1, extra=-1, states=2,
        step=torch_cells.lstm_step, factors=torch_cells.lstm_factors, step_back=torch_cells.lstm_step_back,
    ),
}  # fmt: skip
"""The cells that have kernels, by name."""


def get_kernel(name: str) -> Kernel:
    """Return the row of a cell.

    Raises:
        ValueError: If the cell has no kernels.
    """
    if name not in KERNELS:
        raise ValueError(f"unknown kernel {name!r}; choices: {', '.join(KERNELS)}")
    return KERNELS[name]
