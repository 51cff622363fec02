"""Pictures of numbers, for environments without another picture, and animated GIFs."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bistable_rl.runs.files import named, write_bytes

_NEGATIVE = np.array([60, 110, 255])
_ZERO = np.array([40, 40, 40])
_POSITIVE = np.array([255, 180, 40])


def heat(*rows: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Draw rows of numbers, one pixel per number: blue is -1, dark grey 0, orange 1.

    Args:
        *rows: Vectors; shorter ones are padded with black.

    Returns:
        (rows, longest row, 3) bytes.
    """
    vectors = [np.clip(np.asarray(row, dtype=np.float64).ravel(), -1, 1) for row in rows]
    picture = np.zeros((len(rows), max(len(vector) for vector in vectors), 3), np.uint8)
    for line, vector in zip(picture, vectors, strict=True):
        end = np.where(vector[:, None] < 0, _NEGATIVE, _POSITIVE)
        line[: len(vector)] = (_ZERO + np.abs(vector)[:, None] * (end - _ZERO)).astype(np.uint8)
    return picture


def save_gif(frames: Sequence[npt.NDArray[np.uint8]], path: Path, seconds: float) -> None:
    """Write pictures of one size as a GIF that loops and shows each picture for the given time.

    Raises:
        UserError: If the file cannot be written.
    """
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    film = io.BytesIO()
    first.save(film, format="GIF", save_all=True, append_images=rest, duration=round(1000 * seconds), loop=0)
    write_bytes(named(path), film.getvalue())
