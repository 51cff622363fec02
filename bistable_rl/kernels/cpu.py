"""Compiled CPU kernels of BRC, nBRC, GRU and LSTM: the binding of `cpu.cpp`.

Pure functions on contiguous CPU tensors, float32 or float64: nothing given is changed, everything returned is
new, and nothing here knows autograd. Three calls do the work, and each takes the parameters in one order::

    outputs, final_state, saved = forward(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, ...)
    gradients = backward(kind, grad_outputs, grad_final, x, state, resets, weight_ih, ..., outputs, saved, ...)
    state = step(kind, x, state, weight_ih, weight_hh, bias_ih, bias_hh)          # one step, no gradients

Names for shapes: `T` steps, `B` sequences, `I` inputs, `H` units, `S` state width (2H for the LSTM, whose state
is `h | c`; H for the others), `N` rows, which is T·B, or the sum of `batch_sizes` for packed sequences.

| kind | weight_ih | weight_hh | bias_ih | bias_hh | order of the rows |
|---|---|---|---|---|---|
| brc | (3H, I) | (2, H) | (2H,), (3H,) or None | None | a, c, candidate (weight_hh: a, c) |
| nbrc | (3H, I) | (2H, H) | (2H,), (3H,) or None | None | a, c, candidate (weight_hh: a, c) |
| gru | (3H, I) | (3H, H) | (3H,) or None | (3H,) or None | r, z, n, as torch |
| lstm | (4H, I) | (4H, H) | (4H,) or None | (4H,) or None | i, f, g, o, as torch |

The library is loaded once, after torch, and borrows the threads of torch's OpenMP runtime; it never brings one of
its own. Results don't depend on the run, only on the number of threads (the order of summation in the gradients
of the parameters).
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

KINDS: dict[str, int] = {"brc": 0, "nbrc": 1, "gru": 2, "lstm": 3}
DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

# Rows kept for the backward pass in `saved`, by kind: (with the gates, with `recompute`).
_SAVED_ROWS = {"brc": (0, 0), "nbrc": (3, 0), "gru": (4, 0), "lstm": (5, 1)}
_GATES = {"brc": 3, "nbrc": 3, "gru": 3, "lstm": 4}


class Gradients(NamedTuple):
    """What `backward` returns: one gradient for each input, of its shape; None where there is no such input."""

    x: Tensor | None
    state: Tensor | None
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    initial: Tensor | None


def available() -> tuple[bool, str]:
    """Whether the compiled library can be used here, and why not, or which instruction set it runs."""
    library, why = _load()
    return library is not None, why


def state_size(kind: str, hidden_size: int) -> int:
    """The width S of the state."""
    return 2 * hidden_size if kind == "lstm" else hidden_size


def saved_shape(kind: str, rows: int, hidden_size: int, *, recompute: bool = False) -> tuple[int, int, int]:
    """The shape of `saved`: (N, K, H rounded up to a multiple of 16).

    K is 0 for brc (its backward pass recomputes everything from the outputs), 3 for nbrc (a, c, candidate), 4 for
    gru (r, z, n, W_n h + b), 5 for lstm (i, f, g, o, c); with `recompute` 0, 0, 0 and 1 (c).
    """
    kept = _SAVED_ROWS[kind][1 if recompute else 0]
    return rows, kept, -(-hidden_size // 16) * 16


def forward(
    kind: str,
    x: Tensor,
    state: Tensor | None,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    batch_sizes: Tensor | None = None,
    initial: Tensor | None = None,
    save: bool = True,
    recompute: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a whole sequence.

    Args:
        kind: one of `KINDS`.
        x: (T, B, I), or (N, I) with `batch_sizes`.
        state: (B, S), the state before the first step. None: `initial` for every sequence, or zero.
        resets: (T, B), or (N,) with `batch_sizes`, bool or uint8; where it is true the state is replaced by
            `initial` (or zero) before the step. None: no resets.
        weight_ih: see the table above, as for `weight_hh`, `bias_ih`, `bias_hh`.
        weight_hh: see above.
        bias_ih: see above.
        bias_hh: see above.
        batch_sizes: (T,) int64, positive and not increasing: how many of the B = batch_sizes[0] sequences reach
            each step, as in `torch.nn.utils.rnn.PackedSequence`.
        initial: (S,), the state that a reset restores; None is zero.
        save: whether a backward pass will follow. If not, `saved` is empty (N, 0, ...).
        recompute: keep only what can't be computed again from the outputs (see `saved_shape`). `backward` has to
            be told the same. Costs 5-35 % of the time, and bounds the memory.

    Returns:
        `outputs` (T, B, H) or (N, H); `final_state` (B, S), each sequence's state after its own last step, never
        an alias of `state`; `saved`, of `saved_shape(kind, N, H, recompute=recompute)`, for `backward`.
    """
    raise NotImplementedError


def backward(
    kind: str,
    grad_outputs: Tensor | None,
    grad_final: Tensor | None,
    x: Tensor,
    state: Tensor | None,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    *,
    batch_sizes: Tensor | None = None,
    initial: Tensor | None = None,
    recompute: bool = False,
    need_x: bool = True,
) -> Gradients:
    """The gradients of everything that `forward` was given.

    Args:
        kind: as in `forward`.
        grad_outputs: the gradient of `outputs`, of its shape; None is zero (cheaper than a tensor of zeros).
        grad_final: the gradient of `final_state` (B, S); None is zero.
        x: as given to `forward`, like `state`, `resets`, the parameters, `batch_sizes`, `initial`, `recompute`.
        state: see `forward`.
        resets: see `forward`.
        weight_ih: see `forward`.
        weight_hh: see `forward`.
        bias_ih: see `forward`.
        bias_hh: see `forward`.
        outputs: what `forward` returned.
        saved: what `forward` returned with `save=True`.
        batch_sizes: see `forward`.
        initial: see `forward`.
        recompute: see `forward`.
        need_x: whether the gradient of x is wanted; without it `Gradients.x` is None and some work is saved.

    Returns:
        `Gradients`, each of its input's shape: x (None unless `need_x`), state, weight_ih, weight_hh, bias_ih,
        bias_hh, initial; None for an input that was None.
    """
    raise NotImplementedError


def step(
    kind: str,
    x: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    resets: Tensor | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """One step without gradients, by the shortest way: for acting, where B is small and latency is everything.

    The weights are packed once and kept as long as the tensors live and are not modified.

    Args:
        kind: one of `KINDS`.
        x: (B, I).
        state: (B, S).
        weight_ih: see the table above, as for `weight_hh`, `bias_ih`, `bias_hh`.
        weight_hh: see above.
        bias_ih: see above.
        bias_hh: see above.
        resets: (B,), bool or uint8: where it is true the state is replaced by `initial` before the step.
        initial: (S,), the state that a reset restores; None is zero.

    Returns:
        The new state (B, S); its first H columns are the output.
    """
    raise NotImplementedError


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason."""
    spec = importlib.util.find_spec("bistable_rl.kernels._cpu")
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None, "the C++ kernels were not built (no working C++ compiler at install?)"
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError as error:
        return None, f"the C++ kernels can't be loaded: {error}"
    library.brl_isa.restype = ctypes.c_char_p
    return library, library.brl_isa().decode()
