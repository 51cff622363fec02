"""Where `my_env:Name-v0` is found: behind everything installed, in the config's folder and the current one, never in a
run folder; and what lies in these folders besides is never imported, by no command and by none of its children."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ENVIRONMENT = """
import gymnasium, numpy
import my_helper
from gymnasium.spaces import Box, Discrete

class Walk(gymnasium.Env):
    observation_space, action_space = Box(-1, 1, (2,), numpy.float32), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return numpy.zeros(2, numpy.float32), {}

    def step(self, action):
        self.t += 1
        return numpy.zeros(2, numpy.float32), 1.0, self.t == my_helper.LENGTH, False, {}

gymnasium.register("Walk-v0", "my_env:Walk")
"""
CONFIG: dict[str, Any] = {
    "name": "walk",
    "env": {"id": "my_env:Walk-v0", "num_envs": 2},
    "policy": {"cell": "gru", "hidden_size": 4},
    "algorithm": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    "total_steps": 16,
    "evaluation": {"every": 16, "episodes": 2},
}
HOSTILE = ("yaml.py", "numpy.py", "sitecustomize.py", "usercustomize.py", "statistics.py", "bistable_rl/__init__.py")


def bistable(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as its console script does: without the current folder on the path."""
    path = [entry for entry in sys.path if entry and Path(entry) != Path(__file__).parent]
    start = f"import sys; sys.path[:] = {path!r}; from bistable_rl.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", start, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def mine(folder: Path) -> Path:
    """Write an environment, its helper and a config into a folder; return the config."""
    folder.mkdir(parents=True)
    (folder / "my_env.py").write_text(ENVIRONMENT)
    (folder / "my_helper.py").write_text("LENGTH = 5")
    path = folder / "walk.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def hostile(folder: Path) -> Path:
    """Fill a folder with modules that tell on themselves in a file, which is returned."""
    told = folder / "told"
    for name in HOSTILE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"open({str(told)!r}, 'a').write({name!r})")
    return told


def imported(file: Path) -> str:
    return f"importing my_env from {file}\n"


