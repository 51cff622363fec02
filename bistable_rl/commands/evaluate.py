"""`bistable-rl evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from bistable_rl.commands.figure_options import add_figure_options, check_figure
from bistable_rl.commands.parser import MOST, OWN_ENVIRONMENT, Parser, check_parent, count, path
from bistable_rl.errors import UserError
from bistable_rl.runs.files import named, write_json

EPISODES = 100


def evaluate(argv: Sequence[str]) -> int:
    """Evaluate a trained agent on episodes."""
    args, overrides = _parser().parse_env(argv)
    check_parent(args.json)
    check_parent(args.figure)
    check_figure("evaluate: --figure", args.figure, args.dpi)
    if args.steps is not None and not args.adversary:
        raise UserError("evaluate: --steps needs --adversary.")
    if args.adversary:
        _against_adversary(args, overrides)
    elif args.horizons is not None or args.streams is not None:
        _at_horizons(args, overrides)
    else:
        _on_episodes(args, overrides)
    return 0


def _parser() -> Parser:
    from bistable_rl.envs.streams import KINDS  # imports numpy and gymnasium

    parser = Parser(
        "evaluate",
        "Play episodes with the last checkpoint of a run and report success and return.\n"
        "Options change the environment: --env.kwargs.length 500\n"
        "With --horizons the agent plays at each horizon, with the most likely and with sampled actions.\n"
        "With --streams it plays with each kind of stream of distractors, at each of the horizons or at the trained\n"
        "one. A distractor is:\n"
        f"{_described(KINDS)}\n"
        "With --adversary a search looks for distractors that make it forget: an upper bound of its memory.\n"
        f"{OWN_ENVIRONMENT.format(folders='the current folder')}",
    )
    parser.add_argument("run", metavar="RUN_DIR", type=path, help="the folder of a finished or a stopped run")
    parser.add_argument("--best", action="store_true", help="load the best checkpoint instead of the last")
    parser.add_argument("--episodes", metavar="N", type=count, help=f"number of episodes (default: {EPISODES})")
    parser.add_argument(
        "--max-episode-steps",
        metavar="N",
        type=count,
        help="steps in which an episode must end (default: evaluation.max_episode_steps of the run)",
    )
    parser.add_argument(
        "--horizons",
        metavar="N,N,...",
        type=_counts,
        help="values of the horizon argument, which --env.horizon_kwarg names if the environment is not ours",
    )
    parser.add_argument(
        "--streams", metavar="KIND,KIND,...", type=_kinds, help="kinds of streams; all: every kind except mixture"
    )
    parser.add_argument("--adversary", action="store_true", help="search for distractors that make it forget")
    parser.add_argument(
        "--steps", metavar="N", type=count, help="with --adversary: at most this many distractors (default: 10000)"
    )
    parser.add_argument("--json", metavar="FILE", type=path, help="also write the result to this file")
    parser.add_argument(
        "--figure",
        metavar="FILE",
        type=path,
        help="with --horizons, --streams or --adversary: draw it to this PNG, PDF or SVG",
    )
    add_figure_options(parser, formats=False)
    return parser


def _against_adversary(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    if args.episodes is not None:
        raise UserError("evaluate: --adversary takes no --episodes; --steps N sets its largest number of distractors.")
    if args.horizons is not None or args.streams is not None or args.max_episode_steps is not None:
        raise UserError(
            "evaluate: --adversary tries every length up to --steps N; leave out --horizons, --streams and "
            "--max-episode-steps."
        )
    from bistable_rl.analysis.adversary import STEPS, evaluate_adversary
    from bistable_rl.figure_style import writing

    with writing(dpi=args.dpi):
        evaluate_adversary(
            args.run,
            steps=args.steps or STEPS,
            overrides=overrides,
            best=args.best,
            json=args.json,
            figure=args.figure,
        )


def _at_horizons(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Evaluate at the given horizons, with the given streams, or both."""
    from bistable_rl.analysis.horizons import evaluate_horizons
    from bistable_rl.figure_style import writing

    with writing(dpi=args.dpi):
        evaluate_horizons(
            args.run,
            args.horizons or [],
            streams=args.streams or [],
            episodes=args.episodes or EPISODES,
            overrides=overrides,
            best=args.best,
            max_episode_steps=args.max_episode_steps,
            json=args.json,
            figure=args.figure,
        )


def _on_episodes(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    if args.figure is not None:
        raise UserError(
            "evaluate: --figure needs --horizons, such as --horizons 50,500,5000, --streams or --adversary."
        )
    from bistable_rl.agents.evaluate_run import evaluate_run

    result = evaluate_run(
        args.run,
        overrides,
        best=args.best,
        episodes=args.episodes or EPISODES,
        max_episode_steps=args.max_episode_steps,
    )
    print(f"{args.run}, trained for {result['steps']:,} steps")
    print_summary(result)
    if args.json is not None:
        write_json(named(args.json), result)


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print an evaluation in one line."""
    success = "" if summary["success_rate"] is None else f"success {summary['success_rate']:.3f}, "
    print(
        f"{success}return {summary['return_mean']:.3f} ± {summary['return_std']:.3f}, "
        f"length {summary['length_mean']:.1f}, over {summary['episodes']} episodes"
    )


def _counts(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(count(part) for part in text.split(",")))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of integers above 0, up to {MOST:,}, such as 50,500,5000"
        ) from None


def _kinds(text: str) -> list[str]:
    """Read kinds of streams; the environment checks their names later."""
    from bistable_rl.envs.streams import KINDS

    if text == "all":
        return [kind for kind in KINDS if kind != "mixture"]
    return list(dict.fromkeys(text.split(",")))


def _described(kinds: Mapping[str, str]) -> str:
    return "\n".join(f"  {kind:<9} {text}" for kind, text in kinds.items())
