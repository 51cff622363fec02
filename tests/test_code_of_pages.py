"""Each block of code in the pages does what it says, in a temporary folder: one test per page.

Python and shell blocks run one after the other; a YAML block that begins with `name:` is read as its command reads it,
and written to `<name>.yaml` for the blocks below. HTML comments of Sybil's stand above blocks:

    <!-- skip: next if(not slow, reason="trains for 30 s") -->      only runs under `pytest -m slow`
    <!-- skip: next "needs two machines" -->                        never runs
    <!-- invisible-code: bash                                       runs, and is not shown
    cp -r somewhere runs
    -->
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest
from unittest.mock import patch

import gymnasium
import pytest
import yaml

pytest.importorskip("sybil")

from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from bistable_rl.compare import comparison
from bistable_rl.envs import ENVIRONMENTS
from bistable_rl.runs.config import build, read_yaml
from bistable_rl.runs.schema import CONFIG_KINDS, kind_of
from bistable_rl.tune import tuning

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / ".site" / "conf.py"  # missing outside a clone, where there are no pages
PARTS = runpy.run_path(str(CONF))["PAGES"] if CONF.is_file() else {}
PAGES = [ROOT / file for part in PARTS.values() for file in part.values() if not file.startswith(".site/")]
SLOW = "if(not slow"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


CODE = [page for page in PAGES if page.is_file() and "\n```" in page.read_text("utf-8")]


TENSORBOARD = """
bistable-rl() {
    if [ "$1" = tensorboard ]; then set -- tensorboard --help; fi
    command bistable-rl "$@"
}
"""
"""TensorBoard serves until it is stopped, so it is not started."""


def run_shell(example: Example) -> None:
    """Run a block of bash commands up to the first that fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", TENSORBOARD + example.parsed],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{example.parsed}\nends with {done.returncode}:\n{done.stdout[-5000:]}"


def read_config(example: Example) -> None:
    """Read a configuration as its command does."""
    text = str(example.parsed)
    if not text.startswith("name:"):
        return
    path = Path(f"{yaml.safe_load(text)['name']}.yaml")
    path.write_text(text, encoding="utf-8")
    data = read_yaml(path)
    if "space" in data:
        tuning.read(path)
    elif CONFIG_KINDS.keys() & data.keys():
        build(kind_of(data, str(path)), data, str(path))
    else:
        comparison.read(path, Path("runs"))


def run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *, slow: bool) -> list[str]:
    """Run the blocks of a page in a folder, and forget what they registered; return why blocks were skipped."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    python, bash = CodeBlockParser("python", PythonEvaluator()), CodeBlockParser("bash", run_shell)
    document = Document.parse(str(page), python, bash, CodeBlockParser("yaml", read_config), SkipParser())
    document.namespace.update(slow=slow, __name__="__main__")
    skipped = []
    with patch.dict(gymnasium.registry):
        for example in document.examples():
            try:
                example.evaluate()
            except SkipTest as reason:
                skipped.append(str(reason))
    assert ENVIRONMENTS.keys() <= gymnasium.registry.keys()  # imported above, or the first page would forget them, too
    return skipped


@pytest.mark.parametrize("page", CODE, ids=name_of)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(page, tmp_path, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in CODE if SLOW in page.read_text("utf-8")], ids=name_of)
def test_the_long_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(page, tmp_path, monkeypatch, slow=True)


PAGE = """
<!-- invisible-code: bash
echo 1 > made
-->

```yaml
name: mine
env: {id: "bistable_rl/CopyFirst-v0"}
```

<!-- skip: next if(not slow, reason="long") -->

```python
open("long", "w").close()
```

```bash
test -f mine.yaml
cat made
```

<!-- skip: next "no" -->

```python
raise AssertionError
```

```python
print(open("made").read())
```
"""


@pytest.mark.parametrize("slow", [False, True])
def test_blocks_run_unless_they_are_skipped(slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    assert run(tmp_path / "page.md", tmp_path, monkeypatch, slow=slow) == ["long"] * (not slow) + ["no"]
    assert (tmp_path / "long").exists() == slow


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("test -f mine.yaml", "false | cat", "ends with 1"),
        ("print(open", "print(opn", "opn"),
        ("env: {id", "env: {idd", "idd"),
    ],
)
def test_a_block_that_fails_is_found(
    old: str, new: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.md").write_text(PAGE.replace(old, new))
    with pytest.raises(Exception, match=error):
        run(tmp_path / "page.md", tmp_path, monkeypatch, slow=False)
