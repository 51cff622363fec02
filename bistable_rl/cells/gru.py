"""The gated recurrent unit, as torch.nn.GRU defines it.

    r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n_t = tanh(W_in x_t + b_in + r_t ⊙ (W_hn h_{t-1} + b_hn))
    h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t

Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", EMNLP 2014,
Eq. 5-8, in the variant of torch's documentation of `torch.nn.GRU`.
"""

import torch
from torch import Tensor, nn

from bistable_rl.cells.gated import GatedCell
from bistable_rl.cells.initialisation import fill_slow_gate
from bistable_rl.kernels import Weights, reference


class GRUCell(GatedCell):
    """GRU in torch's gate order r, z, n, so that torch's weights fit.

    Parameters: `weight_ih` (3H, I), `weight_hh` (3H, H), `bias_ih` and `bias_hh` (3H,). z multiplies h_{t-1}: it is the
    slow gate, as c is in the bistable cells. With `recompute` the backward pass keeps only the states.
    """

    kernel = "gru"
    slow_gate = "z"
    num_gates = 3

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        super().reset_parameters()
        H = self.hidden_size
        if self.c_bias is not None:
            assert self.bias_ih is not None
            assert self.bias_hh is not None
            fill_slow_gate(self.bias_ih[H : 2 * H], self.c_bias, self.t_max)
            nn.init.zeros_(self.bias_hh[H : 2 * H])

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the reset, update and new gates r, z and n, from `project(x)` (..., 3H) and h (..., H)."""
        return gates(self.kernel_weights(), projected, state)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """Compute the next h from `project(x)` (B, 3H) and h (B, H)."""
        return step(self.kernel_weights(), projected, state)


def gates(weights: Weights, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
    """Compute the gates, see `GRUCell.gates`."""
    u_r, u_z, u_n = projected.chunk(3, -1)
    w_r, w_z, w_n = nn.functional.linear(state, weights.weight_hh, weights.bias_hh).chunk(3, -1)
    r = torch.sigmoid(u_r + w_r)
    return {"r": r, "z": torch.sigmoid(u_z + w_z), "n": torch.tanh(u_n + r * w_n)}


@reference.equation("gru")
def step(weights: Weights, projected: Tensor, state: Tensor) -> Tensor:
    """Compute the next state, see `GRUCell.step`; the kernels' reference runs this, too."""
    _, z, n = gates(weights, projected, state).values()
    return z * state + (1 - z) * n
