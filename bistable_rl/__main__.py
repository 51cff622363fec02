"""`python -m bistable_rl`: the command `bistable-rl`, with the Python that is named."""

import os
import sys

# Python puts the current folder first for `-m`; as in the command, no file there replaces a module of a library.
if sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]

from bistable_rl.cli import main

if __name__ == "__main__":
    sys.exit(main())
