"""The tables of the pages on benchmarks, comparisons and results; each function prints one, or a cell of one."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import cog
from tables import RESULTS, Show, days, final, hardware, measured, processors, read, seeds, share, table, worst

from bistable_rl.benchmarks.reproduce import grids
from bistable_rl.benchmarks.reproduce.tables import Entry, entries
from bistable_rl.compare import comparison, ledger
from bistable_rl.envs.streams import KINDS
from bistable_rl.figure_style import cell_names
from bistable_rl.runs.config import shipped_configs
from bistable_rl.runs.environment import machine

CELLS = ("nbrc", "brc", "gru", "lstm")
NAMES = [cell_names(cell) for cell in CELLS]
STREAMS = [kind for kind in KINDS if kind != "mixture"]  # of the others
CHRONO = {"no": "", "yes": " with help"}
"""The labels of runs without and with chrono initialisation."""


# --- what every table needs --------------------------------------------------------------------------------


def thousandth(value: float) -> str:
    """Show an error or a mean success: 0.029."""
    return f"{value:.3f}"


def million(steps: float) -> str:
    """Show a number of steps: 0.6M, 4M."""
    return f"{steps / 1e6:.1f}".removesuffix(".0") + "M"


def mean_and_seeds(values: Sequence[float]) -> str:
    """Return a mean and every seed: 0.996 (1 1 .99 .99 1)."""
    return f"{statistics.mean(values):.3f} ({seeds(values, share)})" if values else "not run"


def mean_and_worst(values: Sequence[float]) -> str:
    """Return a mean and the worst seed: .996 (.99)."""
    return f"{share(statistics.mean(values))} ({share(min(values))})"


def number(folder: str, fact: str) -> list[float]:
    """Return a fact of all runs of a folder, such as steps or seconds."""
    return [float(row[fact]) for row in read(folder)]


def say_where(*folders: str) -> None:
    """Print the line below a table: the commands, the hardware and the dates of its runs."""
    links = ", ".join(f"[`compare/{folder}`]({_page(folder)})" for folder in folders)
    cog.outl(f"\n{links}: {hardware(*folders)}.")


def _page(folder: str) -> str:
    """Return the page of a folder, from beside it: its report or table, or else its runs."""
    names = ("report.md", "table.md", "runs.csv")
    return next(f"{folder}/{name}" for name in names if (RESULTS / folder / name).exists())


# --- results/README.md: what was run -----------------------------------------------------------------------


def comparisons() -> None:
    """Print one row per folder of a shipped comparison, what the unfinished ones hold, and which have none."""
    rows, unfinished, missing = [], [], []
    for name, path in sorted(shipped_configs().items()):
        kind, _, folder = name.partition("/")
        if kind != "compare":
            continue
        planned = len(comparison.read(path, Path())[1])
        if (RESULTS / folder / "runs.csv").exists():
            rows.append([_link(folder), path.read_text("utf-8").splitlines()[0].lstrip("# "), *_facts(folder, planned)])
            labels = Counter(row["label"] for row in read(folder))
            if labels.total() < planned:
                unfinished.append(f"`{folder}`: {', '.join(f'{label} ({n})' for label, n in labels.items())}")
        else:
            missing.append(f"`{folder}`")
    table(["comparison", "question", "runs", "minutes", "hardware", "date"], rows)
    if unfinished:
        cog.outl(f"\nThe unfinished ones hold, with the number of seeds: {'; '.join(unfinished)}.")
    if missing:
        cog.outl(f"\nNot run yet: {', '.join(missing)}.")


def published_tables() -> None:
    """Print one row per folder of a reproduced table."""
    rows = []
    for path in sorted(RESULTS.glob("*/table.csv")):
        name, preset, *protocol = path.parent.name.split("-")
        grid = grids.find_grid(preset, name, *protocol)
        planned = 3 * len(grid.settings) * len(grid.cells)
        command = f"`bistable-rl reproduce {name} --preset {preset}{''.join(f' --protocol {p}' for p in protocol)}`"
        rows.append([_link(path.parent.name), command, *_facts(path.parent.name, planned)])
    table(["table", "command", "runs", "minutes", "hardware", "date"], rows)


def speeds() -> None:
    """Print one row per file of `bistable-rl speed`."""
    rows = []
    for path in sorted(RESULTS.glob("speed_*.json")):
        data = json.loads(path.read_text("utf-8"))
        of, threads = data["environment"], data["measured"][0].get("threads")
        command = " ".join(of["command"]).partition(" --json")[0]
        if threads is not None:
            command = f"OMP_NUM_THREADS={threads} {command}"
        hardware = f"{machine(of)}, torch {of['versions']['torch']}"
        rows.append([f"[`{path.name}`]({path.name})", f"`{command}`", hardware, of["date"][:10]])
    table(["file", "command", "hardware", "date"], rows)


def _link(folder: str) -> str:
    return f"[`{folder}`]({_page(folder)})"


def _facts(folder: str, planned: int) -> list[str]:
    """Return the runs, the minutes, the hardware and the dates of a folder."""
    rows = read(folder)
    minutes = sum(number(folder, "seconds")) / 60
    return [f"{len(rows)} of {planned}", f"{minutes:,.0f}", processors(rows), days(rows)]


# --- results/MEMORY.md -------------------------------------------------------------------------------------


def per_cell(folder: str, column: str, show: Show = share, labels: str = "{}{}", chrono: str = "") -> list[str]:
    """Return all seeds of each cell, with a label such as "{}, size 7"."""
    return [seeds(final(folder, labels.format(cell, CHRONO.get(chrono, "")), column), show) for cell in CELLS]


def with_and_without(first: str, header: str, rows: Iterable[tuple[str, str, Sequence[str]]]) -> None:
    """Print two rows per task, without and with chrono initialisation.

    Args:
        first: The first column's header.
        header: The second column's.
        rows: For each task its text, its folder and the columns that a cell shows, separated by commas.
    """
    lines = []
    for text, folder, columns in rows:
        for chrono in CHRONO:
            shown = zip(*(per_cell(folder, column, chrono=chrono) for column in columns), strict=True)
            lines.append([text, chrono, *map(", ".join, shown)])
            text = ""
    table([first, header, *NAMES], lines)


def by_stream(rows: Iterable[tuple[str, str, str]], horizons: Sequence[int]) -> None:
    """Print the mean and the worst seed for each kind of stream; rows are a text, a folder and a label."""
    lines = []
    for text, folder, label in rows:
        for horizon in horizons:
            values = (final(folder, label, f"success@{horizon}/{stream}") for stream in STREAMS)
            at = [f"{horizon:,}"] if len(horizons) > 1 else []
            lines.append([text, *at, *map(mean_and_worst, values)])
            text = ""
    table(["", *(["steps"] if len(horizons) > 1 else []), *STREAMS], lines)


def worst_cases(rows: Iterable[tuple[str, str]]) -> None:
    """Print what the search and the proofs say, by seed; rows are a text and a label."""
    lines = []
    for text, label in rows:
        found = [row for row in read("certified_copy_first", "worst_case") if row["label"] == label]
        shortest = [row["shortest_erasing_sequence"] or "none found" for row in found]
        lines.append(
            [
                text,
                f"{int(found[0]['adversary_steps']):,}",
                " ".join(row["cues_that_survive"] for row in found),
                "none found" if set(shortest) == {"none found"} else " ".join(shortest),
                " ".join(row["cues_proved_for_ever"] for row in found),
            ]
        )
    header = ["", "longest sequence searched", "cues of 8 that survive", "shortest sequence that erases a cue"]
    table([*header, "cues of 8 proved for ever"], lines)


def reached(folder: str, label: str, threshold: float) -> list[float]:
    """Return the steps to the first evaluation at or above a threshold, by seed; infinity if there is none."""
    rows = [row for row in read(folder, "curves") if row["label"] == label]
    found = []
    for seed in sorted({int(row["seed"]) for row in rows}):
        mine = [row for row in rows if int(row["seed"]) == seed]
        steps = (float(row["steps"]) for row in mine if float(row["success_rate"]) >= threshold)
        found.append(min(steps, default=float("inf")))
    return found


def thousands(steps: float) -> str:
    """Show a number of steps in thousands: 57k."""
    return "never" if steps == float("inf") else f"{steps / 1000:.0f}k"


# --- benchmarks/README.md ----------------------------------------------------------------------------------


def found_entries(folder: str, cells: Sequence[str]) -> list[Entry]:
    """Return the entries of a committed table for its first metric."""
    name, preset, *protocol = folder.split("-")
    grid = grids.find_grid(preset, name, *protocol)
    rows = ledger.read(RESULTS / folder)
    return [entry for entry in entries(name, grid, cells, rows) if entry.metric == grid.metrics[0]]


def published_and_ours(folders: Sequence[str], cells: Sequence[str]) -> None:
    """Print two rows per setting of some tables, ours and the published one; ours are marked where they differ."""
    lines = []
    for folder in folders:
        name, preset = folder.split("-")
        grid, found = grids.find_grid(preset, name), found_entries(folder, cells)
        for setting in grid.settings:
            mine = [entry for entry in found if entry.setting == setting.name]
            if not any(entry.rows for entry in mine):
                continue
            title = f"Table {name[-1]}, {setting.name}: {mine[0].metric.replace('mse', 'MSE')}"
            lines.append([title, *map(_ours, mine), f"{max(entry.updates or 0 for entry in mine):,.0f}"])
            of = f", {setting.published}" if setting.published else ""
            lines.append([f"published{of}", *map(_published, mine), f"{mine[0].published_updates:,.0f}"])
    table(["", *map(cell_names, cells), "updates"], lines)


def _ours(entry: Entry) -> str:
    return "not run" if entry.mean is None else _spread(entry.mean, entry.std) + " ≠" * entry.differs


def _published(entry: Entry) -> str:
    return "" if entry.published is None else _spread(entry.published, entry.published_std)


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")


def minutes(folder: str, cells: Sequence[str]) -> None:
    """Print how long a run of each setting and cell of a table took."""
    name, preset = folder.split("-")
    lines = []
    for setting in grids.find_grid(preset, name).settings:
        rows = [[row for row in read(folder) if row["label"] == f"{setting.name} {cell}"] for cell in cells]
        taken = [statistics.mean(float(row["seconds"]) / 60 for row in of) if of else None for of in rows]
        if any(taken):
            lines.append([f"{setting.name}: minutes per run", *("" if t is None else f"{t:.0f}" for t in taken)])
    table(["", *map(cell_names, cells)], lines)


def plateau(rows: Iterable[tuple[str, str, str]]) -> None:
    """Print the final error and the lowest training loss of each seed; rows are a text, a folder and a label."""
    lines = []
    for text, folder, label in rows:
        curves = [row for row in read(folder, "curves") if row["label"] == label]
        lowest = [
            min(float(row["train_loss"]) for row in curves if row["seed"] == seed)
            for seed in sorted({row["seed"] for row in curves})
        ]
        updates = {row["steps"] for row in read(folder) if row["label"] == label}
        errors = final(folder, label, "mse")
        lines.append([text, f"{int(updates.pop()):,}", seeds(errors, thousandth), seeds(lowest, thousandth)])
    table(["LSTM, T = 50", "updates", "MSE of each seed", "lowest training loss on the way"], lines)


def johns() -> None:
    """Print the updates that Johns' task took."""
    lines = [
        [cell_names(entry.cell), f"{entry.updates:,.0f}", str(len(entry.rows)), f"{entry.published:,.0f}"]
        for entry in found_entries("johns-paper", ("half_pbrc", "nbrc"))
        if entry.rows and entry.updates and entry.published
    ]
    table(["H = 64", "updates to a loss below 0.01", "seeds", "published, one run"], lines)


