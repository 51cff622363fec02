import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from bistable_rl.cells import CELLS
from bistable_rl.errors import UserError
from bistable_rl.figure_style import (
    CELL_COLOURS,
    CELL_NAMES,
    FURTHER_COLOURS,
    cell_colour,
    cell_names,
    drawing,
    horizon_ticks,
    plain,
    writing,
)

# Machado, Oliveira and Fernandes 2009, Table 1: linear RGB as seen without one kind of cones.
SIGHT = {
    "all cones": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB, white at (100, 0, 0)."""
    t = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_a_cell_keeps_its_colour_and_an_unknown_one_gets_a_further_colour() -> None:
    assert cell_colour("nbrc") == CELL_COLOURS["nbrc"] == "#0072B2"
    assert cell_colour("mine") == cell_colour("mine")
    assert {cell_colour(f"mine{i}") for i in range(100)} == set(FURTHER_COLOURS)


@pytest.mark.parametrize("sight", SIGHT)
def test_the_cells_can_be_told_apart_by_the_colour_blind(sight: str) -> None:
    colours = {**CELL_COLOURS, **{colour: colour for colour in FURTHER_COLOURS}}
    seen = {cell: lab(np.array(SIGHT[sight]) @ linear(colour)) for cell, colour in colours.items()}
    distances = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    closest = min(distances, key=distances.__getitem__)
    assert distances[closest] > 12, closest  # 2.3 is just noticeable


def test_a_figure_is_an_opaque_png_and_an_error_leaves_none(tmp_path: Path) -> None:
    from PIL import Image

    with drawing(tmp_path / "a.png", 1, 2, size=(4, 2)) as (_, [[left, right]]):
        left.plot([0, 1], [0, 1], color=cell_colour("gru"))
        right.set(xlabel="time (steps)")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (600, 300)
        assert np.asarray(image.convert("RGBA"))[..., 3].min() == 255
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(ZeroDivisionError), drawing(tmp_path / "b.png"):
        1 / 0  # noqa: B018
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        with drawing(tmp_path / name, size=(2, 2)) as (_, [[axes]]):
            axes.plot([0, 1], [0, 1])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


HEADS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def test_figures_are_written_in_further_formats_beside_the_png(tmp_path: Path) -> None:
    from PIL import Image

    with writing(["png", "pdf", "svg"], dpi=50), drawing(tmp_path / "a.b.png", size=(4, 2)) as (_, [[axes]]):
        axes.set_title("nBRC")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b.pdf", "a.b.png", "a.b.svg"]
    for kind, head in HEADS.items():
        assert (tmp_path / f"a.b.{kind}").read_bytes().startswith(head)
    with Image.open(tmp_path / "a.b.png") as image:
        assert image.size == (200, 100)
    assert b"/Type0" in (tmp_path / "a.b.pdf").read_bytes()  # TrueType fonts, no Type 3
    with drawing(tmp_path / "later.png"):
        pass
    assert not (tmp_path / "later.pdf").exists()


@pytest.mark.parametrize("kind", HEADS)
def test_the_name_of_a_file_says_its_format_and_the_same_figure_is_the_same_file(kind: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for file in files:
        with drawing(file, size=(2, 2)) as (_, [[axes]]):
            axes.plot([0, 1], [0, 1], label="a line")
            axes.legend()
    assert files[0].read_bytes().startswith(HEADS[kind])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_cells_have_the_papers_names() -> None:
    assert cell_names("nbrc with help") == "nBRC with help"
    assert cell_names("gru, lstm; half_pbrc (mixed)") == "GRU, LSTM; half-plastic PBRC (mixed)"
    assert cell_names("my_nbrc") == "my_nbrc"
    assert plain("brc 1.2M") == "BRC 1.2M"
    assert CELL_NAMES.keys() <= CELLS.keys()


def ticks(horizons: list[int], tmp_path: Path) -> dict[float, str]:
    with drawing(tmp_path / "ticks.png") as (_, [[axes]]):
        axes.plot(horizons, horizons)
        horizon_ticks(axes, horizons)
        labels = [label.get_text() for label in axes.get_xticklabels()]
        return dict(zip(axes.get_xticks(), labels, strict=True))


def test_horizons_are_the_ticks_and_labels_do_not_overlap(tmp_path: Path) -> None:
    assert ticks([500, 50, 5000], tmp_path) == {50: "50", 500: "500", 5000: "5,000"}
    assert ticks([50, 52, 5000], tmp_path) == {50: "50", 52: "", 5000: "5,000"}
    assert ticks([7], tmp_path) == {7: "7"}


def test_a_missing_matplotlib_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'bistable-rl\[plot\]'"), drawing(tmp_path / "a.png"):
        pass
