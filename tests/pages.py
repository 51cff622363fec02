"""The pages of a clone, those of the site, and the blocks of code in them."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / ".site" / "conf.py"
_PARTS = runpy.run_path(str(CONF))["PAGES"] if CONF.is_file() else {}
_FILES = [file for part in _PARTS.values() for file in part.values()]
PAGES = [ROOT / file for file in _FILES if not file.startswith(".site/") and (ROOT / file).is_file()]
"""The pages that exist; none outside a clone."""


def block(language: str, *words: str) -> str:
    """Return the one block of the pages in this language that holds all these words."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    blocks = [code for page in PAGES for code in pattern.findall(page.read_text("utf-8"))]
    [found] = [code for code in blocks if all(word in code for word in words)]
    return found
