"""The style of all figures: one palette, one function that makes a figure and writes it.

A cell has the same colour everywhere. The page is opaque white, so that a figure looks the same in print, in a README
and on TensorBoard's dark page. matplotlib, the extra `plot`, is imported on first use.
"""

from __future__ import annotations

import io
import textwrap
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bistable_rl.errors import UserError
from bistable_rl.runs.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Six of Okabe and Ito's colours and four of Tol's "muted", distinguishable without red, green or blue cones too.
CELL_COLOURS = {
    "nbrc": "#0072B2",
    "brc": "#56B4E9",
    "gru": "#E69F00",
    "lstm": "#D55E00",
    "goru": "#009E73",
    "lmu": "#CC79A7",
    "plastic_gru": "#882255",
    "pbrc": "#332288",
    "half_pbrc": "#999933",
    "mixed": "#117733",
}
FURTHER_COLOURS = ("#000000", "#DDCC77", "#661100", "#B22222")
"""Colours of all other cells."""
OTHER_COLOUR = "#555555"
"""Colour of anything that is not a cell."""

DEFAULTS: Any = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
DPI = 150
NAME_WIDTH = 60


def cell_colour(cell: str) -> str:
    """Return the colour of a cell; a cell without one in `CELL_COLOURS` gets a further one, always the same."""
    further = FURTHER_COLOURS[zlib.crc32(cell.encode()) % len(FURTHER_COLOURS)]
    return CELL_COLOURS.get(cell, further)


def check_installed() -> None:
    """Check that figures can be drawn, before long work starts.

    Raises:
        UserError: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("figures need matplotlib: install it with pip install 'bistable-rl[plot]'.") from None


@contextmanager
def drawing(
    path: Path,
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float] = (6.4, 3.6),
    **subplots: Any,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Yield a new figure and its axes, and write it as a PNG when the block ends without an error.

        with drawing(path) as (figure, [[axes]]):
            axes.plot(steps, success, color=cell_colour("nbrc"))
            axes.set(xlabel="environment steps", ylabel="success rate")

    Args:
        path: The file, written completely or not at all.
        rows: Rows of axes.
        columns: Columns of axes.
        size: Width and height in inches.
        **subplots: Further arguments of `Figure.subplots`, such as `sharex`.

    Yields:
        The figure, and its axes as an array (rows, columns).

    Raises:
        UserError: If matplotlib is not installed, or the file cannot be written.
    """
    check_installed()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(DEFAULTS), warnings.catch_warnings():  # no pyplot, no display, nothing to close
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # an emoji in a name becomes a box
        figure = Figure(figsize=size, layout="constrained")
        axes: np.ndarray = figure.subplots(rows, columns, squeeze=False, **subplots)
        yield figure, axes
        picture = io.BytesIO()
        figure.savefig(picture, dpi=DPI, format="png", metadata={"Software": None})
    write_bytes(path, picture.getvalue())


def plain(text: str) -> str:
    """Return a user's name so that matplotlib draws it literally, in lines of at most `NAME_WIDTH` characters.

    A dollar sign starts no formula. A legend omits names that begin with an underscore, so a space precedes it.
    """
    lines = textwrap.wrap(text, NAME_WIDTH) or [""]
    return (" " * text.startswith("_") + "\n".join(lines)).replace("$", "\\$")


def mark_steps(axes: Axes) -> None:
    """Label the x axis, in environment steps, with k and M."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
