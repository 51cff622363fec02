"""The gated recurrent unit, as torch.nn.GRU defines it.

    r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n_t = tanh(W_in x_t + b_in + r_t ⊙ (W_hn h_{t-1} + b_hn))
    h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t

Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", EMNLP 2014,
Eq. 5-8, in the variant of torch's documentation of `torch.nn.GRU`.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell, check_slow_gate, fill_gates, fill_slow_gate
from bistable_rl.checks import check_choice


class GRUCell(Cell):
    """GRU in torch's gate order r, z, n, so torch's weights fit.

    Parameters: `weight_ih` (3H, I), `weight_hh` (3H, H), `bias_ih` and `bias_hh` (3H,). z multiplies h_{t-1}: it is the
    slow gate, as c is in the bistable cells.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, at least 1.
        bias: whether there are biases.
        init: "torch", everything uniform(-1/√H, 1/√H), or "keras", input kernels Glorot-uniform, recurrent orthogonal,
            biases 0: what the paper used.
        c_bias: start of z's bias: a number, or "chrono" for log U(1, t_max); None leaves it to `init`.
        t_max: the longest time to remember in steps, above 1, for "chrono".
        learn_initial_state: make the initial state a parameter.
        recompute: keep only the states for the backward pass and compute the gates again there.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if an option is out of range or contradicts another.
    """

    slow_gate: ClassVar[str | None] = "z"
    kernel: ClassVar[str | None] = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        init: str = "torch",
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
        check_choice("init", init, ("torch", "keras"))
        check_slow_gate(c_bias, t_max, bias, dtype)
        G = 3 * hidden_size
        self.init, self.c_bias, self.t_max = init, c_bias, t_max
        self.weight_ih = nn.Parameter(torch.empty(G, input_size, device=device, dtype=dtype))
        self.weight_hh = nn.Parameter(torch.empty(G, hidden_size, device=device, dtype=dtype))
        self.bias_ih: nn.Parameter | None = None
        self.bias_hh: nn.Parameter | None = None
        if bias:
            self.bias_ih = nn.Parameter(torch.empty(G, device=device, dtype=dtype))
            self.bias_hh = nn.Parameter(torch.empty(G, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        H = self.hidden_size
        fill_gates(self.init, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if self.c_bias is not None:
            assert self.bias_ih is not None
            assert self.bias_hh is not None
            fill_slow_gate(self.bias_ih[H : 2 * H], self.c_bias, self.t_max)
            nn.init.zeros_(self.bias_hh[H : 2 * H])
        if self.initial is not None:
            nn.init.zeros_(self.initial)

    def kernel_weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The weights as the kernel takes them."""
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def project(self, x: Tensor) -> Tensor:
        """W_i x + b_i: x (..., I) -> (..., 3H)."""
        return nn.functional.linear(x, self.weight_ih, self.bias_ih)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """One step, from `project(x)` (B, 3H) and h (B, H) to the next h (B, H)."""
        u_r, u_z, u_n = projected.chunk(3, -1)
        w_r, w_z, w_n = nn.functional.linear(state, self.weight_hh, self.bias_hh).chunk(3, -1)
        r = torch.sigmoid(u_r + w_r)
        z = torch.sigmoid(u_z + w_z)
        n = torch.tanh(u_n + r * w_n)
        return z * state + (1 - z) * n
