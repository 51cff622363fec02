"""The `bistable-rl` command: the door to everything, and where an error becomes one sentence.

Each command imports what it needs when it runs, so that help answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bistable_rl.config import UserError, find_config, help_of, one_sentence, shipped_configs, unknown
from bistable_rl.experiments import Benchmark, Experiment, env_config, load_benchmark, load_experiment


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises, so that every error leaves the program by one way."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"bistable-rl {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`.")


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer above 0")
    return int(text)


def _counts(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(_count(part) for part in text.split(",")))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of integers above 0, such as 50,500,5000") from None


def _seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 4294967295")
    return int(text)


def _overrides(parser: _Parser, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the parser's own arguments and `--key value` overrides, wherever they stand."""
    actions = parser._option_string_actions
    own: list[str] = []
    overrides: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        name, equals, _ = token.partition("=")
        target = overrides if token.startswith("--") and name not in actions else own
        target.append(token)
        takes_value = target is overrides or (name in actions and actions[name].nargs != 0)
        if token.startswith("-") and takes_value and not equals:
            target.extend(value for value in [next(tokens, None)] if value is not None)
    return own, overrides


def _only_env(overrides: Sequence[str], options: Sequence[str]) -> None:
    """Refuse overrides of anything but the environment."""
    for key in (token.partition("=")[0] for token in overrides if token.startswith("--")):
        if key.split(".")[0] != "--env" or key == "--env.num_envs":
            choices = [*options, "--env.id", "--env.kwargs", "--env.wrappers"]
            raise UserError("command line: " + unknown("option", key, choices))


def _check_parent(file: Path | None) -> None:
    """Refuse a file that cannot be written before the work that would fill it."""
    if file is not None and not file.resolve().parent.is_dir():
        raise UserError(f"there is no folder {file.resolve().parent} to write {file.name} to.")
    if file is not None and file.is_dir():
        raise UserError(f"{file} is a folder; name a file to write.")


def train(argv: Sequence[str]) -> int:
    """Train an agent from a config file."""
    parser = _Parser(
        "train",
        "Train an agent from a config file into a run folder, OUT/<name>/<cell>-seed<k>, or go on with a run.\n"
        "Any key of the config can be overridden: --policy.cell gru --env.kwargs.length 100 --seed 1\n"
        f"Shipped configs: {', '.join(shipped_configs())}",
    )
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="a YAML file, or the name of a shipped config")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs"), help="output folder (default: runs)")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is there, instead of numbering")
    parser.add_argument(
        "--resume", metavar="RUN_DIR", type=Path, help="go on with the run of this folder, to --total_steps if given"
    )
    if any(token in ("-h", "--help") for token in argv):
        parser.print_help()
        print("\nkeys of the config, each an option too:\n")
        print(help_of(Experiment))
        return 0
    own, overrides = _overrides(parser, argv)
    args = parser.parse_args(own)
    if (args.config is None) == (args.resume is None):
        raise UserError("train: name a CONFIG to train, or a run to go on with by --resume RUN_DIR.")
    if args.resume is None:
        experiment = load_experiment(find_config(args.config), overrides)

        from bistable_rl.agents.training import train

        run = train(experiment, args.out, overwrite=args.overwrite)
    else:
        for key in (token.partition("=")[0] for token in overrides if token.startswith("--")):
            if key != "--total_steps":
                raise UserError(f"train: a run goes on as its config.yaml says, but for --total_steps; {key} is fixed.")

        from bistable_rl import runs

        run = args.resume
        total_steps = runs.read_experiment(run, overrides).total_steps

        from bistable_rl.agents.training import is_finished, resume

        if is_finished(run, total_steps):
            print(f"{run} has finished already; a larger --total_steps makes it go on.")
        resume(run, total_steps=total_steps)
    result = _read_result(run)
    print(f"{result['status']}: {result['steps']:,} steps in {result['seconds']:,.0f} s, in {run}")
    if result["evaluation"]:
        _print_summary(result["evaluation"])
    print(f"watch:    tensorboard --logdir {run.parent}\nevaluate: bistable-rl evaluate {run}")
    return 130 if result["status"] == "interrupted" else 0