def epochs() -> None:
    """Print the seconds of an epoch of two benchmarks on two processors, and how much faster than torch.nn.GRU."""
    base, header, columns = "nn.GRU, denormals flushed", ["seconds (times faster)"], []
    for task, text in (("copy_first", "copy-first, T = 300"), ("denoising", "denoising, T = 400")):
        for file in ("benchmarks", "benchmarks_epyc"):
            found, on = measured(file)
            columns.append({row["layer"]: row["seconds"] for row in found if row["task"] == task})
            header.append(f"{text}: {on.split(',')[0].replace('(R)', '').removesuffix(' Processor')}")
    lines = []
    for layer in ("brc", "nbrc", "gru", "lstm", base, "nn.GRU"):
        ours = layer in CELLS
        name = cell_names(layer) if ours else f"torch.{layer}"
        lines.append([name, *(f"{c[layer]:.0f}" + f" ({c[base] / c[layer]:.1f})" * ours for c in columns)])
    table(header, lines)
    cog.outl("\n" + "; ".join(f"{measured(file)[1]}" for file in ("benchmarks", "benchmarks_epyc")) + "; one thread.")


def worst_stream(folder: str, label: str, horizon: int) -> str:
    """Return the mean over the seeds of the success in the stream in which each does worst."""
    return f"{statistics.mean(worst(row, horizon) for row in read(folder) if row['label'] == label):.3f}"
