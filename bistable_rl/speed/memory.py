"""The peak memory of a call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch


def peak_memory(run: Callable[[], object], device: str) -> float | None:
    """Call a function once; return its peak memory above the memory in use before, in MB, or None outside Linux."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)  # otherwise the call would reuse freed pages, which would not be counted
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
        before = _resident("VmRSS")
        run()
        return (_resident("VmHWM") - before) / 1e6
    except (OSError, AttributeError):  # not Linux
        run()
        return None


def _resident(field: str) -> int:
    """Return the resident memory of this process in bytes: now (VmRSS) or at the peak (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
