"""The time and memory of our cells, compared with torch.nn.GRU and torch.nn.LSTM of the same sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bistable_rl import kernels
from bistable_rl.cells import get_cell
from bistable_rl.cells.base import fixed_weights
from bistable_rl.cells.footprint import layers_bytes
from bistable_rl.rnn import RNN, make_rnn
from bistable_rl.runs.capacity import check_memory
from bistable_rl.speed.memory import peak_memory
from bistable_rl.speed.table import print_table
from bistable_rl.speed.timing import median_seconds

Shape = tuple[int, int, int, int]

SHAPES: tuple[Shape, ...] = (
    (100, 300, 1, 128),
    (100, 300, 128, 128),
    (16, 128, 64, 128),
    (64, 128, 64, 128),
    (100, 784, 1, 128),
    (8, 1, 64, 128),
    (64, 1, 64, 128),
)
"""(B, T, I, H). T = 1 measures a step of acting, without gradients; larger T measure forward and backward."""

THEIRS = {"nn.GRU": nn.GRU, "nn.LSTM": nn.LSTM}
SECONDS = 0.05
"""The least duration of a timing."""


@dataclass(frozen=True)
class Speed:
    """The time and memory of one layer at one shape.

    Attributes:
        layer: A cell's name, "nn.GRU" or "nn.LSTM".
        backend: The backend of our kernels that ran, or "torch".
        shape: (B, T, I, H).
        milliseconds: The median time of forward and backward, or of a step if T = 1.
        memory: The peak memory of the call above the memory in use before it, in MB; None if it cannot be measured.
        threads: The number of CPU threads of torch.
        fixed_weights: Whether the layer ran inside `bistable_rl.fixed_weights`, as agents do; only for steps.
    """

    layer: str
    backend: str
    shape: Shape
    milliseconds: float
    memory: float | None
    threads: int
    fixed_weights: bool = False


def parse_shape(text: str) -> Shape:
    """Parse a shape (B, T, I, H) from "B,T,I,H".

    Raises:
        ValueError: If the text is not four positive integers with commas between them.
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"a shape is four positive integers B,T,I,H, such as 100,300,1,128; got {text!r}")
    B, T, I, H = (int(part) for part in parts)
    return B, T, I, H


def measure(
    shape: Shape, *, device: str = "cpu", cells: Sequence[str] = tuple(kernels.KERNELS), rounds: int = 7
) -> list[Speed]:
    """Measure the cells and torch's two layers at one shape. The input needs no gradient.

    Args:
        shape: (B, T, I, H).
        device: "cpu" or "cuda".
        cells: The names of the cells.
        rounds: How often each layer is timed.

    Returns:
        One `Speed` per layer: the cells in their order, then nn.GRU and nn.LSTM. A step of a cell with CPU kernels is
        measured twice, with weights that may change and with fixed weights.

    Raises:
        UserError: If there is not enough memory.
    """
    B, T, I, H = shape
    weights = sum(layers_bytes(cell, I, H, 1) for cell in cells)
    check_memory(
        f"the shape {B},{T},{I},{H}", weights + 28 * H * (I + H) + 4 * T * B * (I + (2 if T > 1 else 1) * H), device
    )
    x = torch.randn(T, B, I, device=device)
    layers: dict[str, nn.Module] = {cell: make_rnn(cell, I, H, device=device) for cell in cells}
    layers |= {name: make(I, H, device=device) for name, make in THEIRS.items()}
    keys = [(name, fixed) for name in layers for fixed in (False, True) if not fixed or _can_be_fixed(name, T, device)]
    runs = {(name, fixed): _step(layers[name], x, H) if T == 1 else _train(layers[name], x, H) for name, fixed in keys}
    contexts: dict[tuple[str, bool], Callable[[], AbstractContextManager[None]]] = {
        (name, fixed): partial(fixed_weights, layers[name]) if fixed else nullcontext for name, fixed in keys
    }
    for layer in (make_rnn("brc", 1, 1, device=device), nn.GRU(1, 1, device=device)):
        _train(layer, x[:1, :1, :1], 1)()  # so that no layer's memory includes the libraries loaded at first use
    memory, backends = {}, {}
    with torch.set_grad_enabled(T > 1):
        for key in keys:
            with kernels.watch() as ran, contexts[key]():
                memory[key] = peak_memory(runs[key], device)
            backends[key] = "+".join(sorted(backend for _, backend in ran)) or "torch"
        seconds = median_seconds(
            runs,
            rounds=rounds,
            seconds=SECONDS,
            clock=time.perf_counter,
            wait=torch.cuda.synchronize if device == "cuda" else lambda: None,
            contexts=contexts,
        )
    threads = torch.get_num_threads()
    return [Speed(key[0], backends[key], shape, 1e3 * seconds[key], memory[key], threads, key[1]) for key in keys]


def speed_cells(
    *,
    device: str = "cpu",
    shapes: Sequence[Shape] = SHAPES,
    cells: Sequence[str] = tuple(kernels.KERNELS),
    rounds: int = 7,
) -> list[Speed]:
    """Measure the cells at several shapes and print their speed relative to torch's layers.

    Args:
        device: "cpu" or "cuda".
        shapes: (B, T, I, H) each.
        cells: The names of the cells.
        rounds: How often each layer is timed.

    Returns:
        All measurements.

    Raises:
        ValueError: If the machine lacks the device, or there is no such cell.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here")
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU thread(s)"
    speeds: list[Speed] = []
    rows: list[list[str]] = []
    for shape in shapes:
        measured = measure(shape, device=device, cells=cells, rounds=rounds)
        speeds += measured
        gru, lstm = measured[-2:]
        rows += [_row(speed, gru, lstm) for speed in measured]
        rows.append([])
    print_table(
        f"float32, {where}, torch {torch.__version__}; T = 1: a step without gradients, else forward + backward",
        ["B,T,I,H", "layer", "backend"],
        ["ms", "nn.GRU / it", "nn.LSTM / it", "MB", "of nn.GRU's"],
        rows,
    )
    return speeds


def _row(speed: Speed, gru: Speed, lstm: Speed) -> list[str]:
    return [
        ",".join(map(str, speed.shape)),
        speed.layer + (", fixed weights" if speed.fixed_weights else ""),
        speed.backend,
        f"{speed.milliseconds:.3f}",
        f"{gru.milliseconds / speed.milliseconds:.2f}",
        f"{lstm.milliseconds / speed.milliseconds:.2f}",
        "" if speed.memory is None else f"{speed.memory:.1f}",
        "" if speed.memory is None or not gru.memory else f"{speed.memory / gru.memory:.2f}",
    ]


def _can_be_fixed(name: str, T: int, device: str) -> bool:
    return T == 1 and device == "cpu" and name not in THEIRS and get_cell(name).kernel is not None


def _train(layer: nn.Module, x: Tensor, H: int) -> Callable[[], None]:
    gradient = torch.randn(*x.shape[:-1], H, device=x.device)

    def run() -> None:
        layer.zero_grad()
        layer(x)[0].backward(gradient)

    return run


def _step(layer: nn.Module, x: Tensor, H: int) -> Callable[[], None]:
    B = x.shape[1]
    state: Tensor | tuple[Tensor, Tensor]
    if isinstance(layer, nn.LSTM):
        state = (x.new_zeros(1, B, H), x.new_zeros(1, B, H))
    else:
        state = x.new_zeros(1, B, layer.state_size if isinstance(layer, RNN) else H)

    def run() -> None:
        layer(x, state)

    return run
