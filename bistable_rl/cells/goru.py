"""The gated orthogonal recurrent unit, real, with its rotations wired as in a fast Fourier transform.

    r_t = σ(U_r x_t + W_r h_{t-1} + b_r)
    g_t = σ(U_g x_t + W_g h_{t-1} + b_g)
    h_t = g_t ⊙ h_{t-1} + (1 - g_t) ⊙ modReLU(U_c x_t + r_t ⊙ (Q h_{t-1}); b_c)
    modReLU(v; b) = sign(v) · relu(|v| + 0.001 + b)

Q is a product of L = log2(H) layers. Layer i pairs p with p + d, d = H / 2^(i+1), and rotates each pair by an angle:

    h'_p = cos θ h_p - sin θ h_{p+d}        h'_{p+d} = cos θ h_{p+d} + sin θ h_p

Jing et al., "Gated orthogonal recurrent units: on learning to forget", Neural Computation 2019, with the
initialisation and the 0.001 of the authors' code.
"""

import math

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from bistable_rl.cells.base import Cell, Step
from bistable_rl.cells.initialisation import fill_slow_gate
from bistable_rl.cells.options import GatedOptions


class GORUCell(Cell):
    """GORU: a memory that is rotated, not shrunk, from step to step, with gates to forget it.

    H is a power of two, at least 2. Parameters: `weight_ih` (3H, I) with the rows of r, g, c; `weight_hh` (2H, H), W_r
    and W_g; `angles` (L, H/2), the pairs of a layer in ascending order of p; `bias` (3H,). Initialisation: angles
    uniform(-3.14, 3.14), U and W uniform(-0.01, 0.01), b_r = 2, b_g uniform(±√(3/H)), b_c = 0.01. g is the slow gate.
    With `recompute` the backward pass keeps about √T states.

    Raises:
        ValueError: If H is not a power of two, or an option is out of range or contradicts another.
    """

    slow_gate = "g"
    weight_hh: nn.Parameter
    angles: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[GatedOptions]) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        H = hidden_size
        if H < 2 or H & (H - 1):
            raise ValueError(f"GORU's hidden_size must be a power of two, at least 2; got {H}")
        self.add_parameters(
            weight_ih=(3 * H, input_size),
            weight_hh=(2 * H, H),
            angles=(H.bit_length() - 1, H // 2),
            bias=(3 * H,) if bias else None,
        )

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        super().reset_parameters()
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

    def rotation(self) -> Tensor:
        """Return Q (H, H), orthogonal for all angles."""
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
        """Compute U x, plus the biases of r and g: x (..., I) -> (..., 3H)."""
        H = self.hidden_size
        gates = None if self.bias is None else nn.functional.pad(self.bias[: 2 * H], (0, H))
        return nn.functional.linear(x, self.weight_ih, gates)

    def prepare(self) -> Step:
        """Return `step` with Q computed once for all steps."""
        rotation = self.rotation()
        return lambda projected, state: self._step(projected, state, rotation)

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the gates r and g, from `project(x)` (..., 3H) and h (..., H)."""
        u_r, u_g, _ = projected.chunk(3, -1)
        w_r, w_g = nn.functional.linear(state, self.weight_hh).chunk(2, -1)
        return {"r": torch.sigmoid(u_r + w_r), "g": torch.sigmoid(u_g + w_g)}

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """Compute the next h from `project(x)` (B, 3H) and h (B, H)."""
        return self._step(projected, state, self.rotation())

    def _step(self, projected: Tensor, state: Tensor, rotation: Tensor) -> Tensor:
        r, g = self.gates(projected, state).values()
        v = projected.chunk(3, -1)[2] + r * nn.functional.linear(state, rotation)
        b = 0.0 if self.bias is None else self.bias[2 * self.hidden_size :]
        return g * state + (1 - g) * torch.sign(v) * torch.relu(v.abs() + 0.001 + b)
