"""What every cell is: one flat state, one step, one scan over time.

The paper's names are used throughout. Other codes rename them: the feedback gain `a` (1 + tanh) is their r, the update
gate `c` is their z.
"""

import math
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bistable_rl import kernels
from bistable_rl.kernels import reference
from bistable_rl.kernels.reference import Step


class Cell(nn.Module):
    """A recurrent cell whose whole memory is one flat tensor, the first H entries of which are its output.

    A subclass gives `project` (the part of the equation that needs the input only, so it is computed for all time
    steps at once), `step` (the rest) and `reset_parameters`.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of output features, at least 1.
        state_size: S >= H, length of the flat state.
        recompute: keep fewer intermediate values for the backward pass and compute them again there.
        learn_initial_state: make the state that sequences and resets start from a parameter, zero at first.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: if a size is not a positive integer.
        TypeError: if a switch is neither True nor False, as for every cell.
    """

    slow_gate: ClassVar[str | None] = None  # the name of the gate that `c_bias` sets, if the cell has one
    weight_ih: nn.Parameter  # every cell has input weights by this name; the other parameters are its own
    kernel: ClassVar[str | None] = None  # the cell's name in `bistable_rl.kernels`, if it has kernels

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        state_size: int,
        *,
        recompute: bool = False,
        learn_initial_state: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("input_size", input_size)
        check_size("hidden_size", hidden_size)
        check_switch("recompute", recompute)
        check_switch("learn_initial_state", learn_initial_state)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self._state_size = state_size
        self.recompute = recompute
        self.initial: nn.Parameter | None = None
        if learn_initial_state:
            self.initial = nn.Parameter(torch.zeros(self.learned_size, device=device, dtype=dtype))

    @property
    def state_size(self) -> int:
        """S, the length of the flat state."""
        return self._state_size

    @property
    def learned_size(self) -> int:
        """How many entries of the initial state, from the first, `learn_initial_state` learns; the others stay 0."""
        return self._state_size

    def restored_state(self) -> Tensor | None:
        """The state (S,) that a reset restores, or None where it is zero."""
        if self.initial is None:
            return None
        return nn.functional.pad(self.initial, (0, self.state_size - self.learned_size))

    def initial_state(self, batch_size: int) -> Tensor:
        """The state (batch_size, S) before the first step: zero, or learned."""
        restored = self.restored_state()
        if restored is None:
            return self.weight_ih.new_zeros(batch_size, self.state_size)
        return restored.expand(batch_size, -1)

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as at construction."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """What the step needs of the input, x (..., I) -> (..., P), for any number of steps at once."""
        raise NotImplementedError

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """One step, from `project(x)` (B, P) and the state (B, S) to the next state (B, S)."""
        raise NotImplementedError

    def prepare(self) -> Step:
        """`step`, with what does not change over time computed once."""
        return self.step

    def kernel_weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """weight_ih, weight_hh, bias_ih and bias_hh, as the kernel takes them; for cells that have one."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """One step of the equation.

        Args:
            x: (B, I), or (I,) without a batch.
            state: (B, S), or (S,) without a batch; None is the initial state.

        Returns:
            The next state, (B, S) or (S,).

        Raises:
            RuntimeError: if a shape does not fit.
        """
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            raise RuntimeError(f"input must be (B, {self.input_size}) or ({self.input_size},), got {tuple(x.shape)}")
        expected = (*x.shape[:-1], self.state_size)
        if state is None:
            state = self.initial_state(1).expand(expected) if x.dim() == 2 else self.initial_state(1)[0]
        elif state.shape != expected:
            raise RuntimeError(f"Expected hidden size {expected}, got {tuple(state.shape)}")
        return self.step(self.project(x), state)

    def scan(
        self,
        x: Tensor,
        state: Tensor | None = None,
        resets: Tensor | None = None,
        batch_sizes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the cell over time.

        Args:
            x: (T, B, I), or (N, I) when packed.
            state: (B, S), the state before the first step; None is the initial state.
            resets: (T, B), or (N,) when packed, of bool or number: nonzero restores the initial state before that step.
            batch_sizes: (T,) int64 on the CPU, as in a `PackedSequence`; given when and only when x is packed.

        Returns:
            The outputs (T, B, H), or (N, H) when packed, and the last state of each sequence (B, S).

        Raises:
            RuntimeError: if the number of features or the shape of the state does not fit.
            ValueError: if the dtype or device of x or the state is not that of the weights, resets or batch_sizes do
                not fit x, or the backend asked for cannot serve.
        """
        self._recompute_weights()
        weight = self.weight_ih
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )
        if x.device != weight.device:
            raise ValueError(f"the input is on {x.device} and the weights are on {weight.device}")
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):
            # As nn.GRU does on the CPU: a recurrence in half precision would lose what it is to remember.
            with torch.autocast(x.device.type, enabled=False):
                x, state = x.to(weight.dtype), None if state is None else state.to(weight.dtype)
                return self.scan(x, state, resets, batch_sizes)
        if x.dtype != weight.dtype:
            raise ValueError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). "
                f"Convert input: input.to({weight.dtype}), or convert model: model.to({x.dtype})"
            )
        if batch_sizes is not None:
            kernels.check_batch_sizes(batch_sizes, len(x))
        B = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
        if state is None:
            state = self.initial_state(B)
        elif state.shape != (B, self._state_size):
            raise RuntimeError(f"Expected hidden size {(B, self._state_size)}, got {list(state.shape)}")
        elif state.dtype != weight.dtype:
            raise ValueError(f"the state's dtype ({state.dtype}) does not match weight dtype ({weight.dtype})")
        elif state.device != weight.device:
            raise ValueError(f"the state is on {state.device} and the weights are on {weight.device}")
        if resets is not None:
            if resets.shape != x.shape[:-1] or resets.device != x.device:
                raise ValueError(
                    f"resets must be {tuple(x.shape[:-1])} on {x.device}, as the input's steps; "
                    f"got {tuple(resets.shape)} on {resets.device}"
                )
            resets = resets != 0
        initial = self.restored_state()
        if kernels.choose(self.kernel, x.device.type, x.dtype, self.hidden_size).backend != "reference":
            assert self.kernel is not None
            return kernels.scan(
                self.kernel, x, state, resets, *self.kernel_weights(), initial, batch_sizes, recompute=self.recompute
            )
        kernels.note(self.kernel or type(self).__name__, "reference")
        return reference.scan(
            self.prepare(),
            self.project(x),
            state,
            output_size=self.hidden_size,
            initial=initial,
            resets=resets,
            batch_sizes=batch_sizes,
            recompute=self.recompute,
        )

    def act(self, x: Tensor, state: Tensor, resets: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """One step without gradients by the shortest way, where there is one; `scan` does all else.

        Args:
            x: (1, B, I).
            state: (1, B, S).
            resets: (1, B), as in `scan`.

        Returns:
            The output (1, B, H) and the next state (1, B, S); None where `scan` has to do it.
        """
        if self.kernel is None or not kernels.has_short_step(self.kernel, x, state, self.hidden_size):
            return None
        weights = kernels.fixed(self, self._parameters.values())
        if weights is None:
            self._recompute_weights()
            weights = kernels.unpacked(self.kernel, self.kernel_weights())
        if weights is None:
            return None
        return kernels.step(self.kernel, weights, x, state, resets, None if resets is None else self.restored_state())

    def _recompute_weights(self) -> None:
        """Let torch's pruning and its older norms set the weights: their hooks run with `forward` alone."""
        for hook in self._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod | WeightNorm | SpectralNorm):
                hook(self, None)

    def extra_repr(self) -> str:
        """The sizes, for `print`."""
        return f"{self.input_size}, {self.hidden_size}"


