"""Pictures of numbers, for environments without their own picture, and films of episodes."""

import io
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bistable_rl.errors import UserError
from bistable_rl.runs.files import named, write_bytes

_NEGATIVE = np.array([60, 110, 255])
_ZERO = np.array([40, 40, 40])
_POSITIVE = np.array([255, 180, 40])

WIDTH, HEIGHT = 480, 640
"""The width to which a small picture is enlarged, unless it would be higher than this."""
LINES, LINE_HEIGHT, CHARACTER_WIDTH = 2, 20, 9
"""The number of lines of a caption, and the size of its characters in pixels."""


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


def film_frame(picture: npt.NDArray[np.uint8], caption: str) -> npt.NDArray[np.uint8]:
    """Return the frame of a film: the picture, enlarged by a whole factor if it is small, and the caption below.

    Args:
        picture: (H, W, 3) bytes.
        caption: The caption; at most `LINES` lines of it are shown.

    Returns:
        Bytes, (height, width, 3). Height and width are even, as an MP4 needs, and the same for all captions.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    factor = max(1, min(-(-WIDTH // width), HEIGHT // height))
    enlarged = picture.repeat(factor, 0).repeat(factor, 1)
    strip = LINES * LINE_HEIGHT + 8
    filmed = Image.new("RGB", (max(enlarged.shape[1], WIDTH), enlarged.shape[0] + strip + enlarged.shape[0] % 2))
    filmed = filmed.crop((0, 0, filmed.width + filmed.width % 2, filmed.height))
    filmed.paste(Image.fromarray(enlarged), ((filmed.width - enlarged.shape[1]) // 2, 0))
    lines = textwrap.wrap(caption, filmed.width // CHARACTER_WIDTH)[:LINES]
    place = (8, enlarged.shape[0] + 4)
    ImageDraw.Draw(filmed).multiline_text(place, "\n".join(lines), font=ImageFont.load_default(16), fill="white")
    return np.asarray(filmed)


def save_film(frames: Sequence[npt.NDArray[np.uint8]], path: Path, seconds: float) -> None:
    """Write frames of one size, each shown for the given time, as a GIF that loops, or as an MP4 if the name says so.

    Raises:
        UserError: If the file cannot be written, or ffmpeg is missing or fails.
    """
    film = _mp4(frames, seconds) if path.suffix.lower() == ".mp4" else _gif(frames, seconds)
    write_bytes(named(path), film)


def _gif(frames: Sequence[npt.NDArray[np.uint8]], seconds: float) -> bytes:
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    film = io.BytesIO()
    first.save(film, format="GIF", save_all=True, append_images=rest, duration=round(1000 * seconds), loop=0)
    return film.getvalue()


def _mp4(frames: Sequence[npt.NDArray[np.uint8]], seconds: float) -> bytes:
    height, width = frames[0].shape[:2]
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{1 / seconds:g}", "-i", "-"]
    written = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-movflags", "+faststart"]
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        command = [find_ffmpeg(), "-loglevel", "error", *given, *written, str(film)]
        done = subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), capture_output=True)
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[:200] or f"exit code {done.returncode}"
            raise UserError(f"ffmpeg cannot write the MP4 ({said}); name a .gif instead.")
        return film.read_bytes()


def find_ffmpeg() -> str:
    """Return the path of this machine's ffmpeg, or of that in the package imageio-ffmpeg.

    Raises:
        UserError: If there is none.
    """
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: it came without a binary
        raise UserError(
            "an MP4 needs ffmpeg: install it, for example with pip install imageio-ffmpeg, or name a .gif instead."
        ) from None
