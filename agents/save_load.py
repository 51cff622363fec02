"""`RecurrentPPO.save` and `load`: the files of a checkpoint, and the algorithm's settings, in one zip of plain data."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from bistable_rl.agents import archive
from bistable_rl.agents import state as training_state
from bistable_rl.agents.archive import File
from bistable_rl.agents.features import READERS, as_shown, saved_kinds, unsaid, with_categories
from bistable_rl.agents.named import plain
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.spaces import becomes, from_json, to_json
from bistable_rl.agents.vec_envs import AnyEnv
from bistable_rl.checks import check_int, check_number, check_positive
from bistable_rl.envs.nested import flat_space
from bistable_rl.errors import UserError, one_sentence, unknown
from bistable_rl.runs import checkpoint
from bistable_rl.runs.devices import check_torch_device

if TYPE_CHECKING:
    from bistable_rl.agents.ppo import RecurrentPPO

    M = TypeVar("M", bound=RecurrentPPO)

SETTINGS = (
    "n_steps",
    "batch_size",
    "n_epochs",
    "gamma",
    "gae_lambda",
    "normalize_advantage",
    "popart",
    "vf_coef",
    "max_grad_norm",
    "target_kl",
    "bptt_length",
    "burn_in",
    "refresh_states",
    "use_sde",
    "sde_sample_freq",
    "policy_kwargs",
    "verbose",
    "seed",
)
"""Arguments of `RecurrentPPO` that are plain values, stored in attributes of the same names.

`tensorboard_log` is not among them: a file from somebody else must not decide where to write.
"""

SCHEDULES = {
    "learning_rate": "lr_schedule",
    "clip_range": "clip_range",
    "clip_range_vf": "clip_range_vf",
    "ent_coef": "entropy_schedule",
    "certified_coef": "certified_schedule",
}
"""Arguments that may be schedules, and the attributes that hold the schedules."""

FORMER_DEFAULTS: dict[str, Any] = {"cell": "nbrc", "critic": "shared", "net_arch": []}
"""Arguments of the policy whose defaults have changed: their values for an archive that does not hold them."""

LATER_SETTINGS = {"use_sde": False, "sde_sample_freq": 0, "popart": False}
"""Settings that archives of earlier versions do not have, with the values that those versions acted by."""

FUNCTION = "function"

KEPT = "weights, moments, counters, VecNormalize's statistics and the arguments of the constructor"
"""The content of an archive."""


class LostFunction:
    """A placeholder for a schedule that was a function and was not saved: the loaded algorithm can act but not train.

    Args:
        name: The argument.

    Raises:
        ValueError: If it is called; the message says how to give the function.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, progress_remaining: float) -> float:
        """Raise the error."""
        raise ValueError(
            f"its {self.name} was a function, which is not saved; give it again: load(path, {self.name}=...)."
        )


def save(model: RecurrentPPO, file: File, exclude: Iterable[str] | None, include: Iterable[str] | None) -> None:
    """Write an algorithm to one file, whole or not at all; see `RecurrentPPO.save`."""
    kept = {"policy", *SETTINGS, "stats_window_size", *SCHEDULES, "num_timesteps"}
    for name in exclude or ():
        if name in kept:
            raise ValueError(f"exclude: {name} cannot be left out: an archive holds {KEPT}, all of which `load` needs")
    for name in include or ():
        if name not in kept:
            raise ValueError(f"include: {name} cannot be saved: an archive holds {KEPT} and nothing else, no pickle")
    about: dict[str, Any] = {
        "policy": type(model.policy).__name__,
        "n_envs": model.n_envs,
        "observation_space": to_json(model.observation_space),
        "action_space": to_json(model.action_space),
        "nested_space": None if model.policy.nested_space is None else to_json(model.policy.nested_space),
        "settings": {name: getattr(model, name) for name in SETTINGS},
        "stats_window_size": model._stats_window_size,
        "schedules": {name: _plain_schedule(getattr(model, held)) for name, held in SCHEDULES.items()},
    }
    now = model.policy.constructor_args
    network = {name: now[name] for name in _former_defaults(type(model.policy))}
    about["settings"]["policy_kwargs"] = network | plain(model.policy_kwargs)
    try:
        files = training_state.pack(model, training_state.capture_counters(model))
        files[archive.MODEL] = (json.dumps(about, indent=2, allow_nan=False) + "\n").encode()
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(f"only plain values can be saved; an argument of the algorithm is not one: {error}") from None
    archive.write(file, files)