@contextmanager
def fixed_weights(module: nn.Module) -> Iterator[None]:
    """Promise that a module's cells keep their weights inside the `with` block, so that they act faster.

    A step without gradients first packs a cell's weights for the compiled CPU kernel, which takes about as long as the
    step itself. Here they are packed once, on entry, and every single step of a layer in this thread takes them as they
    were then: an edit made inside shows after the block, in which nothing should therefore update the weights. Whatever
    is no such step (sequences, gradients, other devices, other backends, other threads) sees the weights as they are,
    and so does everything outside. A generator that is suspended inside the block leaves it open for its caller.

    Args:
        module: any module; cells without a compiled kernel, or on another device than the CPU, are left as they are.

    Example:
        >>> rnn, x, h = RNN("nbrc", 10, 20), torch.randn(1, 3, 10), torch.zeros(1, 3, 20)
        >>> with torch.no_grad(), fixed_weights(rnn):
        ...     for _ in range(100):
        ...         output, h = rnn(x, h)
    """
    packed: dict[Hashable, kernels.Packed] = {}
    for cell in module.modules():
        if isinstance(cell, Cell) and cell.kernel is not None:
            with torch.no_grad():
                cell._recompute_weights()
                weights = kernels.pack(cell.kernel, cell.kernel_weights())
            if weights is not None:
                packed[cell] = weights, tuple(cell._parameters.values())
    with kernels.fix(packed):
        yield


