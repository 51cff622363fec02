"""`bistable-rl data`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bistable_rl.commands.parser import Parser, path


def data(argv: Sequence[str]) -> int:
    """Download data sets."""
    parser = Parser("data", "Download MNIST's four files (11 MB) if they are missing, and check them.")
    parser.add_argument("what", choices=("mnist",))
    parser.add_argument(
        "--data-dir", metavar="DIR", type=path, help="target folder (default: BISTABLE_RL_DATA, or data/mnist)"
    )
    args = parser.parse_args(argv)

    from bistable_rl.data.digits import FOLDER, find_mnist
    from bistable_rl.data.download import fetch_mnist

    folder = find_mnist(args.data_dir or Path(os.environ.get(FOLDER) or "data/mnist"))
    fetch_mnist(folder)
    print(f"MNIST is in {folder}; use it with --data-dir {folder} or {FOLDER}={folder}")
    return 0
