"""`bistable-rl analyze`."""

from __future__ import annotations

from collections.abc import Sequence

from bistable_rl.commands.figure_options import add_figure_options
from bistable_rl.commands.parser import Parser, count, path
from bistable_rl.errors import UserError
from bistable_rl.runs.folder import ANALYSIS


def analyze(argv: Sequence[str]) -> int:
    """Analyse a trained network: gates, attractors, memory."""
    parser = Parser(
        "analyze",
        "Show the gates of a trained network over time, the number of attractors that it reaches at every kept\n"
        "checkpoint, and how long it remembers; for agents and supervised networks.",
    )
    parser.add_argument("run", metavar="RUN_DIR", type=path, help="a run folder")
    parser.add_argument("--episodes", metavar="N", type=count, default=50, help="episodes or samples (default: 50)")
    parser.add_argument("--out", metavar="DIR", type=path, help="folder (default: RUN_DIR/analysis)")
    add_figure_options(parser, formats=True)
    args = parser.parse_args(argv)
    if args.episodes < 2:
        raise UserError("analyze: --episodes must be at least 2, since episodes are compared with each other.")

    from bistable_rl.analysis.analyze import analyze
    from bistable_rl.figure_style import writing

    out = args.out or args.run / ANALYSIS
    with writing(args.format, args.dpi):
        found = analyze(args.run, out, episodes=args.episodes)
    print("\n".join(found))
    print(f"figures and tables: {out / 'analysis.md'}")
    return 0
