"""Images of digits: MNIST where its files are, and scikit-learn's small ones where not."""

import gzip
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@dataclass(frozen=True)
class Digits:
    """Images and what they show.

    Attributes:
        images: (n, rows, columns), from 0 (black) to `white`.
        labels: (n,), from 0 to 9.
        white: The value of a white pixel.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    white: int


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Return the bytes of an IDX file, plain or gzip, in their shape.

    Raises:
        ValueError: If the file isn't there, or isn't one.
    """
    for file, opened in ((path, open), (path.with_name(path.name + ".gz"), gzip.open)):
        if file.exists():
            try:
                with opened(file, "rb") as stream:
                    content = stream.read()
            except (OSError, EOFError) as error:
                raise ValueError(f"{file} can't be read: {error}") from error
            break
    else:
        raise ValueError(f"{path} isn't there, neither plain nor as .gz: BISTABLE_RL_DATA must name MNIST's folder")
    # http://yann.lecun.com/exdb/mnist: 0, 0, 8 for bytes, the number of axes; then each axis as a big-endian int.
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = np.frombuffer(content[4:start], ">u4").astype(int) if axes and len(content) >= start else None
    if shape is None or len(content) != start + int(shape.prod()):
        raise ValueError(f"{file} is no IDX file of bytes, or not a whole one")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _mnist(folder: Path) -> Digits:
    if not (folder / IMAGES).exists() and (folder / "mnist").is_dir():
        folder = folder / "mnist"
    images, labels = read_idx(folder / IMAGES), read_idx(folder / LABELS)
    if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels) or labels.max() > 9:
        raise ValueError(f"{folder} doesn't hold images and as many labels from 0 to 9")
    return Digits(images, labels.astype(np.int64), white=255)


def _small() -> Digits:
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ValueError(
            "LineDigits needs images: set BISTABLE_RL_DATA to the folder of MNIST's files, or install scikit-learn"
        ) from error
    bunch = load_digits()
    return Digits(bunch.images.astype(np.uint8), bunch.target.astype(np.int64), white=16)


@lru_cache(maxsize=2)
def _load(folder: str) -> Digits:
    digits = _mnist(Path(folder)) if folder else _small()
    digits.images.setflags(write=False)
    digits.labels.setflags(write=False)
    return digits


def load() -> Digits:
    """Return MNIST's training images from the folder `BISTABLE_RL_DATA` (or `mnist` in it), else scikit-learn's 8x8.

    Raises:
        ValueError: If there are neither.
    """
    return _load(os.environ.get("BISTABLE_RL_DATA", ""))
