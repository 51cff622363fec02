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

from typing import ClassVar

import torch
from torch import Tensor, nn

from bistable_rl.cells.hebbian import HebbianCell
from bistable_rl.checks import check_int


class HalfPBRCCell(HebbianCell):
    """Half-plastic PBRC; its state is h and the trace, H + H²/2 numbers for each sequence.

    Parameters: those of `HebbianCell` with a, z, n, and `weight_nh` W (H, H/2). z is the slow gate.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, even and at least 2.
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
        check_int("hidden_size", hidden_size, 1)
        if hidden_size % 2:
            raise ValueError(f"half-plastic PBRC's hidden_size must be even, got {hidden_size}")
        super().__init__(
            input_size,
            hidden_size,
            bias,
            traced=hidden_size // 2,
            static=True,
            c_bias=c_bias,
            t_max=t_max,
            learn_initial_state=learn_initial_state,
            recompute=recompute,
            device=device,
            dtype=dtype,
        )
        self.reset_parameters()

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """One step, from `project(x)` (B, 3H) and h|Hebb (B, H + H²/2) to the next state."""
        h, trace = self.parts(state)
        u_a, u_z, u_n = projected.chunk(3, -1)
        w_a, w_z = nn.functional.linear(h, self.weight_hh).chunk(2, -1)
        a = 1 + torch.tanh(u_a + w_a)
        z = torch.sigmoid(u_z + w_z)
        v = torch.cat([h[..., : self.traced], self.driven(h, trace)], -1)
        n = torch.tanh(u_n + a * v)
        return self.joined(z * h + (1 - z) * n, h, trace, n[..., : self.traced])
