"""How fast the cells are, and how much memory they need, beside torch.nn.GRU and torch.nn.LSTM of the same sizes."""

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bistable_rl import kernels
from bistable_rl.cells import get_cell
from bistable_rl.cells.base import fixed_weights
from bistable_rl.rnn import RNN, make_rnn
from bistable_rl.runs.capacity import check_memory, layers_bytes

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
"""(B, T, I, H); T = 1 is a step of acting, without gradients, the others are forward and backward."""

THEIRS = {"nn.GRU": nn.GRU, "nn.LSTM": nn.LSTM}


@dataclass(frozen=True)
class Speed:
    """What one layer took at one shape: medians of interleaved runs."""

    layer: str
    """A cell's name, "nn.GRU" or "nn.LSTM"."""
    backend: str
    """What ran it: one of our backends, or "torch"."""
    shape: Shape
    """(B, T, I, H)."""
    milliseconds: float
    """Of forward and backward, or of a step where T = 1."""
    memory: float | None
    """The most memory in use at once beyond what was in use before, in MB; None where it cannot be measured."""
    fixed_weights: bool = False
    """Whether it ran inside `bistable_rl.fixed_weights`, as agents do; only for steps."""


def parse_shape(text: str) -> Shape:
    """A shape from "B,T,I,H".

    Args:
        text: four positive integers with commas between them.

    Returns:
        (B, T, I, H).

    Raises:
        ValueError: if it is something else.
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"a shape is four positive integers B,T,I,H, such as 100,300,1,128; got {text!r}")
    B, T, I, H = (int(part) for part in parts)
    return B, T, I, H


def measure(shape: Shape, *, device: str = "cpu", cells: Sequence[str] = tuple(kernels.KERNELS), rounds: int = 7) -> list[Speed]:
    """Time the cells and torch's two layers at one shape, in turn, so that a busy moment hits all alike.

    Inputs are data: they ask for no gradient.

    Args:
        shape: (B, T, I, H).
        device: "cpu" or "cuda".
        cells: names of cells.
        rounds: how often each is timed.

    Returns:
        One `Speed` per layer: the cells in their order, then nn.GRU and nn.LSTM. Steps of cells with CPU kernels are
        measured twice, with weights that may change and with fixed ones.

    Raises:
        UserError: There is not so much memory.
    """
    B, T, I, H = shape
    weights = sum(layers_bytes(cell, I, H, 1) for cell in cells)
    check_memory(
        f"the shape {B},{T},{I},{H}", weights + 28 * H * (I + H) + 4 * T * B * (I + (2 if T > 1 else 1) * H), device
    )
    x = torch.randn(T, B, I, device=device)
    layers: dict[str, nn.Module] = {cell: make_rnn(cell, I, H, device=device) for cell in cells}
    layers |= {name: make(I, H, device=device) for name, make in THEIRS.items()}
    ways = [(name, False) for name in layers]
    if T == 1 and device == "cpu":
        ways = [(name, fixed) for name in layers for fixed in (False, True) if not fixed or _has_kernel(name)]
    runs = {name: _step(layer, x, H) if T == 1 else _train(layer, x, H) for name, layer in layers.items()}
    for layer in (make_rnn("brc", 1, 1, device=device), nn.GRU(1, 1, device=device)):
        _train(layer, x[:1, :1, :1], 1)()  # what is loaded at the first use is nobody's memory
    memory, backends, repeats = {}, {}, {}
    times: dict[tuple[str, bool], list[float]] = {way: [] for way in ways}
    with torch.set_grad_enabled(T > 1):
        for way in ways:
            name, fixed = way
            with kernels.watch() as ran, fixed_weights(layers[name]) if fixed else nullcontext():
                memory[way] = _peak_memory(runs[name], device)
                repeats[way] = _repeats(runs[name], device)
            backends[way] = "+".join(sorted(backend for _, backend in ran)) or "torch"
        for _ in range(rounds):
            for way in ways:
                name, fixed = way
                with fixed_weights(layers[name]) if fixed else nullcontext():
                    times[way].append(_time(runs[name], repeats[way], device))
    return [
        Speed(way[0], backends[way], shape, 1e3 * statistics.median(times[way]), memory[way], way[1]) for way in ways
    ]


def _has_kernel(name: str) -> bool:
    return name not in THEIRS and get_cell(name).kernel is not None


def speed_cells(
    *,
    device: str = "cpu",
    shapes: Sequence[Shape] = SHAPES,
    cells: Sequence[str] = tuple(kernels.KERNELS),
    rounds: int = 7,
) -> list[Speed]:
    """Time the cells at several shapes and print how many times faster than torch's layers they are.

    Args:
        device: "cpu" or "cuda".
        shapes: (B, T, I, H) each.
        cells: names of cells.
        rounds: how often each is timed.

    Returns:
        All measurements.

    Raises:
        ValueError: if there is no such device here, or no such cell.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here")
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU thread(s)"
    table = Table(
        "B,T,I,H", "layer", "backend", "ms", "nn.GRU / it", "nn.LSTM / it", "MB", "of nn.GRU's",
        title=f"float32, {where}, torch {torch.__version__}; T = 1: a step without gradients, else forward + backward",
    )  # fmt: skip
    speeds: list[Speed] = []
    for shape in shapes:
        measured = measure(shape, device=device, cells=cells, rounds=rounds)
        speeds += measured
        gru, lstm = measured[-2:]
        for speed in measured:
            table.add_row(
                ",".join(map(str, shape)),
                speed.layer + (", fixed weights" if speed.fixed_weights else ""),
                speed.backend,
                f"{speed.milliseconds:.3f}",
                f"{gru.milliseconds / speed.milliseconds:.2f}",
                f"{lstm.milliseconds / speed.milliseconds:.2f}",
                "" if speed.memory is None else f"{speed.memory:.1f}",
                "" if speed.memory is None or not gru.memory else f"{speed.memory / gru.memory:.2f}",
                end_section=speed is lstm,
            )
    console.print(table)
    return speeds


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


def _time(run: Callable[[], None], repeats: int, device: str) -> float:
    """Seconds of one run, on average over `repeats`."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _repeats(run: Callable[[], None], device: str) -> int:
    """How often to run for a timing of about a twentieth of a second."""
    for _ in range(3):
        once = _time(run, 1, device)
    return max(1, int(0.05 / once))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _peak_memory(run: Callable[[], None], device: str) -> float | None:
    """MB in use at the worst moment of the first run beyond those in use before it."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        _wait(device)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else memory that was freed and kept would be used again, uncounted
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # starts the peak anew
        before = _resident("VmRSS")
        run()
        return (_resident("VmHWM") - before) / 1e6
    except (OSError, AttributeError):  # not Linux
        run()
        return None


def _resident(field: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
