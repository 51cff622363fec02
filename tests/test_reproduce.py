"""One command reproduces a published table: the grid behind it, our results, the published ones, the missing runs."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bistable_rl.benchmarks.reproduce import grids, published, tables
from bistable_rl.benchmarks.reproduce.grids import GRIDS, Grid, Setting
from bistable_rl.benchmarks.tasks import make_task
from bistable_rl.benchmarks.tasks.task import DataProtocol, SyntheticTask
from bistable_rl.cli import main
from bistable_rl.compare import ledger
from bistable_rl.compare.ledger import FACTS, Row
from bistable_rl.errors import UserError
from bistable_rl.runs.config import to_dict
from bistable_rl.runs.schema import TaskConfig, TrainingConfig

TINY = Grid(
    tuple(
        Setting(
            f"T={T}",
            TaskConfig("copy_first", {"length": T, "train_size": 60, "test_size": 30}),
            TrainingConfig(batch_size=20, epochs=2),
        )
        for T in (5, 50)
    ),
    ("nbrc", "gru"),
    ("mse",),
)


def row(setting: str, cell: str, seed: int, **final: float) -> Row:
    facts = {"seconds": "36", "steps": "100", "hardware": "a machine", "date": "2026-01-02T03:04:05"}
    return Row(f"{setting} {cell}", seed, f"{setting}{cell}{seed}", facts, {"setting": setting, "cell": cell}, final)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make table1 tiny, and nothing committed; return the output folder."""
    monkeypatch.setitem(GRIDS["quick"], "table1", TINY)
    monkeypatch.setitem(GRIDS["quick"], "fig3", TINY)
    monkeypatch.setattr(ledger, "RESULTS", tmp_path / "committed")
    return tmp_path / "out"


