"""The units of an agent in the plane of feedback gain and input, where a curve bounds the latches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bistable_rl.certify.certificate import Certificate
from bistable_rl.certify.enclosure import FLOATS, Bounds, image, unit_inputs
from bistable_rl.certify.network import Array, Network
from bistable_rl.dynamics.latch import threshold
from bistable_rl.figure_style import OTHER_COLOUR, cell_colour, drawing


@dataclass(frozen=True)
class Gains:
    """The N units of all layers in the invariant boxes of all cues.

    Attributes:
        a: (N,), a unit's least feedback gain in its interval, over all distractions.
        u: (N,), the greatest input against the sign of its interval; negative where every input supports it.
        keeps: (N,), whether the interval excludes 0, so that the unit keeps its sign.
    """

    a: Array
    u: Array
    keeps: np.ndarray


def gains(network: Network, x: Bounds, certificate: Certificate) -> Gains:
    """Compute the gains and inputs of the units in the boxes of a certificate, proved or not.

    Args:
        network: The network.
        x: (M, D), boxes of the distractions.
        certificate: The certificate.
    """
    found = [np.empty((3, 0))]
    for cue in certificate.cues:
        given = x
        for layer, box in zip(network.layers, cue.boxes, strict=False):
            inputs = unit_inputs(FLOATS, layer, given, box)
            (a, _, low), (_, _, high) = (np.split(side, 3, 1) for side in inputs)
            least = 1 + np.tanh(a.min(0) + np.minimum(layer.own[0] * box.low, layer.own[0] * box.high))
            against = np.where(box.low + box.high >= 0, -low.min(0), high.max(0))
            found.append(np.stack([least, against, (box.low > 0) | (box.high < 0)]))
            given = image(layer, given, box)
    a, u, keeps = np.concatenate(found, 1)
    return Gains(a, u, keeps.astype(np.bool_))


def draw(path: Path, found: Gains, cell: str, title: str) -> None:
    """Draw the curve and the units to a PNG.

    Raises:
        UserError: If matplotlib is not installed, or the file cannot be written.
    """
    with drawing(path, size=(6.4, 4.2)) as (_, [[axes]]):
        a = np.linspace(1, 2.03, 400)
        axes.plot(a, threshold(a), color="black", linewidth=1.2, label="U(a) = √(a (a - 1)) - artanh √(1 - 1/a)")
        axes.fill_between(
            a, -100, threshold(a), color="black", alpha=0.06, linewidth=0, label="latches, by the theorem"
        )
        for keeps, colour, label in (
            (False, OTHER_COLOUR, "may change its sign"),
            (True, cell_colour(cell), "keeps its sign"),
        ):
            shown = found.keeps == keeps
            axes.scatter(
                found.a[shown],
                found.u[shown],
                s=14,
                color=colour if keeps else "none",
                edgecolors=colour,
                linewidths=0.7,
                alpha=0.8,
                label=f"{label}: {shown.sum()} of {len(shown)}",
            )
        axes.axhline(0, color="black", linewidth=0.6)
        bottom, top = (-0.5, 1.5) if not len(found.u) else (min(-0.5, found.u.min()), max(1.0, found.u.max()))
        axes.set(
            xlim=(-0.03, 2.03),
            ylim=(bottom - 0.05, 1.4 * top),
            xlabel="a, the least feedback gain of a unit",
            ylabel="u, the greatest input against its sign",
            title=title,
        )
        axes.legend(loc="upper left")
