"""Fuzzing: seeded mutations of config files, command lines, run folders and archives.

A case is a kind and a number, which seed it: `pytest -m slow "tests/test_fuzz.py::test_hostile_input[run-17]"` repeats
one. It gets a folder of its own, which stays behind when it fails:

    run-17/here/      where the command runs; what it is given lies here
    run-17/outside/   what it must not touch: a home with hidden folders, another run, devices; links lead here

Every case runs in a process of its own, forked from a server that has imported everything, with a limit on memory and
time. What it is given may make it fail, in one sentence; `_complaints` says what must never happen.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzz_mutations import PAYLOAD, mutate_argv, mutate_bytes, mutate_file, mutate_folder, mutate_tree, to_yaml

pytestmark = pytest.mark.slow

MEMORY = 3 << 30  # bytes beyond what the server has
SECONDS, GRACE = 40.0, 10.0  # until a case counts as hung; until it has to have followed Ctrl-C
HUNG = -99
PATIENCE = 3.0  # seconds until a case that asks for a lot of work gets Ctrl-C
MUCH_WORK = re.compile(r"\d{5}|\de\+?\d|speed|reproduce|figures|doctor")
WORK = re.compile(r"\btotal_steps: |\btrain_size: [\s\S]*\bepochs: ")  # without them a training is long

RL, SUPERVISED, COMPARISON, STUDY = yaml.safe_load_all("""
name: tiny
env: {id: bistable_rl/CopyFirst-v0, kwargs: {length: 3, num_symbols: 2}, wrappers: [], num_envs: 2}
policy: {cell: nbrc, hidden_size: 4, num_layers: 1, cell_kwargs: {}, net_arch: [4]}
algorithm: {learning_rate: [0.001, 0.0001], n_steps: 8, batch_size: 8, n_epochs: 1, gamma: 0.9}
total_steps: 32
evaluation: {every: 16, episodes: 2, horizons: [4]}
checkpoint: {every: 16, keep: 2}
warmup: {steps: 0}
seed: 0
device: cpu
---
name: tiny
task: {name: copy_first, kwargs: {length: 3, train_size: 40, test_size: 10}}
network: {cell: brc, hidden_size: 4, num_layers: 1, cell_kwargs: {}}
training: {batch_size: 10, epochs: 1, learning_rate: 0.01, max_grad_norm: 1.0}
checkpoint: {every: 2}
seed: 0
device: cpu
---
name: grid
variants: {one: {policy.cell: nbrc}, two: {policy.cell: gru}}
grid: {env.kwargs.length: [3]}
seeds: [0, 1]
metric: {name: success_rate, threshold: 0.5}
---
name: study
changes: {evaluation.every: 8}
space:
  policy.cell: [nbrc, gru]
  policy.cell_kwargs.start: {choices: [paper, halves], when: {policy.cell: nbrc}}
  algorithm.learning_rate: {low: 0.0001, high: 0.01, log: true}
  policy.hidden_size: {low: 2, high: 8, step: 2}
seeds: [0]
objective: {name: success_rate, better: higher}
trials: 3
pruner: {name: median, warmup: 1, startup_trials: 1}
sampler: {name: random, startup_trials: 1, seed: 0}
""")
CONFIGS = {"rl.yaml": RL, "supervised.yaml": SUPERVISED, "compare.yaml": {**COMPARISON, "base": RL}}
CONFIGS["tune.yaml"] = {**STUDY, "base": RL}
COMMANDS = {"rl.yaml": "train", "supervised.yaml": "benchmark", "compare.yaml": "compare", "tune.yaml": "tune"}

# --- cases ----------------------------------------------------------------------------------------------------

LINES = """
train rl.yaml --out out --policy.cell gru --env.kwargs.length 4 --seed 1
train --resume run --total_steps 48
train rl.yaml --overwrite --out . --algorithm.learning_rate [1e-3,1e-4] --evaluation.horizons [5]
benchmark supervised.yaml --out out --network.cell lstm --task.kwargs.length 2
benchmark --resume bench
compare compare.yaml --out . --workers 2 --dry-run
evaluate run --episodes 2 --json out.json --env.kwargs.length 5
evaluate run --horizons 3,4 --episodes 2 --figure out.png --best
evaluate run --streams sticky,blocks --horizons 3,4 --episodes 2 --json out.json --figure out.png
evaluate run --adversary --steps 9 --json out.json --env.kwargs.length 3
play --run run --episodes 1 --seed 3 --save out.gif
play bistable_rl/CopyFirst-v0 --env.kwargs.length 3 --seed 1
analyze run --episodes 2 --out looked
tensorboard run --port 0
list envs
list cells
data mnist --data-dir folder
train --help
evaluate --help
doctor
speed cells --shapes 1,2,1,2 --json out.json
reproduce table1 --settings T=5 --cells gru --seeds 0 --out out --estimate
figures --out out --runs .
"""


@dataclass
class Case:
    """What a case runs: a command line, or `api NAME`, in the encoding of a terminal."""

    argv: list[str]
    encoding: str = "utf-8"


def config_case(rng: random.Random, here: Path, outside: Path) -> Case:
    name = rng.choice(("rl.yaml", "rl.yaml", "supervised.yaml", "compare.yaml"))
    data: Any = CONFIGS[name]
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = mutate_tree(rng, data)
    text = to_yaml(data)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        text = mutate_bytes(rng, text)
    (here / name).write_bytes(text)
    dry = ["--dry-run"] if name == "compare.yaml" and rng.random() < 0.5 else []
    return Case([COMMANDS[name], name, "--out", "out", *dry])


def argv_case(rng: random.Random, here: Path, outside: Path) -> Case:
    for name in ("run", "bench", "grid"):
        shutil.copytree(here.parent.parent / "bases" / name, here / name)
    for name, data in CONFIGS.items():
        (here / name).write_bytes(to_yaml(data))
    (here / "folder").mkdir()
    (here / "text.txt").write_text("text")
    links = {"loop": "loop", "dangling": "gone", "null": "../outside/dev/null", "full": "../outside/dev/full"}
    for link, target in links.items():
        (here / link).symlink_to(target)
    argv = rng.choice(LINES.strip().splitlines()[: rng.choice((18, 23))]).split()
    for _ in range(rng.choice((1, 1, 2, 3))):
        argv = mutate_argv(rng, argv) if argv else argv
    return Case(argv, rng.choice(("utf-8", "utf-8", "ascii", "latin-1", "cp1252")))


RUN_LINES = {
    "run": """train --resume run --total_steps 48
