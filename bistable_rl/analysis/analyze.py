"""Analysis of a trained network: `bistable-rl analyze RUN_DIR`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bistable_rl.analysis import analysis_figures
from bistable_rl.analysis.align import Aligned, align, at, observations
from bistable_rl.analysis.trained import LONGEST, TrainedNetwork, cue_and_noise, read_trained
from bistable_rl.dynamics.attractors import attractors
from bistable_rl.dynamics.gates import GateTrace, gate_trace, slow_gate
from bistable_rl.dynamics.memory import survival, time_constants
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.files import inside, make_folder, write_text
from bistable_rl.runs.tables import write_csv

STARTS = 32
"""Sequences whose end states settle at attractors."""
NOISE_STEPS, PER_CUE, TIMED = 1_000, 16, 4
"""Steps of noise after a forced cue; sequences of each cue; sequences that time constants are measured on."""
WINDOW = 15
"""Steps shown on either side of an event."""


def analyze(run: Path, out: Path, *, episodes: int) -> list[str]:
    """Analyse the network of a run; write PNGs, CSVs and a page to a folder, and return the findings, one per line.

    Args:
        run: A run folder, of an agent or a supervised network.
        out: The folder to write.
        episodes: Episodes of the agent, or test samples of the supervised network; at least 2.

    Raises:
        UserError: If there is no run, its cell has no gates, a checkpoint is missing, or `out` cannot be written.
        RunFailedError: If the environment fails during an episode.
    """
    trained = read_trained(run, episodes)
    try:
        slow_gate(trained.rnn)
    except ValueError as error:
        raise UserError(f"{run}: {one_sentence(error)}") from None
    if out.is_relative_to(run):
        inside(run, *out.relative_to(run).parts)
    out = make_folder(out)
    trace = gate_trace(trained.rnn, trained.x)
    page = [f"# {trained.title}", "", f"From `{run}`, {episodes} sequences.", ""]
    found: list[str] = []
    if trained.cut:
        note = f"{trained.cut} of {episodes} episodes had not ended after {LONGEST:,} steps and were cut there"
        found.append(note)
        page += [f"{note}.", ""]
    for title, part in (
        ("Gates", _gates(trained, trace, out)),
        ("Memory of a forced cue", _memory(trained, out)),
        ("Reachable attractors", _attractors(trained, out)),
    ):
        lines, files = part
        found += lines
        page += [f"## {title}", "", *(f"- {line}" for line in lines), "", *(f"![{title}]({f})" for f in files), ""]
    write_text(out / "analysis.md", "\n".join(page))
    return found


def _gates(trained: TrainedNetwork, trace: GateTrace, out: Path) -> tuple[list[str], list[str]]:
    """Trace the gates over time and around the events."""
    lengths, T = trained.lengths.numpy(), len(trained.x)
    first_marks = None if trained.marked is None else trained.marked[:, 0]
    analysis_figures.draw_episode(
        out / "episode.png", trace, int(lengths[0]), first_marks, int(trained.answer[0]), trained.frames
    )
    events = {"cue": (at(np.zeros_like(lengths), T), 0, 2 * WINDOW)}
    if trained.marked is not None:
        events = {"marked steps": (trained.marked, WINDOW, WINDOW)}
    events["answer"] = (at(trained.answer, T), 2 * WINDOW, trained.answers - 1)
    aligned = {
        label: {event: align(values, lengths, *where) for event, where in events.items()}
        for label, values in analysis_figures.quantities(trace).items()
    }
    analysis_figures.draw_aligned(out / "aligned.png", trace.cell, aligned)
    write_csv(out / "aligned.csv", _aligned_rows(aligned))
    lines = []
    running = np.arange(T)[:, None] < lengths
    for layer in range(len(trace.c)):
        share = (
            "" if trace.bistable is None else f"{trace.bistable[layer][running].mean():.1%} of units bistable (a > 1), "
        )
        gate = trace.gate
        lines.append(f"layer {layer + 1}: {share}mean {gate} {trace.mean_c[layer][running].mean():.3f}, over all steps")
    if trained.marked is not None:
        observed = observations(trace.bistable, trace.mean_c, trained.marked, trained.answer)
        for layer in range(len(trace.c)):
            rise = "" if observed.share_rise is None else f"share of bistable units {observed.share_rise[layer]:+.3f}, "
            lines.append(
                f"layer {layer + 1}, from before the first mark to after the last: {rise}mean c "
                f"{observed.c_rise[layer]:+.3f}; at the marks, mean c {observed.c_dip[layer]:+.3f}"
            )
    return lines, ["episode.png", "aligned.png"]


def _aligned_rows(aligned: dict[str, dict[str, Aligned]]) -> Iterator[dict[str, Any]]:
    for label, by_event in aligned.items():
        for event, values in by_event.items():
            for layer, means in enumerate(values.mean, 1):
                for offset, mean in zip(values.offset, means, strict=True):
                    quantity = " ".join(label.split())
                    yield {"quantity": quantity, "event": event, "layer": layer, "offset": offset, "mean": mean}


def _memory(trained: TrainedNetwork, out: Path) -> tuple[list[str], list[str]]:
    """Measure the survival of a forced cue, and the time constants, under the network's own noise."""
    try:
        x, cues = cue_and_noise(trained, NOISE_STEPS, PER_CUE, seed=0)
    except ValueError as error:
        return [f"not measured: {one_sentence(error)}"], []
    cell = trained.rnn.cell
    constants = time_constants(trained.rnn, x[1:, :TIMED])
    write_csv(
        out / "time_constants.csv",
        ({"layer": layer + 1, "unit": unit, "steps": steps} for (layer, unit), steps in np.ndenumerate(constants)),
    )
    analysis_figures.draw_time_constants(out / "time_constants.png", cell, constants, NOISE_STEPS)
    kept = survival(trained.rnn, x, cues)
    write_csv(
        out / "survival.csv",
        (
            {"layer": layer + 1, "step": step, "accuracy": share}
            for (layer, step), share in np.ndenumerate(kept.accuracy)
        ),
    )
    analysis_figures.draw_survival(out / "survival.png", cell, kept)
    lines = []
    for layer, (steps, units) in enumerate(zip(kept.steps, constants, strict=True)):
        lines.append(
            f"layer {layer + 1}: the cue (one of {len(np.unique(cues))}) is decoded correctly "
            + (f"for {steps:.0f} steps of noise" if np.isfinite(steps) else f"beyond {NOISE_STEPS:,} steps of noise")
            + f" (halfway to chance, {kept.chance:.3f}), {kept.accuracy[layer, -1]:.3f} at the end"
        )
        lines.append(
            f"layer {layer + 1}: the median unit keeps a forced state for {np.median(units):.0f} steps; "
            f"{np.isinf(units).mean():.1%} of units keep it beyond {NOISE_STEPS:,}"
        )
    return lines, ["survival.png", "time_constants.png"]


