"""Images of digits: what is read is what was published, and everything else is named."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import idx

from bistable_rl.cli import main
from bistable_rl.data import digits, download
from bistable_rl.data.digits import SHA256
from bistable_rl.errors import UserError


@pytest.fixture
def mnist() -> Path:
    """Return MNIST's folder, where there is one."""
    folder = os.environ.get(digits.FOLDER)
    if not folder:
        pytest.skip(f"{digits.FOLDER} names no folder")
    return digits.find_mnist(Path(folder))


def test_mnist_is_read_as_it_was_published(mnist: Path) -> None:
    for part, count in (("train", 60_000), ("test", 10_000)):
        found = digits.load("mnist", part)  # type: ignore[arg-type]
        assert found.images.shape == (count, 28, 28)
        assert found.labels.shape == (count,)
        assert (found.images.max(), found.white) == (255, 255)
    assert found.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_plain_files_serve_as_compressed_ones(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(gzip.decompress((mnist / f"{name}.gz").read_bytes()))
    monkeypatch.setenv(digits.FOLDER, str(tmp_path))
    assert digits.load("mnist", "test").labels[0] == 7


def test_small_images_are_split_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(digits.FOLDER, raising=False)
    train, test = digits.load("digits", "train"), digits.load("digits", "test")
    assert (len(train.labels), len(test.labels)) == (1437, 360)
    assert train.images.shape[1:] == test.images.shape[1:] == (8, 8)
    assert train.images.max() == train.white


def test_an_unnamed_folder_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(digits.FOLDER, raising=False)
    with pytest.raises(ValueError, match="give the folder of its files with --data-dir or BISTABLE_RL_DATA"):
        digits.load("mnist", "train")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"neither .* nor .*\.gz exists"),
        (b"", "not a complete IDX file of bytes"),
        (idx(np.zeros((10_000, 28, 28)))[:-1], "not a complete IDX file of bytes"),
        (idx(np.zeros((10_000, 28, 28))), "is not the published file of MNIST"),
    ],
)
def test_a_missing_truncated_or_corrupt_file_is_named_with_its_checksum(
    content: bytes | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "t10k-images-idx3-ubyte"
    if content is not None:
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv(digits.FOLDER, str(tmp_path))
    with pytest.raises(ValueError, match=expected) as caught:
        digits.load("mnist", "test")
    assert name in str(caught.value)
    assert SHA256[name] in str(caught.value)


def served(folder: Path, files: dict[str, bytes]) -> str:
    """Return the address of a mirror that is a folder."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return f"{folder}/"


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return files that stand for MNIST's, and let a mirror be a folder."""
    import hashlib
    import shutil

    import requests

    files = {name: name.encode() for name in download.SHA256}
    monkeypatch.setattr(download, "SHA256", {n: hashlib.sha256(c).hexdigest() for n, c in files.items()})

    def copy(url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        if not Path(url).exists():
            raise requests.ConnectionError(url)
        shutil.copy(url, output_file)

    monkeypatch.setattr("pooch.core.choose_downloader", lambda *_, **__: copy)
    return files


def test_files_are_fetched_from_the_first_mirror_that_has_them_whole(
    tmp_path: Path, small_files: dict[str, bytes]
) -> None:
    away = str(tmp_path / "away") + "/"
    broken = served(tmp_path / "broken", dict.fromkeys(small_files, b"x"))
    whole = served(tmp_path / "whole", small_files)
    download.fetch_mnist(tmp_path / "data", (away, broken, whole))
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == small_files


def test_without_a_mirror_the_file_and_the_mirrors_are_named(tmp_path: Path, small_files: dict[str, bytes]) -> None:
    away, broken = str(tmp_path / "away") + "/", served(tmp_path / "broken", dict.fromkeys(small_files, b"x"))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz cannot be fetched") as caught:
        download.fetch_mnist(tmp_path / "data", (away, broken))
    assert f"{away}: ConnectionError; {broken}: ValueError" in str(caught.value)
    assert not list((tmp_path / "data").iterdir())


def test_the_command_leaves_whole_files_alone(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in mnist.iterdir()}
    assert main(["data", "mnist", "--data-dir", str(mnist)]) == 0
    assert f"MNIST is in {mnist}" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in mnist.iterdir()} == before