train --resume run --total_steps 48
train --resume run
evaluate run --episodes 2 --json out.json
evaluate run --episodes 2 --best
evaluate run --episodes 2 --horizons 3 --json out.json
evaluate run --episodes 2 --streams all --best
evaluate run --adversary --steps 9
analyze run --episodes 2
play --run run --save out.gif
tensorboard run""",
    "bench": "benchmark --resume bench\nbenchmark --resume bench\nanalyze bench --episodes 2",
    "grid": "compare compare.yaml --out .\ncompare compare.yaml --out . --dry-run",
}


def run_case(rng: random.Random, here: Path, outside: Path) -> Case:
    name = rng.choice(("run", "run", "run", "bench", "grid"))
    shutil.copytree(here.parent.parent / "bases" / name, here / name)
    (here / "compare.yaml").write_bytes(to_yaml(CONFIGS["compare.yaml"]))
    if name != "grid" and rng.random() < 0.5:  # it was stopped
        (here / name / "result.json").unlink()
        shutil.rmtree(max((here / name / "checkpoints").glob("0*")))
    for _ in range(rng.choice((1, 1, 2, 3))):
        if (here / name).is_dir() and not (here / name).is_symlink():
            mutate_folder(rng, here / name, outside)
    return Case(rng.choice(RUN_LINES[name].splitlines()).split())


def archive_case(rng: random.Random, here: Path, outside: Path) -> Case:
    name = rng.choice(("model.zip", "model.zip", "sb3.zip"))
    data = (here.parent.parent / "bases" / name).read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(len(members))
        member, content = members[i]
        how = rng.randrange(10)
        if how == 0:
            del members[i]
            members = members or [("data", b"")]
        elif how == 1:
            members.append((rng.choice(("../ran", "/ran", "payload.py", member, "a\0", "é/", "x" * 300)), PAYLOAD))
        elif how == 2:
            members[i] = (member, PAYLOAD)
        else:
            members[i] = (member, mutate_file(rng, content, member))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", rng.choice((0, 0, 0, 0, 0, 8))) as archive:
        warnings.simplefilter("ignore")  # a name twice
        for member, content in members:
            archive.writestr(zipfile.ZipInfo(member), content)
    data = buffer.getvalue() if rng.random() < 0.8 else mutate_bytes(rng, buffer.getvalue())
    (here / name).write_bytes(data)
    function = rng.choice(("load", "load_with_env", "bistable_rl.load"))
    return Case(["api", "import_sb3" if name == "sb3.zip" else function])


def tune_case(rng: random.Random, here: Path, outside: Path) -> Case:
    how, data = rng.randrange(10), CONFIGS["tune.yaml"]
    for _ in range(rng.choice((1, 1, 2, 3)) if how < 6 else 0):
        part = rng.choice(("space", "space", "all"))
        data = {**data, part: mutate_tree(rng, data.get(part))} if part in data else mutate_tree(rng, data)
        if not isinstance(data, dict):
            break
    text = to_yaml(data)
    for _ in range(rng.choice((0, 0, 0, 1)) if how < 6 else 0):
        text = mutate_bytes(rng, text)
    (here / "tune.yaml").write_bytes(text)
    argv = ["tune", "tune.yaml", "--out", ".", *(["--dry-run"] if rng.random() < 0.4 else [])]
    if how >= 6:  # a study that has begun
        shutil.copytree(here.parent.parent / "bases" / "study", here / "tune/study")
    for _ in range(rng.choice((1, 1, 2)) if how in (6, 7) else 0):
        if (here / "tune/study").is_dir() and not (here / "tune/study").is_symlink():
            mutate_folder(rng, here / "tune/study", outside)
    if how >= 8:
        argv += rng.choice((["--trials", "5"], ["--storage", "sqlite:///a.db"], ["--workers", "2"]))
        for _ in range(rng.choice((1, 1, 2))):
            argv = mutate_argv(rng, argv) if argv else argv
    return Case(argv)


KINDS = {
    "config": (config_case, 650),
    "argv": (argv_case, 450),
    "run": (run_case, 600),
    "archive": (archive_case, 300),
    "tune": (tune_case, 300),
}

# --- the process of a case ------------------------------------------------------------------------------------


def _api(name: str) -> int:
    """Call one of the functions that open an archive; its UserError is a sentence, as in the command."""

    import bistable_rl
    from bistable_rl.agents import RecurrentPPO
    from bistable_rl.agents.vec_envs import make_vec_env
    from bistable_rl.errors import UserError
    from bistable_rl.runs.schema import EnvConfig

    def env() -> Any:
        return make_vec_env(EnvConfig("bistable_rl/CopyFirst-v0", {"length": 3, "num_symbols": 2}), 2, seed=0)

    def algorithm(cls: Any, policy: str, **policy_kwargs: Any) -> Any:
        settings = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "seed": 0, "device": "cpu"}
        return cls(policy, env(), policy_kwargs=policy_kwargs, **settings)

    try:
        if name == "make":
            import sb3_contrib

            algorithm(RecurrentPPO, "RecurrentPolicy", cell="nbrc", hidden_size=4).learn(32).save("model.zip")
            algorithm(sb3_contrib.RecurrentPPO, "MlpLstmPolicy", lstm_hidden_size=4).save("sb3.zip")
        elif name == "bistable_rl.load":
            bistable_rl.load("model.zip")
        elif name == "import_sb3":
            theirs = {"cell": "lstm", "hidden_size": 4, "critic": "separate", "net_arch": [64, 64]}
            model = algorithm(RecurrentPPO, "RecurrentPolicy", **theirs)
            model.import_sb3("sb3.zip")
        else:
            model = RecurrentPPO.load("model.zip", env() if name == "load_with_env" else None, device="cpu")
            model.predict(model.observation_space.sample())
    except UserError as error:
        print(f"bistable-rl: {error}", file=sys.stderr)
        return 2
    return 0


def _carry_out(case: Case, folder: Path) -> None:
    """Run a case in a fresh process, and leave its output beside its folder."""
    os.setsid()
    os.chdir(folder / "here")
    os.environ |= {"HOME": str(folder / "outside/home"), "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    for descriptor, name in enumerate((os.devnull, str(folder / "stdout"), str(folder / "stderr"))):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), descriptor)
    sys.stdout.reconfigure(encoding=case.encoding)  # type: ignore[union-attr]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 99
    try:
        import fake_run
        from tensorboard.program import TensorBoard, TensorBoardServerException

        from bistable_rl.cli import main
        from bistable_rl.compare.launchers import local

        def refuse(_: object) -> str:
            raise TensorBoardServerException("no server here")

        TensorBoard.launch = refuse
        slept: Callable[[float], None] = time.sleep
        time.sleep = lambda seconds: slept(min(float(seconds), 0.02))  # `play` shows a step every 0.3 s
        local.LocalLauncher = partial(local.LocalLauncher, command=fake_run.command)  # type: ignore[misc, assignment]
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        code = _api(case.argv[1]) if case.argv[:1] == ["api"] else main(case.argv)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(scope="module")
def server() -> Any:
    """Return what starts processes that have imported everything already."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    modules = "analysis.analyze analysis.horizons analysis.adversary agents.training agents.play benchmarks.runner cli"
    others = "pytest torch._dynamo docstring_parser attr matplotlib.pyplot sb3_contrib tensorboard.program minigrid"
    ours = [f"bistable_rl.{name}" for name in (*modules.split(), "compare.command", "tune.command")]
    context.set_forkserver_preload([*others.split(), *ours])
    return context


