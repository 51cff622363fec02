"""How every figure of this project looks: one palette, one way to make a figure and to write it.

A cell has the same colour everywhere. The page is opaque white, so a figure reads the same in print, in a README and on
TensorBoard's dark page. Lies below everything that draws; matplotlib, the extra `plot`, is imported when it is used.
"""

from __future__ import annotations

import io
import textwrap
import warnings
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

# Six of Okabe and Ito's colours and three of Tol's "muted": apart also without red, green or blue cones.
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
}
OTHER_COLOUR = "#555555"
"""Of whatever is no cell of ours."""

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
    """Return the colour of a cell, or the grey of what is no cell of ours."""
    return CELL_COLOURS.get(cell, OTHER_COLOUR)


def check_installed() -> None:
    """Check that figures can be drawn, as is good to know before long work.

    Raises:
        UserError: matplotlib is not installed.
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
    """Give a new figure and its axes, and write it as a PNG when the block ends well.

        with drawing(path) as (figure, [[axes]]):
            axes.plot(steps, success, color=cell_colour("nbrc"))
            axes.set(xlabel="environment steps", ylabel="success rate")

    Args:
        path: The file, written whole or not at all.
        rows: Rows of axes.
        columns: Columns of axes.
        size: Width and height in inches.
        **subplots: Further arguments of `Figure.subplots`, such as `sharex`.

    Yields:
        The figure, and its axes as an array (rows, columns).

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    check_installed()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(DEFAULTS), warnings.catch_warnings():  # no pyplot, no display, nothing to close
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # an emoji in a name is drawn as a box
        figure = Figure(figsize=size, layout="constrained")
        axes: np.ndarray = figure.subplots(rows, columns, squeeze=False, **subplots)
        yield figure, axes
        picture = io.BytesIO()
        figure.savefig(picture, dpi=DPI, format="png", metadata={"Software": None})
    write_bytes(path, picture.getvalue())


def plain(text: str) -> str:
    """Return a name of a user's as matplotlib draws it as it is: no formula, lines of `NAME_WIDTH` characters at most.

    A legend leaves out what begins with an underscore, so a space stands before one.
    """
    lines = textwrap.wrap(text, NAME_WIDTH) or [""]
    return (" " * text.startswith("_") + "\n".join(lines)).replace("$", "\\$")


def mark_steps(axes: Axes) -> None:
    """Count an axis of environment steps in k and M."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
