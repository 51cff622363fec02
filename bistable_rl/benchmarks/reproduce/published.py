"""The published results: Tables 1 to 5 of Vecoven et al. (2021), and Johns' (2021) logs.

Each is table -> setting -> cell -> metric -> (mean, standard deviation); the deviation is None where none was printed.
"""

from __future__ import annotations

from typing import TypeAlias

from bistable_rl.benchmarks.tasks.task import DataProtocol

Result: TypeAlias = tuple[float, float | None]
Results: TypeAlias = dict[str, dict[str, dict[str, Result]]]

CELLS = ("brc", "nbrc", "goru", "lstm", "gru", "lmu")
"""The order of the paper's columns."""


def _row(metric: str, *results: Result | float) -> dict[str, dict[str, Result]]:
    pairs = (result if isinstance(result, tuple) else (result, None) for result in results)
    return {cell: {metric: pair} for cell, pair in zip(CELLS, pairs, strict=True)}


def _scores(*results: tuple[float, float | None, float]) -> dict[str, dict[str, Result]]:
    """Return the results of cells from their accuracy, its standard deviation, and F1."""
    return {
        cell: {"accuracy": (accuracy, deviation), "f1": (f1, None)}
        for cell, (accuracy, deviation, f1) in zip(CELLS, results, strict=True)
    }


def _iterations(**results: float) -> dict[str, dict[str, Result]]:
    return {cell: {"iterations": (result, None)} for cell, result in results.items()}


PUBLISHED: dict[str, Results] = {
    "table1": {
        "T=5": _row("mse", (0.005, 0.001), 0.0, 0.0, 0.0, 0.0, 0.0),
        "T=50": _row("mse", (0.082, 0.027), (0.002, 0.0), (0.019, 0.009), 0.0, (0.997, 0.005), 0.0),
        "T=300": _row("mse", (0.086, 0.014), (0.01, 0.003), (0.308, 0.05), (1.002, 0.009), (0.876, 0.19), 0.0),
        "T=600": _row(
            "mse", (0.099, 0.029), (0.009, 0.002), (0.323, 0.068), (0.989, 0.008), (0.999, 0.017), (0.002, 0.001)
        ),
    },
    "table2": {
        "N=5": _row("mse", (0.579, 0.033), (0.016, 0.003), 0.0, (0.655, 0.463), 0.001, (1.004, 0.006)),
        "N=200": _row(
            "mse", (0.614, 0.119), (0.071, 0.078), (1.004, 0.003), (0.996, 0.005), (0.995, 0.003), (1.0, 0.003)
        ),
    },
    "table3": {
        "T=784": _scores(
            (0.662, 0.007, 0.655), (0.908, 0.006, 0.906), (0.902, 0.004, 0.897),
            (0.910, 0.002, 0.907), (0.908, 0.004, 0.902), (0.969, 0.001, 0.965),
        ),
    },
    "table4": {
        "N=72": _scores(
            (0.968, None, 0.967), (0.973, None, 0.972), (0.977, None, 0.972),
            (0.977, None, 0.976), (0.977, None, 0.974), (0.969, None, 0.941),
        ),
        "N=472": _scores(
            (0.960, None, 0.956), (0.972, None, 0.972), (0.198, 0.021, 0.083),
            (0.562, 0.328, 0.454), (0.591, 0.388, 0.495), (0.961, None, 0.898),
        ),
    },
    "table5": {
        "N<=472": _scores(
            (0.958, 0.002, 0.954), (0.970, 0.001, 0.967), (0.148, 0.015, 0.022),
            (0.630, 0.318, 0.491), (0.540, 0.426, 0.451), (0.180, 0.002, 0.062),
        ),
    },
    "johns": {
        "H=64": _iterations(half_pbrc=3610, nbrc=4773, plastic_gru=8733),
        "H=48": _iterations(half_pbrc=15_073, nbrc=10_964),
    },
}  # fmt: skip

UPDATES: dict[DataProtocol, dict[str, int]] = {
    "paper": {"table1": 20_000, "table2": 20_000, "table3": 30_000, "table4": 30_000, "table5": 30_000},
    "authors_code": {"table1": 40_000, "table2": 60_000, "table3": 60_000, "table4": 60_000, "table5": 60_000},
}
"""The updates of a published run, by its source: the text's 50 epochs or the code's 100, in batches of 100."""
