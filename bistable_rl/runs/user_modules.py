"""Modules of a user's own, which an environment's id asks for: `my_env:Corridor-v0` imports `my_env`.

What is installed comes first. A module that is not is looked for in the folders that `search` was told, such as that of
the config file, and then in the current one: behind every other finder and for its own import alone, so that no file
there takes the place of a library's or of ours. Helpers that it imports meanwhile are found in the same way, and the
modules of a package always. What lies in a run folder is refused: a run folder is data, often somebody else's.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from bistable_rl.runs.folder import run_folder_of

_folders: list[Path] = []


class RefusedError(ImportError):
    """A module that is not there or is not to be imported; the message goes on after "the package 'name', "."""


def search(folders: Iterable[Path]) -> None:
    """Look for modules in these folders from now on, before the current one; in place of those named earlier."""
    _folders[:] = folders


def folders() -> list[Path]:
    """Return the folders that are searched after everything installed, in their order; none in a run folder."""
    try:
        found = [folder.resolve() for folder in (*_folders, Path.cwd())]
    except OSError:  # the current folder has been deleted
        found = [folder.resolve() for folder in _folders]
    return list(dict.fromkeys(found))


def load(module: str) -> None:
    """Import a module, and say on stderr from where, unless it has been imported already.

    Raises:
        RefusedError: There is none of that name, or it lies in a run folder.
        Exception: Whatever the module raises.
    """
    if module in sys.modules:
        return
    if not all(part.isidentifier() for part in module.split(".")):
        raise RefusedError("which is no name of a module")
    top = module.partition(".")[0]
    if top in sys.modules:
        importlib.import_module(module)
        return
    spec, last = importlib.util.find_spec(top), None
    if spec is None:
        last = _Last(top, folders())
        spec = last.find_spec(top)
    if spec is None:
        searched = " or ".join(map(str, folders())) or "the current folder, which is gone"
        raise RefusedError(
            f"which is neither installed nor in {searched}; run this in the folder that holds {top}.py, "
            "or put that folder on PYTHONPATH"
        )
    for place in _places(spec):
        run = run_folder_of(place)
        if run is not None:
            raise RefusedError(
                f"which lies in the run folder {run}, where no code is run; move {place.name} elsewhere if you trust it"
            )
    print(f"importing {top} from {', '.join(map(str, _places(spec))) or spec.origin}", file=sys.stderr, flush=True)
    with _behind_all_others(last):
        importlib.import_module(module)


def _places(spec: ModuleSpec) -> list[Path]:
    """Return the file of a module, or the folders of a package without one; nothing for one of Python's own."""
    if spec.has_location and spec.origin is not None:
        return [Path(spec.origin).absolute()]
    return [Path(folder).absolute() for folder in spec.submodule_search_locations or ()]


class _Last:
    """A finder of modules in some folders, but for what lies in a run folder there.

    Args:
        top: The module that is asked for. A folder of another name is no package without an `__init__.py`, or a
            library that is tried for and not installed would be taken for the folder of its logs.
        folders: Where to look.
    """

    def __init__(self, top: str, folders: Sequence[Path]) -> None:
        self._top = top
        self._all = [str(folder) for folder in folders]
        self._trusted = [str(folder) for folder in folders if run_folder_of(folder / "module.py") is None]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as `importlib.abc.MetaPathFinder.find_spec` does; the asked one in a run folder too."""
        if path is not None:
            return None
        spec = PathFinder.find_spec(name, self._all if name == self._top else self._trusted)
        return spec if spec is not None and (spec.has_location or name == self._top) else None


@contextmanager
def _behind_all_others(finder: _Last | None) -> Iterator[None]:
    """Let Python ask a finder after all others."""
    if finder is None:
        yield
        return
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
