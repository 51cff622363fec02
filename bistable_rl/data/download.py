"""Download MNIST."""

from pathlib import Path

import pooch
from requests import RequestException

from bistable_rl.errors import UserError, one_sentence

# of the compressed files; bistable_rl.data.digits has the checksums of the content
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def fetch_mnist(folder: Path, mirrors: tuple[str, ...] = MIRRORS) -> None:
    """Download the missing or broken ones of MNIST's four files, and check them.

    Args:
        folder: The folder for the files.
        mirrors: URLs to try in this order, each with a slash at the end.

    Raises:
        UserError: If no mirror delivers a complete file, or the folder cannot be written to.
    """
    for name, checksum in SHA256.items():
        failures = []
        for mirror in mirrors:
            try:
                pooch.retrieve(mirror + name, f"sha256:{checksum}", fname=name, path=folder, progressbar=True)
                break
            except (RequestException, ValueError) as error:  # pooch raises ValueError for a wrong checksum
                failures.append(f"{mirror}: {type(error).__name__}")
            except OSError as error:
                raise UserError(f"{folder} cannot be written: {error.strerror or one_sentence(error)[:-1]}.") from None
        else:
            raise UserError(
                f"{name} cannot be fetched ({'; '.join(failures)}); put MNIST's files into {folder} by hand."
            )
