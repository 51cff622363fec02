"""The tables of the pages on cells, kernels, dynamics and analysis, from the committed results."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import cog
from tables import RESULTS, final, hardware, measured, read, seeds, share, table

from bistable_rl.figure_style import cell_names
from bistable_rl.runs.environment import machine

CELLS = ("brc", "nbrc", "gru", "lstm")


def made(environment: dict[str, Any], command: str) -> str:
    """Return on what something was measured, when, and by which command."""
    versions = f"torch {environment['versions']['torch']}"
    return f"{machine(environment)}, {versions}, {environment['date'][:10]}: `{command}`"


def starts() -> None:
    """Print what untrained units say, by cell and start."""
    data = json.loads((RESULTS / "starts.json").read_text(encoding="utf-8"))
    rows = data["measured"]
    table(
        ["", *(column for column in rows[0] if column != "start")],
        [[_start(row.pop("start")), *(f"{value:.2f}" for value in row.values())] for row in rows],
    )
    cog.outl()
    cog.outl(made(data["environment"], "python tests/starts.py") + ".")


def _start(text: str) -> str:
    cell, _, start = text.partition(" ")
    return cell_names(cell) + (f", `start: {start}`" if start else "")


def speed_of_cells(name: str = "cells") -> None:
    """Print how many times faster the cells are than torch's layers, by shape."""
    rows, _ = measured(name)
    lines = []
    for shape in dict.fromkeys(tuple(row["shape"]) for row in rows):
        here = {
            (row["layer"], row["fixed_weights"]): row["milliseconds"] for row in rows if tuple(row["shape"]) == shape
        }
        gru, lstm = here["nn.GRU", False], here["nn.LSTM", False]
        for fixed in (True, False) if shape[1] == 1 else (False,):
            times = [here[cell, fixed] for cell in CELLS]
            what = f"{shape}{', one step' if shape[1] == 1 else ''}{', fixed weights' if fixed else ''}"
            lines.append([what, *(f"{gru / time:.1f} ({lstm / time:.1f})" for time in times)])
    table(["(B, T, I, H)", *map(cell_names, CELLS)], lines)
    _made_cells(name)


def memory_of_cells() -> None:
    """Print the peak memory of forward and backward, by shape."""
    rows, _ = measured("cells")
    layers = [*CELLS, "nn.GRU", "nn.LSTM"]
    shapes = dict.fromkeys(tuple(row["shape"]) for row in rows if row["shape"][1] > 1)
    found = {(tuple(row["shape"]), row["layer"]): row["memory"] for row in rows}
    table(
        ["(B, T, I, H)", *map(cell_names, layers)],
        [[str(shape), *(f"{found[shape, layer]:.0f}" for layer in layers)] for shape in shapes],
    )
    _made_cells()


def _made_cells(name: str = "cells") -> None:
    data = json.loads((RESULTS / f"speed_{name}.json").read_text(encoding="utf-8"))
    threads = data["measured"][0]["threads"]
    cog.outl()
    cog.outl(made(data["environment"], f"OMP_NUM_THREADS={threads} bistable-rl speed cells") + ".")


def warm_up_success() -> None:
    """Print the success after training, without help, with a slow gate and with a warm-up."""
    folder, helps = "help_copy_first", ("", " with slow gate", " with warm-up")

    def success(cell: str, column: str) -> list[str]:
        return [seeds(final(folder, cell + help, column), share) for help in helps]

    for steps, column in (("50", "success_rate"), ("5000", "success@5000")):
        table(
            [f"success at {steps} steps", "as it is", "slow gate (`c_bias: chrono`)", "warm-up"],
            [[cell_names(cell), *success(cell, column)] for cell in ("nbrc", "brc", "gru", "lstm")],
        )
        cog.outl()
    cog.outl(hardware(folder) + ": `bistable-rl compare compare/help_copy_first`.")


def warm_up_attractors() -> None:
    """Print what the warm-up does to VAA* and to the number of attractors."""
    rows = read("help_copy_first", "warmup")

    def pairs(cell: str, what: str, digits: int) -> str:
        own = [row for row in rows if row["cell"] == cell]
        return ", ".join(
            f"{float(r[f'{what}_before']):.{digits}f} → {float(r[f'{what}_after']):.{digits}f}" for r in own
        )

    table(
        ["", "VAA*, before → after, by seed", f"attractors reached from {rows[0]['of']} states"],
        [
            [cell_names(cell), pairs(cell, "vaa_star", 2), pairs(cell, "attractors", 0)]
            for cell in ("nbrc", "brc", "gru", "lstm")
        ],
    )
    cog.outl()
    cog.outl(
        f"{rows[0]['hardware']}; {rows[0]['date'][:10]}: `bistable-rl train rl/copy_first --policy.cell CELL "
        "--policy.cell_kwargs '{}' --warmup.steps 100 --seed SEED`."
    )


def survived(folder: str, symbols: int) -> None:
    """Print how many cues are still decoded from the last layer at the end of the noise."""
    row = read(f"understand/{folder}", "survival")[-1]
    cog.outl(
        f"After {int(row['step']):,} steps of noise {float(row['accuracy']):.1%} of the symbols can still be decoded "
        f"from its outputs; chance is {1 / symbols:.1%}."
    )


def observations(texts: Sequence[str]) -> None:
    """Print the three observations of the paper's Fig. 4, by layer, from the analysis of the denoising network."""
    page = (RESULTS / "understand" / "denoising" / "analysis.md").read_text(encoding="utf-8")
    pattern = r"layer \d+, from .* share of bistable units (\S+), mean c (\S+); at the marks, mean c (\S+)"
    layers = re.findall(pattern, page)
    table(
        ["from the paper's Fig. 4", "here", *(f"layer {i}" for i in range(1, len(layers) + 1))],
        [[*text.split("|"), *column] for text, column in zip(texts, zip(*layers, strict=True), strict=True)],
    )