def _is_long(case: Case, folder: Path) -> bool:
    """Return whether a case may rightly take long: it has a large number somewhere, or no limit on its training."""
    files = [p.read_text(errors="replace") for p in folder.glob("here/**/*.yaml") if p.is_file()]
    return bool(MUCH_WORK.search(" ".join([*case.argv, *files]))) or not all(map(WORK.search, files))


def _run(server: Any, case: Case, folder: Path) -> tuple[int, str, str]:
    """Carry out a case; return its exit code (HUNG if it had to be killed), stdout and stderr."""
    process = server.Process(target=_carry_out, args=(case, folder))
    process.start()
    stopped = _is_long(case, folder)
    process.join(PATIENCE if stopped else SECONDS)
    for _ in range(2 * stopped):  # the second Ctrl-C ends what has yet to finish a step
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGINT)
            process.join(GRACE)
    hung = process.exitcode is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    outputs = [(folder / name).read_bytes().decode("utf-8", "replace") for name in ("stdout", "stderr")]
    return (HUNG if hung else process.exitcode), outputs[0], outputs[1]


def _state(root: Path) -> dict[str, tuple[object, ...]]:
    """Return all there is below a folder: kinds, times and contents."""
    state: dict[str, tuple[object, ...]] = {}
    for path in (root, *root.rglob("*")):
        seen = path.lstat()
        if stat.S_ISREG(seen.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            state[str(path)] = (seen.st_mode, seen.st_ino, seen.st_mtime_ns, content)
        else:
            state[str(path)] = (seen.st_mode, seen.st_mtime_ns if path.is_dir() else 0)
    return state


def _complaints(code: int, stdout: str, stderr: str) -> list[str]:
    """Return what is wrong with how a command ended."""
    sentences = [line for line in stderr.split("\n") if line.startswith("bistable-rl: ")]
    last = stderr.rstrip("\n").rpartition("\n")[2]
    wrong = []
    if code == HUNG:
        wrong.append("it hung")
    elif code not in (0, 1, 2, 130, 143):
        wrong.append(f"its exit code is {code}")
    if "Traceback" in stdout + stderr:
        wrong.append("it shows a traceback")
    if code in (1, 2) and not (len(sentences) == 1 and sentences[0] == last and " object at 0x" not in last):
        wrong.append(f"it ends with {len(sentences)} sentences")
    return wrong


@pytest.fixture(scope="module")
def root(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all cases, with a run, a benchmark, a comparison and archives in its `bases`."""
    root = tmp_path_factory.mktemp("fuzz")
    here = root / "making/here"
    here.mkdir(parents=True)
    for name, data in CONFIGS.items():
        (here / name).write_bytes(to_yaml(data))
    for line in (
        "train rl.yaml",
        "benchmark supervised.yaml",
        "compare compare.yaml --out .",
        "tune tune.yaml --out .",
        "api make",
    ):
        code, stdout, stderr = _run(server, Case(line.split()), root / "making")
        assert code == 0, stdout + stderr
    (root / "bases").mkdir()
    for made, name in (
        ("runs/tiny/nbrc-seed0", "run"),
        ("runs/tiny/brc-seed0", "bench"),
        ("grid", "grid"),
        ("tune/study", "study"),
    ):
        (here / made).rename(root / "bases" / name)
    for name in ("model.zip", "sb3.zip"):
        (here / name).rename(root / "bases" / name)
    return root


def _make_outside(root: Path, outside: Path) -> None:
    for file in ("home/.ssh/id", "home/.config/settings", "home/notes.txt", "home/.hidden/deep/file"):
        (outside / file).parent.mkdir(parents=True, exist_ok=True)
        (outside / file).write_text("precious")
    shutil.copytree(root / "bases/run", outside / "run")
    (outside / "dev").mkdir()
    os.mkfifo(outside / "dev/pipe")
    for name, minor in (("null", 3), ("zero", 5), ("full", 7)):
        try:
            os.mknod(outside / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        except PermissionError:  # only root may
            os.mkfifo(outside / "dev" / name)


@pytest.mark.parametrize(("kind", "number"), [(kind, i) for kind, (_, count) in KINDS.items() for i in range(count)])
def test_hostile_input(server: Any, root: Path, kind: str, number: int) -> None:
    folder = root / f"{kind}-{number}"
    (folder / "here").mkdir(parents=True)
    outside = folder / "outside"
    _make_outside(root, outside)
    case = KINDS[kind][0](random.Random(f"{kind}-{number}"), folder / "here", outside)
    before = _state(outside)
    code, stdout, stderr = _run(server, case, folder)
    wrong = _complaints(code, stdout, stderr)
    after = _state(outside)
    if after != before:
        wrong.append(f"outside has changed: {sorted(p for p in before | after if before.get(p) != after.get(p))}")
    if wrong:
        pytest.fail(f"{'; '.join(wrong)}: {case} in {folder}\n{stdout[-1000:]}\n{stderr[-4000:]}", pytrace=False)
    shutil.rmtree(folder)
