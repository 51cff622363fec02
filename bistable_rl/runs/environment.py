"""The software versions, the commit and the machine of a run or a measurement."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

PACKAGES = ("bistable-rl", "torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "minigrid")


def collect_environment() -> dict[str, Any]:
    """Return the date, the command, versions, the commit and the hardware."""
    program = Path(sys.argv[0]).name
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": ["bistable-rl" if program == "cli.py" else program, *sys.argv[1:]],  # a run of a grid runs cli.py
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def machine(environment: Mapping[str, Any]) -> str:
    """Return the processor of an environment and the number of its cores that were free to use, as text."""
    cores = environment["cores"]
    return f"{environment['processor']}, {cores} {'core' if cores == 1 else 'cores'}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the clone that this package runs from, with `+` after it if its files have changed.

    Files that git does not track, such as a config of one's own, are no change.
    """
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = ["git", "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
