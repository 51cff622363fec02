"""The one place that decides which backend runs a scan, and records which did."""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from bistable_rl.kernels import cpu, reference, torch_scan
from bistable_rl.kernels.interface import Backend
from bistable_rl.kernels.table import KERNELS
from bistable_rl.kernels.torch_state import transform

BACKENDS = ("cpu", "triton", "torch", "reference")
"""The backends, by name."""
_IMPORTED: dict[str, Backend] = {"cpu": cpu, "torch": torch_scan, "reference": reference}

# Looked up once: whether each can run at all, and the reason.
_CPU = cpu.available()
_TRITON = importlib.util.find_spec("triton") is not None

_asked = os.environ.get("BISTABLE_RL_BACKEND") or None
_ran: set[tuple[str, str]] | None = None
_has_warned = False


class Choice(NamedTuple):
    """Which backend runs, and why."""

    backend: str
    why: str


def choose(cell: str | None, device: str, dtype: torch.dtype, *, only_reference: str | None = None) -> Choice:
    """Choose the backend that runs a scan now.

    It is the fastest that serves the cell, device and dtype, unless `BISTABLE_RL_BACKEND` or `use_backend` asks for
    another. A cell without kernels always runs the reference, as does every cell under a transform of torch.func
    (`vmap`, `grad`, `jvp`, ...), inside `torch.autograd.forward_ad.dual_level`, and on the meta device.

    Args:
        cell: A key of `KERNELS`, or None for a cell without kernels.
        device: The type of the device: "cpu", "cuda", ...
        dtype: The type of the input and parameters.
        only_reference: A reason known to the caller why only the reference can run this: the gradients will be
            differentiated again, or are batched.

    Returns:
        The backend's name, of `BACKENDS`, and the reason.

    Raises:
        ValueError: If the backend asked for does not exist or cannot serve this.
    """
    if cell is None:
        return Choice("reference", "this cell has no kernel of its own")
    only_reference = only_reference or transform()
    if _asked is not None:
        if _asked not in BACKENDS:
            raise ValueError(
                f"unknown backend {_asked!r}; choices: {', '.join(BACKENDS)} (asked for by BISTABLE_RL_BACKEND)"
            )
        obstacle = None if _asked == "reference" else only_reference
        obstacle = obstacle or _obstacle(_asked, device, dtype)
        if obstacle:
            raise ValueError(f"backend {_asked!r} was asked for, but {obstacle}")
        return Choice(_asked, "asked for")
    if only_reference is not None:
        return Choice("reference", only_reference)
    if device == "meta":
        return Choice("reference", "meta tensors have a shape but no numbers")
    native = "cpu" if device == "cpu" else "triton"
    obstacle = _obstacle(native, device, dtype)
    if obstacle is None:
        return Choice(native, _CPU[1] if native == "cpu" else "a CUDA device, and triton is installed")
    if not dtype.is_floating_point:
        return Choice("reference", f"no backend is faster for {dtype}")
    return Choice("torch", f"not {native}: {obstacle}")


def _obstacle(backend: str, device: str, dtype: torch.dtype) -> str | None:
    """Why a backend cannot serve this, or None."""
    if backend == "cpu":
        if device != "cpu":
            return f"it runs on the CPU, but the tensors are on {device}"
        if dtype not in (torch.float32, torch.float64):
            return f"it takes float32 and float64, not {dtype}"
        return None if _CPU[0] else _CPU[1]
    if backend == "triton":
        if not _TRITON:
            return "triton is not installed"
        if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"it runs on CUDA devices, but the tensors are on {device}"
        if dtype not in (torch.float32, torch.float64):
            return f"it takes float32 and float64, not {dtype}"
    return None


def get_backend(name: str) -> Backend:
    """Return the module that is this backend."""
    if name == "triton":
        from bistable_rl.kernels import triton_scan  # only where it is used: the import takes a second

        return triton_scan
    return _IMPORTED[name]


@contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Run every scan inside the `with` block on this backend; None is the automatic choice.

    Args:
        backend: One of `BACKENDS`, or None.

    Raises:
        ValueError: If there is no such backend; inside the block, if it cannot serve a scan.
    """
    global _asked
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; choices: {', '.join(BACKENDS)}")
    before, _asked = _asked, backend
    try:
        yield
    finally:
        _asked = before


@contextmanager
def watch() -> Iterator[set[tuple[str, str]]]:
    """Collect which (cell, backend) pairs run inside the `with` block."""
    global _ran
    before, _ran = _ran, set()
    try:
        yield _ran
    finally:
        _ran = before


def first_warning() -> bool:
    """Return whether this process has not yet warned that there are no compiled kernels; from now on it has."""
    global _has_warned
    first, _has_warned = not _has_warned, True
    return first


def warn_of_slow_layers(device: str) -> None:
    """Warn, once, that layers on the CPU run without the compiled kernels, and say why; not if that was asked for."""
    if device == "cpu" and not _CPU[0] and _asked is None and first_warning():
        warnings.warn(
            f"these layers run without their compiled kernels: {_CPU[1]}. Results are the same, but take several times "
            "as long.",
            stacklevel=2,
        )


def note(cell: str, backend: str) -> None:
    """Record for `watch` that this backend runs this cell."""
    if _ran is not None:
        _ran.add((cell, backend))


def describe() -> list[tuple[str, str, str, str]]:
    """Return which backend runs which cell here: (cell, device, backend, why), in float32."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [(cell, device, *choose(cell, device, torch.float32)) for device in devices for cell in KERNELS]
