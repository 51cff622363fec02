"""The tables of the pages are those of the committed results."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOUND = {page.resolve() for pattern in ("*.md", "*/**/*.md") for page in ROOT.glob(pattern)}
PAGES = sorted(page for page in FOUND if "[[[cog" in page.read_text("utf-8"))
pytestmark = pytest.mark.skipif(not (ROOT / ".site").is_dir(), reason="not a clone")


def test_pages_have_tables() -> None:
    assert ROOT / "agents" / "README.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_and_the_results_agree(page: Path) -> None:
    command = [sys.executable, "-m", "cogapp", "--check", "--diff", "-I", str(ROOT / ".site"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
