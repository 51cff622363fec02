"""Units of several kinds side by side in one layer.

    h_t = [h_t of the first kind ; h_t of the second kind ; ...]

Every kind reads the whole input and, by its own equation, the state of its own units. Lambrechts et al., "Warming up
recurrent neural networks to maximise reachable multistability greatly improves learning", Neural Networks 2023, let one
half of each layer be multistable, to remember, and leave the other half transient, to compute.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from bistable_rl.cells.base import Cell
from bistable_rl.cells.options import MixedOptions, Start, defaults
from bistable_rl.checks import check_int
from bistable_rl.errors import unknown
from bistable_rl.kernels import Batch

HALVES = ("nbrc", "gru")
"""The default kinds, half of the units each."""

HANDED_ON = ("learn_initial_state", "recompute", "c_bias", "t_max", "start")
"""The options that are passed on to every kind that has them."""


class MixedCell(Cell):
    """Mixed: units of several kinds side by side, by default half nBRC and half GRU.

    The state holds the outputs of all kinds first, then the rest of each kind's state, such as an LSTM's c. `kinds`
    holds a cell of each kind; their parameters are named `kinds.0.weight_ih` and so on. Each kind runs in one scan on
    its own kernel. `learn_initial_state`, `recompute`, `c_bias`, `t_max` and `start` go to every kind that has them;
    `of_kind` sets the options of single kinds. BRC and nBRC start in halves here, or as in the paper without biases.

    Raises:
        ValueError: If a kind is unknown, has no slow gate or has no such option, or the units do not add up to H.
    """

    slow_gate = "c"
    start: Start = "halves"
    parts: Mapping[str, int] | None = None
    of_kind: Mapping[str, Mapping[str, Any]] | None = None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Unpack[MixedOptions]) -> None:
        place = {name: options.get(name) for name in ("device", "dtype")}
        super().__init__(input_size, hidden_size, bias, **options)
        del self._empty
        self.initial = None  # each kind has its own
        units, of_kind = self.units(hidden_size), self.of_kind or {}
        if not isinstance(of_kind, Mapping):
            raise ValueError(
                f"of_kind must map kinds to options, such as {{'nbrc': {{'c_bias': 2.0}}}}; got {of_kind!r}"
            )
        for name in of_kind:
            if name not in units:
                raise ValueError(unknown("kind in of_kind", name, units))
        shared = {name: getattr(self, name) for name in HANDED_ON if bias or name != "start" or name in options}
        self.kinds = nn.ModuleList()
        for name, n in units.items():
            kind = _kind(name)
            self.kinds.append(kind(input_size, n, bias, **place, **_options(name, kind, shared, of_kind.get(name))))
        with torch.no_grad():
            self._projected = [kind.project(kind.weight_ih.new_zeros(input_size)).shape[-1] for kind in self.cells]

    def units(self, hidden_size: int) -> dict[str, int]:
        """Return the number of units of each kind.

        Raises:
            ValueError: If they do not add up to `hidden_size`.
        """
        if self.parts is None:
            if hidden_size < len(HALVES):
                return {HALVES[0]: hidden_size}
            return {HALVES[0]: hidden_size - hidden_size // 2, HALVES[1]: hidden_size // 2}
        check_parts(self.parts)
        if sum(self.parts.values()) != hidden_size:
            raise ValueError(f"parts must add up to hidden_size {hidden_size}, got {dict(self.parts)}")
        return dict(self.parts)

    @property
    def cells(self) -> list[Cell]:
        """The cells of the kinds, in order."""
        return list(self.kinds)  # type: ignore[arg-type]

    @property
    def weight_ih(self) -> nn.Parameter:  # type: ignore[override]
        """The first kind's input weights, whose dtype and device are those of all."""
        return self.cells[0].weight_ih

    @property
    def state_size(self) -> int:
        """S, the sum over the kinds."""
        return sum(kind.state_size for kind in self.cells)

    def split(self, state: Tensor) -> list[Tensor]:
        """Return the state of each kind from that of all (..., S)."""
        kinds = self.cells
        parts = state.split([k.hidden_size for k in kinds] + [k.state_size - k.hidden_size for k in kinds], -1)
        pairs = zip(parts[: len(kinds)], parts[len(kinds) :], strict=True)
        return [torch.cat(pair, -1) if pair[1].shape[-1] else pair[0].contiguous() for pair in pairs]

    def join(self, states: list[Tensor]) -> Tensor:
        """Return the state of all kinds (..., S) from that of each."""
        sizes = [kind.hidden_size for kind in self.cells]
        outputs = [state[..., :n] for state, n in zip(states, sizes, strict=True)]
        others = [state[..., n:] for state, n in zip(states, sizes, strict=True)]
        return torch.cat([*outputs, *others], -1)

    def restored_state(self) -> Tensor | None:
        """Return the state (S,) that a reset restores, or None where it is zero."""
        restored = [kind.restored_state() for kind in self.cells]
        if all(state is None for state in restored):
            return None
        return self.join(
            [
                kind.weight_ih.new_zeros(kind.state_size) if state is None else state
                for kind, state in zip(self.cells, restored, strict=True)
            ]
        )

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        for kind in self.cells:
            kind.reset_parameters()

    def project(self, x: Tensor) -> Tensor:
        """Compute every kind's projection of the input, side by side: x (..., I) -> (..., P)."""
        return torch.cat([kind.project(x) for kind in self.cells], -1)

    def gates(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Compute the slow gates of all units, as c (..., H), and the feedback gain a, 0 for units without one."""
        parts = zip(self.cells, projected.split(self._projected, -1), self.split(state), strict=True)
        every = [(kind, kind.gates(p, s)) for kind, p, s in parts]
        slow = [own[str(kind.slow_gate)] for kind, own in every]
        gates = {"c": torch.cat(slow, -1)}
        if any("a" in own for _, own in every):
            gains = [own.get("a", torch.zeros_like(c)) for (_, own), c in zip(every, slow, strict=True)]
            gates["a"] = torch.cat(gains, -1)
        return gates

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """Compute the next state (B, S) from `project(x)` (B, P) and the state (B, S)."""
        parts = zip(self.cells, projected.split(self._projected, -1), self.split(state), strict=True)
        return self.join([kind.step(p, s) for kind, p, s in parts])

    def run(self, batch: Batch, *, bfloat16: bool = False) -> tuple[Tensor, Tensor]:
        """Run every kind over a checked batch, in one scan each."""
        states = self.split(batch.state)
        restored = [kind.restored_state() for kind in self.cells]
        ran = [
            kind.run(batch._replace(state=state, initial=initial), bfloat16=bfloat16)
            for kind, state, initial in zip(self.cells, states, restored, strict=True)
        ]
        return torch.cat([outputs for outputs, _ in ran], -1), self.join([last for _, last in ran])

    def act(self, x: Tensor, state: Tensor, resets: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Run one step of every kind without gradients on the single-step path; None where `scan` must do it."""
        if type(state) is not Tensor or state.shape[-1:] != (self.state_size,):
            return None
        ran = []
        for kind, own in zip(self.cells, self.split(state), strict=True):
            acted = kind.act(x, own, resets)
            if acted is None:
                return None
            ran.append(acted)
        return torch.cat([outputs for outputs, _ in ran], -1), self.join([last for _, last in ran])

    def _recompute_weights(self) -> None:
        for kind in self.cells:
            kind._recompute_weights()


def check_parts(parts: object) -> None:
    """Check that parts are numbers of units by kind.

    Raises:
        ValueError: If they are not.
    """
    if not isinstance(parts, Mapping) or not parts:
        raise ValueError(f"parts must map kinds to numbers of units, such as {{'nbrc': 32, 'gru': 32}}; got {parts!r}")
    for name, n in parts.items():
        _kind(name)
        check_int(f"parts: {name}", n, 1)


def _kind(name: str) -> type[Cell]:
    """Return the class of a kind of unit: any cell that has a slow gate, except this one."""
    from bistable_rl.cells import CELLS  # which imports this module

    choices = [key for key, cell in CELLS.items() if cell.slow_gate and not issubclass(cell, MixedCell)]
    if name not in choices:
        raise ValueError(unknown("kind in parts", name, choices))
    return CELLS[name]


def _options(name: str, kind: type[Cell], shared: Mapping[str, Any], own: object) -> dict[str, Any]:
    """Return the options of a kind: the shared ones, and its own."""
    known = {option: default for option, default in defaults(kind).items() if option not in ("device", "dtype")}
    given = {} if own is None else own
    if not isinstance(given, Mapping):
        raise ValueError(f"of_kind: {name} must map options to values, such as {{'c_bias': 2.0}}; got {own!r}")
    for option, value in given.items():
        if option not in known:
            raise ValueError(f"of_kind: {name}: {unknown('option', option, known)}")
        if isinstance(known[option], bool) and not isinstance(value, bool):
            raise ValueError(f"of_kind: {name}: {option} must be True or False, got {value!r}")
    return {option: value for option, value in shared.items() if option in known} | dict(given)
