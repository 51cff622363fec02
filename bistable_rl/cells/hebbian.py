"""What the plastic cells share: gates with a Hebbian trace beside them.

    Hebb_t = clip((1 - η) Hebb_{t-1} + η · h_{t-1} ⊗ n_t, -1, 1)

Johns, "Plastic bistable recurrent cells", 2021. The trace is (H, K): K is how many units' candidates it records and
drives. It starts at 0 with each sequence and is part of the state: S = H + H·K, h first. The clip is of the author's
code, which leaves the (1 - η) out for two of the three cells; the report writes it for all, and so it is here.
"""

import math

import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell, check_slow_gate, fill_slow_gate
from bistable_rl.checks import check_int


class HebbianCell(Cell):
    """Parameters, start and trace of a plastic cell; a subclass calls `reset_parameters` and gives the step.

    Parameters: `weight_ih` (3H, I) and `bias` (3H,), the rows of the fast gate (r or a), z and n; `weight_hh` (2H, H)
    of the two gates; `plasticity` A (H, K); `eta` η, one number; with `static` `weight_nh` W (H, K). Start: U
    LeCun-normal, W orthogonal, biases 0, A ~ N(0, 0.01²), η = 0.03.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, at least 1.
        bias: whether there are biases.
        traced: K, how many units have a trace.
        static: whether the trace lies over learned weights W.
        c_bias: start of z's bias, as in `check_slow_gate`.
        t_max: the longest time to remember, as in `check_slow_gate`.
        learn_initial_state: make the initial h a parameter.
        recompute: keep fewer states for the backward pass.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if an option is out of range or contradicts another.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        *,
        traced: int,
        static: bool,
        c_bias: float | str | None,
        t_max: float | None,
        learn_initial_state: bool,
        recompute: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        check_int("hidden_size", hidden_size, 1)
        super().__init__(
            input_size,
            hidden_size,
            hidden_size + hidden_size * traced,
            recompute=recompute,
            learn_initial_state=learn_initial_state,
            device=device,
            dtype=dtype,
        )
        check_slow_gate(c_bias, t_max, bias, dtype)
        H = hidden_size
        self.traced, self.c_bias, self.t_max = traced, c_bias, t_max
        self.weight_ih = nn.Parameter(torch.empty(3 * H, input_size, device=device, dtype=dtype))
        self.weight_hh = nn.Parameter(torch.empty(2 * H, H, device=device, dtype=dtype))
        self.plasticity = nn.Parameter(torch.empty(H, traced, device=device, dtype=dtype))
        self.eta = nn.Parameter(torch.empty((), device=device, dtype=dtype))
        self.weight_nh: nn.Parameter | None = None
        if static:
            self.weight_nh = nn.Parameter(torch.empty(H, traced, device=device, dtype=dtype))
        self.bias: nn.Parameter | None = None
        if bias:
            self.bias = nn.Parameter(torch.empty(3 * H, device=device, dtype=dtype))

    @property
    def learned_size(self) -> int:
        """H: the trace always starts at 0."""
        return self.hidden_size

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        H = self.hidden_size
        nn.init.normal_(self.weight_ih, std=1 / math.sqrt(self.input_size))
        for gate in self.weight_hh.chunk(2):
            nn.init.orthogonal_(gate)
        nn.init.normal_(self.plasticity, std=0.01)
        nn.init.constant_(self.eta, 0.03)
        if self.weight_nh is not None:
            nn.init.orthogonal_(self.weight_nh)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
            fill_slow_gate(self.bias[H : 2 * H], self.c_bias, self.t_max)
        if self.initial is not None:
            nn.init.zeros_(self.initial)

    def project(self, x: Tensor) -> Tensor:
        """U x + b: x (..., I) -> (..., 3H)."""
        return nn.functional.linear(x, self.weight_ih, self.bias)

    def parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The h (..., H) and the trace (..., H, K) of a state (..., S)."""
        H = self.hidden_size
        return state[..., :H], state[..., H:].unflatten(-1, (H, self.traced))

    def driven(self, h: Tensor, trace: Tensor) -> Tensor:
        """(W + A ⊙ Hebb)ᵀ h, of the K traced units: h (..., H), trace (..., H, K) -> (..., K)."""
        weight = self.plasticity * trace
        if self.weight_nh is not None:
            weight = weight + self.weight_nh
        return (h.unsqueeze(-2) @ weight).squeeze(-2)

    def joined(self, new: Tensor, h: Tensor, trace: Tensor, n: Tensor) -> Tensor:
        """The next state (..., S) from the next h, this h (..., H), its trace and the traced units' n (..., K)."""
        outer = h.unsqueeze(-1) * n.unsqueeze(-2)
        trace = ((1 - self.eta) * trace + self.eta * outer).clamp(-1, 1)
        return torch.cat([new, trace.flatten(-2)], -1)
