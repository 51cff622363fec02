"""The recurrent cells, by name."""

import difflib
import inspect

from bistable_rl.cells.base import Cell
from bistable_rl.cells.brc import BRCCell
from bistable_rl.cells.goru import GORUCell
from bistable_rl.cells.gru import GRUCell
from bistable_rl.cells.half_pbrc import HalfPBRCCell
from bistable_rl.cells.lmu import LMUCell
from bistable_rl.cells.lstm import LSTMCell
from bistable_rl.cells.nbrc import NBRCCell
from bistable_rl.cells.pbrc import PBRCCell
from bistable_rl.cells.plastic_gru import PlasticGRUCell
from bistable_rl.checks import check_bool

CELLS: dict[str, type[Cell]] = {
    "brc": BRCCell,
    "nbrc": NBRCCell,
    "gru": GRUCell,
    "lstm": LSTMCell,
    "goru": GORUCell,
    "lmu": LMUCell,
    "plastic_gru": PlasticGRUCell,
    "pbrc": PBRCCell,
    "half_pbrc": HalfPBRCCell,
}

__all__ = [
    "CELLS",
    "BRCCell",
    "Cell",
    "GORUCell",
    "GRUCell",
    "HalfPBRCCell",
    "LMUCell",
    "LSTMCell",
    "NBRCCell",
    "PBRCCell",
    "PlasticGRUCell",
    "cell_options",
    "check_options",
    "get_cell",
]


def get_cell(name: str) -> type[Cell]:
    """The class of the cell called `name`.

    Args:
        name: a key of `CELLS`.

    Returns:
        The cell's class.

    Raises:
        ValueError: if there is no such cell; it lists the choices and the nearest one.
    """
    if name not in CELLS:
        raise ValueError(f"unknown cell {name!r}; {_choices(str(name), list(CELLS))}")
    return CELLS[name]


def cell_options(name: str) -> dict[str, object]:
    """The options of a cell beyond its sizes, bias, device and dtype, with their defaults.

    Args:
        name: a key of `CELLS`.

    Returns:
        Option name -> default.

    Raises:
        ValueError: if there is no such cell.
    """
    parameters = inspect.signature(get_cell(name).__init__).parameters
    fixed = ("self", "input_size", "hidden_size", "bias", "device", "dtype")
    return {option: parameter.default for option, parameter in parameters.items() if option not in fixed}


def check_options(name: str, options: dict[str, object]) -> None:
    """Check that the cell has all these options, and that those which are switches are true or false.

    Args:
        name: a key of `CELLS`.
        options: option name -> value; the cell itself checks the values of the others.

    Raises:
        ValueError: if there is no such cell, or it has no such option (it lists the choices and the nearest one).
        TypeError: if a switch is neither True nor False.
    """
    known = cell_options(name)
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"cell {name!r} has no option {option!r}; {_choices(str(option), list(known))}")
        if isinstance(known[option], bool):
            check_bool(option, value)


def _choices(name: str, choices: list[str]) -> str:
    nearest = difflib.get_close_matches(name.lower(), choices, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}Choices: {', '.join(choices)}"
