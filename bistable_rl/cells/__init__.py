"""The recurrent cells, by name; one of the user's own is named `package:Name`."""

from bistable_rl.cells.base import Cell
from bistable_rl.cells.brc import BRCCell
from bistable_rl.cells.goru import GORUCell
from bistable_rl.cells.gru import GRUCell
from bistable_rl.cells.half_pbrc import HalfPBRCCell
from bistable_rl.cells.lmu import LMUCell
from bistable_rl.cells.lstm import LSTMCell
from bistable_rl.cells.mixed import MixedCell
from bistable_rl.cells.nbrc import NBRCCell
from bistable_rl.cells.options import defaults
from bistable_rl.cells.pbrc import PBRCCell
from bistable_rl.cells.plastic_gru import PlasticGRUCell
from bistable_rl.checks import check_bool
from bistable_rl.errors import unknown
from bistable_rl.runs.named import resolve

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
    "mixed": MixedCell,
}
"""The cells by the name that a config, `make_rnn` and `policy.cell` take."""

__all__ = [
    "CELLS",
    "BRCCell",
    "Cell",
    "GORUCell",
    "GRUCell",
    "HalfPBRCCell",
    "LMUCell",
    "LSTMCell",
    "MixedCell",
    "NBRCCell",
    "PBRCCell",
    "PlasticGRUCell",
    "cell_options",
    "check_options",
    "get_cell",
]


def get_cell(name: str | type[Cell]) -> type[Cell]:
    """Return the class of a cell.

    Args:
        name: A key of `CELLS`; `package:Name`, a cell of one's own, whose package is imported
            (`bistable_rl.runs.user_modules` says from where); or the class itself.

    Raises:
        ValueError: If there is no such cell, or it is no subclass of `Cell`.
    """
    if isinstance(name, str) and ":" not in name:
        if name not in CELLS:
            raise ValueError(unknown("cell", name, CELLS))
        return CELLS[name]
    return resolve("cell", name, {}, Cell)


def cell_options(name: str | type[Cell]) -> dict[str, object]:
    """Return the options of a cell beyond its sizes, bias, device and dtype, with their defaults.

    Raises:
        ValueError: If there is no such cell.
    """
    options = defaults(get_cell(name))
    return {option: default for option, default in options.items() if option not in ("device", "dtype")}


def check_options(name: str | type[Cell], options: dict[str, object]) -> None:
    """Check that a cell has these options and that its switches are True or False; the cell checks other values.

    Raises:
        ValueError: If there is no such cell, or it has no such option; it lists the choices and the nearest one.
        TypeError: If a switch is neither True nor False.
    """
    known = cell_options(name)
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"cell {name!r}: {unknown('option', option, known)}")
        if isinstance(known[option], bool):
            check_bool(option, value)
