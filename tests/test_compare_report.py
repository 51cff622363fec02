"""The report, on synthetic runs whose every statistic is known."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bistable_rl.compare import figures
from bistable_rl.compare.comparison import Comparison, MetricConfig
from bistable_rl.compare.document import Block, Heading, Image, Paragraph, Table, html, markdown
from bistable_rl.compare.groups import panels
from bistable_rl.compare.ledger import Row
from bistable_rl.compare.report import write_report
from bistable_rl.errors import UserError
from bistable_rl.figure_style import drawing, plain

FACTS = {"date": "2026-01-02T00:00:00", "commit": "0123456789abcdef+", "hardware": "P, 2 cores, cpu", "threads": "1"}


def row(name: str, cell: str, seed: int, slope: float, length: int | None = None) -> Row:
    """Return a run whose success grows by `slope` an evaluation, of which there are 10, one every 100 steps and 2 s."""
    values = [slope * (i + 1) for i in range(10)]
    points = [{"steps": 100.0 * (i + 1), "seconds": 2.0 * (i + 1), "success_rate": v} for i, v in enumerate(values)]
    keys = {"variant": name} | ({} if length is None else {"env.kwargs.length": str(length)})
    return Row(
        label=name,
        seed=seed,
        hash=f"{name}-{seed}",
        facts={**FACTS, "cell": cell, "steps": "1000", "seconds": str(20 + seed), "memory_mb": "300"},
        keys=keys,
        final={"success_rate": values[-1], "success@50": values[-1], "success@5000": values[-1] / 2},
        curve=tuple(points),
    )


ROWS = [
    *(row("nbrc", "nbrc", seed, slope) for seed, slope in enumerate((0.1, 0.1, 0.09, 0.08, 0.02))),
    *(row("gru", "gru", seed, slope) for seed, slope in enumerate((0.01, 0.01, 0.01, 0.01, 0.015))),
    *(row("gru with help", "gru", seed, slope) for seed, slope in enumerate((0.05, 0.05, 0.05, 0.05, 0.05))),
]


def report(folder: Path, rows: list[Row], failed: dict[str, str] | None = None, **metric: object) -> str:
    comparison = Comparison("cells", [0, 1, 2, 3, 4], metric=MetricConfig(**metric))  # type: ignore[arg-type]
    file, _ = write_report(folder, comparison, rows, failed or {}, unit="environment steps", command="a command")
    return file.read_text()


def cells(text: str, heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading."""
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report(folder, ROWS, {"lstm, seed 0": "the gradient became NaN."}, threshold=0.75)
    return folder


def test_the_tables_hold_the_known_answers(made: Path) -> None:
    text = (made / "report.md").read_text()
    final = cells(text, "At the end of training")
    assert final[0][:3] == ["nbrc", "5", "0.9"]  # the middle three of 1, 1, 0.9, 0.8, 0.2
    assert final[0][4] == "1, 1, 0.9, 0.8, 0.2"
    assert final[1] == ["gru", "5", "0.1", "0.1 to 0.133", "0.1, 0.1, 0.1, 0.1, 0.15"]
    assert final[2] == ["gru with help", "5", "0.5", "0.5 to 0.5", "0.5, 0.5, 0.5, 0.5, 0.5"]
    reached = cells(text, "Until success rate 0.75")
    assert reached[0] == ["nbrc", "4 of 5", "900", "18", "800, 800, 900, 1,000, never"]
    assert reached[1] == ["gru", "0 of 5", "never", "never", "never, never, never, never, never"]
    better = cells(text, "Probability that a run of the row ends better than one of the column")
    assert [line[0] for line in better] == ["nbrc", "gru", "gru with help"]
    assert better[0][2] == "1.00 (1.00 to 1.00)"
    assert better[0][3].startswith("0.80 (0.40 to 1.00)")
    assert better[1][1:3] == ["0.00 (0.00 to 0.00)", ""]
    assert cells(text, "Cost")[0] == ["nbrc", "22", "45", "300"]
    horizons = cells(text, "At other horizons, without retraining")
    assert horizons[:2] == [
        ["nbrc", "50", "0.9", "1, 1, 0.9, 0.8, 0.2"],
        ["nbrc", "5,000", "0.45", "0.5, 0.5, 0.45, 0.4, 0.1"],
    ]
    assert cells(text, "Failed") == [["lstm, seed 0", "the gradient became NaN."]]
    assert cells(text, "Runs")[4] == ["nbrc", "4", "0.2", "1,000", "24", "1", "2026-01-02", "012345678+", "nbrc-4"]
    assert "On P, 2 cores, cpu." in text


