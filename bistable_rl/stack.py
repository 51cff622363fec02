"""What stacks the layers of any cell, with the interface of torch.nn.GRU, plus `resets`."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bistable_rl.cells import Cell, check_options, get_cell
from bistable_rl.cells.base import check_size, check_switch
from bistable_rl.kernels.packed import check_batch_sizes, check_order, require


class RNN(nn.Module):
    """Layers of one cell that can stand wherever a `torch.nn.GRU` stands.

    Differences: `hx` and `h_n` are one tensor for every cell, an LSTM's h|c too, and `forward` takes `resets`. The
    layers are in `cells`, layer by layer, and forward before backward where there are two directions.

    Args:
        cell: a key of `bistable_rl.cells.CELLS`.
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of output features of a layer and direction, at least 1.
        num_layers: number of layers, at least 1.
        bias: whether the cells have biases.
        batch_first: whether a batched input and output is (B, T, F) instead of (T, B, F).
        dropout: probability in [0, 1] of zeroing an output of each layer but the last, while training.
        bidirectional: whether each layer also runs backwards in time; the output is then 2H wide.
        cell_kwargs: the cell's own options, see `bistable_rl.cells.cell_options`.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Inputs: x, hx, resets
        - **x**: (T, B, I), (B, T, I) with `batch_first`, (T, I) without a batch, or a `PackedSequence`.
        - **hx**: (num_layers · D, B, S), or (num_layers · D, S) without a batch, with D = 2 if bidirectional else 1;
          the default is the cells' initial state, zero unless it is learned.
        - **resets**: nonzero restores the initial state before that step; (T, B), (B, T) with `batch_first`, (T,)
          without a batch, a `PackedSequence` of the same lengths with a packed x. The two directions treat the segments
          between resets as separate sequences.

    Outputs: output, h_n
        - **output**: the last layer's outputs, laid out as x, D · H wide.
        - **h_n**: each layer's last state, shaped as `hx`.

    Attributes:
        cells: the layers, a ModuleList of num_layers · D cells.
        state_size: S, the width of a layer's state.

    Raises:
        ValueError: at construction, if an argument is out of range or the cell has no such option.
        TypeError: at construction, if a switch (`bias`, `batch_first`, ...) is neither True nor False.

    Example:
        >>> rnn = RNN("nbrc", 10, 20, num_layers=2)
        >>> output, h_n = rnn(torch.randn(5, 3, 10))
        >>> output.shape, h_n.shape
        (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    def __init__(
        self,
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
    ) -> None:
        super().__init__()
        make, options = get_cell(cell), dict(cell_kwargs or {})
        check_options(cell, options)
        check_size("num_layers", num_layers)
        for name, switch in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            check_switch(name, switch)
        if isinstance(dropout, bool) or not isinstance(dropout, int | float | np.number) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout should be a number in range [0, 1], got {dropout!r}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout adds dropout after all but the last layer, so a dropout above 0 expects num_layers above 1, "
                f"but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=2,
            )
        self.cell = cell
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
            make(width, hidden_size, bias, **options, device=device, dtype=dtype)  # type: ignore[arg-type]
            for width in widths
            for _ in range(D)
        )

    @property
    def state_size(self) -> int:
        """S, the width of a layer's state, the first H entries of which are its output."""
        size: int = self.cells[0].state_size  # type: ignore[assignment]
        return size

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        for cell in self.cells:
            cell.reset_parameters()  # type: ignore[operator]

    def flatten_parameters(self) -> None:
        """Do nothing: for code that was written for nn.GRU. Parameters are used where they are."""

    def forward(
        self,
        x: Tensor | PackedSequence,
        hx: Tensor | None = None,
        resets: Tensor | PackedSequence | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run all layers over time; see the class for the shapes.

        Raises:
            ValueError: if hx is a tuple, x has a wrong number of dimensions or is packed wrongly, x or hx is not of the
                weights' dtype and device, or resets does not fit.
            RuntimeError: if the number of features or the shape of hx does not fit.
        """
        if hx is not None and not torch.is_grad_enabled():
            acted = self._act(x, hx, resets)
            if acted is not None:
                return acted
        if isinstance(hx, tuple):
            raise ValueError("hx is one tensor for every cell; for an LSTM's (h, c) give torch.cat([h, c], -1)")
        if isinstance(x, PackedSequence):
            data, batch_sizes, sorted_indices, unsorted_indices = x
            check_batch_sizes(batch_sizes, len(data))
            if not torch.compiler.is_compiling():  # there, index_select has checks of its own
                check_order(sorted_indices, unsorted_indices, int(batch_sizes[0]))
            if hx is not None and sorted_indices is not None and hx.shape[1:2] == sorted_indices.shape:
                hx = hx.index_select(1, sorted_indices)
            if resets is not None:
                _check_packed(resets, batch_sizes)
                resets = resets.data.reshape(len(data), -1).squeeze(-1)
            output, h_n = self._layers(data, hx, resets, batch_sizes)
            if unsorted_indices is not None:
                h_n = h_n.index_select(1, unsorted_indices)
            return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), h_n

        if x.dim() not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {x.dim()}D tensor instead")
        if isinstance(resets, PackedSequence):
            raise ValueError("resets must be a tensor where the input is one")
        if resets is not None and resets.shape != x.shape[:-1]:
            raise ValueError(f"resets must be {tuple(x.shape[:-1])}, as the input's steps; got {tuple(resets.shape)}")
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
        """A single step without gradients, by the layers' shortest way; None where `forward` has to do it."""
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

    def _layers(
        self, x: Tensor, hx: Tensor | None, resets: Tensor | None, batch_sizes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run all layers on (T, B, I), or (N, I) when packed."""
        cells: list[Cell] = list(self.cells)  # type: ignore[arg-type]
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
                backwards, h_n = _scan_backwards(cells[index], x, states[index], resets, batch_sizes)
                output = torch.cat([output, backwards], -1)
                last.append(h_n)
            x = output
            if self.dropout > 0 and layer < self.num_layers - 1:
                x = nn.functional.dropout(x, self.dropout, self.training)
        return x, last[0].unsqueeze(0) if len(last) == 1 else torch.stack(last)

    def extra_repr(self) -> str:
        """The sizes and what is not the default, for `print`."""
        parts = [f"{self.cell}, {self.input_size}, {self.hidden_size}"]
        for name, default in (
            ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False),
        ):  # fmt: skip
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


def _check_packed(resets: Tensor | PackedSequence, batch_sizes: Tensor) -> None:
    problem = "resets must be a PackedSequence of the same lengths as the packed input"
    if not isinstance(resets, PackedSequence) or resets.batch_sizes.shape != batch_sizes.shape:
        raise ValueError(problem)
    require((resets.batch_sizes == batch_sizes).all(), problem)


def _scan_backwards(
    cell: Cell, x: Tensor, state: Tensor | None, resets: Tensor | None, batch_sizes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scan each sequence from its end; a segment's end is then where the state is reset."""
    if batch_sizes is None:
        if resets is not None:
            resets = torch.cat([torch.zeros_like(resets[:1]), resets.flip(0)[:-1]])
        output, h_n = cell.scan(x.flip(0), state, resets)
        return output.flip(0), h_n
    reverse, previous, first = _packed_indices(batch_sizes)
    reverse = reverse.to(x.device)
    if resets is not None:
        resets = resets[reverse][previous.to(x.device)].masked_fill(first.to(x.device), 0)
    output, h_n = cell.scan(x[reverse], state, resets, batch_sizes)
    return output[reverse], h_n


def _packed_indices(batch_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the rows of packed sequences go when each is reversed.

    Returns:
        For each row (N,): the row that takes its place in its reversed sequence; the row of the step before it, itself
        in the first step; whether it is of the first step.
    """
    T, B, N = len(batch_sizes), int(batch_sizes[0]), int(batch_sizes.sum())
    offsets = batch_sizes.cumsum(0) - batch_sizes
    steps, rows, sequences = (torch.arange(n, device="cpu") for n in (T, N, B))
    t = torch.repeat_interleave(steps, batch_sizes, output_size=N)
    b = rows - offsets[t]
    lengths = (batch_sizes > sequences.unsqueeze(1)).sum(1)
    return offsets[lengths[b] - 1 - t] + b, offsets[(t - 1).clamp(min=0)] + b, t == 0
