"""The recurrently neuromodulated bistable recurrent cell.

    a_t = 1 + tanh(U_a x_t + W_a h_{t-1} + b_a)
    c_t = σ(U_c x_t + W_c h_{t-1} + b_c)
    h_t = c_t ⊙ h_{t-1} + (1 - c_t) ⊙ tanh(U_h x_t + a_t ⊙ h_{t-1})

Vecoven, Ernst and Drion, "A bio-inspired bistable recurrent cell allows for long-lasting memory", PLOS ONE 2021, Eq. 5;
the biases are those of the authors' code.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell, check_slow_gate, fill_slow_gate
from bistable_rl.cells.brc import full_bias
from bistable_rl.checks import check_bool, check_choice


class NBRCCell(Cell):
    """nBRC: the other units set a unit's feedback gain and speed, the unit itself keeps the memory.

    The candidate's recurrence stays elementwise, a ⊙ h: that is what keeps a unit bistable where a > 1. Parameters:
    `weight_ih` (3H, I) with the rows of a, c, h; `weight_hh` (2H, H), W_a and W_c; `bias` (2H,) of a and c, (3H,) with
    `candidate_bias`. Start: U and W Glorot-uniform, biases 0, as in the authors' code.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, at least 1.
        bias: whether a and c have biases.
        candidate_bias: whether the candidate, tanh(...), has one too.
        recurrent_init: start of W_a and W_c: "glorot" or "orthogonal".
        c_bias: start of c's bias: a number, or "chrono" for log U(1, t_max); None is 0.
        t_max: the longest time to remember in steps, above 1, for "chrono".
        learn_initial_state: make the initial state a parameter.
        recompute: keep only the states for the backward pass and compute the gates again there.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if an option is out of range or contradicts another.
    """

    slow_gate: ClassVar[str | None] = "c"
    kernel: ClassVar[str | None] = "nbrc"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        candidate_bias: bool = False,
        recurrent_init: str = "glorot",
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
            hidden_size,
            recompute=recompute,
            learn_initial_state=learn_initial_state,
            device=device,
            dtype=dtype,
        )
        check_choice("recurrent_init", recurrent_init, ("glorot", "orthogonal"))
        check_slow_gate(c_bias, t_max, bias, dtype)
        check_bool("candidate_bias", candidate_bias)
        if candidate_bias and not bias:
            raise ValueError("candidate_bias=True needs bias=True")
        H = hidden_size
        self.recurrent_init, self.c_bias, self.t_max = recurrent_init, c_bias, t_max
        self.weight_ih = nn.Parameter(torch.empty(3 * H, input_size, device=device, dtype=dtype))
        self.weight_hh = nn.Parameter(torch.empty(2 * H, H, device=device, dtype=dtype))
        self.bias: nn.Parameter | None = None
        if bias:
            self.bias = nn.Parameter(torch.empty((3 if candidate_bias else 2) * H, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        H = self.hidden_size
        for gate in self.weight_ih.chunk(3):
            nn.init.xavier_uniform_(gate)
        draw = nn.init.xavier_uniform_ if self.recurrent_init == "glorot" else nn.init.orthogonal_
        for gate in self.weight_hh.chunk(2):
            draw(gate)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
            fill_slow_gate(self.bias[H : 2 * H], self.c_bias, self.t_max)
        if self.initial is not None:
            nn.init.zeros_(self.initial)

    def kernel_weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The weights as the kernel takes them."""
        return self.weight_ih, self.weight_hh, self.bias, None

    def project(self, x: Tensor) -> Tensor:
        """U x + b: x (..., I) -> (..., 3H)."""
        return nn.functional.linear(x, self.weight_ih, full_bias(self.bias, self.hidden_size))

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """One step, from `project(x)` (B, 3H) and h (B, H) to the next h (B, H)."""
        u_a, u_c, u_h = projected.chunk(3, -1)
        w_a, w_c = nn.functional.linear(state, self.weight_hh).chunk(2, -1)
        a = 1 + torch.tanh(u_a + w_a)
        c = torch.sigmoid(u_c + w_c)
        return c * state + (1 - c) * torch.tanh(u_h + a * state)
