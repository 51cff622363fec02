"""`bistable-rl doctor`."""

from __future__ import annotations

from collections.abc import Sequence

from bistable_rl.commands.parser import Parser
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.environment import collect_environment, machine


def doctor(argv: Sequence[str]) -> int:
    """Show versions, devices and the kernels in use."""
    Parser("doctor", "Show versions, devices, and which kernels run the cells and why.").parse_args(argv)
    import torch

    from bistable_rl import kernels
    from bistable_rl.cells import CELLS, MixedCell
    from bistable_rl.cells.mixed import HALVES

    facts = collect_environment()
    print(f"python     {facts['python']} on {facts['platform']}")
    for name, version in facts["versions"].items():
        print(f"{name:<20} {version or 'not installed'}")
    print(f"cpu        {machine(facts)}; torch's threads: {torch.get_num_threads()}")
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    print(f"cuda       {names or 'none'}")
    try:
        for cell, device, backend, why in kernels.describe():
            print(f"kernels    {cell} on {device}: {backend} ({why})")
    except ValueError as error:
        raise UserError(f"BISTABLE_RL_BACKEND: {one_sentence(error)}") from None
    plain = [name for name, cell in CELLS.items() if cell.kernel is None and cell is not MixedCell]
    print(f"kernels    {', '.join(plain)}: reference (no kernel of their own)")
    print(f"kernels    mixed: those of its kinds, by default {' and '.join(HALVES)}")
    return 0
