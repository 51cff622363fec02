"""The base class of every cell: one flat state, one step, one scan over time.

Names follow the paper. Other code renames two of them: the feedback gain `a` (1 + tanh) is its r, and the update gate
`c` is its z.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bistable_rl import kernels
from bistable_rl.cells.initialisation import check_slow_gate
from bistable_rl.cells.options import SlowBias, defaults, show_options
from bistable_rl.checks import check_bool, check_int
from bistable_rl.kernels import cpu_step, reference
from bistable_rl.kernels.reference import Step


class Cell(nn.Module):
    """A recurrent cell whose whole memory is one flat tensor, the first H entries of which are its output.

    A subclass defines `project` (the part of the equation that needs only the input, computed for all time steps at
    once), `step` (the rest, from its `gates` if it has any) and `reset_parameters`. Its constructor calls this one,
    which checks and sets the options, and then `add_parameters`. The class attribute of an option's name is its
    default.

    Args:
        input_size: I, number of input features, at least 1.
        hidden_size: H, number of output features, at least 1.
        bias: Whether the cell has biases.
        **options: The options of the cell, those of `bistable_rl.cells.options` among them.

    Raises:
        ValueError: If a size is not a positive integer, or an option is out of range or contradicts another.
        TypeError: If a switch is neither True nor False, or the cell has no such option.
    """

    kernel: ClassVar[str | None] = None  # the cell's key in `kernels.KERNELS`, if it has kernels
    slow_gate: ClassVar[str | None] = None  # the name of the gate that `c_bias` sets, if the cell has one
    c_bias: SlowBias = None
    t_max: float | None = None
    learn_initial_state = False
    recompute = False
    weight_ih: nn.Parameter  # every cell has input weights by this name; the other parameters are its own
    initial: nn.Parameter | None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        show_options(cls, cls)

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Any) -> None:
        super().__init__()
        check_int("input_size", input_size, 1)
        check_int("hidden_size", hidden_size, 1)
        check_bool("bias", bias)
        self.input_size = input_size
        self.hidden_size = hidden_size
        device, dtype = options.pop("device", None), options.pop("dtype", None)
        self._empty = partial(torch.empty, device=device, dtype=dtype)
        known = defaults(type(self))
        for name, value in options.items():
            if name not in known:
                raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}")
            if isinstance(known[name], bool):
                check_bool(name, value)
            setattr(self, name, value)
        if self.slow_gate is not None:
            check_slow_gate(self.c_bias, self.t_max, bias, dtype)

    def add_parameters(self, **shapes: tuple[int, ...] | None) -> None:
        """Create the parameters in this order and initialise them; where the shape is None, so is the attribute.

        Raises:
            NotImplementedError: If the class does not define `reset_parameters`, so that nothing initialises them.
        """
        if type(self).reset_parameters is Cell.reset_parameters:
            raise self._missing("reset_parameters", "which initialises its parameters")
        self.initial = None
        if self.learn_initial_state:
            self.initial = nn.Parameter(self._empty(self.learned_size))
        for name, shape in shapes.items():
            setattr(self, name, None if shape is None else nn.Parameter(self._empty(shape)))
        del self._empty
        self.reset_parameters()

    @property
    def cells(self) -> list["Cell"]:
        """The cells of each kind of unit in the layer: this cell alone, unless kinds are mixed."""
        return [self]

    @property
    def state_size(self) -> int:
        """S >= H, the length of the flat state."""
        return self.hidden_size

    @property
    def memory(self) -> slice:
        """The entries of the state that are the units' memory: those of h."""
        return slice(0, self.hidden_size)

    @property
    def learned_size(self) -> int:
        """How many of the first entries of the initial state `learn_initial_state` learns; the others stay 0."""
        return self.state_size

    def restored_state(self) -> Tensor | None:
        """Return the state (S,) that a reset restores, or None where it is zero."""
        if self.initial is None:
            return None
        return nn.functional.pad(self.initial, (0, self.state_size - self.learned_size))

    def initial_state(self, batch_size: int) -> Tensor:
        """Return the state (batch_size, S) before the first step: zero, or learned."""
        restored = self.restored_state()
        if restored is None:
            return self.weight_ih.new_zeros(batch_size, self.state_size)
        return restored.expand(batch_size, -1)

    def reset_parameters(self) -> None:
        """Reinitialise all parameters; a subclass adds its own to the initial state."""
        if self.initial is not None:
            nn.init.zeros_(self.initial)

    def project(self, x: Tensor) -> Tensor:
        """Compute the part of the step that needs only the input, x (..., I) -> (..., P)."""
        raise self._missing("project", "the part of the step that needs only the input")

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the gates of one step, which `step` uses; a cell without gates has none to compute.

        Args:
            projected: (..., P), from `project(x)`.
            state: (..., S), the state before the step.

        Returns:
            Gate name -> values (..., H), in the order and by the names of the equation.
        """
        return {}

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """Compute the next state (B, S) from `project(x)` (B, P) and the state (B, S)."""
        raise self._missing("step", "which computes the next state from project(x) and the state")

    def prepare(self) -> Step:
        """Return `step`, with everything that does not change over time computed once."""
        return self.step

    def kernel_weights(self) -> kernels.Weights:
        """Return the weights as the kernels take them; only cells with kernels have this."""
        raise self._missing("kernel_weights", "which returns the weights as the kernels take them")

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """Run one step of the equation.

        Args:
            x: (B, I), or (I,) without a batch.
            state: (B, S), or (S,) without a batch; None is the initial state.

        Returns:
            The next state, (B, S) or (S,).

        Raises:
            RuntimeError: If a shape does not fit.
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
            RuntimeError: If the number of features or the shape of the state does not fit.
            ValueError: If the dtype or device of x or the state differs from that of the weights, resets or batch_sizes
                do not fit x, or the backend asked for cannot serve.
        """
        self._recompute_weights()
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):
            # States keep the dtype of the weights, as nn.GRU's do on the CPU: in half precision they would lose memory.
            dtype, bfloat16 = self.weight_ih.dtype, torch.get_autocast_dtype(x.device.type) == torch.bfloat16
            with torch.autocast(x.device.type, enabled=False):
                x, state = x.to(dtype), None if state is None else state.to(dtype)
                return self.run(self._batch(x, state, resets, batch_sizes), bfloat16=bfloat16)
        return self.run(self._batch(x, state, resets, batch_sizes))

    def _batch(
        self, x: Tensor, state: Tensor | None, resets: Tensor | None, batch_sizes: Tensor | None
    ) -> kernels.Batch:
        """Return the arguments of `scan` as the kernels take them, and raise what it raises if they do not fit."""
        weight = self.weight_ih
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )
        if x.device != weight.device:
            raise ValueError(f"the input is on {x.device} and the weights are on {weight.device}")
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
        elif state.shape != (B, self.state_size):
            raise RuntimeError(f"Expected hidden size {(B, self.state_size)}, got {list(state.shape)}")
        elif state.dtype != weight.dtype:
            raise ValueError(f"the state's dtype ({state.dtype}) does not match weight dtype ({weight.dtype})")
        elif state.device != weight.device:
            raise ValueError(f"the state is on {state.device} and the weights are on {weight.device}")
        if resets is not None:
            if resets.shape != x.shape[:-1] or resets.device != x.device:
                raise ValueError(
                    f"resets must be {tuple(x.shape[:-1])} on {x.device}, one for each step of the input; "
                    f"got {tuple(resets.shape)} on {resets.device}"
                )
            resets = resets != 0
        return kernels.Batch(x, state, resets, self.restored_state(), batch_sizes)

    def run(self, batch: kernels.Batch, *, bfloat16: bool = False) -> tuple[Tensor, Tensor]:
        """Run the cell over a batch that `scan` has checked; `bfloat16` as in `kernels.scan`."""
        if self.kernel is not None:
            weights = self.kernel_weights()
            return kernels.scan(self.kernel, batch, weights, recompute=self.recompute, bfloat16=bfloat16)
        kernels.note(type(self).__name__, "reference")
        inputs = batch._replace(x=self.project(batch.x))
        return reference.scan(
            self.prepare(), inputs, output_size=self.hidden_size, recompute=self.recompute, name=type(self).__name__
        )

    def act(self, x: Tensor, state: Tensor, resets: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Run one step without gradients on the single-step path of `kernels.cpu_step`; nothing else calls it.

        Args:
            x: (1, B, I).
            state: (1, B, S).
            resets: (1, B), as in `scan`.

        Returns:
            The output (1, B, H) and the next state (1, B, S); None where `scan` must do it.
        """
        if self.kernel is None or not cpu_step.serves(self.kernel, x, state):
            return None
        weights = cpu_step.fixed(self, self._parameters.values())
        if weights is None:
            self._recompute_weights()
            weights = cpu_step.in_place(self.kernel, self.kernel_weights())
            if weights is None:
                return None
        if resets is None:
            return cpu_step.step(weights, x, state, None)
        return cpu_step.step(weights, x, state, resets != 0, self.restored_state())

    def _recompute_weights(self) -> None:
        """Let torch's pruning and its older norms set the weights; their hooks run only in `forward`."""
        for hook in self._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod | WeightNorm | SpectralNorm):
                hook(self, None)

    def _missing(self, method: str, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} must define {method}, {what}")

    def extra_repr(self) -> str:
        """Return the sizes, for `print`."""
        return f"{self.input_size}, {self.hidden_size}"