def benchmark(argv: Sequence[str]) -> int:
    """Train a network on a supervised benchmark."""
    parser = _Parser(
        "benchmark",
        "Train a network from a config file into a run folder, OUT/<name>/<cell>-seed<k>, or go on with a run.\n"
        "Any key of the config can be overridden: --network.cell gru --task.kwargs.length 50 --seed 1\n"
        f"Shipped configs: {', '.join(name for name in shipped_configs() if name.startswith('supervised/'))}",
    )
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="a YAML file, or the name of a shipped config")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs"), help="output folder (default: runs)")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is there, instead of numbering")
    parser.add_argument("--resume", metavar="RUN_DIR", type=Path, help="go on with the run of this folder")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="MNIST's folder (default: BISTABLE_RL_DATA)")
    if any(token in ("-h", "--help") for token in argv):
        parser.print_help()
        print("\nkeys of the config, each an option too:\n")
        print(help_of(Benchmark))
        return 0
    own, overrides = _overrides(parser, argv)
    args = parser.parse_args(own)
    if (args.config is None) == (args.resume is None):
        raise UserError("benchmark: name a CONFIG to train, or a run to go on with by --resume RUN_DIR.")
    if args.resume is not None and overrides:
        raise UserError(f"benchmark: a run goes on as its config.yaml says; {overrides[0]} cannot change it.")
    if args.data_dir is not None:
        os.environ["BISTABLE_RL_DATA"] = str(args.data_dir)

    if args.resume is None:
        config = load_benchmark(find_config(args.config), overrides)
        from bistable_rl.benchmarks.runner import start

        run = start(config, args.out, overwrite=args.overwrite)
    else:
        from bistable_rl.benchmarks.runner import resume

        run = args.resume
        resume(run)
    result = _read_result(run)
    print(f"{result['status']}: {result['steps']:,} updates in {result['seconds']:,.0f} s, in {run}")
    if isinstance(result["evaluation"], dict):
        print(", ".join(f"{name} {value:.4f}" for name, value in result["evaluation"].items()) + " on the test set")
    return 130 if result["status"] == "interrupted" else 0


def compare(argv: Sequence[str]) -> int:
    """Run a grid of trainings and report how they differ."""
    parser = _Parser(
        "compare",
        "Train a base experiment with every variant, grid value and seed of a config file, and write a report of\n"
        "how they differ into OUT/<name>. What is finished is never repeated: after Ctrl-C, a crash, or with more\n"
        "seeds in the file, the same command goes on.\n"
        f"Shipped comparisons: {', '.join(name for name in shipped_configs() if name.startswith('compare/'))}",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped comparison")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs"), help="output folder (default: runs)")
    parser.add_argument("--workers", metavar="N", type=_count, help="runs at once (default: one a core)")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local", help="where (default: local)")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="the Ray cluster's (default: RAY_ADDRESS, or one made here)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do and about how long it takes")
    args = parser.parse_args(list(argv))
    if args.address is not None and args.launcher != "ray":
        raise UserError("compare: --address names a Ray cluster; give --launcher ray with it.")
    config = find_config(args.config)

    from bistable_rl.compare.cluster import RayLauncher
    from bistable_rl.compare.command import compare
    from bistable_rl.compare.local import LocalLauncher

    ray = args.launcher == "ray"
    launcher = RayLauncher(args.workers, args.address) if ray else LocalLauncher(args.workers)
    command = shlex.join(["bistable-rl", "compare", *argv])
    compare(config, args.out, launcher, dry_run=args.dry_run, command=command)
    return 0


