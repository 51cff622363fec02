"""`bistable-rl speed`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bistable_rl.commands.parser import Parser, check_parent, path
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.environment import collect_environment
from bistable_rl.runs.files import named, write_json


def speed(argv: Sequence[str]) -> int:
    """Measure the speed of the cells, the benchmarks, the environments, recurrent PPO or exported agents."""
    parser = Parser(
        "speed",
        "Measure on this machine (medians of interleaved timings) the cells against torch.nn.GRU and torch.nn.LSTM,\n"
        "the supervised benchmarks against the same network on torch.nn.GRU, the environments against SB3's\n"
        "DummyVecEnv, recurrent PPO against sb3-contrib's, or exported agents against `predict`. For ppo, % of peak\n"
        "is the share of the time that the products of matrices would take at the rate of a float32 product of\n"
        "1024 x 1024 on this core.",
    )
    parser.add_argument("what", choices=("cells", "benchmarks", "envs", "ppo", "export"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="for cells (default: cpu)")
    parser.add_argument("--shapes", metavar="B,T,I,H", nargs="+", help="for cells (default: seven shapes)")
    parser.add_argument(
        "--ids", metavar="ENV_ID", nargs="+", default=[], help="for envs (default: all of this package)"
    )
    parser.add_argument("--profile", action="store_true", help="for ppo: the share of each part in the time")
    parser.add_argument("--json", metavar="FILE", type=path, help="also write the measurements to this file")
    args = parser.parse_args(argv)
    check_parent(args.json)
    measured: Sequence[Any]
    try:
        if args.what == "cells":
            from bistable_rl.speed.cells import SHAPES, parse_shape, speed_cells

            shapes = [parse_shape(text) for text in args.shapes] if args.shapes else SHAPES
            measured = speed_cells(device=args.device, shapes=shapes)
        elif args.what == "benchmarks":
            from bistable_rl.speed.benchmarks import speed_benchmarks

            measured = speed_benchmarks()
        elif args.what == "envs":
            from bistable_rl.speed.envs import speed_envs

            measured = speed_envs(args.ids)
        elif args.what == "export":
            from bistable_rl.speed.export import speed_export

            measured = speed_export()
        elif args.profile:
            from bistable_rl.speed.profile_ppo import profile_ppo

            measured = profile_ppo()
        else:
            from bistable_rl.speed.ppo import speed_ppo

            measured = speed_ppo()
    except ValueError as error:
        raise UserError(f"speed: {one_sentence(error)}") from None
    if args.json is not None:
        rows = [dataclasses.asdict(row) for row in measured]
        write_json(named(args.json), {"environment": collect_environment(), "measured": rows})
    return 0
