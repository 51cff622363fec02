"""The plastic bistable recurrent cell.

    a_t = 1 + tanh(U_a x_t + W_a h_{t-1} + b_a)
    z_t = σ(U_z x_t + W_z h_{t-1} + b_z)
    n_t = tanh(U_n x_t + b_n + a_t ⊙ ((A ⊙ Hebb_{t-1})ᵀ h_{t-1}))
    h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t
    Hebb_t = clip((1 - η) Hebb_{t-1} + η · h_{t-1} ⊗ n_t, -1, 1)

Johns, "Plastic bistable recurrent cells", 2021, with h_t as in the author's code (the report swaps z and 1 - z). z is
the gate that the bistable cells call c.
"""

import torch
from torch import Tensor
from typing_extensions import Unpack

from bistable_rl.cells.hebbian import HebbianCell
from bistable_rl.cells.options import GatedOptions


class PBRCCell(HebbianCell):
    """PBRC; its state is h and the trace, H + H² numbers for each sequence.

    Parameters: those of `HebbianCell` with a, z, n. z is the slow gate.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[GatedOptions]) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.add_parameters(**self.shapes(bias, traced=hidden_size, static=False))

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the gates a and z, from `project(x)` (..., 3H) and h|Hebb (..., S)."""
        a, z = self.fast_and_slow(projected, state)
        return {"a": 1 + torch.tanh(a), "z": torch.sigmoid(z)}

    def driven(self, h: Tensor, trace: Tensor) -> Tensor:
        """Compute (A ⊙ Hebb)ᵀ h."""
        return self.plastic(h, trace)