def evaluate(argv: Sequence[str]) -> int:
    """Play episodes with a trained agent."""
    parser = _Parser(
        "evaluate",
        "Play episodes with the last checkpoint of a run and report success and return.\n"
        "The environment can be changed: --env.kwargs.length 500\n"
        "With --horizons, it is played at each of them, acting deterministically and sampling.",
    )
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="a run folder, of a finished run or a stopped one")
    parser.add_argument("--best", action="store_true", help="take the checkpoint that did best, not the last one")
    parser.add_argument("--episodes", metavar="N", type=_count, default=100, help="episodes to play (default: 100)")
    parser.add_argument("--horizons", metavar="N,N,...", type=_counts, help="horizons of the environment to play at")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result to this file too")
    parser.add_argument("--figure", metavar="FILE", type=Path, help="with --horizons: draw the result into this PNG")
    own, overrides = _overrides(parser, argv)
    args = parser.parse_args(own)
    _only_env(overrides, ("--best", "--episodes", "--horizons", "--json", "--figure"))
    _check_parent(args.json)
    _check_parent(args.figure)
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

    from bistable_rl import runs
    from bistable_rl.agents import evaluation
    from bistable_rl.agents.agent import load
    from bistable_rl.agents.make_env import FINAL_EVALUATION, derived_seed, make_vec_env

    experiment = runs.read_experiment(args.run, overrides)
    agent = load(args.run, best=args.best)
    seed = derived_seed(experiment.seed, FINAL_EVALUATION)
    env = make_vec_env(experiment.env, min(evaluation.COPIES, args.episodes), seed)
    agent.check_spaces(env)
    try:
        summary = evaluation.evaluate(agent, env, args.episodes).summary()
    finally:
        env.close()
    print(f"{args.run}, trained for {agent.steps:,} steps")
    _print_summary(summary)
    if args.json is not None:
        env_config = {"id": experiment.env.id, "kwargs": experiment.env.kwargs, "wrappers": experiment.env.wrappers}
        runs.write_json(args.json, {"run": str(args.run), "steps": agent.steps, "env": env_config, **summary})
    return 0


def play(argv: Sequence[str]) -> int:
    """Play an environment in the terminal, or watch a trained agent play."""
    parser = _Parser(
        "play",
        "Play an environment in the terminal, seeing what an agent sees; or watch the agent of a run.\n"
        "The environment can be changed: --env.kwargs.length 10",
    )
    parser.add_argument("id", metavar="ENV_ID", nargs="?", help="an environment id; with --run, the run's own is used")
    parser.add_argument("--run", metavar="RUN_DIR", type=Path, help="watch the agent of this run instead of playing")
    parser.add_argument("--episodes", metavar="N", type=_count, default=1, help="episodes (default: 1)")
    parser.add_argument("--seed", metavar="K", type=_seed, help="seed of the first episode (default: any)")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write what is seen as a GIF")
    own, overrides = _overrides(parser, argv)
    args = parser.parse_args(own)
    _only_env(overrides, ("--run", "--episodes", "--seed", "--save"))
    if (args.id is None) == (args.run is None):
        raise UserError("play: name an ENV_ID to play, or a run to watch with --run RUN_DIR, one of the two.")
    _check_parent(args.save)
    try:
        if args.run is not None:
            from bistable_rl.agents.watch import watch

            watch(args.run, overrides=overrides, episodes=args.episodes, seed=args.seed, save=args.save)
        else:
            from bistable_rl.envs.play import play

            env = env_config(args.id, overrides)
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


