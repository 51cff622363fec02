"""How much memory there is, so that a size beyond it is refused in a sentence before anything is allocated.

Linux promises more memory than it has and kills who uses it, so an allocation that succeeds proves nothing. What is
counted is what is needed at least; what lies below the memory may still not fit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bistable_rl.cells import check_options
from bistable_rl.errors import UserError
from bistable_rl.rnn import make_rnn

LIMIT = 2**63
"""Bytes that nothing has; where even the count overflows, so many are needed."""


def available(device: torch.device | str = "cpu") -> int:
    """Return the bytes that this process can still use: of the GPU, or of the machine and of its cgroup's limit."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([_machine(), *_cgroups()])


def check_memory(what: str, needed: int, device: torch.device | str = "cpu") -> None:
    """Check that there is memory for something.

    Args:
        what: What needs it, with the names and values of what sets its size.
        needed: The bytes that it needs at least.
        device: Where it will be.

    Raises:
        UserError: There is less.
    """
    if torch.device(device).type not in ("cpu", "cuda"):
        return
    there = available(device)
    if needed > there:
        raise UserError(f"{what} needs {_shown(needed)} of memory at least, and {_shown(there)} are free.")


def layers_bytes(
    cell: str, input_size: int, hidden_size: int, num_layers: int, cell_kwargs: Mapping[str, Any] | None = None
) -> int:
    """Return the bytes of the float32 parameters of recurrent layers, of which none is allocated.

    Raises:
        ValueError: There is no such cell, or it has no such option.
        TypeError: A switch is neither true nor false.
    """
    check_options(cell, dict(cell_kwargs or {}))
    memory = (cell_kwargs or {}).get("memory_size")  # the LMU's Ā is computed on the CPU, in float64
    if isinstance(memory, int) and 8 * memory**2 > available():
        return 8 * memory**2
    try:
        sizes = [
            sum(
                p.numel()
                for p in make_rnn(
                    cell, width, hidden_size, cell_kwargs=dict(cell_kwargs or {}), device="meta"
                ).parameters()
            )
            for width in (input_size, hidden_size)
        ]
    except (RuntimeError, OverflowError, TypeError):  # more numbers than 64 bits can count
        return LIMIT
    return 4 * (sizes[0] + (num_layers - 1) * sizes[1])


def check_layers(
    where: str,
    cell: str,
    hidden_size: int,
    num_layers: int,
    cell_kwargs: Mapping[str, Any] | None,
    copies: int,
    device: torch.device | str,
) -> None:
    """Check, before they are built, that recurrent layers can be trained and that their state fits.

    Arguments that no layers can be built with are left to the builder, which explains them.

    Args:
        where: What the sentence starts with, such as "policy: ".
        cell: A key of `CELLS`.
        hidden_size: H.
        num_layers: L.
        cell_kwargs: Options of the cell.
        copies: How many states there are at once.
        device: Where they will be.

    Raises:
        UserError: There is less memory.
    """
    try:
        layers = layers_bytes(cell, 1, hidden_size, num_layers, cell_kwargs)
    except (ValueError, TypeError):
        return
    options = f", cell_kwargs {dict(cell_kwargs)}" if cell_kwargs else ""
    check_memory(
        f"{where}the training of num_layers {num_layers:,} of hidden_size {hidden_size:,}{options} "
        "(weights, gradients and Adam's moments)",
        4 * layers,
        device,
    )
    made = make_rnn(cell, 1, hidden_size, cell_kwargs=dict(cell_kwargs or {}), device="meta")
    state = num_layers * made.state_size
    check_memory(f"{where}the state of {copies:,} copies, {state:,} numbers each,", 8 * copies * state, device)


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroups() -> list[int]:
    """Return what is left below the limit of each control group that holds this process; pages of files can go."""
    left = []
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            old = "memory" in controllers.split(",")
            if controllers and not old:
                continue
            root = Path("/sys/fs/cgroup/memory" if old else "/sys/fs/cgroup")
            limit, usage = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
            )
            folder = root / name.lstrip("/")
            for group in (folder, *folder.parents):
                if (group / limit).is_file() and (most := (group / limit).read_text().strip()) != "max":
                    used = int((group / usage).read_text()) - _file_pages(group / "memory.stat")
                    left.append(int(most) - used)
                if group == root:
                    break
    except (OSError, ValueError):  # no control groups, or none that may be read
        pass
    return left


def _file_pages(stat: Path) -> int:
    for line in stat.read_text().splitlines():
        name, value = line.split()
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _shown(count: int) -> str:
    size = max(float(count), 0.0)
    for unit in ("bytes", "KB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} EB"
