"""The recurrently neuromodulated bistable recurrent cell.

    a_t = 1 + tanh(U_a x_t + W_a h_{t-1} + b_a)
    c_t = σ(U_c x_t + W_c h_{t-1} + b_c)
    h_t = c_t ⊙ h_{t-1} + (1 - c_t) ⊙ tanh(U_h x_t + a_t ⊙ h_{t-1})

Vecoven, Ernst and Drion, "A bio-inspired bistable recurrent cell allows for long-lasting memory", PLOS ONE 2021, Eq. 5;
the biases are those of the authors' code.
"""

from typing import get_args

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from bistable_rl.cells.base import Cell
from bistable_rl.cells.brc import bias_shape
from bistable_rl.cells.initialisation import fill_halves, fill_slow_gate
from bistable_rl.cells.options import NBRCOptions, RecurrentInit, Start
from bistable_rl.checks import check_choice
from bistable_rl.kernels import Weights, reference


class NBRCCell(Cell):
    """nBRC: the other units set a unit's feedback gain and speed; the unit itself keeps the memory.

    The candidate's recurrence stays elementwise, a ⊙ h, which keeps a unit bistable where a > 1. Parameters:
    `weight_ih` (3H, I) with the rows of a, c, h; `weight_hh` (2H, H), W_a and W_c; `bias` (2H,) of a and c, (3H,) with
    `candidate_bias`. Initialisation: U and W Glorot-uniform, biases 0, as in the authors' code, unless `start`
    says otherwise. With `recompute` the backward pass keeps only the states.
    """

    kernel = "nbrc"
    slow_gate = "c"
    candidate_bias = False
    start: Start = "paper"
    recurrent_init: RecurrentInit = "glorot"
    weight_hh: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[NBRCOptions]) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        check_choice("recurrent_init", self.recurrent_init, get_args(RecurrentInit))
        self.add_parameters(
            weight_ih=(3 * hidden_size, input_size),
            weight_hh=(2 * hidden_size, hidden_size),
            bias=bias_shape(hidden_size, bias, self.candidate_bias, self.start),
        )

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        super().reset_parameters()
        H = self.hidden_size
        for gate in self.weight_ih.chunk(3):
            nn.init.xavier_uniform_(gate)
        draw = nn.init.xavier_uniform_ if self.recurrent_init == "glorot" else nn.init.orthogonal_
        for gate in self.weight_hh.chunk(2):
            draw(gate)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
            if self.start == "halves":
                fill_halves(self.bias[:H], self.bias[H : 2 * H], self.c_bias, self.t_max)
            else:
                fill_slow_gate(self.bias[H : 2 * H], self.c_bias, self.t_max)

    def kernel_weights(self) -> Weights:
        """Return the weights as the kernels take them."""
        return Weights(self.weight_ih, self.weight_hh, self.bias)

    def project(self, x: Tensor) -> Tensor:
        """Compute U x + b: x (..., I) -> (..., 3H)."""
        return reference.project(self.kernel_weights(), x)

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the feedback gain a and the update gate c, from `project(x)` (..., 3H) and h (..., H)."""
        return gates(self.kernel_weights(), projected, state)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """Compute the next h from `project(x)` (B, 3H) and h (B, H)."""
        return step(self.kernel_weights(), projected, state)


def gates(weights: Weights, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
    """Compute the gates, see `NBRCCell.gates`."""
    u_a, u_c, _ = projected.chunk(3, -1)
    w_a, w_c = nn.functional.linear(state, weights.weight_hh).chunk(2, -1)
    return {"a": 1 + torch.tanh(u_a + w_a), "c": torch.sigmoid(u_c + w_c)}


@reference.equation("nbrc")
def step(weights: Weights, projected: Tensor, state: Tensor) -> Tensor:
    """Compute the next state, see `NBRCCell.step`; the kernels' reference runs this, too."""
    a, c = gates(weights, projected, state).values()
    _, _, u_h = projected.chunk(3, -1)
    return c * state + (1 - c) * torch.tanh(u_h + a * state)
