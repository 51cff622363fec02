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
from bistable_rl.kernels import triton_scan, triton_steps

name, n, hold = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
kernel = getattr(triton_steps if name.startswith("_step") else triton_scan, name)
constants = {"HAS_FLAGS": True, "HAS_INITIAL": True, "HAS_GRAD": True, "HAS_BIAS": True, "DENSE": False, "BLOCK": 128}
weight, exact = sys.argv[5], triton_scan._EXACT[0]
constants |= {"HOLD": hold, "N": n, "M": 16, "HP": 128, "PRECISION": exact if weight == "fp32" else "ieee"}
if sys.argv[4] == "bare":
    constants |= dict.fromkeys(("flags", "initial", "bias", "cut", "grad_outputs"))
constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
types = {"flags": "*u8", "sizes": "*i64", "offsets": "*i64", "weight": "*" + weight}
types |= dict.fromkeys("TBHP", "i32")
types |= dict.fromkeys(("row", "following", "gate_row", "gate_width", "extra_row"), "i32")
signature = {key: "constexpr" if key in constants else types.get(key, "*fp32") for key in kernel.arg_names}
options = {"num_warps": 8 if name.startswith("_matrix") else 4, "num_stages": 1}
compiled = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32), options=options)
print(compiled.metadata.shared)
"""


@pytest.mark.slow
@pytest.mark.skipif(not dispatch._TRITON, reason="triton is not installed")
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("kernel", "n", "hold"), [("brc", 0, False), ("matrix", 2, True), ("matrix", 4, False)])
def test_a_kernel_compiles_and_fits_on_the_chip(kernel: str, n: int, hold: bool, direction: str) -> None:
    assert _compiled(f"_{kernel}_{direction}", n, hold=hold) <= HOPPER


@pytest.mark.slow
@pytest.mark.skipif(not dispatch._TRITON, reason="triton is not installed")
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_matrices_in_bfloat16_stay_on_the_chip(n: int, direction: str) -> None:
    assert _compiled(f"_matrix_{direction}", n, hold=True, weight="bf16") <= HOPPER


@pytest.mark.slow
@pytest.mark.skipif(not dispatch._TRITON, reason="triton is not installed")
@pytest.mark.parametrize("given", ["everything", "bare"])
@pytest.mark.parametrize("kernel", ["_step", "_step_back"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_step_of_wide_matrices_compiles(n: int, kernel: str, given: str) -> None:
    assert _compiled(kernel, n, given=given) <= HOPPER


def _compiled(name: str, n: int, *, hold: bool = False, given: str = "everything", weight: str = "fp32") -> int:
    """Compile a kernel for n matrices; returns the bytes of shared memory that it takes."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    arguments = [name, str(n), str(hold), given, weight]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)
