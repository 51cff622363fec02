"""IDX files, the format of MNIST: http://yann.lecun.com/exdb/mnist."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read the bytes of an IDX file, plain or gzip, into an array of its shape.

    Args:
        path: The plain file. If it is missing, `path` with `.gz` is read instead.

    Raises:
        ValueError: If neither file exists, or it is not an IDX file.
    """
    for file, opened in ((path, open), (path.with_name(path.name + ".gz"), gzip.open)):
        if file.exists():
            try:
                with opened(file, "rb") as stream:
                    content = stream.read()
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"{file} cannot be read: {error}") from error
            break
    else:
        raise ValueError(f"neither {path} nor {path.name}.gz exists: BISTABLE_RL_DATA must name MNIST's folder")
    # 0, 0, 8 (bytes), the number of axes; then the length of each axis as a big-endian int
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = np.frombuffer(content[4:start], ">u4").astype(int) if axes and len(content) >= start else None
    if shape is None or len(content) != start + int(shape.prod()):
        raise ValueError(f"{file} is not a complete IDX file of bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
