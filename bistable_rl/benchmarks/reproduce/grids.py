"""The grids of runs behind the tables: `paper`, as in the papers' text, and `quick`, smaller with the same ordering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bistable_rl.benchmarks.reproduce.published import CELLS
from bistable_rl.benchmarks.tasks.task import DataProtocol
from bistable_rl.cells import get_cell
from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError, one_sentence, unknown
from bistable_rl.runs.schema import Benchmark, NetworkConfig, TaskConfig, TrainingConfig

_SCORES = ("accuracy", "f1")
_FOUR = ("nbrc", "brc", "gru", "lstm")


@dataclass(frozen=True)
class Setting:
    """A row of a table.

    Attributes:
        name: Its name, such as `T=300`.
        task: Its task.
        training: Its training.
        network: Its network, apart from the cell.
        data: `fixed` or `fresh`.
        published: The published setting next to it, if its name differs.
    """

    name: str
    task: TaskConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: Any = "fixed"
    published: str = ""


@dataclass(frozen=True)
class Grid:
    """The runs behind a table.

    Attributes:
        settings: The rows of the table.
        cells: Its columns, unless the user names others.
        metrics: The metrics of each run.
        protocol: The data and order of samples.
    """

    settings: tuple[Setting, ...]
    cells: tuple[str, ...]
    metrics: tuple[str, ...]
    protocol: DataProtocol = "paper"


def _task(name: str, **kwargs: Any) -> TaskConfig:
    return TaskConfig(name, kwargs)


def _quick(epochs: int, learning_rate: float) -> TrainingConfig:
    # clipping and a larger learning rate end the plateau of the bistable cells in a fraction of the paper's updates
    return TrainingConfig(learning_rate=learning_rate, max_grad_norm=1.0, warmup_steps=100, epochs=epochs)


def _small(
    name: str, published: str, task: TaskConfig, training: TrainingConfig, metrics: tuple[str, ...] = _SCORES
) -> Grid:
    """Return a quick grid of one setting, shown next to a larger published one."""
    return Grid((Setting(name, task, training, published=published),), _FOUR, metrics)


_COPY = tuple(Setting(f"T={T}", _task("copy_first", length=T)) for T in (5, 50, 300, 600))
_JOHNS = TrainingConfig(batch_size=128, epochs=625, target_loss=0.01)  # 625 times 25 updates

GRIDS: dict[str, dict[str, Grid]] = {
    "paper": {
        "table1": Grid(_COPY, CELLS, ("mse",)),
        "table2": Grid(
            tuple(Setting(f"N={N}", _task("denoising", length=400, forgetting=N)) for N in (5, 200)), CELLS, ("mse",)
        ),
        "table3": Grid((Setting("T=784", _task("permuted_sequential_mnist")),), CELLS, _SCORES),
        "table4": Grid(tuple(Setting(f"N={N}", _task("line_mnist", black_lines=N)) for N in (72, 472)), CELLS, _SCORES),
        "table5": Grid((Setting("N<=472", _task("variable_line_mnist", max_black_lines=472)),), CELLS, _SCORES),
        "johns": Grid(
            tuple(
                Setting(
                    f"H={H}",
                    _task("copy_first", length=300, dimension=32, train_size=3200, test_size=5000),
                    _JOHNS,
                    NetworkConfig(hidden_size=H, num_layers=1),
                    data="fresh",
                )
                for H in (64, 48)
            ),
            ("half_pbrc", "nbrc", "plastic_gru"),
            ("iterations", "mse"),
        ),
        "fig3": Grid(_COPY, ("gru", "brc"), ("mse",)),
    },
    "quick": {
        "table1": Grid(
            tuple(
                Setting(f"T={T}", _task("copy_first", length=T, train_size=20_000, test_size=10_000), _quick(3, 1e-2))
                for T in (50, 300)
            ),
            _FOUR,
            ("mse",),
        ),
        "table2": _small(
            "T=100 N=50",
            "N=200",
            _task("denoising", length=100, forgetting=50, test_size=10_000),
            _quick(4, 3e-3),
            metrics=("mse",),
        ),
        "table3": _small(
            "digits T=64", "T=784", _task("permuted_sequential_mnist", dataset="digits"), _quick(60, 5e-3)
        ),
        "table4": _small(
            "digits N=100", "N=472", _task("line_mnist", dataset="digits", black_lines=100), _quick(60, 5e-3)
        ),
        "table5": _small(
            "digits N<=300",
            "N<=472",
            _task("variable_line_mnist", dataset="digits", max_black_lines=300),
            _quick(40, 5e-3),
        ),
    },
}
GRIDS["quick"]["fig3"] = replace(GRIDS["quick"]["table1"], cells=("gru", "brc"))
"""By preset and table."""


def find_grid(preset: str, table: str, protocol: DataProtocol = "paper") -> Grid:
    """Return the grid behind a table.

    Raises:
        UserError: If the preset or the protocol has no such table.
    """
    if table not in GRIDS["paper"]:
        raise UserError(unknown("table", table, GRIDS["paper"]))
    if table not in GRIDS[preset]:
        raise UserError(
            f"{table} has no quick preset, since no small size is known to show its ordering; use --preset paper."
        )
    grid = GRIDS[preset][table]
    if protocol == "paper":
        return grid
    if table == "johns":
        raise UserError("johns has no protocol authors_code: that code is behind Tables 1 to 5 only; use paper.")
    # a quick grid keeps its own sizes, which are neither the text's nor the code's
    settings = grid.settings if preset == "quick" else tuple(map(_sized_as_the_code, grid.settings))
    return replace(grid, settings=settings, protocol=protocol)


def with_settings(grid: Grid, names: Sequence[str]) -> Grid:
    """Return a grid with some of its settings.

    Raises:
        UserError: If it has no such setting.
    """
    known = {setting.name: setting for setting in grid.settings}
    for name in names:
        if name not in known:
            raise UserError(f"--settings: {unknown('setting', name, known)}")
    return replace(grid, settings=tuple(known[name] for name in known if name in names))


def _sized_as_the_code(setting: Setting) -> Setting:
    """Return a setting of the paper with the sizes in its authors' code."""
    sizes: dict[str, int] = {}
    if setting.task.name == "copy_first":
        sizes = {"test_size": 50_000 if setting.task.kwargs["length"] == 600 else 10_000}
    elif setting.task.name == "denoising":
        sizes = {"length": 404, "train_size": 60_000, "test_size": 10_000}
    return replace(
        setting,
        task=replace(setting.task, kwargs=setting.task.kwargs | sizes),
        training=replace(setting.training, epochs=100),
    )