def command(out: Path, *arguments: str) -> list[str]:
    return ["reproduce", "table1", "--seeds", "0,1", "--workers", "2", "--out", str(out), *arguments]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_table_is_carried_out_shown_and_never_repeated(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(tiny, "nbrc", "gru")
    assert main(command(tiny, "--cells", "nbrc")) == 0
    folder = tiny / "table1-quick"
    found = read(folder / "table.csv")
    assert list(found[0]) == [
        *("table", "setting", "cell", "metric", "mean", "std", "n_seeds", "published_mean", "published_std"),
        *("committed_seeds", "updates", "published_updates"),
    ]
    assert [(r["setting"], r["cell"], r["metric"], r["n_seeds"]) for r in found] == [
        ("T=5", "nbrc", "mse", "2"),
        ("T=5", "gru", "mse", "0"),
        ("T=50", "nbrc", "mse", "2"),
        ("T=50", "gru", "mse", "0"),
    ]
    assert (found[2]["published_mean"], found[2]["published_std"]) == ("0.002", "0")
    results = [json.loads(path.read_text()) for path in sorted((folder / "T=50").glob("*/result.json"))]
    mean = sum(result["evaluation"]["mse"] for result in results) / 2
    assert float(found[2]["mean"]) == pytest.approx(mean, rel=1e-5)
    assert [(r["committed_seeds"], r["updates"], r["published_updates"]) for r in found] == [
        *(("0", "6", "20000"), ("0", "", "20000")) * 2
    ]
    assert (folder / "table.png").stat().st_size > 1000
    page = (folder / "table.md").read_text()
    assert "| T=50 | nbrc | mse |" in page
    assert "| T=50 | gru | mse | not run | 0.997 ± 0.005 |  | 20,000 |  |" in page
    assert "Written by `bistable-rl reproduce table1" in page

    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/result.json")}
    assert main(command(tiny, "--cells", "nbrc")) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*/result.json")} == before
    assert "4 of 4 runs are finished already" in capsys.readouterr().err


def commit(out: Path, *cells: str, **facts: str) -> list[Row]:
    """Write rows of two seeds of the tiny table1 beside `out`, as if they came with the package; return them."""
    facts = dict.fromkeys(FACTS[3:], "1") | {"date": "2026-01-02T03:04:05", "hardware": "a machine"} | facts
    rows = [
        Row(job.label, job.config.seed, job.hash, facts, job.keys, {"mse": 0.5}, ({"steps": 1.0, "train_loss": 0.7},))
        for job in grids.make_jobs(TINY, out, cells, (0, 1))
    ]
    committed = out.parent / "committed" / "table1-quick"
    committed.mkdir(parents=True)
    ledger.write(committed, rows)
    return rows


def test_committed_rows_count_as_finished_on_request_and_a_figure_shares_them(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(tiny, "nbrc", "gru", "brc")  # brc by a command that asked for it
    reuse = command(tiny, "--reuse-committed")
    assert main(reuse) == 0
    assert "8 of 8 runs are finished already (8 committed)" in capsys.readouterr().err
    assert [(r["cell"], r["mean"], r["std"], r["n_seeds"]) for r in read(tiny / "table1-quick" / "table.csv")] == [
        ("nbrc", "0.5", "0", "2"),
        ("gru", "0.5", "0", "2"),
        ("brc", "0.5", "0", "2"),
    ] * 2
    before = (tiny / "table1-quick" / "table.csv").read_text()
    assert main([*reuse, "--settings", "T=50", "--cells", "gru", "--seeds", "1"]) == 0
    assert (tiny / "table1-quick" / "table.csv").read_text() == before  # a page is whole, whatever was asked for
    assert main(["reproduce", "fig3", *reuse[2:]]) == 0
    assert (tiny / "table1-quick" / "fig3.png").stat().st_size > 1000
    assert "8 runs (8 committed)." in capsys.readouterr().out
    assert main([*reuse, "--estimate"]) == 0
    text = capsys.readouterr().out
    assert "T=50 gru   2 finished (2 committed), 0 to do\n" in text
    assert "0 runs to do, about 0:00:00 with 2 at once" in text
    assert not list(tiny.glob("*/T=*"))  # nothing was trained


def test_an_estimate_measures_what_only_others_have_run(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(tiny, "nbrc", "gru", seconds="36000")
    assert main(command(tiny, "--cells", "nbrc", "--estimate")) == 0
    text = capsys.readouterr().out
    assert "T=50 nbrc  0 finished, 2 to do, about 0:0" in text
    assert main(command(tiny, "--cells", "nbrc", "--seeds", "0,1,2", "--estimate", "--reuse-committed")) == 0
    text = capsys.readouterr().out
    assert "T=50 nbrc  2 finished (2 committed), 1 to do, about 0:0" in text  # not 10 hours
    assert not tiny.exists()


def test_a_mix_of_own_and_committed_rows_is_marked(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = commit(tiny, "nbrc", "gru")
    own = [
        replace(row, facts={**row.facts, "hardware": "mine"}, final={"mse": 0.1})
        for row in rows
        if row.keys["cell"] == "nbrc" and row.seed == 0
    ]
    (tiny / "table1-quick").mkdir(parents=True)
    ledger.write(tiny / "table1-quick", own)
    assert main(command(tiny, "--reuse-committed")) == 0
    page = (tiny / "table1-quick" / "table.md").read_text()
    assert page in capsys.readouterr().out
    assert "| T=5 | nbrc | mse | 0.300 ± 0.283 (2 seeds, 1 committed) | 0.000 | 1 | 20,000 | another size |" in page
    assert "| T=5 | gru | mse | 0.500 ± 0.000 (2 seeds, 2 committed) | 0.000 | 1 | 20,000 | another size |" in page
    assert "2 runs, 0 min of training together, on mine, 2026-01-02." in page
    assert "6 runs committed with the package, 0 min of training together, on a machine, 2026-01-02." in page
    assert "| T=50 nbrc | 0 | this folder | mine | 2026-01-02 |" in page
    assert "| T=50 nbrc | 1 | committed | a machine | 2026-01-02 |" in page
    assert [r["committed_seeds"] for r in read(tiny / "table1-quick" / "table.csv")] == ["1", "2"] * 2
    assert [row.facts["hardware"] for row in ledger.read(tiny / "table1-quick")] == ["mine"] * 2


def test_an_estimate_trains_nothing(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tiny, "--cells", "nbrc", "--estimate")) == 0
    text = capsys.readouterr().out
    assert "T=50 nbrc  0 finished, 2 to do, about 0:0" in text
    assert "4 runs to do, about 0:0" in text
    assert not tiny.exists()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["table9"], "invalid choice: 'table9'"),
        (["table1", "--cells", "nbrc,"], "--cells: unknown cell ''"),
        (["table1", "--cells", "nbrk"], "--cells: unknown cell 'nbrk'; did you mean 'nbrc'?"),
        (["table1", "--settings", "T=301"], "--settings: unknown setting 'T=301'; did you mean 'T=300'?"),
        (["table5", "--settings", "T=50"], "--settings: unknown setting 'T=50'; the choices are digits N<=300"),
        (["table1", "--seeds", "0,x"], "--seeds: 'x' is not an integer"),
        (["table1", "--workers", "0"], "'0' is not an integer above 0"),
        (["johns"], "johns has no quick preset"),
        (["johns", "--preset", "slow"], "invalid choice: 'slow'"),
        (["table2", "--protocol", "code"], "invalid choice: 'code'"),
        (["johns", "--preset", "paper", "--protocol", "authors_code"], "johns has no protocol authors_code"),
    ],
)
def test_a_wrong_command_is_one_sentence(
    argv: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *argv, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("preset", "name"), [(p, n) for p in GRIDS for n in GRIDS[p]])
