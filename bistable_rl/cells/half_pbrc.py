"""The half-plastic bistable recurrent cell: one half of the units bistable, the other driven by plastic weights.

    a_t = 1 + tanh(U_a x_t + W_a h_{t-1} + b_a)
    z_t = σ(U_z x_t + W_z h_{t-1} + b_z)
    v_t = [h_{t-1} of units 1..H/2 ; (W + A ⊙ Hebb_{t-1})ᵀ h_{t-1}]
    n_t = tanh(U_n x_t + b_n + a_t ⊙ v_t)
    h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t
    Hebb_t = clip((1 - η) Hebb_{t-1} + η · h_{t-1} ⊗ n_t of units 1..H/2, -1, 1)

Johns, "Plastic bistable recurrent cells", 2021: the variant behind the report's figures, as its author's code has it.
z is the gate that the bistable cells call c.
"""

import torch
from torch import Tensor
from typing_extensions import Unpack

from bistable_rl.cells.hebbian import HebbianCell
from bistable_rl.cells.options import GatedOptions


class HalfPBRCCell(HebbianCell):
    """Half-plastic PBRC; its state is h and the trace, H + H²/2 numbers for each sequence.

    H is even. Parameters: those of `HebbianCell` with a, z, n, and `weight_nh` W (H, H/2). z is the slow gate.

    Raises:
        ValueError: If H is odd, or an option is out of range or contradicts another.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[GatedOptions]) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        if hidden_size % 2:
            raise ValueError(f"half-plastic PBRC's hidden_size must be even, got {hidden_size}")
        self.add_parameters(**self.shapes(bias, traced=hidden_size // 2, static=True))

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the gates a and z, from `project(x)` (..., 3H) and h|Hebb (..., S)."""
        a, z = self.fast_and_slow(projected, state)
        return {"a": 1 + torch.tanh(a), "z": torch.sigmoid(z)}

    def driven(self, h: Tensor, trace: Tensor) -> Tensor:
        """Compute v: h itself in the bistable half of the units, (W + A ⊙ Hebb)ᵀ h in the plastic half."""
        return torch.cat([h[..., : self.traced], self.plastic(h, trace)], -1)
