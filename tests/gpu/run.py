"""Prove and measure everything on a GPU in one call, and bring home what was found.

    python tests/gpu/run.py prove  --out results            parity, speed, sanitizer, training: under 6 minutes
    python tests/gpu/run.py tables --out results --seconds 540    the papers' tables at full size, as far as time goes
    python tests/gpu/run.py prove  --out results --device cpu --tiny    a rehearsal without a GPU

Runs from the project's root, offline and without installation: `--wheels DIR` names a folder with the packages that are
missing (see wheels.txt), BISTABLE_RL_DATA the folder with MNIST. The steps run in order of worth, each within its own
limit; a step that fails stops no other. After each step OUT holds all that is known: report.md, log.txt,
speed_cells.json, and a .tar.gz of every table's runs, which `--earlier DIR` takes up again in another call.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = sys.executable
COMMAND = (PYTHON, "-m", "bistable_rl.cli")
PYTEST = (PYTHON, "-m", "pytest", "-p", "no:cacheprovider")
SHAPES = ("100,784,1,128", "256,512,128,128", "64,128,64,256", "1024,128,64,512", "8,1,64,128", "64,1,64,128")
GRACE = 25  # seconds to write checkpoints after the limit, before a step is killed
PASSED, STOPPED = "passed", "stopped at its limit"
SHOWN = 60  # last lines of a step that the report shows

ABOUT = """
import platform, torch
cuda = torch.cuda.is_available()
print(torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine())
print(f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
"""


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        name: Its heading in the report.
        seconds: Its limit.
        command: Program and arguments; None where the machine lacks the program.
        resumable: Whether it is expected to be stopped, and goes on in another call.
    """

    name: str
    seconds: float
    command: tuple[str, ...] | None
    resumable: bool = False


def prove(device: str, out: Path, tiny: bool) -> list[Step]:
    """Return the steps that show that the kernels are right and how fast they are."""
    parallel = ("-n", "8") if _has("xdist") and not tiny else ()
    # the compiled CPU kernels have nothing to show here, and a GPU runs the torch scan too
    chosen = "torch and (packed or options)" if tiny else "not cpu"
    shapes = ("4,10,1,8", "4,1,4,8") if tiny else SHAPES
    steps = "6400" if tiny else "300000"
    copies = "16" if tiny else "1024"
    sanitizer = shutil.which("compute-sanitizer")
    train = (*COMMAND, "train", "--device", device, "--out", str(out / "runs"), "--overwrite", "--total_steps", steps)
    return [
        Step("parity", 110, (*PYTEST, *parallel, "-m", "", "-k", chosen, "tests/test_kernels_parity.py")),
        Step(
            "speed of the cells",
            70,
            (
                *COMMAND,
                "speed",
                "cells",
                "--device",
                device,
                "--json",
                str(out / "speed_cells.json"),
                "--shapes",
                *shapes,
            ),
        ),
        Step("tests that need a GPU", 60, (*PYTEST, "-m", "gpu", "-rs", "tests")),
        Step("an agent: copy_first", 30, (*train, "rl/copy_first")),
        Step(
            f"an agent: MiniGridMemory, {copies} copies",
            30,
            (*train, "rl/minigrid_memory_batched", "--env.num_envs", copies, "--algorithm.batch_size", copies),
        ),
        Step(
            "compute-sanitizer",
            50,
            None if sanitizer is None else (sanitizer, "--error-exitcode", "1", PYTHON, "tests/gpu/sanitize.py"),
        ),
    ]


def tables(device: str, out: Path, tiny: bool) -> list[Step]:
    """Return the steps that train the papers' tables; as many runs side by side as there are cores to feed them."""
    workers = str(max(1, (os.cpu_count() or 1) - 2))
    reproduce = (*COMMAND, "reproduce", "--workers", workers, "--out", str(out / "runs"))
    if tiny:
        quick = ("table1", "--settings", "T=50", "--cells", "brc", "--seeds", "0")
        return [Step("table1-quick", 15, (*reproduce, *quick), resumable=True)]
    plans = (
        ("table1", "T=300,T=600", "nbrc,brc,gru"),
        ("table2", "N=200", "nbrc,brc,gru"),
        ("table4", "N=472", "nbrc,brc,gru"),
        ("table5", "N<=472", "nbrc,brc,gru"),
        ("table3", "T=784", "nbrc,brc,gru,lstm"),
    )
    return [
        Step(
            f"{table}-paper",
            10_000,  # the call's own limit ends it
            (*reproduce, table, "--preset", "paper", "--reuse-committed", "--settings", settings, "--cells", cells),
            resumable=True,
        )
        for table, settings, cells in plans
    ]


KINDS = {"prove": (prove, 350.0), "tables": (tables, 540.0)}


def main() -> int:
    """Run the steps; return 1 if one failed, or had to be cut short that cannot go on later, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(KINDS))
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: small sizes")
    parser.add_argument(
        "--seconds", type=float, help="limit of the whole call (default: 350 for prove, 540 for tables)"
    )
    parser.add_argument("--wheels", type=Path, help="folder with the packages that this machine lacks")
    parser.add_argument("--earlier", type=Path, help="OUT of an earlier call, whose runs go on")
    args = parser.parse_args()
    began = time.monotonic()
    os.chdir(ROOT)
    out = args.out.resolve()
    (out / "runs").mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if args.wheels is not None:
        environment["PYTHONPATH"] += os.pathsep + _install(args.wheels)
    for archive in sorted(args.earlier.glob("*.tar.gz")) if args.earlier is not None else []:
        with tarfile.open(archive) as packed:
            packed.extractall(out / "runs", filter="data")
    steps, seconds = KINDS[args.what]
    report = Report(out, args.what, environment)
    deadline = began + (args.seconds or seconds)
    for step in steps(args.device, out, args.tiny):
        report.add(step, *run(step, deadline, environment, out / "log.txt"))
        _pack_tables(out)
    return 1 if report.failed else 0


def run(step: Step, deadline: float, environment: Mapping[str, str], log: Path) -> tuple[str, float, str]:
    """Run a step; return how it ended, its seconds and its output."""
    left = min(step.seconds, deadline - time.monotonic() - GRACE)
    if step.command is None:
        return "skipped: the program is not on this machine", 0.0, ""
    if left < 5:
        return "not run: no time was left", 0.0, ""
    print(f"--- {step.name}: at most {left:.0f} s", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            step.command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(left)
            how = PASSED if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            how = STOPPED
            _stop(process)
        seconds = time.monotonic() - began
        output.seek(0)
        text = output.read()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"--- {step.name}: {how} after {seconds:.0f} s\n$ {' '.join(step.command)}\n{text}\n")
    print("\n".join(text.splitlines()[-12:]) + f"\n--- {step.name}: {how} after {seconds:.0f} s", flush=True)
    return how, seconds, text


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a step as Ctrl-C does, so that trainings leave a checkpoint, and then for good."""
    os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Report:
    """report.md: the machine, then a section for each step; written whole after every step.

    Args:
        out: The folder.
        what: Which steps they are.
        environment: That of the steps.
    """

    def __init__(self, out: Path, what: str, environment: Mapping[str, str]) -> None:
        about = subprocess.run([PYTHON, "-c", ABOUT], env=environment, capture_output=True, text=True, check=False)
        machine, *versions = (about.stdout or about.stderr).strip().splitlines() or ["unknown"]
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        date = datetime.now(timezone.utc).isoformat(timespec="minutes")
        self._path = out / ("report.md" if what == "prove" else f"report-{what}.md")
        self._lines = [f"# {machine}, {date}", "", *versions, "", f"commit {commit or 'unknown'}", ""]
        self.failed = False

    def add(self, step: Step, how: str, seconds: float, text: str) -> None:
        """Add a step."""
        if how != PASSED and step.command is not None and not (how == STOPPED and step.resumable):
            self.failed = True
        self._lines += [f"## {step.name}: {how}, {seconds:.0f} s", ""]
        if step.command is not None:
            shown = " ".join("python" if part == PYTHON else part for part in step.command)
            self._lines += [f"`{shown}`", ""]
        if text:
            self._lines += ["```", *text.splitlines()[-SHOWN:], "```", ""]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("\n".join(self._lines), encoding="utf-8")
        temporary.replace(self._path)


def _pack_tables(out: Path) -> None:
    """Pack the runs of every table into a file of its own, from which a later call goes on."""
    for folder in (out / "runs").glob("table*"):
        temporary = out / f".{folder.name}.tmp"
        with tarfile.open(temporary, "w:gz") as packed:
            packed.add(folder, folder.name)
        temporary.replace(out / f"{folder.name}.tar.gz")


def _install(wheels: Path) -> str:
    """Unpack wheels into a folder for PYTHONPATH, beside the packages that the machine has."""
    site = tempfile.mkdtemp(prefix="site-")
    pip = (PYTHON, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target", site)
    subprocess.run([*pip, *map(str, sorted(wheels.glob("*.whl")))], check=True)
    return site


def _has(module: str) -> bool:
    return subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