def test_committed_rows_are_marked(tmp_path: Path) -> None:
    facts = {"hardware": "theirs", "date": "2025-03-04T00:00:00"}
    theirs = [replace(one, committed=True, facts={**one.facts, **facts}) for one in ROWS[:2]]
    text = report(tmp_path, [*theirs, *ROWS[2:]])
    assert "15 finished runs (2 committed); " in text
    assert [line[1] for line in cells(text, "At the end of training")] == ["5 (2 committed)", "5", "5"]
    runs = cells(text, "Runs")
    assert [runs[0][i] for i in (6, 9, 10)] == ["2025-03-04", "committed", "theirs"]
    assert runs[2][9:] == ["this folder", "P, 2 cores, cpu"]
    with (tmp_path / "summary.csv").open() as file:
        assert [line["committed_seeds"] for line in csv.DictReader(file)] == ["2", "0", "0"]


def test_the_summary_is_for_programs(made: Path) -> None:
    with (made / "summary.csv").open() as file:
        first, second, _ = csv.DictReader(file)
    assert (first["variant"], first["cell"]) == ("nbrc", "nbrc")
    assert (first["interquartile_mean"], first["reached"]) == ("0.9", "4")
    assert (first["steps_to_threshold"], first["seconds_to_threshold"]) == ("900", "18")
    assert (second["reached"], second["steps_to_threshold"]) == ("0", "")


def test_the_page_needs_no_other_file(made: Path) -> None:
    text = (made / "report.html").read_text()
    sources = re.findall(r'src="([^"]{0,30})', text)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in re.sub(r'src="[^"]*"', "", text)
    assert text.count("<td>never") > 0
    for name in ("curves.png", "final.png", "horizons.png"):
        assert (made / name).read_bytes()[1:4] == b"PNG"
        assert f"]({name})" in (made / "report.md").read_text()


@pytest.mark.parametrize("together", [True, False])
def test_a_single_evaluation_is_drawn_as_a_mark(
    together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []

    @contextmanager
    def kept(*args: Any, **options: Any) -> Iterator[Any]:
        with drawing(*args, **options) as (figure, axes):
            yield figure, axes
            drawn.extend(axes.ravel())

    monkeypatch.setattr(figures, "drawing", kept)
    once = [replace(one, curve=one.curve[-1 - (i % 2) * (not together) :][:1]) for i, one in enumerate(ROWS)]
    figures.draw_curves(tmp_path / "curves.png", panels(once, MetricConfig()), MetricConfig(), "steps")
    first, nbrc, gru = drawn
    assert [len(axes.lines) for axes in drawn] == [3, 6, 12]
    visible = [line for axes in (nbrc, gru) for line in axes.lines if len(line.get_xdata())]
    assert len(visible) == (18 if together else 15)
    assert all(line.get_marker() not in ("", "None") for line in visible)
    assert [len(line.get_xdata()) for line in first.lines] == [int(together)] * 3


def test_runs_are_compared_with_those_that_were_asked_the_same(tmp_path: Path) -> None:
    rows = [row(cell, cell, seed, 0.1, length) for length in (5, 50) for cell in ("nbrc", "gru") for seed in (0, 1)]
    text = report(tmp_path, rows)
    final = cells(text, "At the end of training")
    assert [line[:2] for line in final] == [[f"length {n}", cell] for n in (5, 50) for cell in ("nbrc", "gru")]
    for n in (5, 50):
        assert (
            len(cells(text, f"Probability that a run of the row ends better than one of the column, length {n}")) == 2
        )


def test_lower_can_be_better(tmp_path: Path) -> None:
    rows = [row("nbrc", "nbrc", 0, 0.01), row("gru", "gru", 0, 0.1)]
    text = report(tmp_path, rows, better="lower", threshold=0.15)
    better = cells(text, "Probability that a run of the row ends better than one of the column")
    assert [line[1:] for line in better] == [["", "1.00"], ["0.00", ""]]
    reached = cells(text, "Until success rate (lower is better) 0.15")
    assert [line[-1] for line in reached] == ["100", "100"]  # 0.01 and 0.1: both begin below it
    assert "too few seeds" in text


def test_a_metric_that_runs_do_not_report_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"metric.name: the evaluations of nbrc, seed 0 report no mse; they report success_rate\."
    ):
        report(tmp_path, ROWS, name="mse")


def test_text_of_a_document_cannot_become_markup(tmp_path: Path) -> None:
    blocks: list[Block] = [Heading("<b>"), Paragraph("a < b & c"), Table(("<i>",), [("|<script>",)])]
    text = html(blocks, "<u>")
    assert "<script>" not in text
    assert "<b>" not in text
    assert "<u>" not in text
    assert "| \\|\\<script\\> |" in markdown(blocks, "")
    (tmp_path / "x.png").write_bytes(b"x")
    assert 'alt="&#34;&gt;"' in html([*blocks, Image(tmp_path / "x.png", '">')], "")


@pytest.mark.parametrize("command", ["compare x", "a `b` c", "``", "$(x) *y* <z>", "one\ntwo"])
def test_the_command_is_one_code_span_whatever_it_holds(command: str) -> None:
    last = markdown([Heading("x")], command).splitlines()[-1]
    [(fence, code)] = re.findall(
        r"^Written by (`+) ?(.*?) ?\1 from every finished run in its folder, whichever command made it\.$", last
    )
    assert fence not in code
    assert code == " ".join(command.split())


