"""The training device of a network, and the kernel backend on that device."""

import functools
import os
import resource
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import torch

from bistable_rl import kernels
from bistable_rl.cells import Cell
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.keys import Device, read_value


def resolve_device(name: torch.device | str) -> torch.device:
    """Return the device behind `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: If there is no such device, or this machine lacks it.
    """
    read_value(str(name), Device, "device")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        found = f"torch sees {count} CUDA device{'s' if count != 1 else ''}"
        raise UserError(f"device: {name} is not available ({found}); choose cpu or auto.")
    return device


def training_device(name: str) -> torch.device:
    """Return the device for training. On the CPU, also set torch to one thread unless OMP_NUM_THREADS is set.

    Networks of this size run no faster on more threads, and the numbers do not depend on the machine's cores.

    Raises:
        UserError: If `resolve_device` raises it.
    """
    device = resolve_device(name)
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return device


def chosen_backend(layers: Iterable[Cell], device: str) -> kernels.Choice:
    """Return the backend of layers on a type of device, with the reason; with several cells, the slowest backend.

    Raises:
        ValueError: If `BISTABLE_RL_BACKEND` names a backend that cannot serve them.
    """
    kinds = [kind for layer in layers for kind in layer.cells]
    choices = [kernels.choose(kind.kernel, device, torch.float32) for kind in kinds]
    return max(choices, key=lambda choice: kernels.BACKENDS.index(choice.backend))


@functools.cache
def warn_of_missing_kernels(cell: str, choice: kernels.Choice) -> None:
    """Warn once if a cell trains without its fast kernels, with the reason.

    Args:
        cell: A key of `CELLS`.
        choice: The backend of the layers.
    """
    if choice.backend == "torch" and choice.why != "asked for":
        kernels.first_warning()  # the layers do not repeat the warning
        warnings.warn(
            f"{cell} is trained without its fast kernels ({choice.why}). Results are the same, but take several times "
            "as long.",
            stacklevel=3,
        )


def check_torch_device(device: torch.device | str) -> torch.device | str:
    """Check and return a device, before Stable-Baselines3 or torch silently replaces it.

    Stable-Baselines3 uses the CPU if there is no CUDA, and torch reads `cuda:256` as `cuda:0`.

    Raises:
        ValueError: If torch knows no such device, it is not available, or it is "meta".
    """
    if str(device).lower().startswith("cuda"):
        return resolve_device(device)
    if str(device) == "meta":
        raise ValueError("device: meta holds no numbers, so nothing can act or learn on it; choose cpu or auto.")
    if device not in ("auto", "cpu"):
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:  # torch's NotImplementedError is a RuntimeError
            why = one_sentence(error)[:-1]
            raise UserError(f"device: {device} is not available ({why}); choose cpu or auto.") from None
    return device


def hardware(device: torch.device, layers: Iterable[Cell]) -> dict[str, Any]:
    """Return the device, threads and kernel backend of a network, for environment.json."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "backend": chosen_backend(layers, device.type).backend,
    }


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory so far in MB: of the GPU, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
