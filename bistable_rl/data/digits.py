"""Images of digits: MNIST, if its files are present, and scikit-learn's 8x8 digits."""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bistable_rl.data.idx import read_idx

FOLDER = "BISTABLE_RL_DATA"
"""The environment variable that names the folder of MNIST's files."""

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""The checksums of MNIST's files, uncompressed."""

SMALL_TRAIN = 1437  # of scikit-learn's 1797 images; the rest are the test set


@dataclass(frozen=True)
class Digits:
    """Images and their labels.

    Attributes:
        images: (n, rows, columns), pixels from 0 (black) to `white`.
        labels: (n,), from 0 to 9.
        white: The value of a white pixel.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    white: int


def load(dataset: Literal["mnist", "digits"], split: Literal["train", "test"]) -> Digits:
    """Load the training or the test set of MNIST, or of scikit-learn's digits, whose last fifth is the test set.

    Raises:
        ValueError: If `BISTABLE_RL_DATA` does not name a folder with the published files of MNIST.
    """
    if dataset == "digits":
        small = load_small()
        chosen = slice(0, SMALL_TRAIN) if split == "train" else slice(SMALL_TRAIN, None)
        return Digits(small.images[chosen], small.labels[chosen], small.white)
    folder = os.environ.get(FOLDER)
    if not folder:
        raise ValueError(
            f"MNIST is needed: give the folder of its files with --data-dir or {FOLDER} (`bistable-rl data mnist` "
            "fetches them), or set task.kwargs.dataset to digits for scikit-learn's small images"
        )
    images, labels = (name for name in SHA256 if name.startswith({"train": "train", "test": "t10k"}[split]))
    home = find_mnist(Path(folder))
    return Digits(_checked(home / images), _checked(home / labels).astype(np.int64), white=255)


@lru_cache(maxsize=1)
def load_any(folder: Path) -> Digits:
    """Load the training images in a folder (or in its subfolder `mnist`): MNIST or other images in its format.

    A process reads them once, and all copies of an environment share them: a file that changes later is not read again.

    Raises:
        ValueError: If the files are missing or broken.
    """
    names = list(SHA256)
    home = find_mnist(folder)
    images, labels = read_idx(home / names[0]), read_idx(home / names[1])
    if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels) or labels.max() > 9:
        raise ValueError(f"{home} must hold images, and a label from 0 to 9 for each of them")
    return Digits(images, labels.astype(np.int64), white=255)


def find_mnist(folder: Path) -> Path:
    """Return the folder of MNIST's files: `folder` itself, or its subfolder `mnist`."""
    first = next(iter(SHA256))
    return folder if (folder / first).exists() or not (folder / "mnist").is_dir() else folder / "mnist"


@lru_cache(maxsize=1)
def load_small() -> Digits:
    """Return scikit-learn's 1797 images of 8x8 pixels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Digits(bunch.images.astype(np.uint8), bunch.target.astype(np.int64), white=16)


def _checked(path: Path) -> npt.NDArray[np.uint8]:
    """Return the content of a file of MNIST after checking that it is the published file."""
    expected = (
        f"its uncompressed content must have the SHA-256 {SHA256[path.name]}; `bistable-rl data mnist` fetches it"
    )
    try:
        array = read_idx(path)
    except ValueError as error:
        raise ValueError(f"{error}; {expected}") from None
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    if hashlib.sha256(header + array.tobytes()).hexdigest() != SHA256[path.name]:
        raise ValueError(f"{path} is not the published file of MNIST: {expected}")
    return array
