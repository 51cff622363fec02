"""`bistable-rl export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bistable_rl.commands.parser import Parser, check_parent, path
from bistable_rl.runs.files import named, write_json

FORMATS = ("onnx", "pt2")


def export(argv: Sequence[str]) -> int:
    """Write an agent to a file that runs without this package."""
    parser = Parser(
        "export",
        "Write one step of a trained agent, (observation, state) -> (action, next state), to a file that runs without\n"
        "this package: onnx on onnxruntime (Python, C++, JavaScript, ...), pt2 on torch alone. Before it is written\n"
        "it is compared with the agent over 200 steps with resets. agents/EXPORT.md shows how it is used.",
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        type=path,
        help="the folder of a finished or a stopped run, or a .zip of RecurrentPPO.save",
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="the kind of file (default: onnx)")
    parser.add_argument(
        "--out", metavar="FILE", type=path, help="the file (default: agent.onnx or agent.pt2 in the folder)"
    )
    parser.add_argument("--best", action="store_true", help="export the best checkpoint instead of the last")
    parser.add_argument(
        "--json", metavar="FILE", type=path, help="also write the metadata of the file, with the initial state"
    )
    args = parser.parse_args(argv)
    for file in (args.out, args.json):
        check_parent(file)

    from bistable_rl.agents.export import export

    written = export(args.run, args.out, format=args.format, best=args.best)
    about = written.about
    print(f"{written.path}: {about['cell']}, trained for {about['steps']:,} steps, {written.size / 1000:,.0f} kB")
    for kind in ("inputs", "outputs"):
        print(f"{kind}:")
        print("\n".join(f"  {_shown(value)}" for value in about[kind]))
    print(f"largest difference from predict over 200 steps with resets: {written.compared.difference:.1g}")
    if written.compared.parted is not None:
        print(
            f"rounding errors grow in this network: with its own states, the file differed from predict "
            f"after {written.compared.parted} steps"
        )
    if args.json is not None:
        write_json(named(args.json), about)
    return 0


def _shown(value: Mapping[str, Any]) -> str:
    """Return an input or output as one line: `observation  float32 (n, 4)`."""
    shape = ", ".join(map(str, value["shape"])) + "," * (len(value["shape"]) == 1)
    return f"{value['name']:<14} {value['dtype']} ({shape})"
