"""The plastic GRU: a GRU whose candidate's recurrent weights learn by Hebb's rule during a sequence.

    r_t = σ(U_r x_t + W_r h_{t-1} + b_r)
    z_t = σ(U_z x_t + W_z h_{t-1} + b_z)
    n_t = tanh(U_n x_t + b_n + r_t ⊙ ((W + A ⊙ Hebb_{t-1})ᵀ h_{t-1} + b_hn))
    h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t
    Hebb_t = clip((1 - η) Hebb_{t-1} + η · h_{t-1} ⊗ n_t, -1, 1)

Johns, "Plastic bistable recurrent cells", 2021, after Miconi, Stanley and Clune, "Differentiable plasticity",
ICML 2018.
"""

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from bistable_rl.cells.hebbian import HebbianCell
from bistable_rl.cells.options import GatedOptions


class PlasticGRUCell(HebbianCell):
    """Plastic GRU; its state is h and the trace, H + H² numbers for each sequence.

    Parameters: those of `HebbianCell` with r, z, n, and `bias_nh` b_hn (H,), 0 at first. z is the slow gate.
    """

    bias_nh: nn.Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[GatedOptions]) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.add_parameters(
            **self.shapes(bias, traced=hidden_size, static=True),
            bias_nh=(hidden_size,) if bias else None,
        )

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        super().reset_parameters()
        if self.bias_nh is not None:
            nn.init.zeros_(self.bias_nh)

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the gates r and z, from `project(x)` (..., 3H) and h|Hebb (..., S)."""
        r, z = self.fast_and_slow(projected, state)
        return {"r": torch.sigmoid(r), "z": torch.sigmoid(z)}

    def driven(self, h: Tensor, trace: Tensor) -> Tensor:
        """Compute (W + A ⊙ Hebb)ᵀ h + b_hn."""
        driven = self.plastic(h, trace)
        return driven if self.bias_nh is None else driven + self.bias_nh