def _attractors(trained: TrainedNetwork, out: Path) -> tuple[list[str], list[str]]:
    """Count reachable attractors at every kept checkpoint."""
    n = min(STARTS, trained.x.shape[1])
    checkpoints: list[int] = []
    counts, stars = [], []
    for steps in trained.checkpoints():
        found = attractors(trained.rnn, trained.x[:, :n], trained.lengths[:n])
        checkpoints.append(steps)
        counts.append(n * found.vaa)
        stars.append(found.vaa_star.mean(0))
    write_csv(
        out / "attractors.csv",
        (
            {"steps": steps, "attractors": count.mean(), "vaa": count.mean() / n}
            | {f"vaa_star_layer{layer}": star for layer, star in enumerate(layers, 1)}
            for steps, count, layers in zip(checkpoints, counts, stars, strict=True)
        ),
    )
    analysis_figures.draw_attractors(
        out / "attractors.png", trained.rnn.cell, np.array(checkpoints), np.array(counts), n
    )
    lines = [
        f"after {steps:,} steps of training: {count.mean():.1f} attractors reached from {n} states "
        f"(VAA {count.mean() / n:.3f}, VAA* by layer {', '.join(f'{star:.3f}' for star in layers)})"
        for steps, count, layers in zip(checkpoints, counts, stars, strict=True)
    ]
    return lines, ["attractors.png"]
