"""Scans over time: pure functions on tensors that know no cell.

`choice` decides which backend runs a scan: `cpu` (C++), `triton` (CUDA), `torch` (`chunked`) or `reference`, the plain
loop that the others are tested against, and that alone follows torch's transforms and second derivatives (`plain`).
`operators.scan` is the door to the first three; `operators.step` a shorter way to the first, for acting.
"""

from bistable_rl.kernels.cpu_step import Packed, Weights, fix, fixed, pack, unpacked
from bistable_rl.kernels.dispatch import BACKENDS, KINDS, Choice, choose, describe, note, use_backend, watch
from bistable_rl.kernels.ops import has_short_step, scan, step
from bistable_rl.kernels.packed import check_batch_sizes

__all__ = [
    "BACKENDS",
    "KINDS",
    "Choice",
    "Packed",
    "Weights",
    "check_batch_sizes",
    "choose",
    "describe",
    "fix",
    "fixed",
    "has_short_step",
    "note",
    "pack",
    "scan",
    "step",
    "unpacked",
    "use_backend",
    "watch",
]
