"""`bistable-rl evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from bistable_rl.commands.parser import MOST, OWN_ENVIRONMENT, Parser, check_parent, check_suffix, count, path
from bistable_rl.errors import UserError
from bistable_rl.runs import run as runs


def _counts(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(count(part) for part in text.split(",")))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of integers above 0, up to {MOST:,}, such as 50,500,5000"
        ) from None


def evaluate(argv: Sequence[str]) -> int:
    """Play episodes with a trained agent."""
    parser = Parser(
        "evaluate",
        "Play episodes with the last checkpoint of a run and report success and return.\n"
        "The environment can be changed: --env.kwargs.length 500\n"
        "With --horizons, it is played at each of them, acting deterministically and sampling.\n"
        f"{OWN_ENVIRONMENT.format(folders='the current folder')}",
    )
    parser.add_argument("run", metavar="RUN_DIR", type=path, help="a run folder, of a finished run or a stopped one")
    parser.add_argument("--best", action="store_true", help="take the checkpoint that did best, not the last one")
    parser.add_argument("--episodes", metavar="N", type=count, default=100, help="episodes to play (default: 100)")
    parser.add_argument(
        "--max-episode-steps",
        metavar="N",
        type=count,
        help="steps in which an episode must end (default: the run's evaluation.max_episode_steps)",
    )
    parser.add_argument("--horizons", metavar="N,N,...", type=_counts, help="horizons of the environment to play at")
    parser.add_argument("--json", metavar="FILE", type=path, help="write the result to this file too")
    parser.add_argument("--figure", metavar="FILE", type=path, help="with --horizons: draw the result into this PNG")
    args, overrides = parser.parse_env(argv)
    check_parent(args.json)
    check_parent(args.figure)
    check_suffix("evaluate: --figure", args.figure, ".png")
    if args.horizons is not None and args.max_episode_steps is not None:
        raise UserError("evaluate: --max-episode-steps is not for --horizons, whose environments end by themselves.")
    if args.horizons is not None:
        from bistable_rl.analysis.horizons import evaluate_horizons

        evaluate_horizons(
            args.run,
            args.horizons,
            episodes=args.episodes,
            overrides=overrides,
            best=args.best,
            json=args.json,
            figure=args.figure,
        )
        return 0
    if args.figure is not None:
        raise UserError("evaluate: --figure draws what --horizons asks for, such as --horizons 50,500,5000.")

    from bistable_rl.agents import evaluation
    from bistable_rl.agents.agent import load
    from bistable_rl.agents.vec_envs import close, make_evaluation_env
    from bistable_rl.runs.seeds import FINAL_EVALUATION, derived_seed

    experiment = runs.read_experiment(args.run, overrides)
    agent = load(args.run, best=args.best)
    seed = derived_seed(experiment.seed, FINAL_EVALUATION)
    env = make_evaluation_env(experiment.env, args.episodes, seed)
    agent.check_spaces(env)
    longest = args.max_episode_steps or experiment.evaluation.max_episode_steps
    with evaluation.playing():
        try:
            summary = evaluation.evaluate(agent, env, args.episodes, max_episode_steps=longest).summary()
        finally:
            close(env)
    print(f"{args.run}, trained for {agent.steps:,} steps")
    print_summary(summary)
    if args.json is not None:
        env_config = {"id": experiment.env.id, "kwargs": experiment.env.kwargs, "wrappers": experiment.env.wrappers}
        runs.write_json(
            runs.named(args.json), {"run": str(args.run), "steps": agent.steps, "env": env_config, **summary}
        )
    return 0


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print what `Evaluation.summary` returns as a line."""
    success = "" if summary["success_rate"] is None else f"success {summary['success_rate']:.3f}, "
    print(
        f"{success}return {summary['return_mean']:.3f} ± {summary['return_std']:.3f}, "
        f"length {summary['length_mean']:.1f}, over {summary['episodes']} episodes"
    )
