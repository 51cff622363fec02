"""Learning curves of runs, every seed and the mean of each cell: a picture, a CSV and a table.

python -m bistable_rl.analysis.curves RUN_DIR ... --out FILE [--chance P]

writes FILE.png, FILE.csv and FILE.md: the table, with the hardware, dates and commands behind it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bistable_rl import figure_style
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.files import named, write_text
from bistable_rl.runs.folder import METRICS, RESULT
from bistable_rl.runs.run import Run


@dataclass(frozen=True)
class Curve:
    """The learning curve of one run.

    Attributes:
        cell: Its recurrent cell.
        seed: Its seed.
        steps: (n,) environment steps.
        success: (n,) success rate of the last 100 episodes while training.
        result: Its result.json.
        environment: Its environment.json.
    """

    cell: str
    seed: int
    steps: np.ndarray
    success: np.ndarray
    result: dict[str, Any]
    environment: dict[str, Any]


def read(run: Path) -> Curve:
    """Read the curve of a run folder.

    Raises:
        UserError: It is no run folder, or the run has not ended, or its environment reports no success.
    """
    opened = Run.open(run)
    experiment = opened.experiment()
    try:
        result = opened.result
        if result is None:
            raise UserError(f"{run} has no {RESULT} yet; wait until the run has ended.")
        environment = opened.environment
        rows = [row for row in opened.metrics.rows() if row["rollout/success_rate"]]
    except FileNotFoundError as error:
        raise UserError(f"{run} has no {Path(error.filename).name} yet; wait until the run has ended.") from None
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run}: its files are broken ({one_sentence(error)})") from None
    if not isinstance(result.get("evaluation"), dict) or not isinstance(
        result["evaluation"].get("success_rate"), float
    ):
        raise UserError(f"{run} ended without an evaluation that reports success ({result.get('status')}).")
    if not rows:
        raise UserError(f"{run}/{METRICS} reports no success rate, so there is no curve to draw.")
    steps = np.array([int(row["time/total_timesteps"]) for row in rows])
    success = np.array([float(row["rollout/success_rate"]) for row in rows])
    return Curve(experiment.policy.cell, experiment.seed, steps, success, result, environment)


def table(curves: Sequence[Curve], command: str) -> str:
    """Return a Markdown page: a row a run with the evaluation at its end, and where all of it comes from."""
    lines = [
        "| cell | seed | success | return | env steps | seconds | date | commit | command |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for curve in curves:
        final, made = curve.result["evaluation"], curve.environment
        lines.append(
            f"| {curve.cell} | {curve.seed} | {final['success_rate']:.3f} | {final['return_mean']:.3f} "
            f"| {curve.result['steps']:,} | {curve.result['seconds']:.0f} | {made['date'][:10]} "
            f"| {_short(made['commit'])} | `{shlex.join(made['command'])}` |"
        )
    success = [curve.result["evaluation"]["success_rate"] for curve in curves]
    hardware = sorted({f"{c.environment['processor']}, {c.environment['cores']} cores" for c in curves})
    return (
        f"Success over the evaluation episodes at the end of training: {np.mean(success):.3f} ± {np.std(success):.3f} "
        f"over {len(curves)} runs, on {'; '.join(hardware)}.\n\n" + "\n".join(lines) + f"\n\nDrawn by `{command}`.\n"
    )


def _short(commit: str | None) -> str:
    """Return nine digits of a commit, and the `+` of a changed tree."""
    return "" if commit is None else commit[:9] + "+" * commit.endswith("+")


def write_csv(curves: Sequence[Curve], path: Path) -> None:
    """Write every point of every curve."""
    lines = ["cell,seed,steps,success_rate"]
    for curve in curves:
        for steps, success in zip(curve.steps, curve.success, strict=True):
            lines.append(f"{curve.cell},{curve.seed},{steps},{success:.4g}")
    write_text(path, "\n".join(lines) + "\n")


def draw(curves: Sequence[Curve], path: Path, chance: float | None = None) -> None:
    """Draw every seed as a thin line and each cell's mean as a thick one."""
    by_cell: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        by_cell[curve.cell].append(curve)
    with figure_style.drawing(path) as (_, [[axes]]):
        for cell, group in by_cell.items():
            colour = figure_style.cell_colour(cell)
            for curve in group:
                axes.plot(curve.steps, curve.success, color=colour, linewidth=0.8, alpha=0.5)
            grid = np.linspace(max(c.steps[0] for c in group), min(c.steps[-1] for c in group), 200)
            mean = np.mean([np.interp(grid, c.steps, c.success) for c in group], axis=0)
            axes.plot(grid, mean, color=colour, linewidth=2.2, label=f"{cell}: mean of {len(group)}, each seed thin")
        if chance is not None:
            axes.axhline(chance, color="black", linewidth=0.8, linestyle="--", label=f"without memory: {chance:g}")
        axes.set(xlabel="environment steps", ylabel="success rate, last 100 episodes", ylim=(-0.02, 1.02))
        figure_style.mark_steps(axes)
        axes.legend()


def main(argv: Sequence[str] | None = None) -> int:
    """Read the runs, write the picture and the CSV, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bistable_rl.analysis.curves", description=__doc__.split("\n")[0])
    parser.add_argument("runs", metavar="RUN_DIR", type=Path, nargs="+")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="without its suffix")
    parser.add_argument("--chance", metavar="P", type=float, help="success rate of the best player without memory")
    args = parser.parse_args(argv)
    try:
        curves = [read(run) for run in args.runs]
        try:
            args.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{args.out.parent} cannot be made: {error.strerror}.") from None
        write_csv(curves, named(Path(f"{args.out}.csv")))
        draw(curves, named(Path(f"{args.out}.png")), args.chance)
        command = shlex.join(["python", "-m", "bistable_rl.analysis.curves", *(sys.argv[1:] if argv is None else argv)])
        page = table(curves, command)
        write_text(named(Path(f"{args.out}.md")), page)
    except UserError as error:
        print(f"curves: {error}", file=sys.stderr)
        return 2
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
