"""The plastic GRU: a GRU whose candidate's recurrent weights learn by Hebb's rule during a sequence.

    r_t = σ(U_r x_t + W_r h_{t-1} + b_r)
    z_t = σ(U_z x_t + W_z h_{t-1} + b_z)
    n_t = tanh(U_n x_t + b_n + r_t ⊙ ((W + A ⊙ Hebb_{t-1})ᵀ h_{t-1} + b_hn))
    h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t
    Hebb_t = clip((1 - η) Hebb_{t-1} + η · h_{t-1} ⊗ n_t, -1, 1)

Johns, "Plastic bistable recurrent cells", 2021, after Miconi, Stanley and Clune, "Differentiable plasticity",
ICML 2018.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bistable_rl.cells.hebbian import HebbianCell


class PlasticGRUCell(HebbianCell):
    """Plastic GRU; its state is h and the trace, H + H² numbers for each sequence.

    Parameters: those of `HebbianCell` with r, z, n, and `bias_nh` b_hn (H,), 0 at first. z is the slow gate.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, at least 1.
        bias: whether there are biases.
        c_bias: start of z's bias: a number, or "chrono" for log U(1, t_max); None is 0.
        t_max: the longest time to remember in steps, above 1, for "chrono".
        learn_initial_state: make the initial h a parameter; the trace always starts at 0.
        recompute: keep about √T states for the backward pass and compute the others again there; the traces make each
            step's share of the memory large.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if an option is out of range or contradicts another.
    """

    slow_gate: ClassVar[str | None] = "z"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        c_bias: float | str | None = None,
        t_max: float | None = None,
        learn_initial_state: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            bias,
            traced=hidden_size,
            static=True,
            c_bias=c_bias,
            t_max=t_max,
            learn_initial_state=learn_initial_state,
            recompute=recompute,
            device=device,
            dtype=dtype,
        )
        self.bias_nh: nn.Parameter | None = None
        if bias:
            self.bias_nh = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        super().reset_parameters()
        if self.bias_nh is not None:
            nn.init.zeros_(self.bias_nh)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """One step, from `project(x)` (B, 3H) and h|Hebb (B, H + H²) to the next state."""
        h, trace = self.parts(state)
        u_r, u_z, u_n = projected.chunk(3, -1)
        w_r, w_z = nn.functional.linear(h, self.weight_hh).chunk(2, -1)
        r = torch.sigmoid(u_r + w_r)
        z = torch.sigmoid(u_z + w_z)
        driven = self.driven(h, trace)
        n = torch.tanh(u_n + r * (driven if self.bias_nh is None else driven + self.bias_nh))
        return self.joined(z * h + (1 - z) * n, h, trace, n)
