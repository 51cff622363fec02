"""Films of episodes: readable pictures with a caption, as GIF or MP4."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bistable_rl.cli import main
from bistable_rl.envs.render import film_frame, save_film

STUB = """#!/bin/sh
for last; do :; done
printf '%s ' "$@" > "$STUB_LOG"
wc -c >> "$STUB_LOG"
printf film > "$last"
"""


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program on the path that writes down what ffmpeg is called with; return the file that it writes."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").write_text(STUB)
    (tmp_path / "bin" / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((32, 160), (144, 480)), ((48, 48), (480 + 48, 480)), ((601, 301), (602 + 48, 480)), ((10, 7000), (58, 7000))],
)
def test_small_pictures_are_enlarged_and_every_side_is_even(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    picture[0, 0] = 255
    frame = film_frame(picture, "")
    assert frame.shape == (*expected, 3)
    lit = np.argwhere(frame.any(-1))
    factor = lit[-1, 0] + 1
    assert len(lit) == factor**2  # one pixel, enlarged by a whole factor
    assert factor == max(1, min(-(-480 // size[1]), 640 // size[0]))


def test_a_caption_is_below_the_picture_and_a_long_one_is_cut() -> None:
    picture = np.full((32, 160, 3), 7, np.uint8)
    frames = [film_frame(picture, text) for text in ("", "seen: 3", "a word " * 99)]
    assert {frame.shape for frame in frames} == {(144, 480, 3)}
    assert all((frame[:96] == 7).all() for frame in frames)
    ink = [int((frame[96:] > 99).sum()) for frame in frames]
    assert ink[0] == 0 < ink[1] < ink[2]


def film_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n" * 9))
    arguments = ["--env.kwargs.length", "4", "--seed", "0", "--save", str(file)]
    return main(["play", "bistable_rl/CopyFirst-v0", *arguments])


def test_a_film_of_copy_first_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert film_of(tmp_path / "game.gif", monkeypatch) == 0
    with Image.open(tmp_path / "game.gif") as film:
        assert (film.size, film.n_frames) == ((480, 144), 5)


def test_an_mp4_is_written_by_ffmpeg(ffmpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert film_of(tmp_path / "game.mp4", monkeypatch) == 0
    assert (tmp_path / "game.mp4").read_bytes() == b"film"
    said = ffmpeg.read_text()
    assert "-pix_fmt rgb24 -s 480x144 -r 2 -i - " in said
    assert said.split()[-1] == str(5 * 480 * 144 * 3)


def test_an_agent_is_filmed_as_an_mp4(trained: Path, ffmpeg: Path, tmp_path: Path) -> None:
    assert main(["play", "--run", str(trained), "--save", str(tmp_path / "agent.mp4")]) == 0
    assert (tmp_path / "agent.mp4").read_bytes() == b"film"


def test_without_ffmpeg_or_where_it_fails_there_is_one_sentence_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert film_of(tmp_path / "game.mp4", monkeypatch) == 2
    out, err = capsys.readouterr()
    assert err == (
        "bistable-rl: an MP4 needs ffmpeg: install it, for example with pip install imageio-ffmpeg, "
        "or name a .gif instead.\n"
    )
    assert out == ""  # nothing has been played
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho Unknown encoder libx264 >&2\nexit 3\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    with pytest.raises(ValueError, match=r"ffmpeg cannot write the MP4 \(Unknown encoder libx264\); name a \.gif"):
        save_film([np.zeros((2, 2, 3), np.uint8)], tmp_path / "game.mp4", 0.5)
    assert not (tmp_path / "game.mp4").exists()
