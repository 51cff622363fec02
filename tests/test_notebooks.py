"""The notebooks run, at the small size that their first cell gives in comments, and are shipped with their output."""

from pathlib import Path
from typing import Any

import pytest

BOOKS = sorted((Path(__file__).resolve().parent.parent / ".site" / "notebooks").glob("*.ipynb"))
SMALL = "# small:"
pytestmark = pytest.mark.skipif(not BOOKS, reason="not a clone")


def read(book: Path) -> Any:
    return pytest.importorskip("nbformat").read(book, 4)


def code(book: Path) -> list[Any]:
    return [cell for cell in read(book).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_output_is_shipped_and_holds_no_error(book: Path) -> None:
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output.output_type != "error" for output in outputs)
    assert all(cell.execution_count for cell in code(book))


@pytest.mark.slow
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_runs_at_small_size(book: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    notebook = read(book)
    cell = next(cell for cell in notebook.cells if SMALL in cell.source)
    lines = cell.source.splitlines()
    cell.source = "\n".join(
        f"{line.split(' = ')[0]} = {line.split(SMALL)[1]}" if SMALL in line else line for line in lines
    )
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