def tensorboard(argv: Sequence[str]) -> int:
    """Show the curves of runs in a browser."""
    parser = _Parser("tensorboard", "Serve TensorBoard for a folder of runs, until Ctrl-C.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="a run folder, or a folder with some below it")
    parser.add_argument("--port", metavar="N", type=_count, default=6006, help="where to (default: 6006)")
    args = parser.parse_args(list(argv))
    if not args.folder.is_dir():
        raise UserError(f"there is no folder {args.folder}; give one with runs, such as runs/t_maze.")
    if not any(args.folder.rglob("*tfevents*")):
        raise UserError(f"{args.folder} holds nothing for TensorBoard yet: no run below it has begun.")

    from tensorboard.program import TensorBoard, TensorBoardServerException

    server = TensorBoard()
    server.configure(argv=[None, "--logdir", str(args.folder), "--port", str(args.port)])
    try:
        print(f"TensorBoard: {server.launch()} (Ctrl-C ends it)", flush=True)
    except TensorBoardServerException as error:
        raise UserError(f"tensorboard: {one_sentence(error)}") from None
    threading.Event().wait()
    return 0


def speed(argv: Sequence[str]) -> int:
    """Measure how fast the cells, the benchmarks, the environments or recurrent PPO are here."""
    parser = _Parser(
        "speed",
        "Measure on this machine, interleaved, medians: the cells beside torch.nn.GRU and torch.nn.LSTM,\n"
        "the supervised benchmarks beside the same network on torch.nn.GRU, the environments beside SB3's way of\n"
        "stepping them, or recurrent PPO beside sb3-contrib's.",
    )
    parser.add_argument("what", choices=("cells", "benchmarks", "envs", "ppo"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="for cells (default: cpu)")
    parser.add_argument("--shapes", metavar="B,T,I,H", nargs="+", help="for cells: sizes (default: the README's)")
    parser.add_argument("--ids", metavar="ENV_ID", nargs="+", default=[], help="for envs: which (default: all of ours)")
    parser.add_argument("--profile", action="store_true", help="for ppo: where the time goes, instead of how fast")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the measurements to this file too")
    args = parser.parse_args(list(argv))
    _check_parent(args.json)
    measured: Sequence[Any]
    try:
        if args.what == "cells":
            from bistable_rl.speed_cells import SHAPES, parse_shape, speed_cells

            shapes = [parse_shape(text) for text in args.shapes] if args.shapes else SHAPES
            measured = speed_cells(device=args.device, shapes=shapes)
        elif args.what == "benchmarks":
            from bistable_rl.benchmarks.speed import speed_benchmarks

            measured = speed_benchmarks()
        elif args.what == "envs":
            from bistable_rl.agents.speed_envs import speed_envs

            measured = speed_envs(args.ids)
        elif args.profile:
            from bistable_rl.agents.profile_ppo import profile_ppo

            measured = profile_ppo()
        else:
            from bistable_rl.agents.speed_ppo import speed_ppo

            measured = speed_ppo()
    except ValueError as error:
        raise UserError(f"speed: {one_sentence(error)}") from None
    if args.json is not None:
        from bistable_rl import runs

        rows = [dataclasses.asdict(row) for row in measured]
        runs.write_json(args.json, {"environment": runs.environment(), "measured": rows})
    return 0


def analyze(argv: Sequence[str]) -> int:
    """Look into a trained network: gates, attractors, memory."""
    parser = _Parser(
        "analyze",
        "Show what the gates of a trained network do over time, how many attractors it reaches at every kept\n"
        "checkpoint, and how long it remembers; for agents and supervised networks.",
    )
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="a run folder")
    parser.add_argument("--episodes", metavar="N", type=_count, default=50, help="episodes or samples (default: 50)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder (default: RUN_DIR/analysis)")
    args = parser.parse_args(argv)
    if args.episodes < 2:
        raise UserError("analyze: --episodes must be at least 2, so that there is something to compare.")

    from bistable_rl.analysis.analyze import analyze

    out = args.out or args.run / "analysis"
    print("\n".join(analyze(args.run, out, episodes=args.episodes)))
    print(f"figures and tables: {out / 'analysis.md'}")
    return 0


def figures(argv: Sequence[str]) -> int:
    """Draw the figures that explain a bistable cell."""
    parser = _Parser(
        "figures",
        "Draw Figs. 1B, 2A, 2B and 2C of Vecoven et al. 2021 from our own cells, and Fig. 3 from the runs that\n"
        "`bistable-rl reproduce fig3` or `table1` has finished.",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("figures"), help="folder (default: figures)")
    parser.add_argument(
        "--runs", metavar="DIR", type=Path, default=Path("runs"), help="where those runs are (default: runs)"
    )
    args = parser.parse_args(argv)

    from bistable_rl.analysis.figures import draw_figures

    print("\n".join(draw_figures(args.out, args.runs)))
    return 0


def reproduce(argv: Sequence[str]) -> int:
    """Make a published table again, ours beside it."""
    parser = _Parser(
        "reproduce",
        "Train the grid behind a published table and write ours beside the published figures into OUT/TABLE-PRESET.\n"
        "What is finished is never repeated: after Ctrl-C, a crash, or with more seeds, the same command goes on.",
    )
    names = ("table1", "table2", "table3", "table4", "table5", "johns", "fig3")
    parser.add_argument("table", choices=names)
    parser.add_argument(
        "--preset", choices=("quick", "paper"), default="quick", help="small sizes, or the paper's (default: quick)"
    )
    parser.add_argument(
        "--protocol",
        choices=("paper", "authors_code"),
        default="paper",
        help="data and order as in the paper's text, or as in its authors' code, which goes to OUT/TABLE-PRESET-"
        "authors_code: samples in one order, other flags in table2, rows permuted and grey lines in table4 and table5, "
        "one N in table5; with --preset paper also its 100 epochs and sizes (default: paper)",
    )
    parser.add_argument("--cells", metavar="CELL,...", help="cells (default: the preset's)")
    parser.add_argument("--seeds", metavar="K,...", default="0,1,2", help="seeds (default: 0,1,2)")
    parser.add_argument("--workers", metavar="N", type=_count, help="runs at once (default: one a core)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs"), help="output folder (default: runs)")
    parser.add_argument("--estimate", action="store_true", help="say how long it will take here, from short trials")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="MNIST's folder (default: BISTABLE_RL_DATA)")
    args = parser.parse_args(list(argv))
    try:
        seeds = [_seed(text) for text in args.seeds.split(",")]
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--seeds: {error}.") from None
    if args.data_dir is not None:
        os.environ["BISTABLE_RL_DATA"] = str(args.data_dir)

    from bistable_rl.benchmarks.reproduce import reproduce

    reproduce(
        args.table,
        args.preset,
        args.out,
        cells=[] if args.cells is None else list(dict.fromkeys(args.cells.split(","))),
        seeds=list(dict.fromkeys(seeds)),
        protocol=args.protocol,
        workers=args.workers,
        estimate=args.estimate,
        command=shlex.join(["bistable-rl", "reproduce", *argv]),
    )
    return 0


