"""`RecurrentPPO.save` and `load`: a checkpoint in one zip file, data only; and the weights of SB3's own archives."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from bistable_rl import checkpoint, runs
from bistable_rl.agents import snapshot
from bistable_rl.agents.checks import check_whole
from bistable_rl.agents.features import saved_kinds, with_categories
from bistable_rl.agents.policies import RecurrentPolicy
from bistable_rl.agents.spaces_json import from_json, to_json
from bistable_rl.config import UserError, one_sentence

if TYPE_CHECKING:
    from bistable_rl.agents.ppo import RecurrentPPO

    M = TypeVar("M", bound=RecurrentPPO)

MODEL = "model.json"
FILES = {MODEL, checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.TRAINING, checkpoint.STATE}

SETTINGS = (
    "n_steps",
    "batch_size",
    "n_epochs",
    "gamma",
    "gae_lambda",
    "normalize_advantage",
    "vf_coef",
    "max_grad_norm",
    "target_kl",
    "bptt_length",
    "burn_in",
    "refresh_states",
    "tensorboard_log",
    "policy_kwargs",
    "verbose",
    "seed",
)
"""Arguments of `RecurrentPPO` that are plain values, and attributes of the same name."""

SCHEDULES = {
    "learning_rate": "lr_schedule",
    "clip_range": "clip_range",
    "clip_range_vf": "clip_range_vf",
    "ent_coef": "entropy_schedule",
}
"""Arguments that may be schedules, and the attributes that hold them."""


def save(model: RecurrentPPO, path: Path) -> None:
    """Write an algorithm to one file, whole or not at all; see `RecurrentPPO.save`."""
    counters = snapshot.capture_counters(model)
    about = {
        "policy": type(model.policy).__name__,
        "n_envs": model.n_envs,
        "observation_space": to_json(model.observation_space),
        "action_space": to_json(model.action_space),
        "settings": {name: getattr(model, name) for name in SETTINGS},
        "stats_window_size": model._stats_window_size,
        "schedules": {name: _plain_schedule(getattr(model, held)) for name, held in SCHEDULES.items()},
    }
    try:
        files = checkpoint.pack(
            model.policy,
            {"steps": counters.steps, **counters.values},
            optimizer=model.policy.optimizer,
            arrays=counters.arrays,
        )
        files[MODEL] = (json.dumps(about, indent=2, allow_nan=False) + "\n").encode()
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(f"only plain values can be saved; an argument of the algorithm is none: {error}") from None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # a date of its own would make equal models unequal files
    runs.write_bytes(_with_suffix(path), buffer.getvalue())


def load(cls: type[M], path: Path, env: GymEnv | None, device: torch.device | str, given: dict[str, Any]) -> M:
    """Read an algorithm from the file that `save` wrote; see `RecurrentPPO.load`."""
    path = path if path.exists() else _with_suffix(path)
    folder = _open(path)
    try:
        about = json.loads(checkpoint.read(folder / MODEL))
        policy = given.pop("policy", RecurrentPolicy)
        if about["policy"] != policy.__name__:
            raise ValueError(f"its policy is a {about['policy']}, which must be given as policy={about['policy']}")
        settings = {**about["settings"], "stats_window_size": about["stats_window_size"]}
        for name, schedule in about["schedules"].items():
            if name in SCHEDULES and name not in given:
                settings[name] = _schedule(schedule, name)
        model = cls(policy, env, device=device, _init_setup_model=False, **{**settings, **given})  # type: ignore[arg-type]
        for name in ("observation_space", "action_space"):
            saved = from_json(about[name])
            if env is not None and getattr(model, name) != saved:
                raise ValueError(f"its {name.replace('_', ' ')} is {saved}, the environment's {getattr(model, name)}")
            setattr(model, name, saved)
        # the weights tell what was read as categories, in archives too that were written before it could be said
        kinds = saved_kinds(checkpoint.weight_names(folder), model.observation_space)
        model.observation_space = with_categories(model.observation_space, kinds)
        model.n_envs = model.n_envs if env is not None else check_whole("n_envs", about["n_envs"], 1)
        model._setup_model()
    except UserError:
        raise
    except Exception as error:  # whatever SB3 makes of arguments that it never wrote
        reason = (
            one_sentence(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {one_sentence(error)}"
        )
        raise UserError(f"{path} holds no algorithm that can be loaded here: {reason}") from None
    state = checkpoint.load_weights(folder, model.policy)
    checkpoint.load_optimizer(folder, model.policy.optimizer)
    arrays = checkpoint.load_arrays(folder)
    try:
        snapshot.restore_counters(model, snapshot.Snapshot(state["steps"], arrays, state))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"the counters in {path} are broken ({type(error).__name__}: {error}).") from None
    return model


def import_sb3(model: RecurrentPPO, path: Path) -> None:
    """Load the weights of an archive of sb3-contrib's RecurrentPPO; see `RecurrentPPO.import_sb3`."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = archive.read("policy.pth")
        # torch's restricted reader: it builds tensors and refuses anything else
        tensors = torch.load(io.BytesIO(data), map_location=model.device, weights_only=True)
        if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
            raise ValueError("policy.pth holds no weights")
    except Exception as error:  # torch's reader raises whatever it stumbles over
        raise UserError(
            f"{path} is no archive of sb3-contrib's RecurrentPPO whose weights can be read "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]})."
        ) from None
    # a torch.nn.LSTM names its weights by layer, e.g. lstm_actor.weight_ih_l0
    renamed = {
        re.sub(r"^(lstm_(?:actor|critic))\.(weight|bias)_(ih|hh)_l(\d+)$", r"\1.rnn.cells.\4.\2_\3", name): tensor
        for name, tensor in tensors.items()
    }
    checkpoint.fill(model.policy, renamed, str(path))


def _open(path: Path) -> zipfile.Path:
    """Return the archive as a folder, when it holds the files of a checkpoint and nothing else."""
    try:
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no archive of RecurrentPPO.save ({one_sentence(error)[:-1]}).") from None
    names = {member.filename for member in members}
    if {"data", "policy.pth"} <= names:
        raise UserError(
            f"{path} was saved by Stable-Baselines3, with pickles, which are never opened here; "
            "`import_sb3` of a RecurrentPPO of the same architecture takes its weights alone."
        )
    size = path.stat().st_size
    sound = all(m.compress_type == zipfile.ZIP_STORED and m.file_size <= size for m in members)
    if names != FILES or len(members) != len(FILES) or not sound:
        raise UserError(
            f"{path} is no archive of RecurrentPPO.save: it must hold {', '.join(sorted(FILES))}, uncompressed, "
            "and nothing else."
        )
    return zipfile.Path(archive)


def _with_suffix(path: Path) -> Path:
    return path if path.suffix else path.with_name(f"{path.name}.zip")


def _plain_schedule(schedule: FloatSchedule | None) -> Any:
    """Return a schedule as plain values: a number, a straight line, or "function" for what is not saved."""
    if schedule is None:
        return None
    inner = schedule.value_schedule
    if isinstance(inner, ConstantSchedule):
        return inner.val
    if isinstance(inner, LinearSchedule):
        return [inner.start, inner.end, inner.end_fraction]
    return "function"


def _schedule(plain: Any, name: str) -> Any:
    if plain == "function":
        raise ValueError(f"its {name} was a function, which is not saved; give it: load(path, {name}=...)")
    return LinearSchedule(*map(float, plain)) if isinstance(plain, list) else plain