def load(cls: type[M], file: File, env: AnyEnv | None, device: torch.device | str, given: dict[str, Any]) -> M:
    """Read an algorithm from the file that `save` wrote; see `RecurrentPPO.load`."""
    given = _custom_settings(given.pop("custom_objects", None)) | given
    _check_arguments(cls, given)
    device = check_torch_device(device)
    policy = given.pop("policy", RecurrentPolicy)
    if isinstance(policy, str):
        policy = cls.policy_aliases.get(policy, policy)
    folder, path = archive.read(file)
    try:
        about = json.loads(checkpoint.read(folder / archive.MODEL))
        settings, lost = _settings(about, path, policy)
        cls(policy, None, device=device, _init_setup_model=False, **settings)  # type: ignore[arg-type]
        saved = {name: from_json(about[name]) for name in ("observation_space", "action_space")}
        n_envs = check_int("n_envs", about["n_envs"], 1)
        nested = about.get("nested_space")  # absent in earlier versions
        nested = None if nested is None else from_json(nested)
        if nested is not None and not becomes(flat_space(nested), saved["observation_space"]):
            raise ValueError(f"its observations cannot be those of {nested}")
        saved_policy = cls.policy_aliases.get(about["policy"])
        if policy is not saved_policy and about["policy"] != getattr(policy, "__name__", policy):
            raise ValueError(f"its policy is a {about['policy']}; give policy={about['policy']}")
    except UserError:
        raise
    except Exception as error:  # SB3 raises errors of any type for arguments that it never wrote
        raise _blame(path, error) from None
    model = cls(policy, env, device=device, _init_setup_model=False, **{**settings, **given})  # type: ignore[arg-type]
    for name, space in saved.items():
        if env is not None and getattr(model, name) != space:
            kind = name.replace("_", " ")
            raise UserError(
                f"{path} does not fit the environment: its {kind} is {space}, but the environment's is "
                f"{getattr(model, name)}."
            )
        setattr(model, name, space)
    if env is None:
        model.n_envs = n_envs
    if model.policy_kwargs.get("features_extractor_class") in (None, *READERS):
        _say_kinds(model, folder)
    try:
        model._setup_model()
    except Exception as error:
        if given:
            raise  # the settings in the file alone were valid
        raise _blame(path, error) from None
    if env is None:
        model.policy.nested_space = nested
    for name in lost - given.keys():
        setattr(model, SCHEDULES[name], FloatSchedule(LostFunction(name)))
    state = training_state.load(folder, model)
    if model.use_sde:
        model.policy.reset_noise()
    try:
        training_state.restore_counters(model, state)
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise UserError(f"the counters in {path} are broken ({type(error).__name__}: {error}).") from None
    return model


def _say_kinds(model: RecurrentPPO, folder: checkpoint.Folder) -> None:
    """Let the policy read each observation as the saved one did; the weights' names tell how, also in old files."""
    kinds = saved_kinds(checkpoint.weight_names(folder), model.observation_space)
    categories = [key for key, kind in kinds.items() if kind == "categories"]
    model.observation_space = with_categories(model.observation_space, categories)
    shown = model.observation_space if model.env is None else as_shown(model.observation_space, model.env)
    if left_out := unsaid(shown, kinds):
        said = model.policy_kwargs.get("observation_kinds") or {}
        model.policy_kwargs = {**model.policy_kwargs, "observation_kinds": left_out | said}


def set_parameters(model: RecurrentPPO, file: File, exact_match: bool) -> None:
    """Load the weights and moments of an archive into an algorithm; see `RecurrentPPO.set_parameters`."""
    folder, path = archive.read(file)
    if exact_match:
        checkpoint.load_weights(folder, model.policy)
        checkpoint.load_optimizer(folder, model.policy.optimizer)
        return
    tensors, here = checkpoint.weights(folder), model.policy.state_dict()
    checkpoint.fill(model.policy, {**here, **{n: t for n, t in tensors.items() if n in here}}, path)


