"""Recurrent layers that can replace torch.nn.GRU: any cell by name, and one class per cell."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from typing_extensions import Unpack

from bistable_rl import torch_names
from bistable_rl.cells import Cell, check_options, get_cell
from bistable_rl.cells.backwards import scan_backwards
from bistable_rl.cells.options import BRCOptions, GatedOptions, GRUOptions, LMUOptions, NBRCOptions, show_options
from bistable_rl.checks import check_bool, check_int
from bistable_rl.kernels.packed import check_batch_sizes, check_order, require

__all__ = [
    "BRC", "GORU", "GRU", "LMU", "LSTM", "NBRC", "PBRC", "RNN", "HalfPBRC", "PlasticGRU", "from_torch", "make_rnn",
]  # fmt: skip


class RNN(nn.Module):
    """Layers of one cell, with the interface of `torch.nn.GRU`.

    Differences: `hx` and `h_n` are one tensor for every cell, also for an LSTM (h|c), and `forward` takes `resets` and
    `mask`. GRU and LSTM load torch's state dicts, and have torch's `weight_ih_l0`, ... and `all_weights`.

    Args:
        cell: A key of `bistable_rl.cells.CELLS`; for a cell of your own its class, or its name `package:Name`.
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of output features of a layer and direction, at least 1.
        num_layers: Number of layers, at least 1.
        bias: Whether the cells have biases.
        batch_first: Whether a batched input and output is (B, T, F) instead of (T, B, F).
        dropout: Probability in [0, 1] of zeroing an output of each layer but the last, while training.
        bidirectional: Whether each layer also runs backwards in time; the output is then 2H wide.
        cell_kwargs: The cell's own options, see `bistable_rl.cells.cell_options`.
        device: Device of the parameters.
        dtype: Floating-point type of the parameters.

    Inputs: input, hx, resets, mask
        - **input**: x, (T, B, I), (B, T, I) with `batch_first`, (T, I) without a batch, or a `PackedSequence`.
        - **hx**: (num_layers · D, B, S), or (num_layers · D, S) without a batch, with D = 2 if bidirectional else 1;
          the default is the cells' initial state, zero unless it is learned.
        - **resets**: nonzero restores the initial state before that step; (T, B), (B, T) with `batch_first`, (T,)
          without a batch, a `PackedSequence` of the same lengths with a packed x. Both directions treat the segments
          between resets as separate sequences.
        - **mask**: nonzero where a step is real and not padding, (T, B), (B, T) with `batch_first`; the real steps of a
          sequence come first. They run as a `PackedSequence` would: the output is 0 in the padding, and h_n is the
          state after the last real step.

    Outputs: output, h_n
        - **output**: the last layer's outputs, in the layout of x, D · H wide.
        - **h_n**: each layer's last state, of the shape of `hx`.

    Attributes:
        cells: The ModuleList of `layers`.

    Raises:
        ValueError: If an argument is out of range, or the cell has no such option.
        TypeError: If a switch (`bias`, `batch_first`, ...) is neither True nor False.

    Example:
        >>> rnn = RNN("nbrc", 10, 20, num_layers=2)
        >>> output, h_n = rnn(torch.randn(5, 3, 10))
        >>> output.shape, h_n.shape
        (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    _cell: ClassVar[str]  # of a subclass for one cell

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "_cell"):
            show_options(cls, get_cell(cls._cell))

    def __init__(
        self,
        cell: str | type[Cell],
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
    ) -> None:
        super().__init__()
        make, options = get_cell(cell), dict(cell_kwargs or {})
        check_options(cell, options)
        check_int("num_layers", num_layers, 1)
        for name, switch in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            check_bool(name, switch)
        if isinstance(dropout, bool) or not isinstance(dropout, int | float | np.number) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout should be a number in range [0, 1], got {dropout!r}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout adds dropout after all but the last layer, so a dropout above 0 expects num_layers above 1, "
                f"but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=2,
            )
        self.cell = cell if isinstance(cell, str) else f"{cell.__module__}:{cell.__qualname__}"
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        D = 2 if bidirectional else 1
        widths = [input_size] + [D * hidden_size] * (num_layers - 1)
        self.cells = nn.ModuleList(
            make(width, hidden_size, bias, **options, device=device, dtype=dtype) for width in widths for _ in range(D)
        )

    @property
    def layers(self) -> list[Cell]:
        """The num_layers · D cells, layer by layer, forward before backward."""
        return list(self.cells)  # type: ignore[arg-type]

    @property
    def state_size(self) -> int:
        """S, the width of a layer's state, whose first H entries are its output."""
        return self.layers[0].state_size

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        for cell in self.layers:
            cell.reset_parameters()

    def __getattr__(self, name: str) -> Any:
        """Return the weights of GRU and LSTM by torch's names as well: `weight_ih_l0`, ... and `all_weights`."""
        if name == "all_weights" and self.cell in torch_names.CELLS:
            return torch_names.all_weights(self.layers)
        named = torch_names.place(name, self.bidirectional) if "_l" in name and self.cell in torch_names.CELLS else None
        return super().__getattr__(name) if named is None else self.get_parameter(named)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self.cell in torch_names.CELLS:
            for key in list(state_dict):
                named = torch_names.place(key.removeprefix(prefix), self.bidirectional)
                if named is not None:
                    state_dict[prefix + named] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def flatten_parameters(self) -> None:
        """Do nothing; code written for nn.GRU may call it."""

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        resets: Tensor | PackedSequence | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run all layers over time; the class gives the shapes.

        Raises:
            ValueError: If hx is a tuple, x has a wrong number of dimensions or is packed wrongly, x or hx is not of the
                weights' dtype and device, or resets or mask does not fit.
            RuntimeError: If the number of features or the shape of hx does not fit.
        """
        x = input
        if hx is not None and mask is None and not torch.is_grad_enabled():
            acted = self._act(x, hx, resets)
            if acted is not None:
                return acted
        if isinstance(hx, tuple):
            raise ValueError("hx must be one tensor for every cell; for an LSTM's (h, c) pass torch.cat([h, c], -1)")
        if mask is not None:
            return self._masked(x, hx, resets, mask)
        if isinstance(x, PackedSequence):
            return self._packed(x, hx, resets)
        if x.dim() not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {x.dim()}D tensor instead")
        if isinstance(resets, PackedSequence):
            raise ValueError("resets must be a tensor when the input is a tensor")
        if resets is not None and resets.shape != x.shape[:-1]:
            raise ValueError(
                f"resets must be {tuple(x.shape[:-1])}, one for each step of the input; got {tuple(resets.shape)}"
            )
        batched = x.dim() == 3
        if hx is not None and hx.dim() != x.dim():
            raise RuntimeError(
                f"For {'batched 3-D' if batched else 'unbatched 2-D'} input, hx should also be {x.dim()}-D "
                f"but got {hx.dim()}-D tensor"
            )
        if not batched:
            output, h_n = self._layers(
                x.unsqueeze(1),
                None if hx is None else hx.unsqueeze(1),
                None if resets is None else resets.unsqueeze(1),
                None,
            )
            return output.squeeze(1), h_n.squeeze(1)
        if self.batch_first:
            output, h_n = self._layers(x.transpose(0, 1), hx, None if resets is None else resets.T, None)
            return output.transpose(0, 1), h_n
        return self._layers(x, hx, resets, None)

    def _act(
        self, x: Tensor | PackedSequence, hx: Tensor, resets: Tensor | PackedSequence | None
    ) -> tuple[Tensor, Tensor] | None:
        """Take one step without gradients on the cells' single-step path; None where `forward` must do it."""
        if self.bidirectional or self.batch_first or (self.dropout and self.training):
            return None
        if isinstance(x, PackedSequence) or isinstance(resets, PackedSequence):
            return None
        cells: Any = self._modules["cells"]  # `self.cells` and its iterator cost a tenth of a step
        if self.num_layers == 1:
            (cell,) = cells._modules.values()
            acted: tuple[Tensor, Tensor] | None = cell.act(x, hx, resets)
            return acted
        if type(hx) is not Tensor or hx.dim() != 3 or len(hx) != self.num_layers:
            return None
        output, last = x, []
        for cell, state in zip(cells._modules.values(), hx.split(1), strict=True):
            acted = cell.act(output, state, resets)
            if acted is None:
                return None
            output, h_n = acted
            last.append(h_n)
        return output, torch.cat(last)

    def _masked(
        self, x: Tensor | PackedSequence, hx: Tensor | None, resets: Tensor | PackedSequence | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run padded sequences, whose real steps `mask` marks, as packed ones."""
        if isinstance(x, PackedSequence) or isinstance(resets, PackedSequence) or x.dim() != 3:
            raise ValueError("mask marks the real steps of a padded batch, a 3D tensor; a PackedSequence takes no mask")
        for name, steps in (("mask", mask), ("resets", resets)):
            if steps is not None and steps.shape != x.shape[:2]:
                raise ValueError(
                    f"{name} must be {tuple(x.shape[:2])}, one for each step of the input; got {tuple(steps.shape)}"
                )
        real = (mask if self.batch_first else mask.T) != 0  # (B, T)
        lengths = real.sum(1)
        first = torch.arange(real.shape[1], device=real.device) < lengths.unsqueeze(1)
        if (real != first).any() or (lengths == 0).any():
            raise ValueError(
                "mask must be true at the first steps of every sequence (at least one) and false after them"
            )

        def pack(steps: Tensor) -> PackedSequence:
            return pack_padded_sequence(steps, lengths.cpu(), self.batch_first, enforce_sorted=False)

        output, h_n = self._packed(pack(x), hx, None if resets is None else pack(resets))
        return pad_packed_sequence(output, self.batch_first, total_length=real.shape[1])[0], h_n

    def _packed(
        self, x: PackedSequence, hx: Tensor | None, resets: Tensor | PackedSequence | None
    ) -> tuple[PackedSequence, Tensor]:
        data, batch_sizes, sorted_indices, unsorted_indices = x
        check_batch_sizes(batch_sizes, len(data))
        if not torch.compiler.is_compiling():  # there, index_select checks by itself
            check_order(sorted_indices, unsorted_indices, int(batch_sizes[0]))
        if hx is not None and sorted_indices is not None and hx.shape[1:2] == sorted_indices.shape:
            hx = hx.index_select(1, sorted_indices)
        if resets is not None:
            problem = "resets must be a PackedSequence of the same lengths as the packed input"
            if not isinstance(resets, PackedSequence) or resets.batch_sizes.shape != batch_sizes.shape:
                raise ValueError(problem)
            require((resets.batch_sizes == batch_sizes).all(), problem)
            resets = resets.data.reshape(len(data), -1).squeeze(-1)
        output, h_n = self._layers(data, hx, resets, batch_sizes)
        if unsorted_indices is not None:
            h_n = h_n.index_select(1, unsorted_indices)
        return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), h_n

    def _layers(
        self, x: Tensor, hx: Tensor | None, resets: Tensor | None, batch_sizes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run all layers on (T, B, I), or (N, I) when packed."""
        cells = self.layers
        D = 2 if self.bidirectional else 1
        if hx is not None:
            expected = (len(cells), x.shape[1] if batch_sizes is None else int(batch_sizes[0]), cells[0].state_size)
            if hx.shape != expected:
                raise RuntimeError(f"Expected hidden size {expected}, got {list(hx.shape)}")

        last = []
        states = [None] * len(cells) if hx is None else hx.unbind(0)
        for layer in range(self.num_layers):
            output, h_n = cells[layer * D].scan(x, states[layer * D], resets, batch_sizes)
            last.append(h_n)
            if self.bidirectional:
                index = layer * D + 1
                backwards, h_n = scan_backwards(cells[index], x, states[index], resets, batch_sizes)
                output = torch.cat([output, backwards], -1)
                last.append(h_n)
            x = output
            if self.dropout > 0 and layer < self.num_layers - 1:
                x = nn.functional.dropout(x, self.dropout, self.training)
        return x, last[0].unsqueeze(0) if len(last) == 1 else torch.stack(last)

    def extra_repr(self) -> str:
        """Return the sizes, and the arguments that differ from their defaults, for `print`."""
        parts = [f"{self.cell}, {self.input_size}, {self.hidden_size}"]
        for name, default in (
            ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False),
        ):  # fmt: skip
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


