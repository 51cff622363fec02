"""Scans over time: pure functions on tensors, for the four cells in `KERNELS`.

`dispatch` chooses the backend that runs a scan: `cpu` (C++), `triton` (CUDA), `torch` (`torch_scan`) or `reference`,
the plain loop that the others are tested against, and the only one for torch's transforms and second derivatives. Each
fulfils `interface.Backend`. `ops.scan` calls all of them; `cpu_step` is the path of single steps, for acting.
"""

from bistable_rl.kernels import cpu_step
from bistable_rl.kernels.dispatch import BACKENDS, Choice, choose, describe, first_warning, note, use_backend, watch
from bistable_rl.kernels.interface import Batch, Weights
from bistable_rl.kernels.ops import scan
from bistable_rl.kernels.packed import check_batch_sizes
from bistable_rl.kernels.table import KERNELS

__all__ = [
    "BACKENDS",
    "KERNELS",
    "Batch",
    "Choice",
    "Weights",
    "check_batch_sizes",
    "choose",
    "cpu_step",
    "describe",
    "first_warning",
    "note",
    "scan",
    "use_backend",
    "watch",
]
