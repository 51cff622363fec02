"""The style of all figures: one palette, and one function that makes a figure and writes it.

A cell has the same colour everywhere. The page is opaque white, so that a figure looks the same in print, in a README
and on TensorBoard's dark page. matplotlib, the extra `plot`, is imported on first use.
"""

from __future__ import annotations

import io
import itertools
import re
import textwrap
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bistable_rl.errors import UserError
from bistable_rl.runs.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Six of Okabe and Ito's colours and four of Tol's "muted" ones; distinct even without red, green or blue cones.
# Two that are free for new cells, as distinct from these and from each other: #8C19E6 and #82A55F.
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

CELL_NAMES = {
    "nbrc": "nBRC",
    "brc": "BRC",
    "gru": "GRU",
    "lstm": "LSTM",
    "goru": "GORU",
    "lmu": "LMU",
    "plastic_gru": "plastic GRU",
    "pbrc": "PBRC",
    "half_pbrc": "half-plastic PBRC",
}
"""The papers' names of the cells; any other cell keeps its own name."""

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
OURS = "bistable_rl/"
"""The namespace of the environments of this package, which figures leave out."""
FORMATS = ("png", "pdf", "svg")
PAPER: Any = {
    "pdf.fonttype": 42,  # TrueType: many publishers refuse Type 3
    "svg.hashsalt": "bistable-rl",  # the same figure gives the same file
}
DATES: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


@dataclass
class _Output:
    formats: tuple[str, ...] = ()
    dpi: int = DPI


_output = _Output()


def cell_colour(cell: str) -> str:
    """Return the colour of a cell; a cell not in `CELL_COLOURS` always gets the same one of `FURTHER_COLOURS`."""
    further = FURTHER_COLOURS[zlib.crc32(cell.encode()) % len(FURTHER_COLOURS)]
    return CELL_COLOURS.get(cell, further)


def cell_names(text: str) -> str:
    """Replace the names of cells in a text by the papers' names: "nbrc, gru" becomes "nBRC, GRU"."""
    return re.sub(r"\w+", lambda word: CELL_NAMES.get(word[0], word[0]), text)


@contextmanager
def writing(formats: Sequence[str] = (), dpi: int | None = None) -> Iterator[None]:
    """Write every figure in the block also in further formats, beside its file.

    Args:
        formats: Formats from `FORMATS`.
        dpi: Dots per inch of PNG files; None for 150.
    """
    before = _output.formats, _output.dpi
    _output.formats, _output.dpi = tuple(formats), dpi or DPI
    try:
        yield
    finally:
        _output.formats, _output.dpi = before


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
    """Yield a new figure and its axes, and write it when the block ends without an error.

        with drawing(path) as (figure, [[axes]]):
            axes.plot(steps, success, color=cell_colour("nbrc"))
            axes.set(xlabel="environment steps", ylabel="success rate")

    Args:
        path: The file, a PNG unless its name ends in .pdf or .svg; it is written completely or not at all. The formats
            of `writing` appear beside it.
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

    named = path.suffix.lower().removeprefix(".")
    first = named if named in FORMATS else "png"
    files = {first: path} | {kind: path.with_suffix(f".{kind}") for kind in _output.formats if kind != first}
    pictures = {}
    with matplotlib.rc_context(DEFAULTS | PAPER), warnings.catch_warnings():  # no pyplot, no display, nothing to close
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # an emoji in a name is drawn as a box
        figure = Figure(figsize=size, layout="constrained")
        axes: np.ndarray = figure.subplots(rows, columns, squeeze=False, **subplots)
        yield figure, axes
        for kind in files:
            picture = io.BytesIO()
            figure.savefig(picture, dpi=_output.dpi, format=kind, metadata=DATES[kind])
            pictures[kind] = picture.getvalue()
    for kind, file in files.items():
        write_bytes(file, pictures[kind])


def plain(text: str, width: int = NAME_WIDTH) -> str:
    """Return a user's name in a form that matplotlib draws literally, in lines of at most `width` characters.

    Dollar signs are escaped, because they would start a formula. A space precedes a leading underscore, because a
    legend omits names that begin with one. Cells get the papers' names, environments of this package go without
    its name.
    """
    lines = textwrap.wrap(cell_names(text.replace(OURS, "")), width) or [""]
    return (" " * text.startswith("_") + "\n".join(lines)).replace("$", "\\$")


def mark_steps(axes: Axes) -> None:
    """Label the ticks of an x axis in environment steps with k and M."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def horizon_ticks(axes: Axes, horizons: Collection[int]) -> None:
    """Make the x axis logarithmic, with ticks at the horizons; close labels are slanted, closer ones are left out."""
    ticks = sorted(horizons)
    axes.set_xscale("log")
    places = np.log10(ticks) / max(np.log10(ticks[-1] / ticks[0]), 1e-9)  # in units of the axis width
    shown = [0]
    for i in range(1, len(ticks)):
        if places[i] - places[shown[-1]] > 0.045:
            shown.append(i)
    aslant = any(places[j] - places[i] < 0.12 for i, j in itertools.pairwise(shown))
    labels = [f"{horizon:,}" if i in shown else "" for i, horizon in enumerate(ticks)]
    axes.set_xticks(ticks, labels, rotation=40 if aslant else 0)
    axes.minorticks_off()
