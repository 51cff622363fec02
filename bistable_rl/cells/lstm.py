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

import torch
from torch import Tensor, nn

from bistable_rl.cells.gated import GatedCell
from bistable_rl.cells.initialisation import fill_slow_gate
from bistable_rl.kernels import Weights, reference


class LSTMCell(GatedCell):
    """LSTM in torch's gate order i, f, g, o, so that torch's weights fit; its state is h|c, one tensor of width 2H.

    Parameters: `weight_ih` (4H, I), `weight_hh` (4H, H), `bias_ih` and `bias_hh` (4H,). f is the slow gate; `c_bias`
    sets the bias of i to minus that of f. With `recompute` the backward pass keeps only the states.
    """

    kernel = "lstm"
    slow_gate = "f"
    num_gates = 4

    @property
    def state_size(self) -> int:
        """2H, of h|c."""
        return 2 * self.hidden_size

    @property
    def memory(self) -> slice:
        """The entries of c."""
        return slice(self.hidden_size, 2 * self.hidden_size)

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        super().reset_parameters()
        H = self.hidden_size
        if self.bias_ih is not None and self.bias_hh is not None:
            if self.init == "keras":
                nn.init.ones_(self.bias_ih[H : 2 * H])
            if self.c_bias is not None:
                fill_slow_gate(self.bias_ih[H : 2 * H], self.c_bias, self.t_max)
                with torch.no_grad():
                    self.bias_ih[:H] = -self.bias_ih[H : 2 * H]
                nn.init.zeros_(self.bias_hh[: 2 * H])

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the gates i, f, g and o, from `project(x)` (..., 4H) and h|c (..., 2H)."""
        return gates(self.kernel_weights(), projected, state)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """Compute the next h|c from `project(x)` (B, 4H) and h|c (B, 2H)."""
        return step(self.kernel_weights(), projected, state)


def gates(weights: Weights, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
    """Compute the gates, see `LSTMCell.gates`."""
    h, _ = state.chunk(2, -1)
    i, f, g, o = (projected + nn.functional.linear(h, weights.weight_hh, weights.bias_hh)).chunk(4, -1)
    return {"i": torch.sigmoid(i), "f": torch.sigmoid(f), "g": torch.tanh(g), "o": torch.sigmoid(o)}


@reference.equation("lstm")
def step(weights: Weights, projected: Tensor, state: Tensor) -> Tensor:
    """Compute the next state, see `LSTMCell.step`; the kernels' reference runs this, too."""
    i, f, g, o = gates(weights, projected, state).values()
    _, c = state.chunk(2, -1)
    c = f * c + i * g
    return torch.cat([o * torch.tanh(c), c], -1)
