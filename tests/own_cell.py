"""Cells of a user's own, as a config names them: `own_cell:MGUCell`. The others are wrong, each in one way."""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from bistable_rl.cells import Cell
from bistable_rl.cells.initialisation import fill_slow_gate
from bistable_rl.cells.options import GatedOptions


class MGUCell(Cell):
    """The minimal gated unit, whose gate f is 1 where the state is overwritten.

    f_t = σ(U_f x_t + W_f h_{t-1} + b_f)
    h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ tanh(s · (U_n x_t + W_n (f_t ⊙ h_{t-1}) + b_n))
    """

    slow_gate = "keep"
    weight_hh: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, s: float = 1.0, **options: Unpack[GatedOptions]
    ) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.s = s
        H = hidden_size
        self.add_parameters(weight_ih=(2 * H, input_size), weight_hh=(2 * H, H), bias=(2 * H,) if bias else None)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.xavier_uniform_(self.weight_ih)
        nn.init.xavier_uniform_(self.weight_hh)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
            fill_slow_gate(self.bias[: self.hidden_size], self.c_bias, self.t_max)
            with torch.no_grad():
                self.bias[: self.hidden_size].neg_()

    def project(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight_ih, self.bias)

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        f = torch.sigmoid(projected.chunk(2, -1)[0] + nn.functional.linear(state, self.weight_hh.chunk(2)[0]))
        return {"keep": 1 - f}

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        keep = self.gates(projected, state)["keep"]
        seen = nn.functional.linear((1 - keep) * state, self.weight_hh.chunk(2)[1])
        return keep * state + (1 - keep) * torch.tanh(self.s * (projected.chunk(2, -1)[1] + seen))


class Misnamed(MGUCell):
    """Its gates return another name."""

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        return {"keeps": super().gates(projected, state)["keep"]}

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        return self.gates(projected, state)["keeps"] * state


class NoGates(MGUCell):
    """It has no gates at all."""

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        return {}

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        return state


class Narrow(MGUCell):
    """Its step returns a unit too few."""

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        return state[:, 1:]


class Fails(MGUCell):
    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.bias is not None
        self.bias[: self.hidden_size].neg_()


class Lacks(Cell):
    """It defines `__init__` alone."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Any) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.add_parameters(weight_ih=(hidden_size, input_size))


class NoStep(Lacks):
    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.weight_ih)


class NoCell(nn.Module):
    """Is no cell."""
