"""`bistable-rl figures`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bistable_rl.commands.figure_options import add_figure_options
from bistable_rl.commands.parser import Parser, path


def figures(argv: Sequence[str]) -> int:
    """Draw the figures that explain a bistable cell."""
    parser = Parser(
        "figures",
        "Draw Figs. 1B, 2A, 2B and 2C of Vecoven et al. 2021 with the cells of this package, and Fig. 3 from the\n"
        "finished runs of `bistable-rl reproduce fig3` or `table1`.",
    )
    parser.add_argument("--out", metavar="DIR", type=path, default=Path("figures"), help="folder (default: figures)")
    parser.add_argument(
        "--runs", metavar="DIR", type=path, default=Path("runs"), help="folder of those runs (default: runs)"
    )
    add_figure_options(parser, formats=True)
    args = parser.parse_args(argv)

    from bistable_rl.analysis.paper_figures import draw_figures
    from bistable_rl.figure_style import writing

    with writing(args.format, args.dpi):
        lines = draw_figures(args.out, args.runs)
    print("\n".join(lines))
    return 0
