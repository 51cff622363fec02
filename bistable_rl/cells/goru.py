"""The gated orthogonal recurrent unit, real, with its rotations wired as in a fast Fourier transform.

    r_t = σ(U_r x_t + W_r h_{t-1} + b_r)
    g_t = σ(U_g x_t + W_g h_{t-1} + b_g)
    h_t = g_t ⊙ h_{t-1} + (1 - g_t) ⊙ modReLU(U_c x_t + r_t ⊙ (Q h_{t-1}); b_c)
    modReLU(v; b) = sign(v) · relu(|v| + 0.001 + b)

Q is a product of L = log2(H) layers. Layer i pairs p with p + d, d = H / 2^(i+1), and turns each pair by an angle:

    h'_p = cos θ h_p - sin θ h_{p+d}        h'_{p+d} = cos θ h_{p+d} + sin θ h_p

Jing et al., "Gated orthogonal recurrent units: on learning to forget", Neural Computation 2019, with the start and the
0.001 of the authors' code.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell, Step, check_slow_gate, fill_slow_gate


class GORUCell(Cell):
    """GORU: a memory that is turned, not shrunk, from step to step, with gates to forget it.

    Parameters: `weight_ih` (3H, I) with the rows of r, g, c; `weight_hh` (2H, H), W_r and W_g; `bias` (3H,); `angles`
    (L, H/2), the pairs of a layer in ascending order of p. Start: angles uniform(-3.14, 3.14), U and W
    uniform(-0.01, 0.01), b_r = 2, b_g uniform(±√(3/H)), b_c = 0.01. g is the slow gate.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, a power of two and at least 2.
        bias: whether there are biases, modReLU's included.
        c_bias: start of g's bias: a number, or "chrono" for log U(1, t_max); None leaves it to the authors' start.
        t_max: the longest time to remember in steps, above 1, for "chrono".
        learn_initial_state: make the initial state a parameter.
        recompute: keep about √T states for the backward pass and compute the others again there.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if H is no power of two, or an option is out of range or contradicts another.
    """

    slow_gate: ClassVar[str | None] = "g"

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
            hidden_size,
            recompute=recompute,
            learn_initial_state=learn_initial_state,
            device=device,
            dtype=dtype,
        )
        H = hidden_size
        if H < 2 or H & (H - 1):
            raise ValueError(f"GORU's hidden_size must be a power of two, at least 2; got {H}")
        check_slow_gate(c_bias, t_max, bias, dtype)
        self.c_bias, self.t_max = c_bias, t_max
        self.weight_ih = nn.Parameter(torch.empty(3 * H, input_size, device=device, dtype=dtype))
        self.weight_hh = nn.Parameter(torch.empty(2 * H, H, device=device, dtype=dtype))
        self.angles = nn.Parameter(torch.empty(H.bit_length() - 1, H // 2, device=device, dtype=dtype))
        self.bias: nn.Parameter | None = None
        if bias:
            self.bias = nn.Parameter(torch.empty(3 * H, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        H = self.hidden_size
        nn.init.uniform_(self.weight_ih, -0.01, 0.01)
        nn.init.uniform_(self.weight_hh, -0.01, 0.01)
        nn.init.uniform_(self.angles, -3.14, 3.14)
        if self.bias is not None:
            b_r, b_g, b_c = self.bias.chunk(3)
            nn.init.constant_(b_r, 2.0)
            nn.init.uniform_(b_g, -math.sqrt(3 / H), math.sqrt(3 / H))
            fill_slow_gate(b_g, self.c_bias, self.t_max)
            nn.init.constant_(b_c, 0.01)
        if self.initial is not None:
            nn.init.zeros_(self.initial)

    def rotation(self) -> Tensor:
        """Q (H, H), orthogonal whatever the angles are."""
        H = self.hidden_size
        rows = torch.eye(H, device=self.angles.device, dtype=self.angles.dtype)  # of Q transposed
        for i, angles in enumerate(self.angles):
            d = H >> (i + 1)
            pairs = rows.view(H, -1, 2, d)
            cos, sin = angles.cos().view(-1, d), angles.sin().view(-1, d)
            p, q = pairs[:, :, 0], pairs[:, :, 1]
            rows = torch.stack([cos * p - sin * q, cos * q + sin * p], 2).view(H, H)
        return rows.T

    def project(self, x: Tensor) -> Tensor:
        """U x, with the biases of r and g: x (..., I) -> (..., 3H)."""
        H = self.hidden_size
        gates = None if self.bias is None else nn.functional.pad(self.bias[: 2 * H], (0, H))
        return nn.functional.linear(x, self.weight_ih, gates)

    def prepare(self) -> Step:
        """One step, with Q multiplied out once for all steps."""
        rotation = self.rotation()
        return lambda projected, state: self._step(projected, state, rotation)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """One step, from `project(x)` (B, 3H) and h (B, H) to the next h (B, H)."""
        return self._step(projected, state, self.rotation())

    def _step(self, projected: Tensor, state: Tensor, rotation: Tensor) -> Tensor:
        u_r, u_g, u_c = projected.chunk(3, -1)
        w_r, w_g = nn.functional.linear(state, self.weight_hh).chunk(2, -1)
        r = torch.sigmoid(u_r + w_r)
        g = torch.sigmoid(u_g + w_g)
        v = u_c + r * nn.functional.linear(state, rotation)
        b = 0.0 if self.bias is None else self.bias[2 * self.hidden_size :]
        return g * state + (1 - g) * torch.sign(v) * torch.relu(v.abs() + 0.001 + b)