def _custom_settings(objects: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings among SB3's `custom_objects`; a schedule may be 0, as rl-zoo3's `enjoy` gives it."""
    found = {name: value for name, value in (objects or {}).items() if name in {*SETTINGS, *SCHEDULES}}
    zero = [name for name in SCHEDULES if isinstance(found.get(name), int | float)]
    return found | {name: ConstantSchedule(found[name]) for name in zero}


def _check_arguments(cls: type[RecurrentPPO], given: Mapping[str, Any]) -> None:
    """Check that the settings given to `load` are arguments of the constructor, so that no error blames the file."""
    parameters = inspect.signature(cls).parameters
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # a subclass with its own arguments
    known = parameters.keys() - {"env", "device", "_init_setup_model"}
    for name in given.keys() - known:
        raise TypeError(unknown("argument of load", name, known))


def _former_defaults(policy: Any) -> dict[str, Any]:
    """Return the `FORMER_DEFAULTS` that are arguments of a policy; a subclass may have other arguments."""
    parameters = inspect.signature(policy if isinstance(policy, type) else RecurrentPolicy).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in FORMER_DEFAULTS.items() if takes_any or name in names}


def _settings(about: Mapping[str, Any], path: str, policy: Any) -> tuple[dict[str, Any], set[str]]:
    """Return the constructor's arguments from a file, and the names of the schedules that were functions."""
    found = {
        "use_sde": False,
        "sde_sample_freq": 0,
        "popart": False,
        **about["settings"],
    }  # absent in earlier versions
    if found.pop("tensorboard_log", None) is not None:  # written by an earlier version
        warnings.warn(f"{path} does not say where to log; pass tensorboard_log=... to load", stacklevel=5)
    if found.keys() != set(SETTINGS):
        odd = sorted(found.keys() ^ set(SETTINGS))[0]
        raise ValueError(f"its setting {odd!r} is {'unknown here' if odd in found else 'missing'}")
    for name in ("normalize_advantage", "popart", "refresh_states", "use_sde"):
        if not isinstance(found[name], bool):
            raise ValueError(f"{name} must be true or false, got {found[name]!r}")
    if not isinstance(found["policy_kwargs"], dict):
        raise ValueError(f"policy_kwargs must be a mapping, got {found['policy_kwargs']!r}")
    found["policy_kwargs"] = _former_defaults(policy) | found["policy_kwargs"]
    check_int("verbose", found["verbose"], 0, 2)
    if found["seed"] is not None:
        check_int("seed", found["seed"], 0, 2**32 - 1)
    found_schedules = {"certified_coef": 0.0, **about["schedules"]}  # likewise
    schedules = {name: found_schedules[name] for name in SCHEDULES}
    lost = {name for name, plain in schedules.items() if plain == FUNCTION}
    kept = {name: _schedule(name, plain) for name, plain in schedules.items() if name not in lost}
    return {**found, **kept, "stats_window_size": about["stats_window_size"]}, lost


def _blame(path: str, error: Exception) -> UserError:
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return UserError(f"{path} holds no algorithm that can be loaded here: {kind}{one_sentence(error)}")


def check_trainable(model: RecurrentPPO) -> None:
    """Check that no schedule is missing because it was a function, which is not saved.

    Raises:
        ValueError: If one is; the message says how to give it.
    """
    for held in SCHEDULES.values():
        schedule = getattr(model, held)
        if isinstance(schedule, FloatSchedule) and isinstance(schedule.value_schedule, LostFunction):
            schedule(1.0)


def _plain_schedule(schedule: FloatSchedule | None) -> Any:
    """Return a schedule as plain values: a number, start, end and fraction of a line, or FUNCTION for any other."""
    if schedule is None:
        return None
    inner = schedule.value_schedule
    if isinstance(inner, ConstantSchedule):
        return inner.val
    if isinstance(inner, LinearSchedule):
        return [inner.start, inner.end, inner.end_fraction]
    return FUNCTION


def _schedule(name: str, plain: Any) -> Any:
    if not isinstance(plain, list):
        return plain
    start, end, fraction = (check_number(name, number) for number in plain)
    return LinearSchedule(start, end, check_positive(name, fraction))
