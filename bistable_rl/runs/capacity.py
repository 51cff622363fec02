"""The free memory, so that a size beyond it is refused with one sentence before anything is allocated.

Linux promises more memory than it has and kills the process that uses it, so an allocation that succeeds proves
nothing. Callers count a lower bound of the bytes that they need, so a size that passes the check may still not fit.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from bistable_rl.errors import UserError


def available(device: torch.device | str = "cpu") -> int:
    """Return the bytes that this process can still use: of the GPU, or of the machine within the cgroup's limits."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([_machine(), *_cgroups()])


def check_memory(what: str, needed: int, device: torch.device | str = "cpu") -> None:
    """Check that enough memory is free.

    Args:
        what: The object that needs the memory, with the names and values that set its size.
        needed: The least number of bytes that it needs.
        device: The device that holds the memory.

    Raises:
        UserError: If less is free.
    """
    if torch.device(device).type not in ("cpu", "cuda"):
        return
    there = available(device)
    if needed > there:
        raise UserError(f"{what} needs at least {_shown(needed)} of memory, but only {_shown(there)} are free.")


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroups() -> list[int]:
    """Return the bytes left below the limit of each control group of this process; file pages count as free."""
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
    except (OSError, ValueError):  # no control groups, or no permission to read them
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
