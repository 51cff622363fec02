"""The build itself: what is on the disk, what the package list says, what ends up in a wheel and an sdist."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("envs", "agents", "configs")
NO_PACKAGES = {"results", "cpp", "templates", "__pycache__"}


@pytest.fixture(scope="module")
def setuptools() -> dict[str, Any]:
    tables: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return tables


def test_the_top_level_is_what_it_is_meant_to_be() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a clone")
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    assert top == {
        *("agents", "bistable_rl", "configs", "envs", "tests"),
        *("CITATION.cff", "LICENSE", "README.md", "pyproject.toml"),
    }


def test_the_package_list_is_the_disk(setuptools: dict[str, Any]) -> None:
    folders = {"bistable_rl", *(f"bistable_rl.{name}" for name in LINKED)}
    for top in ("bistable_rl", *LINKED[:2]):
        for folder in (ROOT / top).rglob("*"):
            parts = folder.relative_to(ROOT).parts
            if folder.is_dir() and not folder.is_symlink() and not NO_PACKAGES & set(parts):
                folders.add(".".join(parts if top == "bistable_rl" else ("bistable_rl", *parts)))
    assert set(setuptools["packages"]) == folders


def test_every_package_but_the_configs_has_an_init(setuptools: dict[str, Any]) -> None:
    for package in set(setuptools["packages"]) - {"bistable_rl.configs"}:
        assert (ROOT / Path(*package.split("."))).joinpath("__init__.py").is_file(), package


@pytest.mark.parametrize("name", LINKED)
def test_the_links_into_the_package_are_relative(name: str) -> None:
    assert os.readlink(ROOT / "bistable_rl" / name) == f"../{name}"


def test_an_editable_install_is_a_path_to_the_package_alone(setuptools: dict[str, Any]) -> None:
    assert setuptools["package-dir"] == {"": ".src"}  # of any other form setuptools makes a finder, which hides types
    assert [path.name for path in (ROOT / ".src").iterdir() if path.suffix != ".egg-info"] == ["bistable_rl"]
    assert os.readlink(ROOT / ".src" / "bistable_rl") == "../bistable_rl"


def sources() -> set[str]:
    """Return the files that must be in a wheel."""
    files = {"bistable_rl/py.typed"}
    for top, prefix in (("bistable_rl", ""), ("envs", "bistable_rl/"), ("agents", "bistable_rl/")):
        for path in (ROOT / top).rglob("*.py"):
            if not NO_PACKAGES & set(path.parts) and not any(p.is_symlink() for p in path.parents if ROOT in p.parents):
                files.add(prefix + str(path.relative_to(ROOT)))
    files |= {str(path.relative_to(ROOT)) for path in (ROOT / "bistable_rl" / "compare").rglob("*.jinja")}
    return files | {f"bistable_rl/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}


@pytest.mark.slow
def test_wheel_and_sdist_hold_every_source_and_nothing_else(tmp_path: Path) -> None:
    """The wheel is built from the sdist, so it shows that the sdist is complete."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run([sys.executable, "-m", "build", "-o", str(tmp_path / "dist"), str(clone)], check=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name for name in names if not name.endswith(".so")} == sources()
    [sdist] = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= inside
    assert {f".src/{name}" for name in sources()} <= inside
    assert {f"bistable_rl/kernels/cpp/{path.name}" for path in (ROOT / "bistable_rl/kernels/cpp").glob("*.h")} <= inside
    assert not any("results" in name for name in inside | names)


@pytest.mark.slow
def test_an_installed_wheel_works_away_from_the_clone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "-w", "-o", str(tmp_path), str(ROOT)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "-t", str(site), str(wheel)], check=True)
    code = (
        "import bistable_rl, bistable_rl.envs, sys; assert bistable_rl.__file__.startswith(sys.argv[1]); "
        "from bistable_rl.cli import main; sys.exit(main(['train', 'rl/t_maze', '--env.num_envs', '2', "
        "'--algorithm.batch_size', '64', '--algorithm.n_steps', '32', '--total_steps', '64', '--out', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", code, str(site), str(tmp_path / "runs")]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)})


USES_TYPES = """
from bistable_rl import NBRC, bifurcation, load
from bistable_rl.agents import RecurrentPPO

rnn = NBRC(10, 64, num_layers=2)
reveal_type(rnn)
reveal_type(bifurcation(rnn.layers[0], [0.9, 1.5]).h)
model = RecurrentPPO("RecurrentPolicy", "CartPole-v1", 3e-4, n_steps=8)
reveal_type(model.rollout_buffer.rewards)
reveal_type(load("runs/t_maze/nbrc-seed0"))
RecurrentPPO("RecurrentPolicy", "CartPole-v1", n_stepz=8)
"""


@pytest.mark.slow
def test_type_checkers_see_an_editable_install(tmp_path: Path) -> None:
    """From a file outside the clone, in an environment where pip has installed it as the README says."""
    clone, site = tmp_path / "clone", tmp_path / "venv"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(site)], check=True)
    python = site / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "-e", str(clone)], check=True)
    [packages] = site.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"{Path(torch.__path__[0]).parent}\n")  # what --no-deps left out
    (tmp_path / "use.py").write_text(USES_TYPES)
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "use.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    for line, text in (
        (6, "bistable_rl.rnn.NBRC"),
        (7, "numpy.ndarray"),
        (9, "numpy.ndarray"),
        (10, "agents.agent.Agent"),
    ):
        assert any(f"use.py:{line}: note" in found and text in found for found in done.stdout.splitlines()), done.stdout
    assert 'use.py:11: error: Unexpected keyword argument "n_stepz"' in done.stdout
    assert "Found 1 error" in done.stdout