make_rnn = RNN
"""Layers by the name of their cell, as a function."""


def _keywords(options: Mapping[str, Any]) -> dict[str, Any]:
    """Sort the options of a layer class into the keywords of `RNN`."""
    kwargs = dict(options)
    return {"device": kwargs.pop("device", None), "dtype": kwargs.pop("dtype", None), "cell_kwargs": kwargs}


class BRC(RNN):
    """Layers of bistable recurrent cells: each unit remembers by itself."""

    _cell = "brc"

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, **options: Unpack[BRCOptions],
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(self._cell, *sizes, **_keywords(options))


class NBRC(RNN):
    """Layers of recurrently neuromodulated bistable cells: the units set one another's gates."""

    _cell = "nbrc"

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, **options: Unpack[NBRCOptions],
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(self._cell, *sizes, **_keywords(options))


class _GRUOrLSTM(RNN):
    """Layers of a cell that torch also has."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, **options: Unpack[GRUOptions],
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(self._cell, *sizes, **_keywords(options))


class GRU(_GRUOrLSTM):
    """Layers of gated recurrent units, as torch.nn.GRU computes them."""

    _cell = "gru"


class LSTM(_GRUOrLSTM):
    """Layers of long short-term memories, as torch.nn.LSTM computes them, with h|c as one state."""

    _cell = "lstm"


class LMU(RNN):
    """Layers of Legendre memory units: a window of the past, kept as coefficients."""

    _cell = "lmu"

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, **options: Unpack[LMUOptions],
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(self._cell, *sizes, **_keywords(options))


class _Gated(RNN):
    """Layers of a gated cell without options of its own."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, **options: Unpack[GatedOptions],
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(self._cell, *sizes, **_keywords(options))