def check_size(name: str, size: object) -> None:
    """Raise a ValueError that names the size and its value, unless it is a positive integer."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{name} must be a positive integer, got {size!r}")


def check_switch(name: str, value: object) -> None:
    """Raise a TypeError that names the switch and its value, unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}")


def check_choice(option: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a ValueError that names the option, the value and the choices, unless the value is one of them."""
    if value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}; got {value!r}")


def check_slow_gate(c_bias: float | str | None, t_max: float | None, bias: bool, dtype: torch.dtype | None) -> None:
    """Check the options of the slow gate's bias.

    Args:
        c_bias: a number, "chrono", or None to leave the bias as initialised.
        t_max: the longest time to remember, in steps, above 1; given when and only when c_bias is "chrono".
        bias: whether the cell has biases at all.
        dtype: of the bias, in which the numbers must be finite; None is torch's default.

    Raises:
        ValueError: if they contradict each other or are out of range.
        TypeError: if bias is neither True nor False.
    """
    check_switch("bias", bias)
    c_bias = c_bias.item() if isinstance(c_bias, np.number) else c_bias
    t_max = t_max.item() if isinstance(t_max, np.number) else t_max
    if c_bias is None:
        if t_max is not None:
            raise ValueError(f"t_max={t_max!r} needs c_bias='chrono'")
        return
    if not bias:
        raise ValueError(f"c_bias={c_bias!r} needs bias=True")
    if c_bias == "chrono":
        if isinstance(t_max, bool) or not isinstance(t_max, int | float) or not 1 < t_max < math.inf:
            raise ValueError(f"c_bias='chrono' needs t_max, a number of steps above 1; got t_max={t_max!r}")
        _check_finite("t_max", t_max, dtype)
    elif isinstance(c_bias, bool) or not isinstance(c_bias, int | float) or not -math.inf < c_bias < math.inf:
        raise ValueError(f"c_bias must be a finite number or 'chrono', got {c_bias!r}")
    elif t_max is not None:
        raise ValueError(f"t_max={t_max!r} needs c_bias='chrono', got c_bias={c_bias!r}")
    else:
        _check_finite("c_bias", c_bias, dtype)


def _check_finite(name: str, value: float, dtype: torch.dtype | None) -> None:
    """Raise a ValueError unless the number, which is finite, is finite in the dtype, too."""
    dtype = dtype or torch.get_default_dtype()
    if abs(value) > torch.finfo(dtype).max:
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
