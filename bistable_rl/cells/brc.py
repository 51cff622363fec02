"""The bistable recurrent cell.

    a_t = 1 + tanh(U_a x_t + w_a ⊙ h_{t-1} + b_a)
    c_t = σ(U_c x_t + w_c ⊙ h_{t-1} + b_c)
    h_t = c_t ⊙ h_{t-1} + (1 - c_t) ⊙ tanh(U_h x_t + a_t ⊙ h_{t-1})

Vecoven, Ernst and Drion, "A bio-inspired bistable recurrent cell allows for long-lasting memory", PLOS ONE 2021, Eq. 4;
the biases are those of the authors' code.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell, check_slow_gate, check_switch, fill_slow_gate
from bistable_rl.kernels import Weights, reference


class BRCCell(Cell):
    """BRC: each unit remembers by itself; no unit's memory depends on another's.

    With a_t > 1 a unit has two stable states (Theorem A.1 of the paper), with a_t < 1 one; c_t sets the speed.
    Parameters: `weight_ih` (3H, I) with the rows of a, c, h; `weight_hh` (2, H), w_a and w_c; `bias` (2H,) of a and c,
    (3H,) with `candidate_bias`. Start: U Glorot-uniform, w = 1, biases 0, as in the authors' code. Nothing but the
    states is kept for the backward pass, so there is no `recompute` to ask for.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, at least 1.
        bias: whether a and c have biases.
        candidate_bias: whether the candidate, tanh(...), has one too.
        c_bias: start of c's bias: a number, or "chrono" for log U(1, t_max); None is 0.
        t_max: the longest time to remember in steps, above 1, for "chrono".
        learn_initial_state: make the initial state a parameter.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if an option is out of range or contradicts another.
    """

    slow_gate: ClassVar[str | None] = "c"
    kernel: ClassVar[str | None] = "brc"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        candidate_bias: bool = False,
        c_bias: float | str | None = None,
        t_max: float | None = None,
        learn_initial_state: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, hidden_size, learn_initial_state=learn_initial_state, device=device, dtype=dtype
        )
        check_slow_gate(c_bias, t_max, bias, dtype)
        check_switch("candidate_bias", candidate_bias)
        if candidate_bias and not bias:
            raise ValueError("candidate_bias=True needs bias=True")
        H = hidden_size
        self.c_bias, self.t_max = c_bias, t_max
        self.weight_ih = nn.Parameter(torch.empty(3 * H, input_size, device=device, dtype=dtype))
        self.weight_hh = nn.Parameter(torch.empty(2, H, device=device, dtype=dtype))
        self.bias: nn.Parameter | None = None
        if bias:
            self.bias = nn.Parameter(torch.empty((3 if candidate_bias else 2) * H, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        H = self.hidden_size
        for gate in self.weight_ih.chunk(3):
            nn.init.xavier_uniform_(gate)
        nn.init.ones_(self.weight_hh)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
            fill_slow_gate(self.bias[H : 2 * H], self.c_bias, self.t_max)
        if self.initial is not None:
            nn.init.zeros_(self.initial)

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
    """Compute the gates, see `BRCCell.gates`."""
    u_a, u_c, _ = projected.chunk(3, -1)
    w_a, w_c = weights.weight_hh
    return {"a": 1 + torch.tanh(u_a + w_a * state), "c": torch.sigmoid(u_c + w_c * state)}


@reference.equation("brc")
def step(weights: Weights, projected: Tensor, state: Tensor) -> Tensor:
    """Compute the next state, see `BRCCell.step`; the kernels' reference runs this, too."""
    a, c = gates(weights, projected, state).values()
    _, _, u_h = projected.chunk(3, -1)
    return c * state + (1 - c) * torch.tanh(u_h + a * state)
