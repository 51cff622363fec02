"""The arguments and results of the kernels, the same for every backend.

Names for shapes: T steps, B sequences, I inputs, H units, S state width, G gates; N rows, which is T·B, or the sum of
`batch_sizes` for packed sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Weights(NamedTuple):
    """The weights of a cell, as its kernels take them; `KERNELS` says which shapes a cell has.

    Attributes:
        weight_ih: (G·H, I), the gates in the cell's order.
        weight_hh: (2, H) for BRC, (2H, H) for nBRC, (G·H, H) for GRU and LSTM, the gates in the same order.
        bias_ih: (G·H,), or (2H,) for a bistable cell whose candidate has no bias, or None.
        bias_hh: (G·H,) for GRU and LSTM, or None.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None

    def contiguous(self) -> Weights:
        """Return the same weights in contiguous memory."""
        return Weights(*map(_contiguous, self))  # type: ignore[arg-type]


class Batch(NamedTuple):
    """The sequences of one scan.

    Attributes:
        x: (T, B, I), or (N, I) when packed.
        state: (B, S), the state before the first step.
        resets: (T, B), or (N,) when packed, of bool or uint8: nonzero restores `initial` before that step.
        initial: (S,), the state that a reset restores; None is zero.
        batch_sizes: (T,) int64 on the CPU, given when and only when x is packed: how many sequences reach each step.
    """

    x: Tensor
    state: Tensor
    resets: Tensor | None = None
    initial: Tensor | None = None
    batch_sizes: Tensor | None = None

    def contiguous(self) -> Batch:
        """Return the same batch in contiguous memory."""
        return Batch(*map(_contiguous, self))  # type: ignore[arg-type]


class Results(NamedTuple):
    """The inputs of a backward pass.

    Attributes:
        outputs: As `forward` returned them.
        saved: As `forward` returned it.
        grad_outputs: The gradient of the outputs; None is zero, and cheaper than a tensor of zeros.
        grad_last: The gradient of the last states (B, S); None is zero.
    """

    outputs: Tensor
    saved: Tensor
    grad_outputs: Tensor | None = None
    grad_last: Tensor | None = None


class Gradients(NamedTuple):
    """One gradient per input, of its shape; None for an input that is None or needs no gradient."""

    x: Tensor | None
    state: Tensor | None
    weight_ih: Tensor | None
    weight_hh: Tensor | None
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    initial: Tensor | None


@dataclass(frozen=True)
class Kernel:
    """The facts about a cell that its kernels need: one row of `KERNELS`.

    Attributes:
        name: The cell's name.
        index: The cell's number in the C++ (`KIND_BRC`, ...).
        gates: G, the blocks of H rows in `weight_ih`.
        matrices: The blocks of H rows in `weight_hh`; 0 for BRC, which has two vectors instead.
        bistable: Whether the cell has one bias, `bias_ih`, which the candidate may lack.
        saved: The rows of H values per step that the backward pass reads.
        recompute_saved: The same with `recompute`.
        step: One step in place, see `torch_cells`.
        factors: The factors of the gates' gradients, see `torch_cells`.
        step_back: One step of the backward pass, see `torch_cells`.
        states: S / H.
        extra: The row of `saved` that holds one more value beside the gates: GRU's W_n h + b (the first), LSTM's c (the
            last).
        reset_candidate: Whether the recurrent part of the candidate is multiplied by r, as in GRU, so that `bias_hh`
            cannot be added to `bias_ih`.
    """

    name: str
    index: int
    gates: int
    matrices: int
    bistable: bool
    saved: int
    recompute_saved: int
    step: Callable[..., Tensor]
    factors: Callable[..., list[Tensor]]
    step_back: Callable[..., Tensor]
    states: int = 1
    extra: int | None = None
    reset_candidate: bool = False

    def state_size(self, hidden_size: int) -> int:
        """Return S, the width of the state."""
        return self.states * hidden_size

    def weight_shapes(self, weights: Weights, input_size: int, hidden_size: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes that the weights must have, in the order of `Weights`.

        The bistable cells have two for bias_ih, without the candidate's and with it: the given one decides. They have
        no bias_hh, so no shape is right for it.
        """
        I, H, rows, bias = input_size, hidden_size, self.gates * hidden_size, weights.bias_ih
        recurrent = (self.matrices * H if self.matrices else 2, H)
        if not self.bistable:
            return (rows, I), recurrent, (rows,), (rows,)
        return (rows, I), recurrent, (rows if bias is not None and bias.shape == (rows,) else 2 * H,), (-1,)

    def saved_shape(self, rows: int, hidden_size: int, *, recompute: bool) -> tuple[int, int, int]:
        """Return the shape of `saved`: (N, rows per step, H rounded up to a multiple of 16).

        `backward` may read all of it, so `forward` writes finite numbers beyond H too; they change no result.
        """
        return rows, self.recompute_saved if recompute else self.saved, -(-hidden_size // 16) * 16


class Backend(Protocol):
    """A module that runs a scan: `cpu`, `triton_scan`, `torch_scan` or `reference`.

    It does not change its inputs, and its results share no memory with them.
    """

    def forward(
        self, kernel: Kernel, batch: Batch, weights: Weights, *, save: bool, recompute: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run a whole sequence.

        Args:
            kernel: The cell's row of `KERNELS`.
            batch: The sequences.
            weights: The cell's weights.
            save: Whether a backward pass will follow.
            recompute: Save only what cannot be recomputed from the outputs. `backward` must get the same value.

        Returns:
            The outputs (T, B, H), or (N, H) when packed; each sequence's last state (B, S); the values saved for
            `backward`, of `Kernel.saved_shape`, or with no rows without `save`.

        Raises:
            ValueError: If a tensor has a wrong shape, dtype or device.
            MemoryError: If there is no memory for the workspace.
        """
        ...

    def backward(
        self,
        kernel: Kernel,
        batch: Batch,
        weights: Weights,
        results: Results,
        *,
        recompute: bool,
        need_x: bool,
    ) -> Gradients:
        """Return the gradients of everything that `forward` was given.

        Args:
            kernel: As given to `forward`.
            batch: As given to `forward`.
            weights: As given to `forward`.
            results: What `forward` returned with `save`, and the gradients of it.
            recompute: As given to `forward`.
            need_x: Whether the gradient of x is needed.

        Raises:
            ValueError: If a tensor has a wrong shape, dtype or device.
            MemoryError: If there is no memory for the workspace.
        """
        ...


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()
