"""The figures of Vecoven et al. 2021: 1B, 2A, 2B and 2C from our own cells, and 3 from finished trainings.

Every point in the first four is a fixed point found by `bifurcation`: filled if stable, open if unstable.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import atanh, log
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bistable_rl.benchmarks.reproduce import fig3
from bistable_rl.benchmarks.reproduce.grids import GRIDS
from bistable_rl.cells import BRCCell
from bistable_rl.dynamics.bifurcation import FixedPoints, HeldUnit, bifurcation
from bistable_rl.figure_style import OTHER_COLOUR, cell_colour, drawing
from bistable_rl.runs.files import make_folder, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = "figures.md"
BELOW, ABOVE = 0.7, 1.5
"""Two feedback gains, one on each side of the bifurcation."""
BISTABLE, MONOSTABLE = cell_colour("brc"), OTHER_COLOUR


def one_unit(a: float, c: float) -> BRCCell:
    """Return a BRC of one unit with gates fixed at a and c, whose input is added to the candidate unchanged."""
    cell = BRCCell(1, 1)
    assert cell.bias is not None
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        cell.weight_hh.zero_()
        cell.bias.copy_(torch.tensor([atanh(a - 1), log(c / (1 - c))]))
    return cell.double()


@torch.no_grad()
def response(a: float, c: float, x: np.ndarray) -> np.ndarray:
    """Return the states (T,) of a BRC unit with fixed gates, from 0, under an input series (T,)."""
    outputs, _ = one_unit(a, c).scan(torch.from_numpy(x).double().reshape(-1, 1, 1))
    states: np.ndarray = outputs.flatten().numpy()
    return states


def pulses() -> np.ndarray:
    """Return the input series of Fig. 2C (120,): a push up, a push down and a small push up, with gaps of no input."""
    x = np.zeros(120)
    x[10:15], x[50:55], x[90:92] = 1.0, -1.0, 0.1
    return x


def _mark(axes: Axes, x: np.ndarray, y: np.ndarray, stable: np.ndarray) -> None:
    """Mark fixed points: filled if stable, open if unstable."""
    for kind, fill, label in ((stable, "black", "stable"), (~stable, "white", "unstable")):
        axes.plot(x[kind], y[kind], "o", markersize=7, color="black", markerfacecolor=fill, label=label, zorder=3)


def _points(a: float) -> FixedPoints:
    return bifurcation(one_unit(a, 0.5), [a])


def fig_1b(path: Path) -> None:
    """Draw I = V - α tanh V for two α; I = 0 at V = α h, where h is a fixed point of the cell."""
    V = np.linspace(-2, 2, 401)
    with drawing(path, 1, 2, size=(6.8, 3.2), sharey=True) as (_, [panels]):
        for axes, a in zip(panels, (BELOW, ABOVE), strict=True):
            points = _points(a)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.plot(V, V - a * np.tanh(V), color=BISTABLE if a > 1 else MONOSTABLE)
            _mark(axes, a * points.h, 0 * points.h, points.stable)
            axes.set(xlabel="voltage V", title=f"α = {a:g}: {'bistable' if a > 1 else 'monostable'}")
        panels[0].set_ylabel("current I = V - α tanh V")
        panels[1].legend()


def fig_2a(path: Path) -> None:
    """Draw the fixed points of a BRC unit against its feedback gain."""
    points = bifurcation(one_unit(1.5, 0.5))
    with drawing(path, size=(6.4, 3.6)) as (_, [[axes]]):
        middle = np.abs(points.h) < 1e-6
        branches = {"stable": points.h > 1e-6, "unstable": middle & (points.a > 1), "": points.h < -1e-6}
        for label, branch in branches.items():  # the three branches that meet at a = 1
            a, h = np.append(1, points.a[branch]), np.append(0, points.h[branch])
            axes.plot(a, h, ":" if label == "unstable" else "-", color=BISTABLE, label=label or None)
        axes.plot(points.a[middle & (points.a <= 1)], points.h[middle & (points.a <= 1)], color=BISTABLE)
        axes.axvline(1, color="black", linewidth=0.8, linestyle="--")
        axes.annotate("a = 1", (1, -0.9), (4, 0), textcoords="offset points")
        axes.set(xlabel="feedback gain a", ylabel="fixed points of h", xlim=(0, 2), ylim=(-1.05, 1.05))
        axes.legend(loc="upper left")


def fig_2b(path: Path) -> None:
    """Draw h - F(h) of a BRC unit for two feedback gains."""
    h = np.linspace(-1, 1, 201)
    with drawing(path, 1, 2, size=(6.8, 3.2), sharey=True) as (_, [panels]):
        for axes, a in zip(panels, (BELOW, ABOVE), strict=True):
            unit, points = HeldUnit(one_unit(a, 0.5), a, 0.5), _points(a)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.plot(h, [value - unit(value)[0] for value in h], color=BISTABLE if a > 1 else MONOSTABLE)
            _mark(axes, points.h, 0 * points.h, points.stable)
            axes.set(xlabel="state h", title=f"a = {a:g}: {'bistable' if a > 1 else 'monostable'}")
        panels[0].set_ylabel("h - F(h), at c = 0.5")
        panels[1].legend()


def fig_2c(path: Path) -> None:
    """Draw the response of a BRC unit to an input series, for a below and above 1 and two c."""
    x = pulses()
    with drawing(path, 2, 1, size=(6.8, 4.6), sharex=True, height_ratios=[1, 3]) as (figure, [[above], [below]]):
        above.plot(x, color="black", drawstyle="steps-pre")
        above.set(ylabel="input U x")
        for a, colour in ((BELOW, MONOSTABLE), (ABOVE, BISTABLE)):
            for c, line in ((0.2, "-"), (0.9, "--")):
                below.plot(response(a, c, x), line, color=colour, label=f"a = {a:g}, c = {c:g}")
        for h in bifurcation(one_unit(ABOVE, 0.5), [ABOVE]).h[[0, 2]]:
            below.axhline(h, color="black", linewidth=0.8, linestyle=":")
        below.set(xlabel="time (steps)", ylabel="state h", ylim=(-1.05, 1.05))
        figure.legend(ncols=4, loc="outside lower center")


@dataclass(frozen=True)
class PaperFigure:
    """One figure.

    Attributes:
        draw: Writes it to a path.
        title: Its number and subject.
        see: One line on the visible result.
    """

    draw: Callable[[Path], None]
    title: str
    see: str


FIGURES = {
    "fig1b": PaperFigure(
        fig_1b,
        "Fig. 1B: a neuron's feedback, I = V - α tanh V",
        "With α below 1 the current is zero at one voltage, with α above 1 at three. Of these the outer two are stable "
        "(filled) and the middle one is unstable (open).",
    ),
    "fig2a": PaperFigure(
        fig_2a,
        "Fig. 2A: bifurcation diagram of a BRC unit without input",
        "At a = 1 the only stable state, 0, gives way to two, ±h1, in which a unit stays by itself.",
    ),
    "fig2b": PaperFigure(
        fig_2b,
        "Fig. 2B: h - F(h) of a BRC unit without input",
        "Where the curve crosses 0, the state does not change. It is stable where the curve crosses upwards (filled) "
        "and unstable where it crosses downwards (open).",
    ),
    "fig2c": PaperFigure(
        fig_2c,
        "Fig. 2C: response of a BRC unit to an input series",
        "With a below 1 the state falls back to 0 after each push. With a above 1 it stays at ±h1 (dotted) until a "
        "push the other way, and a small push changes nothing. A greater c slows both down, so that a short push may "
        "fail to flip the state.",
    ),
}


def fig_3(trained: Path) -> dict[str, PaperFigure]:
    """Return Fig. 3 by name: one per preset with finished runs, committed or in the folder `trained`.

    Raises:
        UserError: If a file with finished runs is broken.
    """
    found = {}
    for preset in GRIDS:
        rows = fig3.finished_rows(preset, trained)
        if rows:
            title = f"Fig. 3: the error on copy-first while training, at the sizes of the preset {preset}"
            found[f"fig3-{preset}"] = PaperFigure(partial(fig3.draw, rows), title, fig3.caption(rows))
    return found


def draw_figures(out: Path, trained: Path) -> list[str]:
    """Draw every figure into a folder, with a page that explains them; return the explanations, one line per file.

    Args:
        out: The folder.
        trained: The output folder of `bistable-rl reproduce`; it need not exist.

    Raises:
        UserError: If matplotlib is not installed, the folder cannot be written to, or a file in `trained` is broken.
    """
    trainings = fig_3(trained)
    out = make_folder(out)
    page, lines = ["# The paper's figures, from the cells of bistable-rl", ""], []
    for name, figure in (FIGURES | trainings).items():
        figure.draw(out / f"{name}.png")
        page += [f"## {figure.title}", "", f"![{figure.title}]({name}.png)", "", figure.see, ""]
        lines.append(f"{out / name}.png  {figure.see}")
    if not trainings:
        command = shlex.join(["bistable-rl", "reproduce", "fig3", "--preset", "quick", "--out", str(trained)])
        lines.append(f"Fig. 3 needs finished trainings, and {trained} has none. `{command}` runs them.")
        page += [lines[-1], ""]
    write_text(out / PAGE, "\n".join(page))
    return [*lines, f"all figures, with explanations: {out / PAGE}"]