def data(argv: Sequence[str]) -> int:
    """Fetch data sets."""
    parser = _Parser("data", "Fetch MNIST's four files (11 MB), unless they are there, and check them.")
    parser.add_argument("what", choices=("mnist",))
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, help="where to (default: BISTABLE_RL_DATA, or data/mnist)"
    )
    args = parser.parse_args(list(argv))

    from bistable_rl.data.digits import FOLDER, find_mnist
    from bistable_rl.data.download import fetch_mnist

    folder = find_mnist(args.data_dir or Path(os.environ.get(FOLDER) or "data/mnist"))
    fetch_mnist(folder)
    print(f"MNIST is in {folder}; use it by --data-dir {folder} or {FOLDER}={folder}")
    return 0


def list_names(argv: Sequence[str]) -> int:
    """List cells, environments, tasks or shipped configs."""
    parser = _Parser("list", "List what can be named in a config.")
    parser.add_argument("what", choices=("cells", "envs", "tasks", "configs"))
    what = parser.parse_args(argv).what
    rows: list[tuple[str, str]]
    if what == "cells":
        from bistable_rl.cells import CELLS

        rows = [(name, _first_line(cell)) for name, cell in CELLS.items()]
    elif what == "envs":
        from bistable_rl.envs import ENVIRONMENTS

        rows = [(name, _first_line(entry.batched)) for name, entry in ENVIRONMENTS.items()]
        rows.append(("any other id", "that gymnasium knows: MiniGrid-MemoryS7-v0, CartPole-v1, package:Name-v0, ..."))
    elif what == "tasks":
        from bistable_rl.benchmarks import TASKS

        rows = [(name, _first_line(task)) for name, task in TASKS.items()]
    else:
        rows = [(name, _first_comment(path)) for name, path in shipped_configs().items()]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")
    return 0


