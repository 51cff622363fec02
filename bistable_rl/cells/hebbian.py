"""The base class of the plastic cells: gates and a Hebbian trace.

    Hebb_t = clip((1 - η) Hebb_{t-1} + η · h_{t-1} ⊗ n_t, -1, 1)

Johns, "Plastic bistable recurrent cells", 2021. The trace is (H, K): K is the number of units whose candidates it
records and drives. It starts at 0 with each sequence and is part of the state: S = H + H·K, h first. The clip comes
from the author's code, which omits the (1 - η) for two of the three cells; here all three have it, as in the report.
"""

import math

import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell
from bistable_rl.cells.initialisation import fill_slow_gate


class HebbianCell(Cell):
    """A plastic cell: parameters, initialisation, trace and step; a subclass defines `gates` and `driven`.

    Parameters: `weight_ih` (3H, I) and `bias` (3H,), the rows of the fast gate (r or a), z and n; `weight_hh` (2H, H)
    of the two gates; `plasticity` A (H, K); `eta` η, one number; `weight_nh` W (H, K), where the trace is added to
    learned weights. Initialisation: U LeCun-normal, W orthogonal, biases 0, A ~ N(0, 0.01²), η = 0.03. With
    `learn_initial_state` h is learned, and the trace still starts at 0. With `recompute` the backward pass keeps about
    √T states, each large because of its trace.
    """

    slow_gate = "z"
    traced: int  # K, the number of units that have a trace
    weight_hh: nn.Parameter
    plasticity: nn.Parameter
    eta: nn.Parameter
    weight_nh: nn.Parameter | None
    bias: nn.Parameter | None

    def shapes(self, bias: bool, *, traced: int, static: bool) -> dict[str, tuple[int, ...] | None]:
        """Return the shapes of the parameters, for `add_parameters`; `static` adds W."""
        H, self.traced = self.hidden_size, traced
        return {
            "weight_ih": (3 * H, self.input_size),
            "weight_hh": (2 * H, H),
            "plasticity": (H, traced),
            "eta": (),
            "weight_nh": (H, traced) if static else None,
            "bias": (3 * H,) if bias else None,
        }

    @property
    def state_size(self) -> int:
        """H + H·K, of h|Hebb."""
        return self.hidden_size * (1 + self.traced)

    @property
    def learned_size(self) -> int:
        """H: the trace always starts at 0."""
        return self.hidden_size

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        super().reset_parameters()
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

    def project(self, x: Tensor) -> Tensor:
        """Compute U x + b: x (..., I) -> (..., 3H)."""
        return nn.functional.linear(x, self.weight_ih, self.bias)

    def parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return h (..., H) and the trace (..., H, K) of a state (..., S)."""
        H = self.hidden_size
        return state[..., :H], state[..., H:].unflatten(-1, (H, self.traced))

    def fast_and_slow(self, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the arguments of the fast gate's and of z's nonlinearity, (..., H) each."""
        u_fast, u_z, _ = projected.chunk(3, -1)
        w_fast, w_z = nn.functional.linear(state[..., : self.hidden_size], self.weight_hh).chunk(2, -1)
        return u_fast + w_fast, u_z + w_z

    def plastic(self, h: Tensor, trace: Tensor) -> Tensor:
        """Compute (W + A ⊙ Hebb)ᵀ h of the K traced units: h (..., H), trace (..., H, K) -> (..., K)."""
        weight = self.plasticity * trace
        if self.weight_nh is not None:
            weight = weight + self.weight_nh
        return (h.unsqueeze(-2) @ weight).squeeze(-2)

    def driven(self, h: Tensor, trace: Tensor) -> Tensor:
        """Return the term of the candidate that the fast gate multiplies, (..., H)."""
        raise NotImplementedError

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """Compute the next h|Hebb from `project(x)` (B, 3H) and h|Hebb (B, H + H·K)."""
        h, trace = self.parts(state)
        fast, z = self.gates(projected, state).values()
        n = torch.tanh(projected.chunk(3, -1)[2] + fast * self.driven(h, trace))
        outer = h.unsqueeze(-1) * n[..., : self.traced].unsqueeze(-2)
        trace = ((1 - self.eta) * trace + self.eta * outer).clamp(-1, 1)
        return torch.cat([z * h + (1 - z) * n, trace.flatten(-2)], -1)