def has_published_size(setting: Setting, table: str, protocol: DataProtocol = "paper") -> bool:
    """Return whether a setting is the paper's own: its task, its sizes, its network and its training."""
    return setting in find_grid("paper", table, protocol).settings


def folder_name(table: str, preset: str, protocol: DataProtocol = "paper") -> str:
    """Return the name of a grid's folder; fig3 shares that of table1, whose runs it shows."""
    return f"{'table1' if table == 'fig3' else table}-{preset}" + (f"-{protocol}" if protocol != "paper" else "")


def make_jobs(grid: Grid, folder: Path, cells: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Return one job per setting, cell and seed, with run folders below `folder`.

    Raises:
        UserError: If there is no such cell.
    """
    return [
        Job(
            label=f"{setting.name} {cell}",
            config=_benchmark(setting, cell, seed, grid.protocol),
            folder=folder / setting.name.replace(" ", "_").replace("<=", "max") / f"{cell}-seed{seed}",
            keys={"setting": setting.name, "cell": cell},
        )
        for setting in grid.settings
        for cell in cells
        for seed in seeds
    ]


def _benchmark(setting: Setting, cell: str, seed: int, protocol: DataProtocol) -> Benchmark:
    try:
        get_cell(cell)
    except ValueError as error:
        raise UserError(f"--cells: {one_sentence(error)}") from None
    # the paper's GRU and LSTM were Keras's, whose initialisation differs from torch's
    options: dict[str, Any] = {"init": "keras"} if cell in ("gru", "lstm") else {}
    return Benchmark(
        name=setting.task.name,
        task=setting.task,
        network=replace(setting.network, cell=cell, cell_kwargs=options),
        training=setting.training,
        data=setting.data,
        protocol=protocol,
        seed=seed,
    )