def test_every_grid_is_of_runs_that_differ_and_can_begin(preset: str, name: str, tmp_path: Path) -> None:
    table = grids.find_grid(preset, name)
    jobs = grids.make_jobs(table, tmp_path, table.cells, (0, 1, 2))
    assert len(jobs) == 3 * len(table.cells) * len(table.settings)
    assert len({job.hash for job in jobs}) == len({job.folder for job in jobs}) == len(jobs)
    for job in jobs:
        make_task(job.config.task)  # type: ignore[union-attr]
        job.config.check()


def test_the_paper_preset_is_the_papers_text(tmp_path: Path) -> None:
    for name in ("table1", "table2", "table3", "table4", "table5"):
        table = GRIDS["paper"][name]
        assert table.cells == published.CELLS
        assert {setting.name for setting in table.settings} == published.PUBLISHED[name].keys()
        for job in grids.make_jobs(table, tmp_path, table.cells, (0,)):
            config: dict[str, Any] = to_dict(job.config)
            assert (config["network"]["hidden_size"], config["network"]["num_layers"]) == (128, 2)
            training = config["training"]
            assert (training["learning_rate"], training["batch_size"], training["epochs"]) == (1e-3, 100, 50)
            assert training["max_grad_norm"] is None
            assert (config["data"], config["protocol"]) == ("fixed", "paper")
            keras = {"init": "keras"} if config["network"]["cell"] in ("gru", "lstm") else {}
            assert config["network"]["cell_kwargs"] == keras
    denoising = make_task(GRIDS["paper"]["table2"].settings[0].task)
    assert (denoising.length, denoising.train_size, denoising.test_size) == (400, 40_000, 50_000)  # type: ignore[attr-defined]


def test_the_protocol_authors_code_is_the_published_codes(tmp_path: Path) -> None:
    def tasks(name: str) -> list[dict[str, Any]]:
        table = grids.find_grid("paper", name, "authors_code")
        found = [to_dict(job.config) for job in grids.make_jobs(table, tmp_path, ("nbrc",), (0,))]
        assert all(config["protocol"] == "authors_code" for config in found)
        assert all(config["training"]["epochs"] == 100 for config in found)
        return [config["task"]["kwargs"] for config in found]

    assert tasks("table1") == [{"length": T, "test_size": 50_000 if T == 600 else 10_000} for T in (5, 50, 300, 600)]
    assert tasks("fig3") == tasks("table1")
    assert tasks("table2") == [
        {"length": 404, "forgetting": N, "train_size": 60_000, "test_size": 10_000} for N in (5, 200)
    ]
    for name in ("table3", "table4", "table5"):
        assert tasks(name) == [setting.task.kwargs for setting in GRIDS["paper"][name].settings]


@pytest.mark.parametrize(("preset", "name"), [(p, n) for p in GRIDS for n in GRIDS[p] if n != "johns"])
def test_rows_of_two_protocols_never_mix(preset: str, name: str, tmp_path: Path) -> None:
    hashes = [
        {
            job.hash
            for job in grids.make_jobs(grids.find_grid(preset, name, protocol), tmp_path, ("nbrc", "gru"), (0, 1))
        }
        for protocol in ("paper", "authors_code")
    ]
    assert not hashes[0] & hashes[1]


def test_a_table_of_the_authors_code_has_its_own_folder_and_says_so(tiny: Path) -> None:
    table = grids.find_grid("quick", "table1", "authors_code")
    rows = [
        Row(job.label, job.config.seed, job.hash, dict.fromkeys(FACTS[3:], "1"), job.keys, {"mse": 0.5})
        for job in grids.make_jobs(table, tiny, ("nbrc", "gru"), (0, 1))
    ]
    committed = tiny.parent / "committed" / "table1-quick-authors_code"
    committed.mkdir(parents=True)
    ledger.write(committed, rows)
    assert main(command(tiny, "--protocol", "authors_code", "--reuse-committed")) == 0
    assert [path.name for path in tiny.iterdir()] == ["table1-quick-authors_code"]
    page = (tiny / "table1-quick-authors_code" / "table.md").read_text()
    assert "follow the code that its authors published (--protocol authors_code)" in page


