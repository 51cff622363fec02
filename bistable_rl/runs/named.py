"""Classes that a config names: by one of our short names, or by `package:Name`, imported like an environment's package.

    resolve("activation_fn", "relu", ACTIVATIONS, nn.Module) -> torch.nn.ReLU
    resolve("wrapper", "my_env:Wrap", {}, gymnasium.Wrapper) -> the class Wrap of my_env.py

In Python the class itself may be given too. It is saved by its name, never by pickle. Imports no torch, and knows no
configuration, so `bistable_rl.cells` uses it too.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from bistable_rl.errors import UserError, one_sentence, unknown
from bistable_rl.runs import user_modules

T = TypeVar("T")


def resolve(
    argument: str,
    given: str | type,
    known: Mapping[str, type],
    base: type[T],
    *,
    of_script: str = "define it in a module of its own",
) -> type[T]:
    """Return the class with a name; a class is returned unchanged.

    Args:
        argument: The name of the argument, for the error messages.
        given: A key of `known`, `package:Name` or a class.
        known: Classes by their short names.
        base: The class that it must extend.
        of_script: The advice for a class defined in `__main__`, where another script would not find it.

    Raises:
        ValueError: If there is no such class; its package is missing, refused or fails; or it does not extend `base`.
    """
    found: Any = known.get(given) if isinstance(given, str) else given
    if found is None:
        assert isinstance(given, str)
        module, _, name = given.partition(":")
        if not name:
            raise ValueError(f"{argument}: {unknown('name', given, known)} Name one of your own as package:Name.")
        found = _imported(argument, module, name, of_script)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{argument} must be a subclass of {base.__module__}.{base.__name__}, got {found!r}")
    return found


def _imported(argument: str, module: str, name: str, of_script: str) -> Any:
    here = f"{argument} {module}:{name}"
    if module == "__main__":
        where, hint = sys.modules["__main__"], f", the script that runs; {of_script}"
    else:
        hint = ""
        try:
            user_modules.load(module)
        except user_modules.RefusedError as error:
            raise ValueError(f"{here} needs the package {module!r}, {error}") from None
        except (Exception, SystemExit) as error:  # a user's module can raise anything
            raise ValueError(
                f"{here} needs the package {module!r}, which fails: {type(error).__name__}: {one_sentence(error)}"
            ) from error
        where = sys.modules[module]
    try:
        return operator.attrgetter(name)(where)
    except AttributeError:
        raise ValueError(f"{here}: there is no {name} in {module}{hint}") from None


def name_of(argument: str, kind: type) -> str:
    """Return `package:Name` of a class.

    Raises:
        ValueError: If it is defined in a function, so that no name leads to it.
    """
    if "<locals>" in kind.__qualname__:
        raise ValueError(
            f"{argument}: {kind.__name__} is defined in a function, so it cannot be found again by its name; to be "
            "saved, it must be defined at the top level of a module"
        )
    return f"{kind.__module__}:{kind.__qualname__}"


@contextmanager
def built(argument: str, kind: type, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Turn any error of a user's constructor in the block into a ValueError that names the class.

    Args:
        argument: The argument that named the class.
        kind: The class.
        kwargs: Its arguments.

    Raises:
        ValueError: If the constructor raises an error.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {one_sentence(error)}"
        raise ValueError(f"{argument} {kind.__name__} cannot be built with {dict(kwargs)}: {why}") from error
