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
from typing_extensions import Unpack

from bistable_rl.cells.base import Cell
from bistable_rl.cells.options import LMUOptions
from bistable_rl.checks import as_float, check_int


class LMUCell(Cell):
    """LMU: the last θ steps of one signal, kept as d Legendre coefficients; its state is h|m.

    It has no gate and no bias: there is no `c_bias`, and `bias` changes nothing. Parameters: the encoders `encoder_x`
    (I,), `encoder_h` (H,) and `encoder_m` (d,); `weight_ih` (H, I), `weight_hh` (H, H), `weight_mh` (H, d). Ā and B̄ are
    fixed. Initialisation: e_x and e_h LeCun-uniform, e_m = 0, the weights Glorot-normal. With `recompute` the backward
    pass keeps about √T states.

    Raises:
        ValueError: If an option is out of range.
    """

    memory_size = 256
    theta = 1000.0
    encoder_x: nn.Parameter
    encoder_h: nn.Parameter
    encoder_m: nn.Parameter
    weight_hh: nn.Parameter
    weight_mh: nn.Parameter
    transition: Tensor  # Ā
    drive: Tensor  # B̄

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[LMUOptions]) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        check_int("memory_size", self.memory_size, 1)
        theta = self.theta
        if (
            isinstance(theta, bool)
            or not isinstance(theta, int | float | np.number)
            or not 0 < as_float(theta) <= sys.float_info.max
        ):
            raise ValueError(f"theta must be a number of steps above 0, got {theta!r}")
        self.theta = float(theta)
        for buffer in ("transition", "drive"):  # not in the state_dict, because they follow from d and θ
            self.register_buffer(buffer, None, persistent=False)
        H, d = hidden_size, self.memory_size
        self.add_parameters(
            encoder_x=(input_size,),
            encoder_h=(H,),
            encoder_m=(d,),
            weight_ih=(H, input_size),
            weight_hh=(H, H),
            weight_mh=(H, d),
        )

    @property
    def state_size(self) -> int:
        """H + d, of h|m."""
        return self.hidden_size + self.memory_size

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        super().reset_parameters()
        for encoder in (self.encoder_x, self.encoder_h):
            bound = math.sqrt(3 / len(encoder))
            nn.init.uniform_(encoder, -bound, bound)
        nn.init.zeros_(self.encoder_m)
        for weight in (self.weight_ih, self.weight_hh, self.weight_mh):
            nn.init.xavier_normal_(weight)
        self._fill_buffers()

    def _fill_buffers(self) -> None:
        """Compute Ā and B̄ from d and θ, on the weights' device and in their dtype."""
        for name, value in zip(("transition", "drive"), legendre_delay(self.memory_size, self.theta), strict=True):
            setattr(self, name, torch.tensor(value, device="cpu").to(self.weight_ih))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LMUCell":
        """Move or convert the module; recompute Ā and B̄: `to_empty` gives no numbers, and a dtype loses some."""
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
        """Compute W_x x and e_x·x: x (..., I) -> (..., H + 1)."""
        return nn.functional.linear(x, torch.cat([self.weight_ih, self.encoder_x.unsqueeze(0)]))

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """Compute the next h|m from `project(x)` (B, H + 1) and h|m (B, H + d)."""
        H = self.hidden_size
        h, m = state[..., :H], state[..., H:]
        u = projected[..., H:] + (h @ self.encoder_h + m @ self.encoder_m).unsqueeze(-1)
        m = nn.functional.linear(m, self.transition) + u * self.drive
        h = torch.tanh(projected[..., :H] + nn.functional.linear(h, self.weight_hh) + m @ self.weight_mh.T)
        return torch.cat([h, m], -1)


@lru_cache(maxsize=8)
def legendre_delay(order: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Ā (d, d) and B̄ (d,), float64: the delay's state space (Eq. 2) under zero-order hold at steps of 1.

    Raises:
        ValueError: If θ is so small that (2i+1)/θ overflows.
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
    exponential.setflags(write=False)  # the cache keeps it
    return exponential[:order, :order], exponential[:order, order]