@pytest.mark.parametrize(
    "words", ["", " with a helping hand", " with a name that is nearly as long as the figure is wide"]
)
def test_a_legend_lies_within_its_figure(words: str, tmp_path: Path) -> None:
    with drawing(tmp_path / "figure.png") as (figure, [[axes]]):
        for i in range(8):
            axes.plot([0, 1], [0, i], label=f"series {i}{words}")
        figures._legend(figure, [axes])
        figure.canvas.draw()
    [legend] = figure.legends
    shown = legend.get_window_extent()
    assert shown.x0 >= 0
    assert shown.x1 <= figure.bbox.width


@pytest.mark.parametrize(
    "name",
    [
        "$x^{2$",
        r"\$\frac{",
        "a|b",
        "<b>&amp;",
        "**b** [x](y)",
        "🚀",
        "עברית",
        "_hidden",
        "x" * 250,
        "word " * 50,
        "%s {0}",
    ],
)
@pytest.mark.filterwarnings("error")
def test_any_name_of_a_variant_is_reported(name: str, tmp_path: Path) -> None:
    rows = [row(label, "gru", seed, 0.1) for label in (name, "other") for seed in range(4)]
    text = report(tmp_path, rows, threshold=0.5)
    table = cells(text.replace(r"\|", "/"), "At the end of training")
    assert len(table) == 2
    assert all(len(line) == 5 for line in table)
    assert "<b>" not in text
    assert "<b>" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "words", ["", " with a slow gate that starts at the time scale of the task, and twice the training"]
)
@pytest.mark.parametrize("lengths", [[None], [20, 50, 100]])
def test_long_names_of_variants_do_not_overlap_and_leave_room_for_the_values(
    words: str, lengths: list[int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        row(cell + words, cell, seed, 0.1, length)
        for length in lengths
        for cell in ("nbrc", "gru")
        for seed in range(4)
    ]
    checked = []

    @contextmanager
    def measured(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with drawing(*args, **kwargs) as (figure, axes):
            yield figure, axes
            figure.draw_without_rendering()
            for i, one in enumerate(axes[0]):
                labels = [label for label in one.get_yticklabels() if label.get_text()]
                boxes = [label.get_window_extent() for label in labels]
                assert [label.get_text().split()[0] for label in labels] == ["nBRC", "GRU"] * (i == 0)
                assert min(box.x0 for box in boxes or [one.bbox]) >= 0
                assert all(box.x1 <= one.get_window_extent().x0 for box in boxes)
                assert not (boxes and boxes[0].overlaps(boxes[1]))
                assert one.get_window_extent().width > 0.5 * figure.bbox.width / len(axes[0])
                checked.append(i)

    monkeypatch.setattr(figures, "drawing", measured)
    found = panels(rows, MetricConfig())
    figures.draw_final(tmp_path / "final.png", found, MetricConfig())
    assert len(checked) == len(lengths)


def test_a_legend_names_a_series_that_begins_with_an_underscore(tmp_path: Path) -> None:
    assert plain("_hidden") == " _hidden"
    assert plain("$x^{2$") == r"\$x^{2\$"
    assert max(map(len, plain("x" * 200).split("\n"))) == 60
    assert plain("id bistable_rl/CopyFirst-v0") == "id CopyFirst-v0"


def test_too_few_seeds_have_no_interval_and_the_report_says_why(tmp_path: Path) -> None:
    for seeds in (2, 3):
        rows = [row(cell, cell, seed, slope) for cell, slope in (("nbrc", 0.1), ("gru", 0.01)) for seed in range(seeds)]
        text = report(tmp_path, rows)
        assert cells(text, "At the end of training")[0][3] == "too few seeds"
        assert cells(text, "Probability that a run of the row ends better")[0][2] == "1.00"
        assert "With fewer than 4 seeds there is no interval" in text
    text = report(tmp_path, [row(cell, cell, seed, 0.1) for cell in ("nbrc", "gru") for seed in range(4)])
    assert "With fewer than" not in text


def test_runs_that_took_no_time_are_reported(tmp_path: Path) -> None:
    rows = [
        replace(row("nbrc", "nbrc", seed, 0.1), facts={**FACTS, "cell": "nbrc", "steps": "9", "seconds": "0.0"})
        for seed in range(2)
    ]
    assert cells(report(tmp_path, rows), "Cost")[0] == ["nbrc", "0", "", ""]


def test_final_values_that_are_no_numbers_are_reported(tmp_path: Path) -> None:
    rows = [
        replace(row("nbrc", "nbrc", seed, 0.1), final={"success_rate": value})
        for seed, value in enumerate((float("nan"), float("inf"), 1.0, 0.5))
    ]
    text = report(tmp_path, rows)
    assert cells(text, "Runs")[0][2] == "nan"
    assert cells(text, "At the end of training")[0][2:4] == ["nan", ""]
