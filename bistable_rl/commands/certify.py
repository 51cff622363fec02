"""`bistable-rl certify`."""

from __future__ import annotations

from collections.abc import Sequence

from bistable_rl.commands.figure_options import add_figure_options, check_figure
from bistable_rl.commands.parser import OWN_ENVIRONMENT, Parser, check_parent, count, path


def certify(argv: Sequence[str]) -> int:
    """Prove which cues an agent cannot be made to forget."""
    parser = Parser(
        "certify",
        "Prove for each cue, if possible, that no sequence of distractions makes the agent answer wrongly, however\n"
        "long it is: a lower bound of its memory, with all rounding errors of the network that acts. For brc and nbrc\n"
        "with discrete actions, in environments that declare their phases, such as CopyFirst.\n"
        "Options change the environment: --env.kwargs.num_symbols 4\n"
        f"{OWN_ENVIRONMENT.format(folders='the current folder')}",
    )
    parser.add_argument("run", metavar="RUN_DIR", type=path, help="the folder of a finished or a stopped run")
    parser.add_argument("--best", action="store_true", help="load the best checkpoint instead of the last")
    parser.add_argument(
        "--steps",
        metavar="T",
        type=count,
        default=0,
        help="for cues not proved for ever, try to prove up to T steps",
    )
    parser.add_argument("--json", metavar="FILE", type=path, help="also write the certificate to this file")
    parser.add_argument(
        "--figure", metavar="FILE", type=path, help="draw the units' feedback gains and inputs to this PNG, PDF or SVG"
    )
    add_figure_options(parser, formats=False)
    args, overrides = parser.parse_env(argv)
    check_parent(args.json)
    check_parent(args.figure)
    check_figure("certify: --figure", args.figure, args.dpi)

    from bistable_rl.certify.certify_run import certify_run
    from bistable_rl.figure_style import writing

    with writing(dpi=args.dpi):
        certify_run(args.run, overrides, best=args.best, steps=args.steps, json=args.json, figure=args.figure)
    return 0