def doctor(argv: Sequence[str]) -> int:
    """Show versions, devices and the kernels in use."""
    _Parser("doctor", "Show versions, devices, and which kernels run the cells and why.").parse_args(argv)
    import torch

    from bistable_rl import kernels, runs
    from bistable_rl.cells import CELLS

    facts = runs.environment()
    print(f"python     {facts['python']} on {facts['platform']}")
    for name, version in facts["versions"].items():
        print(f"{name:<20} {version or 'not installed'}")
    print(f"cpu        {facts['processor']}, {facts['cores']} cores, torch uses {torch.get_num_threads()} threads")
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    print(f"cuda       {names or 'none'}")
    try:
        for cell, device, backend, why in kernels.describe():
            print(f"kernels    {cell} on {device}: {backend} ({why})")
    except ValueError as error:
        raise UserError(f"BISTABLE_RL_BACKEND: {one_sentence(error)}") from None
    plain = [name for name, cell in CELLS.items() if cell.kernel is None]
    print(f"kernels    {', '.join(plain)}: reference (no kernel of their own)")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "benchmark": benchmark,
    "reproduce": reproduce,
    "compare": compare,
    "evaluate": evaluate,
    "play": play,
    "analyze": analyze,
    "figures": figures,
    "tensorboard": tensorboard,
    "speed": speed,
    "data": data,
    "list": list_names,
    "doctor": doctor,
}


def _help() -> str:
    lines = [f"  {name:<11} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: bistable-rl COMMAND ...",
            "",
            "Recurrent cells that keep a memory by themselves, and agents that use them.",
            "",
            "commands:",
            *lines,
            "",
            "`bistable-rl COMMAND --help` tells more; start with `bistable-rl train rl/copy_first`.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's error becomes one sentence and exit code 2, a failed run exit code 1."""
    from bistable_rl.runs import RunFailedError

    warnings.formatwarning = lambda message, *_: f"bistable-rl: {message}\n"  # a sentence, without the line of code
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # a reader that has gone away is met here, not when Python ends
        return code
    except UserError as error:
        print(f"bistable-rl: {error}", file=sys.stderr)
        return 2
    except RunFailedError as error:
        print(f"bistable-rl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bistable-rl: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `bistable-rl list envs | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"bistable-rl {version('bistable-rl')}")
        return 0
    if argv[0] not in COMMANDS:
        raise UserError(unknown("command", argv[0], COMMANDS))
    try:
        return COMMANDS[argv[0]](argv[1:])
    except SystemExit as done:  # argparse leaves so, after its help
        return int(done.code or 0)


def _read_result(run: Path) -> dict[str, object]:
    import json

    from bistable_rl.runs import RESULT

    result: dict[str, object] = json.loads((run / RESULT).read_text(encoding="utf-8"))
    return result


def _print_summary(summary: object) -> None:
    assert isinstance(summary, dict)
    success = "" if summary["success_rate"] is None else f"success {summary['success_rate']:.3f}, "
    print(
        f"{success}return {summary['return_mean']:.3f} ± {summary['return_std']:.3f}, "
        f"length {summary['length_mean']:.1f}, over {summary['episodes']} episodes"
    )


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ") if first.startswith("#") else ""


if __name__ == "__main__":
    sys.exit(main())