def test_an_environment_beside_its_config_trains_and_nothing_else_there_is_imported(tmp_path: Path) -> None:
    config, elsewhere = mine(tmp_path / "mine"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    told = [hostile(config.parent), hostile(elsewhere)]
    done = bistable("train", config, "--out", tmp_path / "runs", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(imported(config.parent / "my_env.py")) == 1
    run = tmp_path / "runs" / "walk" / "gru-seed0"
    done = bistable("evaluate", run, "--episodes", 2, cwd=config.parent)  # the current folder
    assert done.returncode == 0, done.stderr
    assert imported(config.parent / "my_env.py") in done.stderr
    done = bistable("evaluate", run, cwd=elsewhere)
    assert done.returncode == 2
    assert f"neither installed nor in {elsewhere}; run this in the folder that holds my_env.py, or put" in done.stderr
    assert not any(file.exists() for file in told)


def test_a_comparison_runs_no_module_of_the_folders_it_is_started_in_and_written_in(tmp_path: Path) -> None:
    config, here = mine(tmp_path / "mine"), tmp_path / "here"
    here.mkdir()
    file = {"name": "walks", "base": str(config), "grid": {"policy.cell": ["gru"]}, "seeds": [0]}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "c.yaml").write_text(yaml.safe_dump({**file, "metric": {"name": "mean_reward"}}))
    told = [hostile(folder) for folder in (config.parent, here, tmp_path / "theirs")]
    done = bistable("compare", "../theirs/c.yaml", "--workers", 1, "--out", "runs", cwd=here)
    assert done.returncode == 0, done.stderr
    assert imported(config.parent / "my_env.py") in done.stderr
    log = (here / "runs" / "walks" / "gru" / "seed0" / "log.txt").read_text()
    assert log.startswith(imported(config.parent / "my_env.py"))  # the same file as the grid's
    assert not any(file.exists() for file in told)


@pytest.mark.slow
def test_a_reproduction_and_its_estimate_run_no_module_of_the_current_folder(tmp_path: Path) -> None:
    told = hostile(tmp_path)
    arguments = ("reproduce", "table4", "--seeds", "77", "--cells", "nbrc", "--workers", "1", "--estimate")
    done = bistable(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "measuring digits N=100 nbrc (1 of 1) ..." in done.stderr
    assert not told.exists()


@pytest.mark.slow
def test_ray_s_workers_run_no_module_of_the_current_folder(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    config = mine(tmp_path / "mine")
    file = {"name": "walks", "base": CONFIG, "grid": {"policy.cell": ["gru"]}, "seeds": [0]}
    path = config.parent / "c.yaml"
    path.write_text(yaml.safe_dump({**file, "metric": {"name": "mean_reward"}}))
    here = tmp_path / "here"
    here.mkdir()
    told = [hostile(here), hostile(config.parent)]
    done = bistable("compare", path, "--launcher", "ray", "--workers", 1, "--out", "runs", cwd=here)
    assert done.returncode == 0, done.stderr
    assert (here / "runs" / "walks" / "report.md").exists()
    assert not any(file.exists() for file in told)


def test_a_module_in_a_run_folder_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    below = run / "below"
    for folder in (run, below):
        told = hostile(folder)
        (folder / "my_env.py").write_text(f"open({str(told)!r}, 'w')")
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    lies = f"lies in the run folder {run}, where no code is run; move my_env.py elsewhere if you trust it"
    done = bistable("train", "--resume", ".", cwd=run)  # what is opened as a run folder is one
    assert (done.returncode, lies in done.stderr) == (2, True), done.stderr
    (run / "result.json").write_text("{}")
    done = bistable("train", run / "config.yaml", cwd=tmp_path)
    assert (done.returncode, lies in done.stderr) == (2, True), done.stderr
    attempt = "try:\n    find_spec('my_env:Walk-v0')\nexcept ValueError as error:\n    print(error)"
    for folder, before in ((run, ""), (below, ""), (tmp_path, f"sys.path.append({str(run)!r})\n")):
        assert lies in find(folder, before + attempt).stdout
    assert f"neither installed nor in {tmp_path};" in find(tmp_path, attempt).stdout
    assert not list(tmp_path.rglob("told"))


def find(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a folder, as the library is used."""
    path = [entry for entry in sys.path if entry and Path(entry) != Path(__file__).parent]
    start = f"import sys; sys.path[:] = {path!r}\nfrom bistable_rl.envs.registry import find_spec, make_env\n{code}"
    return subprocess.run([sys.executable, "-c", start], cwd=folder, capture_output=True, text=True, timeout=120)


def test_nothing_installed_is_shadowed_and_nothing_stays_behind(tmp_path: Path) -> None:
    told = hostile(tmp_path)
    (tmp_path / "my_env.py").write_text(
        "import colorsys, gymnasium, minigrid, scipy.signal, wandb_logs\n"
        "from my_package.inner import Env\n"
        "gymnasium.register('Mine-v0', 'my_package.late:Env')\n"
    )
    (tmp_path / "wandb_logs.py").write_text("")
    for name in ("colorsys", "minigrid", "scipy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(told)!r}, 'a')")
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("import gymnasium\nclass Env(gymnasium.Env): pass")
    (package / "late.py").write_text("from my_package.inner import Env")
    code = (
        "before = list(sys.path), list(sys.meta_path)\n"
        "print(find_spec('my_env:Mine-v0').id)\n"
        "assert before == (sys.path, sys.meta_path)\n"
        "import my_package.lazy\n"  # the modules of a package are found later too
    )
    (package / "lazy.py").write_text("")
    done = find(tmp_path, code)
    assert done.stdout == "Mine-v0\n", done.stderr
    assert done.stderr == f"importing my_env from {tmp_path / 'my_env.py'}\n"
    assert not told.exists()


def test_a_folder_of_logs_is_not_taken_for_a_library_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "no_such_library").mkdir()
    (tmp_path / "my_env.py").write_text(
        "import gymnasium\ntry:\n    import no_such_library\nexcept ImportError:\n"
        "    gymnasium.register('Without-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    done = find(tmp_path, "print(make_env('my_env:Without-v0').spec.id)")
    assert done.stdout == "Without-v0\n", done.stderr


@pytest.mark.parametrize(
    ("env_id", "sentence"),
    [
        ("my_env:Walk-v0", "environment 'my_env:Walk-v0' needs the package 'my_env', which fails: ZeroDivisionError"),
        ("my.env:Walk-v0", "needs the package 'my.env', which is neither installed nor in {folder}; run this in"),
        ("../my_env:Walk-v0", "needs the package '../my_env', which is not the name of a module"),
        ("my_env:b:Walk-v0", "needs the package 'my_env:b', which is not the name of a module"),
        ("os:Walk-v0", "unknown environment id 'Walk-v0'"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(env_id: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "my_env.py").write_text("1 / 0")
    code = f"try:\n    find_spec({env_id!r})\nexcept ValueError as error:\n    print(error)"
    done = find(tmp_path, code)
    assert sentence.format(folder=tmp_path) in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "evaluate", "play", "compare"])
def test_the_help_says_where_an_environment_of_one_s_own_is_found(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from bistable_rl.cli import main

    assert main([command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "An environment of your own, my_env:Name-v0, is imported from an installed package or PYTHONPATH" in said
    assert "never from a run folder." in said
