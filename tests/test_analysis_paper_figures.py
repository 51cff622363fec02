import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bistable_rl.analysis.paper_figures import ABOVE, BELOW, FIGURES, fig_3, pulses, response
from bistable_rl.benchmarks.reproduce import grids
from bistable_rl.benchmarks.reproduce.grids import GRIDS
from bistable_rl.cli import main
from bistable_rl.compare import ledger
from bistable_rl.compare.ledger import FACTS, Row
from bistable_rl.figure_style import drawing


def axes_of(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """Draw a figure of the cell and return its axes, as they were drawn."""
    return drawn(FIGURES[name].draw, "bistable_rl.analysis.paper_figures.drawing", path, monkeypatch)


def drawn(draw: Callable[[Path], None], by: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """Draw into a file, by the function of this name, and return the axes."""
    kept: list = []

    @contextmanager
    def recorded(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with drawing(*args, **kwargs) as (figure, axes):
            kept.extend(axes.flatten())
            yield figure, axes

    monkeypatch.setattr(by, recorded)
    draw(path)
    return kept


def marked(axes: Any) -> dict[str, list[float]]:
    """Return where the stable and unstable points are drawn."""
    return {
        line.get_label(): sorted(line.get_xdata())
        for line in axes.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    }


def test_fig_1b_marks_the_voltages_without_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below, above = axes_of("fig1b", tmp_path / "x.png", monkeypatch)
    assert marked(below) == {"stable": pytest.approx([0], abs=1e-9)}
    points = marked(above)
    assert points["unstable"] == pytest.approx([0], abs=1e-9)
    low, high = points["stable"]
    assert low == pytest.approx(-high)
    assert high == pytest.approx(ABOVE * np.tanh(high))
    assert high > 1


def test_fig_2a_branches_at_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [axes] = axes_of("fig2a", tmp_path / "x.png", monkeypatch)
    upper, unstable, lower, single, _ = axes.lines
    for branch in (upper, unstable, lower):
        assert (branch.get_xdata()[0], branch.get_ydata()[0]) == (1, 0)
    a, h = upper.get_data()
    np.testing.assert_allclose(h, np.tanh(a * h), atol=1e-9)
    assert (h[1:] > 0).all()
    np.testing.assert_allclose(lower.get_ydata(), -h, atol=1e-9)
    assert single.get_xdata().max() <= 1 <= unstable.get_xdata().min()
    assert unstable.get_linestyle() == ":"


def test_fig_2b_marks_where_the_curve_crosses_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for axes in axes_of("fig2b", tmp_path / "x.png", monkeypatch):
        curve = max(axes.lines, key=lambda line: len(line.get_xdata()))
        h, value = curve.get_data()
        crossings = h[:-1][np.sign(value[:-1]) * np.sign(value[1:]) < 0]
        points = sorted(chain(*marked(axes).values()))
        assert len(points) in (1, 3)
        # 0 is on the grid itself; the others lie within a step of a crossing
        np.testing.assert_allclose([p for p in points if abs(p) > 1e-9], crossings + 0.005, atol=0.006)


def test_fig_2c_a_bistable_unit_keeps_the_side_it_was_pushed_to() -> None:
    x = pulses()
    h1 = 0.8586  # the positive root of h = tanh(1.5 h)
    kept, lost = response(ABOVE, 0.2, x), response(BELOW, 0.2, x)
    assert kept[49] == pytest.approx(h1, abs=1e-3)
    assert kept[[89, 119]] == pytest.approx([-h1, -h1], abs=1e-3)
    assert lost[[49, 89]] == pytest.approx([0, 0], abs=1e-2)
    h, expected = 0.0, []
    for u in x:
        h = 0.2 * h + 0.8 * np.tanh(u + ABOVE * h)
        expected.append(h)
    np.testing.assert_allclose(kept, expected, atol=1e-6)
    slow = response(ABOVE, 0.9, x)
    assert slow[119] > 0.8  # as the caption says: the push down was too short for it


@pytest.fixture
def nothing_committed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bistable_rl.compare.ledger.RESULTS", tmp_path / "not installed")


def finish(folder: Path, rows: list[Row]) -> None:
    """Write the rows of finished runs, as `reproduce` does."""
    folder.mkdir(parents=True)
    ledger.write(folder, rows)


@pytest.mark.usefixtures("nothing_committed")
def test_the_command_draws_all_of_them_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", "--out", str(tmp_path / "a" / "b"), "--runs", str(tmp_path / "runs")]) == 0
    files = {p.name for p in (tmp_path / "a" / "b").iterdir()}
    assert files == {"fig1b.png", "fig2a.png", "fig2b.png", "fig2c.png", "figures.md"}
    page = (tmp_path / "a" / "b" / "figures.md").read_text()
    assert re.findall(r"\((\w+\.png)\)", page) == ["fig1b.png", "fig2a.png", "fig2b.png", "fig2c.png"]
    out = capsys.readouterr().out
    for figure in FIGURES.values():
        assert figure.see in page
        assert figure.see in out
    how = f"`bistable-rl reproduce fig3 --preset quick --out {tmp_path / 'runs'}` runs them."
    assert how in page
    assert how in out
    (tmp_path / "file").write_text("")
    assert main(["figures", "--out", str(tmp_path / "file")]) == 2
    assert "cannot be created" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_committed")
def test_fig_3_is_drawn_from_the_finished_runs_of_table_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = grids.make_jobs(GRIDS["quick"]["table1"], tmp_path, ("brc", "gru"), (0, 5))
    ends = {"brc": 0.2, "gru": 1.0}
    rows = [
        Row(
            job.label,
            job.config.seed,
            job.hash,
            dict.fromkeys(FACTS[3:], "1"),
            job.keys,
            {"mse": 1.0},
            (
                {"steps": 50, "train_loss": 1.1},
                {"steps": 100, "train_loss": ends[job.config.cell] + job.config.seed / 50},
            ),
        )
        for job in jobs
        if job.keys["setting"] == "T=300"
    ]
    of_other_settings = replace(rows[0], hash="0" * 16, seed=1)
    finish(tmp_path / "runs" / "table1-quick", [*rows, of_other_settings])

    [figure] = fig_3(tmp_path / "runs").values()
    [axes] = drawn(figure.draw, "bistable_rl.figure_style.drawing", tmp_path / "x.png", monkeypatch)
    assert axes.get_title(loc="left") == "T=300"
    means = {line.get_label(): line.get_data() for line in axes.lines if not line.get_label().startswith("_")}
    assert means.keys() == {"BRC", "GRU"}
    assert means["BRC"][0].tolist() == [50, 100]
    assert means["BRC"][1] == pytest.approx([1.1, 0.25])
    assert means["GRU"][1] == pytest.approx([1.1, 1.05])

    assert main(["figures", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]) == 0
    assert (tmp_path / "out" / "fig3-quick.png").stat().st_size > 1000
    assert not (tmp_path / "out" / "fig3-paper.png").exists()
    assert "Final errors, mean over seeds: T=300: brc 0.250, gru 1.050." in capsys.readouterr().out
    page = (tmp_path / "out" / "figures.md").read_text()
    assert "(fig3-quick.png)" in page
    assert "makes them" not in page


@pytest.mark.usefixtures("nothing_committed")
@pytest.mark.parametrize("curve", [(), ({"steps": 50.0},)])
def test_a_run_without_its_curve_is_one_sentence(
    curve: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = grids.make_jobs(GRIDS["quick"]["table1"], tmp_path, ("gru",), (0,))[0]
    row = Row(job.label, 0, job.hash, dict.fromkeys(FACTS[3:], "1"), job.keys, {"mse": 1.0}, curve)
    finish(tmp_path / "runs" / "table1-quick", [row])
    assert main(["figures", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]) == 2
    message = capsys.readouterr().err
    assert "curves.csv has no train_loss of T=50 gru, seed 0" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command_writes_every_figure_in_the_formats_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bistable_rl.analysis.paper_figures.FIGURES", {"fig1b": FIGURES["fig1b"]})
    out = tmp_path / "figures"
    options = ["--out", str(out), "--runs", str(tmp_path / "none"), "--format", "pdf,svg", "--dpi", "60"]
    monkeypatch.setattr("bistable_rl.analysis.paper_figures.fig_3", lambda trained: {})
    assert main(["figures", *options]) == 0
    assert {path.name for path in out.iterdir()} == {"fig1b.png", "fig1b.pdf", "fig1b.svg", "figures.md"}
    for given, expected in (
        (["--format", "eps"], "'eps' is not pdf, svg or both"),
        (["--dpi", "x"], "'x' is not an in"),
    ):
        assert main(["figures", *given]) == 2
        assert expected in capsys.readouterr().err
