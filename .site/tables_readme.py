"""The three tables of the front page."""

from __future__ import annotations

import statistics

import cog
from tables import final, hardware, measured, ppo_speed, read, seeds, share, table, whole

from bistable_rl.benchmarks.reproduce.published import PUBLISHED

CELLS = ("default", "nbrc", "brc", "gru", "lstm")


def linked(text: str, folder: str) -> str:
    """Return a text that leads to the report of its comparison."""
    return f"[{text}](bistable_rl/results/{folder}/report.md)"


def results() -> None:
    """Print what agents reach."""
    rows = []
    for text, folder, column, label, default in (
        ("copy-first of 50 steps, chrono initialisation", "horizons_copy_first", "success@50", "{}", ""),
        ("the same agents at 50,000 steps", "horizons_copy_first", "success@50000", "{}", ""),
        ("T-maze of 200 steps, plain start", "t_maze_200", "success_rate", "{}", "default_t_maze_200"),
        ("the same agents at 20,000 steps", "t_maze_200", "success@20000", "{}", "default_t_maze_200"),
        ("MiniGrid-MemoryS13, 3x3 view", "minigrid_memory", "success_rate", "{}, size 13", ""),
    ):
        of_default = final(default, "default", column) if default else []
        values = [of_default, *(final(folder, label.format(cell), column) for cell in CELLS[1:])]
        rows.append([linked(text, folder), *(seeds(each, share) for each in values)])
    for text, folder in (
        ("CartPole-v1, 100,000 steps, return", "cartpole"),
        ("Acrobot-v1, 100,000 steps, return", "acrobot"),
        ("CartPole without velocities, rl-zoo3's settings, return", "cartpole_no_velocity_zoo"),
        ("Pendulum without velocities, rl-zoo3's settings, return", "pendulum_no_velocity_zoo"),
    ):
        rows.append([linked(text, folder), *(seeds(final(folder, cell, "return_mean"), whole) for cell in CELLS)])
    table(["each seed", "default", "nBRC", "BRC", "GRU", "LSTM"], rows)


def speed() -> None:
    """Print the speed of layers and of PPO, on one thread each."""
    rows, where = measured("cells")
    time = {(row["layer"], *row["shape"]): row["milliseconds"] for row in rows if not row.get("fixed_weights")}
    shapes = [(100, 784, 1, 128), (64, 128, 64, 128), (16, 128, 64, 128)]
    lines = [
        [
            f"layer {shape}: speed-up over `nn.GRU`",
            *(f"{time[('nn.GRU', *shape)] / time[(cell, *shape)]:.1f}" for cell in CELLS[1:]),
        ]
        for shape in shapes
    ]
    rate, of_ppo = ppo_speed()
    setting = (64, 1024, 4)
    lines.append(
        [
            "PPO, 64 copies: speed-up over sb3-contrib's LSTM",
            *(f"{rate[(cell, *setting)] / rate[('sb3-contrib', *setting)]:.1f}" for cell in CELLS[1:]),
        ]
    )
    table(["", "nBRC", "BRC", "GRU", "LSTM"], lines)
    cog.outl(f"\nOne CPU thread. Layers: {where}; PPO: {of_ppo}.")


def papers() -> None:
    """Print Table 1 beside the published one."""
    ran, lines = read("table1-paper"), []
    for setting, published in PUBLISHED["table1"].items():
        line = [setting.replace("=", " = ")]
        for cell in ("nbrc", "brc", "gru", "lstm"):
            mine = [float(r["final.mse"]) for r in ran if (r["grid.setting"], r["grid.cell"]) == (setting, cell)]
            ours = f"{statistics.mean(mine):.3f}" if mine else "–"
            line.append(f"{ours} / {published[cell]['mse'][0]:.3f}")
        lines.append(line)
    table(["MSE: ours / published", "nBRC", "BRC", "GRU", "LSTM"], lines)
    minutes = sum(float(r["seconds"]) for r in ran) / 60
    cog.outl(f"\n{hardware('table1-paper')}; {len(ran)} runs of six cells, {minutes:,.0f} minutes of one core.")
