"""A new cell takes the steps of CONTRIBUTING's "Add a cell", with its example, in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / ".github" / "CONTRIBUTING.md"
EQUATION = """
def mine(w: Weights, x: Array, h: Array) -> Array:
    u_z, u_n = np.split(x @ w["weight_ih"].T + w["bias"], 2, axis=1)
    z = sigmoid(u_z + w["weight_hh"] * h)
    return z * h + (1 - z) * np.tanh(0.5 * u_n)


VARIANTS["mine"] = ("mine", {"s": 0.5}, mine)
"""


def insert(file: Path, before: str, text: str) -> None:
    source = file.read_text(encoding="utf-8")
    assert source.count(before) == 1
    file.write_text(source.replace(before, text + before), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package and its tests that has one cell more."""
    root = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "results", "gpu", ".*")
    for name in ("bistable_rl", "agents", "envs", "configs", "tests"):
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)
    cells = root / "bistable_rl/cells"
    section = PAGE.read_text(encoding="utf-8").partition("## Add a cell")[2].partition("\n## ")[0]
    cell, _, layers = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (cells / "mine.py").write_text(cell, encoding="utf-8")
    insert(cells / "__init__.py", "from bistable_rl.cells.nbrc", "from bistable_rl.cells.mine import MineCell\n")
    insert(cells / "__init__.py", '    "nbrc": NBRCCell,', '    "mine": MineCell,\n')
    insert(root / "tests/test_cells_equations.py", "F, H, B, T = ", EQUATION.lstrip("\n"))
    insert(cells / "options.py", '    "device": "Device of', '    "s": "The slope of the candidate.",\n')
    insert(root / "bistable_rl/rnn.py", "def from_torch", f"{layers}\n\n")
    insert(root / "bistable_rl/rnn.py", '"PBRC", "RNN",', '"Mine", ')
    insert(root / "bistable_rl/__init__.py", "        HalfPBRC,\n", "        Mine,\n")
    insert(root / "bistable_rl/__init__.py", '*("RNN", "make_rnn"', '"Mine", ')
    insert(root / "bistable_rl/__init__.py", '    "PlasticGRU",\n    "Run",', '    "Mine",\n')
    insert(cells / "README.md", "| `mixed` |", "| `Mine` | tests | 1 | everything | plain loop |\n")
    return root


def run(root: Path, *arguments: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_cell_passes_the_tests_of_every_cell(copy: Path) -> None:
    files = ("cells_equations", "rnn", "transforms", "policies")
    out = run(copy, "-m", "pytest", "-k", "mine or every_cell", *(f"tests/test_{name}.py" for name in files))
    assert int(out.split(" passed")[0].split()[-1]) > 60
    assert "skipped" not in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("bistable_rl/rnn.py", '"Mine", '),
        ("bistable_rl/__init__.py", "        Mine,\n"),
        ("bistable_rl/__init__.py", '"Mine", '),
        ("bistable_rl/__init__.py", '    "Mine",\n'),
        ("bistable_rl/cells/options.py", '    "s": "The slope of the candidate.",\n'),
        ("bistable_rl/cells/README.md", "| `Mine` | tests | 1 | everything | plain loop |\n"),
    ],
)
def test_a_step_that_is_forgotten_is_noticed(copy: Path, file: str, line: str) -> None:
    whole = (copy / file).read_text(encoding="utf-8")
    assert whole.count(line) == 1
    (copy / file).write_text(whole.replace(line, ""), encoding="utf-8")
    try:
        with pytest.raises(AssertionError, match="1 failed"):
            run(copy, "-m", "pytest", "-k", "mine and (class or exported)", "tests/test_rnn.py")
    finally:
        (copy / file).write_text(whole, encoding="utf-8")


def test_a_new_cell_is_listed_trained_saved_loaded_and_analysed(copy: Path, config: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "runs" / "small" / "mine-seed0")
    options = ["--policy.cell", "mine", "--policy.cell_kwargs", '{"s": 1.5, "c_bias": "chrono", "t_max": 9}']
    commands = [
        ["list", "cells"],
        ["train", str(config), *options, "--out", str(tmp_path / "runs")],
        ["evaluate", folder, "--episodes", "2"],
        ["analyze", folder, "--episodes", "4"],
    ]
    code = (
        "import json, sys; from bistable_rl.cli import main; sys.exit(any([main(c) for c in json.loads(sys.argv[1])]))"
    )
    out = run(copy, "-c", code, json.dumps(commands))
    assert "mine         Mine: a cell with an option of its own, s.\n" in out
    assert "2 episodes" in out
    result = json.loads((Path(folder) / "result.json").read_text())
    assert result["status"] == "finished"
    assert "mean z" in (Path(folder) / "analysis" / "aligned.csv").read_text()
