"""Where a network lives, and what runs it there."""

import resource
import sys
from typing import Any

import torch

from bistable_rl import kernels
from bistable_rl.cells import get_cell
from bistable_rl.config import UserError


def resolve_device(name: str) -> torch.device:
    """Return the device behind `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: The device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        found = f"torch sees {count} CUDA device{'s' if count != 1 else ''}"
        raise UserError(f"device: {name} is not here ({found}); choose cpu or auto.")
    return device


def hardware(device: torch.device, cell: str, hidden_size: int) -> dict[str, Any]:
    """Return device, threads and kernel backend of a network, for environment.json."""
    choice = kernels.choose(get_cell(cell).kernel, device.type, torch.float32, hidden_size)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "backend": choice.backend,
    }


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory in use so far, in MB: the device's, or this process's on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
