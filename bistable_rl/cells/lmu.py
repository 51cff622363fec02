"""The Legendre memory unit.

    u_t = e_x·x_t + e_h·h_{t-1} + e_m·m_{t-1}
    m_t = Ā m_{t-1} + B̄ u_t
    h_t = tanh(W_x x_t + W_h h_{t-1} + W_m m_t)

with Ā, B̄ the zero-order hold, at steps of 1, of

    A_ij = (2i+1)/θ · (-1 if i < j else (-1)^(i-j+1))        B_i = (2i+1)/θ · (-1)^i

Voelker, Kajić and Eliasmith, "Legendre memory units: continuous-time representation in recurrent neural networks",
NeurIPS 2019, Eq. 1, 2, 6 and 7.
"""

import math
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bistable_rl.cells.base import Cell, check_size, check_switch


class LMUCell(Cell):
    """LMU: the last θ steps of one signal, kept as d Legendre coefficients; its state is h|m.

    It has no gate and no bias, so there is no `c_bias`, and `bias` changes nothing. Parameters: the encoders
    `encoder_x` (I,), `encoder_h` (H,) and `encoder_m` (d,); `weight_ih` (H, I), `weight_hh` (H, H), `weight_mh` (H, d).
    Ā and B̄ are fixed. Start: e_x and e_h LeCun-uniform, e_m = 0, the weights Glorot-normal.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of units, at least 1.
        bias: only there for the signature that all cells share.
        memory_size: d, the number of coefficients, at least 1.
        theta: θ, the length of the window in steps, above 0.
        learn_initial_state: make the initial state h|m a parameter.
        recompute: keep about √T states for the backward pass and compute the others again there.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if an option is out of range.
        TypeError: if a switch is neither True nor False.
    """

    transition: Tensor
    drive: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        memory_size: int = 256,
        theta: float = 1000.0,
        learn_initial_state: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("hidden_size", hidden_size)
        check_size("memory_size", memory_size)
        check_switch("bias", bias)
        if isinstance(theta, np.number):
            theta = theta.item()
        if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta <= sys.float_info.max:
            raise ValueError(f"theta must be a number of steps above 0, got {theta!r}")
        super().__init__(
            input_size,
            hidden_size,
            hidden_size + memory_size,
            recompute=recompute,
            learn_initial_state=learn_initial_state,
            device=device,
            dtype=dtype,
        )
        H, d = hidden_size, memory_size
        self.memory_size, self.theta = d, float(theta)
        # Not in the state_dict: they follow from d and θ.
        self.register_buffer("transition", torch.empty(d, d, device=device, dtype=dtype), persistent=False)
        self.register_buffer("drive", torch.empty(d, device=device, dtype=dtype), persistent=False)
        self.encoder_x = nn.Parameter(torch.empty(input_size, device=device, dtype=dtype))
        self.encoder_h = nn.Parameter(torch.empty(H, device=device, dtype=dtype))
        self.encoder_m = nn.Parameter(torch.empty(d, device=device, dtype=dtype))
        self.weight_ih = nn.Parameter(torch.empty(H, input_size, device=device, dtype=dtype))
        self.weight_hh = nn.Parameter(torch.empty(H, H, device=device, dtype=dtype))
        self.weight_mh = nn.Parameter(torch.empty(H, d, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        for encoder in (self.encoder_x, self.encoder_h):
            bound = math.sqrt(3 / len(encoder))
            nn.init.uniform_(encoder, -bound, bound)
        nn.init.zeros_(self.encoder_m)
        for weight in (self.weight_ih, self.weight_hh, self.weight_mh):
            nn.init.xavier_normal_(weight)
        if self.initial is not None:
            nn.init.zeros_(self.initial)
        self._fill_buffers()

    def _fill_buffers(self) -> None:
        """Compute Ā and B̄ from d and θ, on the weights' device and in their dtype."""
        for name, value in zip(("transition", "drive"), legendre_delay(self.memory_size, self.theta), strict=True):
            setattr(self, name, torch.tensor(value, device="cpu").to(self.weight_ih))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LMUCell":
        """Move or convert the module; Ā and B̄ are computed anew: `to_empty` has no numbers, a dtype loses some."""
        before = self.transition
        super()._apply(fn, recurse)
        if self.transition is not before:
            self._fill_buffers()
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Load the parameters; with `assign`, Ā and B̄ follow them to their device and dtype."""
        super()._load_from_state_dict(*arguments)
        self._fill_buffers()

    def project(self, x: Tensor) -> Tensor:
        """W_x x and e_x·x: x (..., I) -> (..., H + 1)."""
        return nn.functional.linear(x, torch.cat([self.weight_ih, self.encoder_x.unsqueeze(0)]))

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """One step, from `project(x)` (B, H + 1) and h|m (B, H + d) to the next h|m (B, H + d)."""
        H = self.hidden_size
        h, m = state[..., :H], state[..., H:]
        u = projected[..., H:] + (h @ self.encoder_h + m @ self.encoder_m).unsqueeze(-1)
        m = nn.functional.linear(m, self.transition) + u * self.drive
        h = torch.tanh(projected[..., :H] + nn.functional.linear(h, self.weight_hh) + m @ self.weight_mh.T)
        return torch.cat([h, m], -1)


@lru_cache(maxsize=8)
def legendre_delay(order: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Ā (d, d) and B̄ (d,), float64: the delay's state space (Eq. 2), discretised by zero-order hold at steps of 1.

    Raises:
        ValueError: if θ is so small that (2i+1)/θ overflows.
    """
    i, j = np.arange(order)[:, None], np.arange(order)[None, :]
    with np.errstate(over="ignore"):
        A = (2 * i + 1) / theta * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
        B = (2 * i + 1) / theta * (-1.0) ** i
    # exp of [[A, B], [0, 0]] holds both: the input stays constant during a step.
    held = np.zeros((order + 1, order + 1))
    held[:order, :order], held[:order, order:] = A, B
    exponential = torch.linalg.matrix_exp(torch.from_numpy(held)).numpy()
    if not np.isfinite(exponential).all():
        raise ValueError(f"theta={theta!r} is too short a window: (2i+1)/theta overflows")
    exponential.setflags(write=False)  # it is kept
    return exponential[:order, :order], exponential[:order, order]
