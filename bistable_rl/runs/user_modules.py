"""The user's own modules, which an environment's id may name: `my_env:Corridor-v0` imports `my_env`.

Installed modules come first. Other modules are searched for in the folders given to `search`, such as the config file's
folder, and then in the current folder. These folders are searched after all other finders, and only during this import,
so no file there can replace a module of a library or of this package. Helper modules that the module imports meanwhile
are found in the same way; submodules of a package are always found. Modules in a run folder are refused, because a run
folder is data and often comes from somebody else.
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
    """A module that is missing or refused; the message continues "the package 'name', "."""


def search(folders: Iterable[Path]) -> None:
    """Search these folders for modules from now on, before the current folder; they replace folders given earlier."""
    _folders[:] = folders


def folders() -> list[Path]:
    """Return the folders that are searched after all installed modules, in search order."""
    try:
        found = [folder.resolve() for folder in (*_folders, Path.cwd())]
    except OSError:  # the current folder has been deleted
        found = [folder.resolve() for folder in _folders]
    return list(dict.fromkeys(found))


def load(module: str) -> None:
    """Import a module, unless it has been imported already, and print its file on stderr.

    Raises:
        RefusedError: If there is no such module, or it lies in a run folder.
        Exception: If the module raises it.
    """
    if module in sys.modules:
        return
    if not all(part.isidentifier() for part in module.split(".")):
        raise RefusedError("which is not the name of a module")
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
    """Return the file of a module, or the folders of a namespace package; nothing for a built-in module."""
    if spec.has_location and spec.origin is not None:
        return [Path(spec.origin).absolute()]
    return [Path(folder).absolute() for folder in spec.submodule_search_locations or ()]


class _Last:
    """A finder of modules in some folders, except for modules in a run folder.

    Args:
        top: The requested module. Only this module may be a folder without an `__init__.py`: the module may try to
            import a library that is not installed, and a folder of that library's logs may have the same name.
        folders: The folders to search.
    """

    def __init__(self, top: str, folders: Sequence[Path]) -> None:
        self._top = top
        self._all = [str(folder) for folder in folders]
        self._trusted = [str(folder) for folder in folders if run_folder_of(folder / "module.py") is None]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as `importlib.abc.MetaPathFinder.find_spec` does; `top` also in a run folder."""
        if path is not None:
            return None
        spec = PathFinder.find_spec(name, self._all if name == self._top else self._trusted)
        return spec if spec is not None and (spec.has_location or name == self._top) else None


@contextmanager
def _behind_all_others(finder: _Last | None) -> Iterator[None]:
    """Add a finder that Python asks after all others."""
    if finder is None:
        yield
        return
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
