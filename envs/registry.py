"""Environments from a name and plain values, as a config file gives them."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv

from bistable_rl.checks import check_choice, check_size
from bistable_rl.envs.wrappers import WRAPPERS, DropText
from bistable_rl.errors import unknown
from bistable_rl.runs import user_modules

Made = TypeVar("Made")

PROVIDERS: dict[str, str] = {"bistable_rl/": "bistable_rl.envs", "MiniGrid-": "minigrid", "popgym-": "popgym"}
"""The package that registers the ids that start so. For any other, the id names it: "package:Name-v0"."""


def find_spec(env_id: str) -> EnvSpec:
    """Return what gymnasium knows of an environment, after importing the package that registers it.

    Args:
        env_id: A registered id, or "package:id"; where a package that is not installed is looked for, and when it is
            refused, says `bistable_rl.runs.user_modules`.

    Raises:
        ValueError: If there is no such environment or no such package.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        _import(module, env_id, user_modules.load)
    for prefix, provider in PROVIDERS.items():
        if not module and name.startswith(prefix):
            _import(provider, env_id, importlib.import_module)
    if name not in gymnasium.registry:
        prefix = next((start for start in PROVIDERS if name.startswith(start)), "")
        refusal = unknown("environment id", name, [known for known in gymnasium.registry if known.startswith(prefix)])
        if "Labyrinth" in name and prefix == "popgym-" and importlib.util.find_spec("mazelib") is None:
            refusal += " popgym registers its labyrinths only where the package mazelib is installed."
        raise ValueError(refusal)
    spec = gymnasium.registry[name]
    for entry in (spec.entry_point, spec.vector_entry_point) if module else ():
        if isinstance(entry, str):  # as "package.module:Class", imported while its folder is searched
            _import(entry.partition(":")[0], env_id, user_modules.load)
    return spec


def _import(module: str, env_id: str, load: Callable[[str], object]) -> None:
    try:
        load(module)
    except user_modules.RefusedError as error:
        raise ValueError(f"environment {env_id!r} needs the package {module!r}, {error}") from None
    except (Exception, SystemExit) as error:  # whatever somebody else's module does
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ValueError(f"environment {env_id!r} needs the package {module!r}, which fails: {reason}") from error


def make_env(
    env_id: str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
) -> gymnasium.Env[Any, Any]:
    """Build one environment, whoever's it is.

    Args:
        env_id: A registered id, or "package:id". Texts in its observation (MiniGrid's mission) are left out.
        kwargs: Its arguments; `max_episode_steps` too, as gymnasium has it.
        wrappers: From the inside out, each `{"name": one of WRAPPERS, "kwargs": its arguments}`.

    Raises:
        ValueError: If a name is unknown or an argument refused.
    """
    spec = find_spec(env_id)
    env = _made(env_id, spec.entry_point, kwargs, partial(gymnasium.make, spec), ["max_episode_steps"])
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        env = DropText(env)
    for wrapper in wrappers:
        if not isinstance(wrapper, Mapping) or not {"name"} <= set(wrapper) <= {"name", "kwargs"}:
            raise ValueError(f"a wrapper must be given as {{name: ..., kwargs: {{...}}}}, not {wrapper!r}")
        name = check_choice("wrapper", wrapper["name"], WRAPPERS)
        env = _made(f"wrapper {name!r}", WRAPPERS[name], wrapper.get("kwargs"), partial(WRAPPERS[name], env), [])
    return env


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
        num_envs: Number of copies.
        kwargs: The environment's arguments.
        autoreset_mode: When a copy whose episode has ended starts the next one.

    Raises:
        ValueError: If the id is unknown, an argument is refused or there is no batched form.
    """
    spec = find_spec(env_id)
    if spec.vector_entry_point is None:
        raise ValueError(f"{env_id} has no batched form: make it with make_env")
    check_size("num_envs", num_envs, 1)
    make = partial(
        gymnasium.make_vec,
        spec,
        num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=autoreset_mode,
    )
    return _made(env_id, spec.entry_point, kwargs, make, [])


def _made(
    what: str,
    creator: Callable[..., Any] | str | None,
    kwargs: Mapping[str, Any] | None,
    make: Callable[..., Made],
    also: list[str],
) -> Made:
    """Call `make(**kwargs)`, and turn the ways in which it refuses an argument into one sentence.

    `creator` tells which arguments there are; those in `also` are `make`'s own.
    """
    if not isinstance(kwargs, Mapping | None):
        raise ValueError(f"the arguments of {what} must be given as {{name: value}}, not {kwargs!r}")
    kwargs = dict(kwargs or {})
    if creator is None:
        raise ValueError(f"{what} has no form of one copy")
    if isinstance(creator, str):
        try:
            creator = load_env_creator(creator)
        except Exception as error:
            raise ValueError(f"{what} can't be loaded: {type(error).__name__}: {error}") from error
    parameters = inspect.signature(creator).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in kwargs:
            if name not in [*names, *also]:
                raise ValueError(unknown(f"argument of {what}", name, names))
    try:
        return make(**kwargs)
    except Exception as error:
        # gymnasium wraps a constructor's TypeError in one that repeats all arguments.
        reason = str(error.__cause__ or error).split("\n")[0].rstrip(".")
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items()) or "no arguments"
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{what} can't be made with {given}: {reason or type(error).__name__}") from error
