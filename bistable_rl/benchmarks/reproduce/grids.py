"""The grids behind the tables: `paper`, as the papers say, and `quick`, small ones that show the same ordering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bistable_rl.benchmarks.reproduce.published import CELLS
from bistable_rl.benchmarks.tasks.task import Which
from bistable_rl.cells import get_cell
from bistable_rl.compare.jobs import Job
from bistable_rl.errors import UserError, one_sentence, unknown
from bistable_rl.runs.schema import Benchmark, NetworkConfig, TaskConfig, TrainingConfig


@dataclass(frozen=True)
class Setting:
    """A row of a table.

    Attributes:
        name: Such as `T=300`.
        task: Its task.
        training: Its training.
        network: Its network; the cell is filled in.
        data: `fixed` or `fresh`.
        published: The published setting to show beside it, where it is of another size.
    """

    name: str
    task: TaskConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: Any = "fixed"
    published: str = ""


@dataclass(frozen=True)
class Table:
    """The grid behind a table.

    Attributes:
        settings: Its rows.
        cells: Its columns, unless others are asked for.
        metrics: What is measured.
        protocol: Whose data and order of samples.
    """

    settings: tuple[Setting, ...]
    cells: tuple[str, ...]
    metrics: tuple[str, ...]
    protocol: Which = "paper"


def _task(name: str, **kwargs: Any) -> TaskConfig:
    return TaskConfig(name, kwargs)


def _quick(epochs: int, learning_rate: float) -> TrainingConfig:
    # clipping and a larger step size end the plateau of the bistable cells in a fraction of the paper's updates
    return TrainingConfig(learning_rate=learning_rate, max_grad_norm=1.0, warmup_steps=100, epochs=epochs)


_COPY = tuple(Setting(f"T={T}", _task("copy_first", length=T)) for T in (5, 50, 300, 600))
_SCORES = ("accuracy", "f1")
_JOHNS = TrainingConfig(batch_size=128, epochs=625, target_loss=0.01)  # 625 times 25 updates
_FOUR = ("nbrc", "brc", "gru", "lstm")

TABLES: dict[str, dict[str, Table]] = {
    "paper": {
        "table1": Table(_COPY, CELLS, ("mse",)),
        "table2": Table(
            tuple(Setting(f"N={N}", _task("denoising", length=400, forgetting=N)) for N in (5, 200)), CELLS, ("mse",)
        ),
        "table3": Table((Setting("T=784", _task("permuted_sequential_mnist")),), CELLS, _SCORES),
        "table4": Table(
            tuple(Setting(f"N={N}", _task("line_mnist", black_lines=N)) for N in (72, 472)), CELLS, _SCORES
        ),
        "table5": Table((Setting("N<=472", _task("variable_line_mnist", max_black_lines=472)),), CELLS, _SCORES),
        "johns": Table(
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
        "fig3": Table(_COPY, ("gru", "brc"), ("mse",)),
    },
    "quick": {
        "table1": Table(
            tuple(
                Setting(f"T={T}", _task("copy_first", length=T, train_size=20_000, test_size=10_000), _quick(3, 1e-2))
                for T in (50, 300)
            ),
            _FOUR,
            ("mse",),
        ),
        "table2": Table(
            (
                Setting(
                    "T=100 N=50",
                    _task("denoising", length=100, forgetting=50, test_size=10_000),
                    _quick(4, 3e-3),
                    published="N=200",
                ),
            ),
            _FOUR,
            ("mse",),
        ),
        "table3": Table(
            (
                Setting(
                    "digits T=64",
                    _task("permuted_sequential_mnist", dataset="digits"),
                    _quick(60, 5e-3),
                    published="T=784",
                ),
            ),
            _FOUR,
            _SCORES,
        ),
        "table4": Table(
            (
                Setting(
                    "digits N=100",
                    _task("line_mnist", dataset="digits", black_lines=100),
                    _quick(60, 5e-3),
                    published="N=472",
                ),
            ),
            _FOUR,
            _SCORES,
        ),
        "table5": Table(
            (
                Setting(
                    "digits N<=300",
                    _task("variable_line_mnist", dataset="digits", max_black_lines=300),
                    _quick(40, 5e-3),
                    published="N<=472",
                ),
            ),
            _FOUR,
            _SCORES,
        ),
    },
}
TABLES["quick"]["fig3"] = replace(TABLES["quick"]["table1"], cells=("gru", "brc"))
"""By preset and name."""


def find(preset: str, name: str, protocol: Which = "paper") -> Table:
    """Return the grid behind a table.

    Raises:
        UserError: There is none of that name in the preset, or none of the protocol.
    """
    if name not in TABLES["paper"]:
        raise UserError(unknown("table", name, TABLES["paper"]))
    if name not in TABLES[preset]:
        raise UserError(
            f"{name} has no quick preset: no small size is known that shows its ordering; use --preset paper."
        )
    table = TABLES[preset][name]
    if protocol == "paper":
        return table
    if name == "johns":
        raise UserError("johns has no protocol authors_code, which is the code behind Tables 1 to 5; use paper.")
    # a quick grid keeps its sizes, which are neither the text's nor the code's
    settings = table.settings if preset == "quick" else tuple(map(_sized_as_the_code, table.settings))
    return replace(table, settings=settings, protocol=protocol)


def only(table: Table, settings: Sequence[str]) -> Table:
    """Return a table with some of its settings.

    Raises:
        UserError: It has no such setting.
    """
    known = {setting.name: setting for setting in table.settings}
    for name in settings:
        if name not in known:
            raise UserError(f"--settings: {unknown('setting', name, known)}")
    return replace(table, settings=tuple(known[name] for name in known if name in settings))


def _sized_as_the_code(setting: Setting) -> Setting:
    """Return a setting of the paper with the sizes that its authors' code has instead."""
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


def grid(name: str, preset: str, protocol: Which = "paper") -> str:
    """Return the name of a table's grid, which its folder has; the figure shows the runs of its table."""
    return f"{'table1' if name == 'fig3' else name}-{preset}" + (f"-{protocol}" if protocol != "paper" else "")


def jobs(table: Table, folder: Path, cells: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Return a run for every setting, cell and seed, in folders below `folder`.

    Raises:
        UserError: There is no such cell.
    """
    return [
        Job(
            label=f"{setting.name} {cell}",
            config=_benchmark(setting, cell, seed, table.protocol),
            folder=folder / setting.name.replace(" ", "_").replace("<=", "max") / f"{cell}-seed{seed}",
            keys={"setting": setting.name, "cell": cell},
        )
        for setting in table.settings
        for cell in cells
        for seed in seeds
    ]


def _benchmark(setting: Setting, cell: str, seed: int, protocol: Which) -> Benchmark:
    try:
        get_cell(cell)
    except ValueError as error:
        raise UserError(f"--cells: {one_sentence(error)}") from None
    # the paper's GRU and LSTM were Keras's, which start otherwise than torch's
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
