"""Certify the agent of a run folder: a table, a JSON file and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bistable_rl.agents.agent import load
from bistable_rl.agents.vec_envs import BatchedVecEnv, close, make_vec_env
from bistable_rl.certify.certificate import Certificate, Cue, certify, read_phases
from bistable_rl.certify.figure import draw, gains
from bistable_rl.certify.network import read_network
from bistable_rl.figure_style import check_installed
from bistable_rl.runs.files import named, write_json
from bistable_rl.runs.run import Run


def certify_run(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    best: bool = False,
    steps: int = 0,
    json: Path | None = None,
    figure: Path | None = None,
) -> Certificate:
    """Certify an agent, print a table of its cues, and write the requested files.

    Args:
        run: The run folder.
        overrides: Changes to its environment, such as `--env.kwargs.num_symbols`, `4`.
        best: Use the best checkpoint instead of the last one.
        steps: See `bistable_rl.certify.certify`.
        json: A file for the certificate.
        figure: A PNG file that shows the units in the plane of feedback gain and input.

    Raises:
        UserError: If there is no run, the agent or the environment cannot be certified, they do not fit each other, or
            a file cannot be written.
    """
    if figure is not None:
        check_installed()
    opened = Run.open(run)
    experiment = opened.experiment(overrides)
    agent = load(opened, best=best)
    env = make_vec_env(experiment.env, 1, seed=0)
    agent.check_spaces(env)
    inner: Any = env.env if isinstance(env, BatchedVecEnv) else env
    try:
        certificate = certify(agent.policy, inner, steps)
        distractions = read_phases(inner).distractions
    finally:
        close(env)
    print(f"{run}, trained for {agent.steps:,} steps")
    print_certificate(certificate)
    if figure is not None:
        found, cell = gains(read_network(agent.policy), distractions, certificate), experiment.cell
        draw(named(figure), found, cell, f"{cell}, {certificate.proved} of {len(certificate.cues)} cues proved")
    if json is not None:
        env_config = {"id": experiment.env.id, "kwargs": experiment.env.kwargs, "wrappers": experiment.env.wrappers}
        about = {"run": str(run), "steps": agent.steps, "env": env_config}
        cues = [_plain(number, cue) for number, cue in enumerate(certificate.cues)]
        write_json(named(json), {**about, "proved": certificate.proved, "cues": cues})
    return certificate


def print_certificate(certificate: Certificate) -> None:
    """Print a line for each cue, and the number of proved cues."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("cue", justify="right", no_wrap=True)
    table.add_column("proved", no_wrap=True)
    table.add_column("what fails first")
    for number, cue in enumerate(certificate.cues):
        table.add_row(str(number), _proved(cue), cue.reason or "")
    Console().print(table)
    print(f"{certificate.proved} of {len(certificate.cues)} cues proved, for any sequence of any length")


def _proved(cue: Cue) -> str:
    if cue.for_ever:
        return "for ever"
    if not cue.steps:
        return "not proved"
    return f"for {cue.steps:,} step{'s' * (cue.steps > 1)}"


def _plain(number: int, cue: Cue) -> dict[str, Any]:
    boxes = [{"low": box.low.tolist(), "high": box.high.tolist()} for box in cue.boxes]
    return {"cue": number, "for_ever": cue.for_ever, "steps": cue.steps, "reason": cue.reason, "boxes": boxes}
