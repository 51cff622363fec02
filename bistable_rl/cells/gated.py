"""The parameters of torch.nn.GRU and torch.nn.LSTM, which `GRUCell` and `LSTMCell` share."""

from typing import ClassVar, get_args

from torch import Tensor, nn
from typing_extensions import Unpack

from bistable_rl.cells.base import Cell
from bistable_rl.cells.initialisation import fill_gates
from bistable_rl.cells.options import GateInit, GRUOptions
from bistable_rl.checks import check_choice
from bistable_rl.kernels import Weights, reference


class GatedCell(Cell):
    """A cell with one input and one recurrent matrix, each with a bias, for all of its G gates.

    Parameters: `weight_ih` (G·H, I), `weight_hh` (G·H, H), `bias_ih` and `bias_hh` (G·H,).
    """

    num_gates: ClassVar[int]
    init: GateInit = "torch"
    weight_hh: nn.Parameter
    bias_ih: nn.Parameter | None
    bias_hh: nn.Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[GRUOptions]) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        check_choice("init", self.init, get_args(GateInit))
        rows = self.num_gates * hidden_size
        self.add_parameters(
            weight_ih=(rows, input_size),
            weight_hh=(rows, hidden_size),
            bias_ih=(rows,) if bias else None,
            bias_hh=(rows,) if bias else None,
        )

    def reset_parameters(self) -> None:
        """Reinitialise all parameters; a subclass adds its slow gate's bias."""
        super().reset_parameters()
        fill_gates(self.init, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def kernel_weights(self) -> Weights:
        """Return the weights as the kernels take them."""
        return Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def project(self, x: Tensor) -> Tensor:
        """Compute W_i x + b_i: x (..., I) -> (..., G·H)."""
        return reference.project(self.kernel_weights(), x)
