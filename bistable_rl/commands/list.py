"""`bistable-rl list`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bistable_rl.commands.parser import Parser
from bistable_rl.runs.config import shipped_configs


def list_names(argv: Sequence[str]) -> int:
    """List cells, environments, tasks or shipped configs."""
    parser = Parser("list", "List the names that a config can use.")
    parser.add_argument("what", choices=("cells", "envs", "tasks", "configs"))
    what = parser.parse_args(argv).what
    rows: list[tuple[str, str]]
    if what == "cells":
        from bistable_rl.cells import CELLS

        rows = [(name, _first_line(cell)) for name, cell in CELLS.items()]
    elif what == "envs":
        from bistable_rl.envs import ENVIRONMENTS

        rows = [(name, _first_line(entry.batched)) for name, entry in ENVIRONMENTS.items()]
        rows.append(("any other id", "known to gymnasium: MiniGrid-MemoryS7-v0, CartPole-v1, package:Name-v0, ..."))
    elif what == "tasks":
        from bistable_rl.benchmarks.tasks import TASKS

        rows = [(name, _first_line(task)) for name, task in TASKS.items()]
    else:
        rows = [(name, _first_comment(path)) for name, path in shipped_configs().items()]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")
    return 0


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ") if first.startswith("#") else ""
