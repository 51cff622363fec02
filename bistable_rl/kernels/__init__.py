"""Scans over time: pure functions on tensors that know no cell.

`choice` decides which backend runs a scan: `cpu` (C++), `triton` (CUDA), `torch` (`chunked`) or `reference`, the plain
loop that the others are tested against, and that alone follows torch's transforms and second derivatives (`plain`).
`operators.scan` is the door to the first three; `operators.step` a shorter way to the first, for acting.
"""

from bistable_rl.kernels.choice import BACKENDS, KINDS, Choice, choose, describe, note, use_backend, watch
from bistable_rl.kernels.operators import scan, step
from bistable_rl.kernels.packed import check_batch_sizes

__all__ = [
    "BACKENDS", "KINDS", "Choice", "check_batch_sizes", "choose", "describe", "note", "scan", "step", "use_backend",
    "watch",
]  # fmt: skip
