"""That the Triton kernels compile for a real GPU and fit on its chip; it takes no GPU to know."""

import os
import subprocess
import sys

import pytest

from bistable_rl.kernels import dispatch

# Shared memory of a block on compute capability 9.0.
HOPPER = 232_448

COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from bistable_rl.kernels import triton_scan as kernels

name, n, hold = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
kernel = getattr(kernels, name)
constants = {"HAS_FLAGS": True, "HAS_INITIAL": True, "HAS_GRAD": True, "HAS_BIAS": True, "DENSE": False, "BLOCK": 128}
constants |= {"HOLD": hold, "N": n, "M": 16, "HP": 128, "PRECISION": kernels._EXACT[0]}
constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
types = {"flags": "*u8", "sizes": "*i64", "offsets": "*i64", "T": "i32", "B": "i32", "H": "i32", "P": "i32"}
signature = {key: "constexpr" if key in constants else types.get(key, "*fp32") for key in kernel.arg_names}
options = {"num_warps": 4 if name.startswith("_brc") else 8, "num_stages": 1}
compiled = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32), options=options)
print(compiled.metadata.shared)
"""


@pytest.mark.slow
@pytest.mark.skipif(not dispatch._TRITON, reason="triton is not installed")
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("kernel", "n", "hold"), [("brc", 0, False), ("matrix", 2, True), ("matrix", 4, False)])
def test_a_kernel_compiles_and_fits_on_the_chip(kernel: str, n: int, hold: bool, direction: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    arguments = [f"_{kernel}_{direction}", str(n), str(hold)]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) <= HOPPER
