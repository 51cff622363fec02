"""The options of the cells: the type and the meaning of each, once.

A cell's constructor takes `**options: Unpack[...]` of one of these, and so does its layer in `bistable_rl.rnn`, so that
editors and type checkers complete and check them in both. The default of an option is the class attribute of that
name.
"""

import inspect
import textwrap
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from typing_extensions import TypedDict, get_type_hints

SlowBias = float | Literal["chrono"] | None
GateInit = Literal["torch", "keras"]
RecurrentInit = Literal["glorot", "orthogonal"]
Start = Literal["paper", "halves"]

MEANINGS = {
    "candidate_bias": "Whether the candidate, tanh(...), has a bias as well.",
    "start": '"paper" for biases 0, or "halves": the first half of the units starts bistable, with b_a = 1, and the '
    "other with one stable state, b_a = -1.5, and time scales from 1 to 20 steps. c_bias then sets the first half.",
    "recurrent_init": 'Initialisation of W_a and W_c: "glorot" or "orthogonal".',
    "init": '"torch" for uniform(-1/√H, 1/√H) everywhere, or "keras", as in the paper: input weights Glorot-uniform, '
    "recurrent weights orthogonal, biases 0 except an LSTM's forget bias, which is 1.",
    "c_bias": 'Initial bias of the slow gate: a number, or "chrono" for log U(1, t_max). None keeps the cell\'s own '
    "initialisation.",
    "t_max": 'Longest time to remember in steps, above 1, for "chrono".',
    "memory_size": "d, the number of Legendre coefficients, at least 1.",
    "parts": "Number of units of each kind, H in total, e.g. {'nbrc': 32, 'gru': 32}. None is half nBRC and half GRU.",
    "of_kind": "Options of single kinds, e.g. {'gru': {'init': 'keras'}}.",
    "theta": "θ, the length of the window in steps, above 0.",
    "learn_initial_state": "Learn the state from which sequences and resets start. It is initialised to zero.",
    "recompute": "Keep fewer values for the backward pass and recompute the others in it, to save memory.",
    "device": "Device of the parameters.",
    "dtype": "Floating-point type of the parameters.",
}


class CellOptions(TypedDict, total=False):
    """Options of every cell."""

    learn_initial_state: bool
    device: torch.device | str | None
    dtype: torch.dtype | None


class RecomputeOptions(CellOptions, total=False):
    """Options of a cell that keeps more than its states for the backward pass."""

    recompute: bool


class SlowGateOptions(CellOptions, total=False):
    """Options of a cell with a slow gate, the one that keeps the state."""

    c_bias: SlowBias
    t_max: float | None


class GatedOptions(SlowGateOptions, RecomputeOptions, total=False):
    """Options of GORU and the plastic cells."""


class BRCOptions(SlowGateOptions, total=False):
    """Options of BRC."""

    candidate_bias: bool
    start: Start


class NBRCOptions(BRCOptions, RecomputeOptions, total=False):
    """Options of nBRC."""

    recurrent_init: RecurrentInit


class GRUOptions(GatedOptions, total=False):
    """Options of GRU and LSTM."""

    init: GateInit


class MixedOptions(GatedOptions, total=False):
    """Options of units of several kinds side by side."""

    start: Start
    parts: Mapping[str, int] | None
    of_kind: Mapping[str, Mapping[str, Any]] | None


class LMUOptions(RecomputeOptions, total=False):
    """Options of the LMU."""

    memory_size: int
    theta: float


def defaults(cls: type) -> dict[str, Any]:
    """Return the options of a cell or layer class, device and dtype included, with their defaults."""
    parameters = inspect.signature(cls).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def show_options(cls: type, cell: type) -> None:
    """Spell out `**options: Unpack[...]` in the signature and the docstring of a cell or of its layers.

    Args:
        cls: The class.
        cell: The class whose attributes are the defaults.
    """
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    _, *parameters = signature.parameters.values()
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        try:
            hints = get_type_hints(cls.__init__)  # type: ignore[misc]
        except NameError:  # an annotation that only type checkers can resolve
            return
        for unpacked in get_args(hints.get(parameters.pop().name)):
            types: dict[str, Any] = unpacked.__annotations__
            parameters += [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(cell, name, None), annotation=t)
                for name, t in sorted(types.items(), key=lambda item: [*MEANINGS, item[0]].index(item[0]))
            ]
    cls.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    lines = [f"{name}: {MEANINGS[name]}" for name in defaults(cls) if name in MEANINGS]
    if cls.__doc__ and lines:
        wrapped = (textwrap.fill(line, 112, initial_indent="    ", subsequent_indent=8 * " ") for line in lines)
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__), "", "Options:", *wrapped])
