"""The figures of `analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bistable_rl.analysis.align import Aligned
from bistable_rl.dynamics.gates import GateTrace
from bistable_rl.dynamics.memory import Survival
from bistable_rl.figure_style import cell_colour, drawing, mark_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = ("-", "--", "-.", ":")
"""Line styles of layers 1, 2, 3, 4, then again from the first."""
SHARE = "share of units\nwith a > 1"


def _layers(axes: Axes, x: np.ndarray, values: np.ndarray, cell: str) -> None:
    """Draw one line per layer of values (L, len(x))."""
    for layer, row in enumerate(values):
        axes.plot(x, row, LINES[layer % len(LINES)], color=cell_colour(cell), label=f"layer {layer + 1}")


def quantities(trace: GateTrace) -> dict[str, np.ndarray]:
    """Return the drawn quantities of a trace by label, (L, T, n) each."""
    shown = {} if trace.bistable is None else {SHARE: trace.bistable}
    return shown | {f"mean {trace.gate}": trace.mean_c}


def draw_episode(
    path: Path,
    trace: GateTrace,
    length: int,
    marked: np.ndarray | None,
    answer: int,
    frames: list[np.ndarray] | None,
) -> None:
    """Draw the gates of the first sequence over time, as in the paper's Fig. 4, below frames of the episode.

    Args:
        path: The PNG.
        trace: Gates of all sequences.
        length: Steps of the first sequence.
        marked: (T,) its marked steps; None if nothing is marked.
        answer: Its first answered step.
        frames: Its frames, one per step.
    """
    shown = quantities(trace)
    events = [0] if marked is None else np.flatnonzero(marked[:length]).tolist()
    rows, ratios = len(shown) + bool(frames), [0.8] * bool(frames) + [2.0] * len(shown)
    with drawing(path, rows, 1, size=(7.2, 1.2 + 1.7 * rows), height_ratios=ratios) as (figure, grid):
        panels = list(grid[:, 0])
        if frames:
            _strip(panels.pop(0), frames)
        for axes, (label, values) in zip(panels, shown.items(), strict=True):
            _layers(axes, np.arange(length), values[:, :length, 0], trace.cell)
            for step in events:
                axes.axvline(step, color="black", linewidth=0.8)
            axes.axvspan(answer, length, color="black", alpha=0.12, linewidth=0)
            axes.set(ylabel=label, xlim=(-0.5, length))
        event = "cue" if marked is None else "marked steps"
        panels[0].set_title(f"vertical lines: {event}; shaded: answer")
        panels[-1].set_xlabel("time (steps)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, ncols=4, loc="outside lower center")


def _strip(axes: Axes, frames: list[np.ndarray]) -> None:
    """Show at most 8 evenly spaced frames side by side, each with its step."""
    steps = np.unique(np.linspace(0, len(frames) - 1, min(8, len(frames))).round().astype(int))
    gap = max(1, frames[0].shape[1] // 8)
    white = np.full((frames[0].shape[0], gap, 3), 255, np.uint8)
    parts = [part for step in steps for part in (frames[step], white)][:-1]
    axes.imshow(np.concatenate(parts, 1), interpolation="nearest", aspect="equal")
    pitch = frames[0].shape[1] + gap
    axes.set_xticks([frames[0].shape[1] / 2 + k * pitch for k in range(len(steps))], [str(step) for step in steps])
    axes.set(yticks=[], title="observations at these steps")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_aligned(path: Path, cell: str, aligned: dict[str, dict[str, Aligned]]) -> None:
    """Draw quantities around events: `aligned[label][event]`."""
    rows, columns = len(aligned), len(next(iter(aligned.values())))
    with drawing(path, rows, columns, size=(1.4 + 2.9 * columns, 0.8 + 2.2 * rows), sharey="row") as (figure, grid):
        for row, (label, by_event) in zip(grid, aligned.items(), strict=True):
            row[0].set_ylabel(label)
            for axes, found in zip(row, by_event.values(), strict=True):
                _layers(axes, found.offset, found.mean, cell)
                axes.axvline(0, color="black", linewidth=0.8)
        for axes, event in zip(grid[-1], next(iter(aligned.values())), strict=True):
            axes.set_xlabel(f"steps from the {event}")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, ncols=4, loc="outside lower center")


def draw_attractors(path: Path, cell: str, steps: np.ndarray, count: np.ndarray, starts: int) -> None:
    """Draw the number of attractors reached over training: (C,) checkpoints, (C, E) estimates."""
    with drawing(path, size=(6.4, 3.4)) as (_, [[axes]]):
        axes.plot(steps, count, "o", color=cell_colour(cell), alpha=0.4, markersize=4)
        axes.plot(steps, count.mean(1), color=cell_colour(cell), label="mean; dots: estimates")
        axes.axhline(starts, color="black", linewidth=0.8, linestyle="--", label=f"all {starts} starts apart")
        axes.set(xlabel="steps of training", ylabel="attractors reached", ylim=(0, 1.08 * starts))
        mark_steps(axes)
        axes.legend(loc="best")


def draw_time_constants(path: Path, cell: str, constants: np.ndarray, longest: int) -> None:
    """Draw the share of each layer's units (L, H) that keep a forced state, over time."""
    with drawing(path, size=(6.4, 3.4)) as (_, [[axes]]):
        steps = np.arange(longest + 1)
        share = (constants[:, :, None] > steps).mean(1)
        _layers(axes, steps, share, cell)
        axes.set(xlabel="time since the state was forced (steps)", ylabel="share of units that keep it")
        axes.set(ylim=(-0.03, 1.03), xscale="symlog", xlim=(0, longest))
        axes.legend()


def draw_survival(path: Path, cell: str, survival: Survival) -> None:
    """Draw the accuracy with which the cue is decoded from each layer under noise."""
    with drawing(path, size=(6.4, 3.4)) as (_, [[axes]]):
        _layers(axes, np.arange(survival.accuracy.shape[1]), survival.accuracy, cell)
        axes.axhline(survival.chance, color="black", linewidth=0.8, linestyle="--", label="chance")
        axes.set(xlabel="noise since the cue (steps)", ylabel="cue decoded correctly (share)", ylim=(-0.03, 1.05))
        axes.legend()