@contextmanager
def fixed_weights(module: nn.Module) -> Iterator[None]:
    """Promise not to change the weights of a module's cells inside the `with` block, so that single steps run faster.

    A step without gradients first packs a cell's weights for the compiled CPU kernel, which takes about as long as the
    step itself. Inside the block they are packed once, on entry, and every single step of a layer in this thread uses
    these packed weights. A change of the weights shows only after the block, so do not update them inside. Everything
    else uses the current weights, also inside the block: sequences, gradients, other devices, backends and threads. A
    generator that is suspended inside the block leaves it open for its caller.

    Args:
        module: Any module. Cells without a compiled kernel, or on a device other than the CPU, are not affected.

    Example:
        >>> rnn, x, h = RNN("nbrc", 10, 20), torch.randn(1, 3, 10), torch.zeros(1, 3, 20)
        >>> with torch.no_grad(), fixed_weights(rnn):
        ...     for _ in range(100):
        ...         output, h = rnn(x, h)
    """
    packed: dict[Hashable, cpu_step.Packed] = {}
    for cell in module.modules():
        if isinstance(cell, Cell) and cell.kernel is not None:
            with torch.no_grad():
                cell._recompute_weights()
                weights = cpu_step.pack(cell.kernel, cell.kernel_weights())
            if weights is not None:
                packed[cell] = weights, tuple(cell._parameters.values())
    with cpu_step.fix(packed):
        yield
