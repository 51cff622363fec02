"""`bistable-rl play`."""

from __future__ import annotations

from collections.abc import Sequence

from bistable_rl.commands.parser import OWN_ENVIRONMENT, Parser, check_parent, count, path, seed
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.config import build
from bistable_rl.runs.schema import Experiment


def play(argv: Sequence[str]) -> int:
    """Play an environment in the terminal, or watch a trained agent play."""
    parser = Parser(
        "play",
        "Play an environment in the terminal with the observations of an agent, or watch the agent of a run.\n"
        "Options change the environment: --env.kwargs.length 10\n"
        f"{OWN_ENVIRONMENT.format(folders='the current folder')}",
    )
    parser.add_argument("id", metavar="ENV_ID", nargs="?", help="an environment id (with --run, the one of the run)")
    parser.add_argument("--run", metavar="RUN_DIR", type=path, help="watch the agent of this run instead of playing")
    parser.add_argument("--episodes", metavar="N", type=count, default=1, help="number of episodes (default: 1)")
    parser.add_argument("--seed", metavar="K", type=seed, help="seed of the first episode (default: random)")
    parser.add_argument("--save", metavar="FILE", type=path, help="write the pictures to this GIF or MP4")
    parser.add_argument(
        "--sequence", metavar="FILE", type=path, help="with --run: show what `evaluate --adversary --json FILE` found"
    )
    parser.add_argument(
        "--cue", metavar="K", type=seed, help="with --sequence: the number of the cue (default: the first forgotten)"
    )
    args, overrides = parser.parse_env(argv)
    if (args.id is None) == (args.run is None):
        raise UserError("play: give either an ENV_ID to play, or a run to watch with --run RUN_DIR.")
    if args.sequence is not None and (args.run is None or args.seed is not None or args.episodes != 1):
        raise UserError(
            "play: --sequence shows one episode of an agent; give --run, and leave out --episodes and --seed."
        )
    if args.cue is not None and args.sequence is None:
        raise UserError("play: --cue needs --sequence FILE.")
    check_parent(args.save)
    if args.save is not None and args.save.suffix.lower() not in (".gif", ".mp4"):
        raise UserError(
            f"play: --save writes a GIF or an MP4, so its name must end in .gif or .mp4, not {args.save.name}."
        )
    try:
        if args.run is not None:
            from bistable_rl.agents.play import watch

            watch(
                args.run,
                overrides=overrides,
                episodes=args.episodes,
                seed=args.seed,
                save=args.save,
                sequence=args.sequence,
                cue=args.cue,
            )
        else:
            from bistable_rl.envs.play import play

            env = build(Experiment, {"name": "play", "env": {"id": args.id}}, "command line", overrides).env
            play(
                env.id,
                kwargs=env.kwargs,
                wrappers=env.wrappers,
                episodes=args.episodes,
                seed=args.seed,
                save=args.save,
            )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"play: {one_sentence(error)}") from None
    return 0
