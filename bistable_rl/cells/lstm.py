"""The long short-term memory, as torch.nn.LSTM defines it.

    i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)
    f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 1997, with the forget gate of Gers et al. 2000,
in the form of torch's documentation of `torch.nn.LSTM`. Its c_t is its own, not the bistable cells' gate c.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell, check_slow_gate, fill_gates, fill_slow_gate
from bistable_rl.checks import check_choice


class LSTMCell(Cell):
    """LSTM in torch's gate order i, f, g, o, so torch's weights fit; its state is h|c, one tensor of width 2H.

    Parameters: `weight_ih` (4H, I), `weight_hh` (4H, H), `bias_ih` and `bias_hh` (4H,). f is the slow gate.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, at least 1.
        bias: whether there are biases.
        init: "torch", everything uniform(-1/√H, 1/√H), or "keras", input kernels Glorot-uniform, recurrent orthogonal,
            biases 0 but the forget gate's, which is 1: what the paper used.
        c_bias: start of f's bias, and minus it of i's: a number, or "chrono" for log U(1, t_max); None leaves both to
            `init`.
        t_max: the longest time to remember in steps, above 1, for "chrono".
        learn_initial_state: make the initial state h|c a parameter.
        recompute: keep only the states for the backward pass and compute the gates again there.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if an option is out of range or contradicts another.
    """

    slow_gate: ClassVar[str | None] = "f"
    kernel: ClassVar[str | None] = "lstm"

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
            2 * hidden_size,
            recompute=recompute,
            learn_initial_state=learn_initial_state,
            device=device,
            dtype=dtype,
        )
        check_choice("init", init, ("torch", "keras"))
        check_slow_gate(c_bias, t_max, bias, dtype)
        G = 4 * hidden_size
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
        if self.bias_ih is not None and self.bias_hh is not None:
            if self.init == "keras":
                nn.init.ones_(self.bias_ih[H : 2 * H])
            if self.c_bias is not None:
                fill_slow_gate(self.bias_ih[H : 2 * H], self.c_bias, self.t_max)
                with torch.no_grad():
                    self.bias_ih[:H] = -self.bias_ih[H : 2 * H]
                nn.init.zeros_(self.bias_hh[: 2 * H])
        if self.initial is not None:
            nn.init.zeros_(self.initial)

    def kernel_weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The weights as the kernel takes them."""
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def project(self, x: Tensor) -> Tensor:
        """W_i x + b_i: x (..., I) -> (..., 4H)."""
        return nn.functional.linear(x, self.weight_ih, self.bias_ih)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """One step, from `project(x)` (B, 4H) and h|c (B, 2H) to the next h|c (B, 2H)."""
        h, c = state.chunk(2, -1)
        i, f, g, o = (projected + nn.functional.linear(h, self.weight_hh, self.bias_hh)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], -1)
