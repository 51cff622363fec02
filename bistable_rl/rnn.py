"""The layers that stand where a torch.nn.GRU stands, one class a cell; `make_rnn` takes the cell by name.

What they do is in `bistable_rl.stack`: here are the names and options.
"""

import warnings

import torch
from torch import nn

from bistable_rl.stack import RNN

__all__ = [
    "BRC", "GORU", "GRU", "LMU", "LSTM", "NBRC", "PBRC", "RNN", "HalfPBRC", "PlasticGRU", "from_torch", "make_rnn",
]  # fmt: skip


def make_rnn(
    cell: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bias: bool = True,
    batch_first: bool = False,
    dropout: float = 0.0,
    bidirectional: bool = False,
    *,
    cell_kwargs: dict[str, object] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> RNN:
    """Stacked layers of the cell called `cell`; the arguments are those of `RNN`.

    Raises:
        ValueError: if there is no such cell, it has no such option, or an argument is out of range.
    """
    return RNN(
        cell,
        input_size,
        hidden_size,
        num_layers,
        bias,
        batch_first,
        dropout,
        bidirectional,
        cell_kwargs=cell_kwargs,
        device=device,
        dtype=dtype,
    )


class BRC(RNN):
    """Layers of bistable recurrent cells: memory in each unit by itself.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.BRCCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        candidate_bias: bool = False,
        c_bias: float | str | None = None,
        t_max: float | None = None,
        learn_initial_state: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "brc", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "candidate_bias": candidate_bias,
                "c_bias": c_bias,
                "t_max": t_max,
                "learn_initial_state": learn_initial_state,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


class NBRC(RNN):
    """Layers of recurrently neuromodulated bistable cells: the units set one another's memory.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.NBRCCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        candidate_bias: bool = False,
        recurrent_init: str = "glorot",
        c_bias: float | str | None = None,
        t_max: float | None = None,
        learn_initial_state: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "nbrc", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "candidate_bias": candidate_bias,
                "recurrent_init": recurrent_init,
                "c_bias": c_bias,
                "t_max": t_max,
                "learn_initial_state": learn_initial_state,
                "recompute": recompute,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


class GRU(RNN):
    """Layers of gated recurrent units, as torch.nn.GRU computes them.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.GRUCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
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
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "init": init,
                "c_bias": c_bias,
                "t_max": t_max,
                "learn_initial_state": learn_initial_state,
                "recompute": recompute,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


class LSTM(RNN):
    """Layers of long short-term memories, as torch.nn.LSTM computes them, with h|c as one state.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.LSTMCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
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
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "init": init,
                "c_bias": c_bias,
                "t_max": t_max,
                "learn_initial_state": learn_initial_state,
                "recompute": recompute,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


class GORU(RNN):
    """Layers of gated orthogonal recurrent units: memory that is turned, not shrunk.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.GORUCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        c_bias: float | str | None = None,
        t_max: float | None = None,
        learn_initial_state: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "goru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "c_bias": c_bias,
                "t_max": t_max,
                "learn_initial_state": learn_initial_state,
                "recompute": recompute,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


class LMU(RNN):
    """Layers of Legendre memory units: a window of the past as coefficients.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.LMUCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        memory_size: int = 256,
        theta: float = 1000.0,
        learn_initial_state: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "lmu", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "memory_size": memory_size,
                "theta": theta,
                "learn_initial_state": learn_initial_state,
                "recompute": recompute,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


class PlasticGRU(RNN):
    """Layers of plastic GRUs: recurrent weights that learn during a sequence.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.PlasticGRUCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        c_bias: float | str | None = None,
        t_max: float | None = None,
        learn_initial_state: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "plastic_gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "c_bias": c_bias,
                "t_max": t_max,
                "learn_initial_state": learn_initial_state,
                "recompute": recompute,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


class PBRC(RNN):
    """Layers of plastic bistable recurrent cells.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.PBRCCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        c_bias: float | str | None = None,
        t_max: float | None = None,
        learn_initial_state: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "pbrc", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "c_bias": c_bias,
                "t_max": t_max,
                "learn_initial_state": learn_initial_state,
                "recompute": recompute,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


class HalfPBRC(RNN):
    """Layers of half-plastic bistable recurrent cells: half of the units bistable, half plastic.

    The arguments are those of `RNN`, then the options of `bistable_rl.cells.HalfPBRCCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        c_bias: float | str | None = None,
        t_max: float | None = None,
        learn_initial_state: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "half_pbrc", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            cell_kwargs={
                "c_bias": c_bias,
                "t_max": t_max,
                "learn_initial_state": learn_initial_state,
                "recompute": recompute,
            },
            device=device, dtype=dtype,
        )  # fmt: skip


def from_torch(module: nn.GRU | nn.LSTM) -> GRU | LSTM:
    """A GRU or LSTM with the sizes, settings and a copy of the weights of torch's.

    Args:
        module: an `nn.GRU`, or an `nn.LSTM` without projections.

    Returns:
        Layers that compute the same; an LSTM's state is h|c, `torch.cat([h, c], -1)`.

    Raises:
        ValueError: if it is neither of the two, or has projections.
    """
    if not isinstance(module, nn.GRU | nn.LSTM):
        raise ValueError(f"from_torch takes a torch.nn.GRU or torch.nn.LSTM, got {type(module).__name__}")
    if module.proj_size:
        raise ValueError(f"from_torch takes no projections, got proj_size={module.proj_size}")
    weight = next(module.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a dropout on one layer; torch has warned already
        rnn = (GRU if isinstance(module, nn.GRU) else LSTM)(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            module.bias,
            module.batch_first,
            module.dropout,
            module.bidirectional,
            device=weight.device,
            dtype=weight.dtype,
        )
    suffixes = [f"_l{i}{end}" for i in range(module.num_layers) for end in ("", "_reverse")[: 1 + module.bidirectional]]
    for cell, suffix in zip(rnn.cells, suffixes, strict=True):
        for name, parameter in cell.named_parameters():
            theirs = getattr(module, name + suffix)
            parameter.data.copy_(theirs.detach())
            parameter.requires_grad_(theirs.requires_grad)
    return rnn.train(module.training)
