"""Where a network lives, and what runs it there."""

import functools
import resource
import sys
import warnings
from typing import Any

import torch

from bistable_rl import kernels
from bistable_rl.cells import get_cell
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.schema import check_device


def resolve_device(name: torch.device | str) -> torch.device:
    """Return the device behind `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: There is no such device, or it is not here.
    """
    check_device(str(name))
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        found = f"torch sees {count} CUDA device{'s' if count != 1 else ''}"
        raise UserError(f"device: {name} is not here ({found}); choose cpu or auto.")
    return device


@functools.cache
def warn_of_missing_kernels(cell: str, device: str, hidden_size: int) -> None:
    """Warn, once, where a training does without the kernels that its cell has, and say why.

    Args:
        cell: A key of `CELLS`.
        device: The type of the device, such as "cpu".
        hidden_size: H.
    """
    choice = kernels.choose(get_cell(cell).kernel, device, torch.float32, hidden_size)
    if choice.backend == "torch" and choice.why != "asked for":
        warnings.warn(
            f"{cell} is trained without its fast kernels, {choice.why}; results are the same, several times as slow",
            stacklevel=3,
        )


def check_torch_device(device: torch.device | str) -> torch.device | str:
    """Return what is to be a device of torch's, where nothing would take its place in silence.

    Stable-Baselines3 takes the CPU where there is no CUDA, and torch takes `cuda:256` for `cuda:0`.

    Raises:
        ValueError: torch knows no such device, it is not here, or it holds no numbers.
    """
    if str(device).lower().startswith("cuda"):
        return resolve_device(device)
    if str(device) == "meta":
        raise ValueError("device: meta holds no numbers to act or learn with; choose cpu or auto.")
    if device not in ("auto", "cpu"):
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:  # NotImplementedError is the first
            raise UserError(f"device: {device} is not here ({one_sentence(error)[:-1]}); choose cpu or auto.") from None
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
