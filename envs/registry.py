"""Build environments from an id and plain values, as a config gives them."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv

from bistable_rl.checks import check_choice, check_size
from bistable_rl.envs.nested import FlattenNested, is_nested
from bistable_rl.envs.wrappers import WRAPPERS, DropText
from bistable_rl.errors import about_key, unknown
from bistable_rl.runs import user_modules
from bistable_rl.runs.keys import FORM
from bistable_rl.runs.named import resolve

Built = TypeVar("Built")

PROVIDERS: dict[str, str] = {"bistable_rl/": "bistable_rl.envs", "MiniGrid-": "minigrid", "popgym-": "popgym"}
"""The package that registers the ids with a prefix. Any other id names its package: "package:Name-v0"."""


@about_key("id")
def find_spec(env_id: str) -> EnvSpec:
    """Return the specification of an environment, after importing the package that registers it.

    Args:
        env_id: A registered id, or "package:id". `bistable_rl.runs.user_modules` says where packages are looked for.

    Raises:
        ValueError: If there is no such environment, or its package is missing, refused or fails.
    """
    package, _, name = env_id.rpartition(":")
    if package:
        _import(package, env_id, user_modules.load)
    prefix = next((prefix for prefix in PROVIDERS if name.startswith(prefix)), "")
    if prefix and not package:
        _import(PROVIDERS[prefix], env_id, importlib.import_module)
    if name not in gymnasium.registry:
        sentence = unknown("environment id", name, [known for known in gymnasium.registry if known.startswith(prefix)])
        if "Labyrinth" in name and prefix == "popgym-" and importlib.util.find_spec("mazelib") is None:
            sentence += " popgym registers its labyrinths only where the package mazelib is installed."
        if not prefix and not package:
            sentence += f" An environment of your own is named module:{name}, with the module that registers it."
        raise ValueError(sentence)
    spec = gymnasium.registry[name]
    for entry_point in (spec.entry_point, spec.vector_entry_point) if package else ():
        if isinstance(entry_point, str):  # "package.module:Class": import it while its folder is searched
            _import(entry_point.partition(":")[0], env_id, user_modules.load)
    return spec


def make_env(
    env_id: str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str | type | Mapping[str, Any]] = (),
) -> gymnasium.Env[Any, Any]:
    """Build one environment, of this package or any other.

    Args:
        env_id: A registered id, or "package:id". Texts in its observations (MiniGrid's mission) are left out, and
            nested ones are flattened (see `bistable_rl.envs.nested`).
        kwargs: Its arguments, and gymnasium's `max_episode_steps`.
        wrappers: The wrappers from the inside out, each a name or `{"name": ..., "kwargs": its arguments}`. A name is
            a key of WRAPPERS, or "package:Name" of any gymnasium.Wrapper; the class itself is accepted too.

    Raises:
        ValueError: If a name is unknown or an argument is refused.
    """
    spec = find_spec(env_id)
    env = _build(env_id, spec.entry_point, kwargs, partial(gymnasium.make, spec), ["max_episode_steps"])
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        env = DropText(env)
    if is_nested(env.observation_space):
        env = FlattenNested(env)
    for i, wrapper in enumerate(wrappers):
        with about_key(f"wrappers[{i}]"):
            env = _wrapped(env, wrapper)
    return env


def _wrapped(env: gymnasium.Env[Any, Any], wrapper: Any) -> gymnasium.Env[Any, Any]:
    if isinstance(wrapper, Mapping) and not {"name"} <= set(wrapper) <= {"name", "kwargs"}:
        raise ValueError(f"a wrapper must be a name or {FORM}, not {wrapper!r}")
    given, kwargs = (wrapper["name"], wrapper.get("kwargs")) if isinstance(wrapper, Mapping) else (wrapper, None)
    kind = _wrapper(given)
    name = given if isinstance(given, str) else kind.__name__
    make = partial(kind, env)
    return _build(f"wrapper {name!r}", make, kwargs, make, [])


def _wrapper(name: Any) -> type[gymnasium.Wrapper[Any, Any, Any, Any]]:
    if isinstance(name, type) or (isinstance(name, str) and ":" in name):
        return resolve("wrapper", name, {}, gymnasium.Wrapper)
    return WRAPPERS[check_choice("wrapper", name, WRAPPERS)]


def make_batched_env(
    env_id: str,
    *,
    num_envs: int,
    kwargs: Mapping[str, Any] | None = None,
    autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
) -> VectorEnv[Any, Any, Any]:
    """Build n copies of an environment that has a batched form.

    Args:
        env_id: A registered id, or "package:id".
        num_envs: n, the number of copies.
        kwargs: The environment's arguments.
        autoreset_mode: When a copy starts its next episode, as in `gymnasium.vector`.

    Raises:
        ValueError: If the id is unknown, an argument is refused or there is no batched form.
    """
    spec = find_spec(env_id)
    if spec.vector_entry_point is None:
        raise ValueError(f"{env_id} has no batched form; make it with make_env")
    check_size("num_envs", num_envs)
    make = partial(
        gymnasium.make_vec,
        spec,
        num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=autoreset_mode,
    )
    return _build(env_id, spec.entry_point, kwargs, make, [])


def default_of(spec: EnvSpec, argument: str) -> Any:
    """Return the default of an argument of an environment, or of gymnasium's `max_episode_steps`; None if unknown."""
    if argument == "max_episode_steps":
        return spec.max_episode_steps
    if argument in spec.kwargs:
        return spec.kwargs[argument]
    try:
        creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        default = inspect.signature(creator).parameters[argument].default  # type: ignore[arg-type]
    except Exception:  # no such argument, or a creator from elsewhere that cannot be loaded or inspected
        return None
    return None if default is inspect.Parameter.empty else default


def _import(module: str, env_id: str, load: Callable[[str], object]) -> None:
    try:
        load(module)
    except user_modules.RefusedError as error:
        raise ValueError(f"environment {env_id!r} needs the package {module!r}, {error}") from None
    except (Exception, SystemExit) as error:  # another author's module can raise anything
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ValueError(f"environment {env_id!r} needs the package {module!r}, which fails: {reason}") from error


def _build(
    name: str,
    creator: Callable[..., Any] | str | None,
    kwargs: Mapping[str, Any] | None,
    make: Callable[..., Built],
    extra: list[str],
) -> Built:
    """Call `make(**kwargs)`; `creator` takes all arguments but the `extra` ones. An error is one sentence."""
    with about_key("kwargs"):
        if not isinstance(kwargs, Mapping | None):
            raise ValueError(f"the arguments of {name} must be given as {{name: value}}, not {kwargs!r}")
        kwargs = dict(kwargs or {})
        _check_arguments(name, creator, kwargs, extra)
    try:
        return make(**kwargs)
    except ValueError:
        raise
    except Exception as error:
        # gymnasium wraps a constructor's TypeError in another one that repeats all arguments.
        reason = str(error.__cause__ or error).split("\n")[0].rstrip(".")
        given = ", ".join(f"{argument}={value!r}" for argument, value in kwargs.items()) or "no arguments"
        raise ValueError(f"{name} cannot be built with {given}: {reason or type(error).__name__}") from error


def check_argument(env_id: str, argument: str) -> None:
    """Check that an environment has an argument of this name, which a key of the config gives.

    Raises:
        ValueError: If there is no such environment, or it has no such argument.
    """
    _check_arguments(env_id, find_spec(env_id).entry_point, [argument], ["max_episode_steps"])


def _check_arguments(
    name: str, creator: Callable[..., Any] | str | None, given: Iterable[str], extra: list[str]
) -> None:
    """Check that `creator` takes all the given arguments but the `extra` ones."""
    allowed = _arguments(name, creator)
    for argument in given:
        if allowed is not None and argument not in [*allowed, *extra]:
            raise ValueError(unknown(f"argument of {name}", argument, allowed))


def _arguments(name: str, creator: Callable[..., Any] | str | None) -> list[str] | None:
    """Return the names of a constructor's arguments, or None if it takes any."""
    if creator is None:
        raise ValueError(f"{name} has no single form")
    if isinstance(creator, str):
        try:
            creator = load_env_creator(creator)
        except Exception as error:
            raise ValueError(f"{name} cannot be loaded: {type(error).__name__}: {error}") from error
    parameters = inspect.signature(creator).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