class GORU(_Gated):
    """Layers of gated orthogonal recurrent units: a memory that is rotated, not shrunk."""

    _cell = "goru"


class PlasticGRU(_Gated):
    """Layers of plastic GRUs: recurrent weights that learn during a sequence."""

    _cell = "plastic_gru"


class PBRC(_Gated):
    """Layers of plastic bistable recurrent cells."""

    _cell = "pbrc"


class HalfPBRC(_Gated):
    """Layers of half-plastic bistable recurrent cells: half of the units bistable, half plastic."""

    _cell = "half_pbrc"


def from_torch(module: nn.GRU | nn.LSTM) -> GRU | LSTM:
    """Return layers that compute the same as torch's, with a copy of its weights.

    Args:
        module: An `nn.GRU`, or an `nn.LSTM` without projections; the state of the latter becomes h|c,
            `torch.cat([h, c], -1)`.

    Raises:
        ValueError: If the module is neither of the two, or has projections.
    """
    if not isinstance(module, nn.GRU | nn.LSTM):
        raise ValueError(f"from_torch takes a torch.nn.GRU or torch.nn.LSTM, got {type(module).__name__}")
    if module.proj_size:
        raise ValueError(f"from_torch takes no projections, got proj_size={module.proj_size}")
    weight = next(module.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dropout on one layer, of which torch has warned already
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
    for cell, suffix in zip(rnn.layers, suffixes, strict=True):
        for name, parameter in cell.named_parameters():
            theirs = getattr(module, name + suffix)
            parameter.data.copy_(theirs.detach())
            parameter.requires_grad_(theirs.requires_grad)
    return rnn.train(module.training)
