"""The initialisations that cells share: of the slow gate's bias, and of all gates of a GRU or LSTM."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from bistable_rl.checks import as_float


def check_slow_gate(c_bias: float | str | None, t_max: float | None, bias: bool, dtype: torch.dtype | None) -> None:
    """Check the options of the slow gate's bias.

    Args:
        c_bias: A number, "chrono", or None to leave the bias as initialised.
        t_max: Longest time to remember in steps, above 1; required by "chrono" and allowed with nothing else.
        bias: Whether the cell has biases at all.
        dtype: Dtype of the bias, in which the numbers must be finite; None is torch's default.

    Raises:
        ValueError: If they contradict each other or are out of range.
    """
    if c_bias is None:
        if t_max is not None:
            raise ValueError(f"t_max={t_max!r} needs c_bias='chrono'")
        return
    if not bias:
        raise ValueError(f"c_bias={c_bias!r} needs bias=True")
    if c_bias == "chrono":
        if isinstance(t_max, bool) or not isinstance(t_max, int | float | np.number) or not 1 < t_max < math.inf:
            raise ValueError(f"c_bias='chrono' needs t_max, a number of steps above 1; got t_max={t_max!r}")
        _check_finite("t_max", t_max, dtype)
    elif (
        isinstance(c_bias, bool) or not isinstance(c_bias, int | float | np.number) or not -math.inf < c_bias < math.inf
    ):
        raise ValueError(f"c_bias must be a finite number or 'chrono', got {c_bias!r}")
    elif t_max is not None:
        raise ValueError(f"t_max={t_max!r} needs c_bias='chrono', got c_bias={c_bias!r}")
    else:
        _check_finite("c_bias", c_bias, dtype)


def _check_finite(name: str, value: float, dtype: torch.dtype | None) -> None:
    """Raise a ValueError unless the number, which is finite, is finite in the dtype, too."""
    dtype = dtype or torch.get_default_dtype()
    if abs(as_float(value)) > torch.finfo(dtype).max:
        raise ValueError(f"{name} must be finite in {dtype}, at most {torch.finfo(dtype).max:.4g}; got {value!r}")


@torch.no_grad()
def fill_slow_gate(bias: Tensor, c_bias: float | str | None, t_max: float | None) -> None:
    """Set the slow gate's bias (H,) in place: to a number, or chrono-initialised.

    "chrono" draws log U(1, t_max) (Tallec and Ollivier 2018, section 3): the units' time constants then spread over
    1 to t_max steps. None leaves the bias alone.
    """
    if c_bias == "chrono":
        assert t_max is not None
        bias.uniform_(1.0, float(t_max)).log_()
    elif c_bias is not None:
        bias.fill_(float(c_bias))


BISTABLE_BIAS = 1.0
"""b_a of units that start with two stable states: a = 1.76."""

TRANSIENT_BIAS = -1.5
"""b_a of units that start with one stable state and follow their input: a = 0.09."""

TRANSIENT_STEPS = (1.1, 20.0)
"""The time constants, in steps, of the fastest and the slowest of these."""


@torch.no_grad()
def fill_halves(b_a: Tensor, b_c: Tensor, c_bias: float | str | None, t_max: float | None) -> None:
    """Set the biases of a and c in place, (H,) each: the first half of the units keeps, the second follows the input.

    At a = 1, the paper's initialisation, a unit sums its input and shows neither a cue nor the present well. The
    bistable half keeps a cue longer. The transient half shows the present and, since its time scales differ, how it
    changes. If H is odd, the first half is the larger one.

    Args:
        b_a: The bias of the feedback gain.
        b_c: The bias of the update gate.
        c_bias: As in `fill_slow_gate`, for the first half; None is 0.
        t_max: As in `fill_slow_gate`.
    """
    n = len(b_a) // 2
    first = len(b_a) - n
    b_a[:first] = BISTABLE_BIAS
    b_a[first:] = TRANSIENT_BIAS
    b_c.zero_()
    fill_slow_gate(b_c[:first], c_bias, t_max)
    fastest, slowest = TRANSIENT_STEPS
    # a leaky unit with c = 1 - 1/τ has the time constant τ, and log(τ - 1) is the logit of c
    steps = torch.logspace(math.log10(fastest), math.log10(slowest), n, dtype=b_c.dtype, device=b_c.device)
    b_c[first:] = (steps - 1).log()


def fill_gates(init: str, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor | None, bias_hh: Tensor | None) -> None:
    """Initialise a GRU's or LSTM's weights in place.

    Args:
        init: "torch" for uniform(-1/√H, 1/√H) everywhere; "keras" for Glorot-uniform input weights, orthogonal
            recurrent weights and biases 0, each weight drawn as one matrix for all gates.
        weight_ih: (G, I), all gates.
        weight_hh: (G, H), all gates.
        bias_ih: (G,), or None.
        bias_hh: (G,), or None.
    """
    if init == "keras":
        nn.init.xavier_uniform_(weight_ih)
        nn.init.orthogonal_(weight_hh)
        for bias in (bias_ih, bias_hh):
            if bias is not None:
                nn.init.zeros_(bias)
        return
    bound = 1 / math.sqrt(weight_hh.shape[1])
    for parameter in (weight_ih, weight_hh, bias_ih, bias_hh):
        if parameter is not None:
            nn.init.uniform_(parameter, -bound, bound)