@pytest.mark.parametrize("name", [name for name in GRIDS["quick"] if name != "fig3"])
def test_a_quick_setting_stands_beside_a_published_one(name: str) -> None:
    for setting in GRIDS["quick"][name].settings:
        assert (setting.published or setting.name) in published.PUBLISHED[name]


def test_ours_is_marked_where_it_differs_by_more_than_the_spreads() -> None:
    rows = [row("T=50", "brc", 0, mse=0.05), row("T=50", "brc", 1, mse=0.07), row("T=50", "nbrc", 0, mse=0.02)]
    found = tables.entries("table1", GRIDS["paper"]["table1"], ("brc", "nbrc", "gru"), rows)
    by_cell = {entry.cell: entry for entry in found if entry.setting == "T=50"}
    assert by_cell["brc"].mean == pytest.approx(0.06)
    assert by_cell["brc"].std == pytest.approx(0.01414, abs=1e-5)
    assert not by_cell["brc"].differs  # 0.082 ± 0.027
    assert by_cell["nbrc"].differs  # 0.002 ± 0.000
    assert by_cell["nbrc"].std is None
    assert not by_cell["gru"].differs
    page = tables.markdown(found, rows, "paper", "a command")
    assert "| T=50 | brc | mse | 0.060 ± 0.014 (2 seeds) | 0.082 ± 0.027 | 100 | 20,000 |  |" in page
    assert "| T=50 | nbrc | mse | 0.020 (1 seed) | 0.002 ± 0.000 | 100 | 20,000 | ≠ |" in page
    assert "| T=50 | gru | mse | not run | 0.997 ± 0.005 |  | 20,000 |  |" in page
    assert "3 runs, 2 min of training together, on a machine, 2026-01-02." in page


def test_a_figure_of_another_size_is_shown_but_not_judged() -> None:
    table = GRIDS["quick"]["table2"]
    found = tables.entries("table2", table, ("gru",), [row(table.settings[0].name, "gru", 0, mse=0.5)])
    assert found[0].published == 0.995
    assert not found[0].differs
    assert "| 0.995 ± 0.003 | 100 | 20,000 | another size |" in tables.markdown(found, [], "paper", "a command")


@pytest.mark.parametrize("protocol", ["paper", "authors_code"])
@pytest.mark.parametrize(("preset", "name"), [(p, n) for p in GRIDS for n in GRIDS[p]])
def test_only_the_paper_preset_is_judged(preset: str, name: str, protocol: DataProtocol) -> None:
    if (name, protocol) == ("johns", "authors_code"):
        return
    for setting in grids.find_grid(preset, name, protocol).settings:
        assert grids.has_published_size(setting, name, protocol) is (preset == "paper")
        fewer = replace(setting, training=replace(setting.training, epochs=setting.training.epochs - 1))
        assert not grids.has_published_size(fewer, name, protocol)


@pytest.mark.parametrize("protocol", ["paper", "authors_code"])
@pytest.mark.parametrize("name", ["table1", "table2"])
def test_the_published_updates_are_those_of_the_paper_preset(name: str, protocol: DataProtocol) -> None:
    for setting in grids.find_grid("paper", name, protocol).settings:
        task = make_task(setting.task)
        assert isinstance(task, SyntheticTask)
        updates = setting.training.epochs * task.train_size / setting.training.batch_size
        assert updates == published.UPDATES[protocol][name]


def test_a_row_without_its_metric_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"runs.csv has no final.mse of T=50 brc, seed 3; delete that row"):
        tables.entries("table1", TINY, ("brc",), [row("T=50", "brc", 3, loss=0.5)])


def test_iterations_are_the_updates_of_a_run() -> None:
    found = tables.entries("johns", GRIDS["paper"]["johns"], ("nbrc",), [row("H=64", "nbrc", 0, mse=0.01)])
    assert (found[0].metric, found[0].mean, found[0].published) == ("iterations", 100, 4773)
    assert [(entry.updates, entry.published_updates) for entry in found[:2]] == [(100, 4773)] * 2
