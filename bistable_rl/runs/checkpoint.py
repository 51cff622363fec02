"""The files of a checkpoint: weights and moments in safetensors, counters in JSON.

weights.safetensors
optimizer.safetensors
training.safetensors    the other arrays of the training state (agents)
state.json              steps, and the other values of the training state

The files lie in a folder of a run's checkpoints/ (see `checkpoints`), or in one uncompressed zip, written by
`RecurrentPPO.save`.

Reading them never unpickles anything.
"""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bistable_rl.errors import UserError
from bistable_rl.runs.checkpoints import steps_of
from bistable_rl.runs.files import inside

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
TRAINING = "training.safetensors"
STATE = "state.json"

Folder = Path | zipfile.Path
"""A folder of files, or an archive."""

RENAMED = (
    (r"^(pi|vf)_features_extractor\..*$", ""),  # the same tensors again
    (r"^lstm_actor\.(rnn\.)?", "memory."),
    (r"^lstm_critic\.(rnn\.)?", "critic_memory."),
    (r"^(memory|critic_memory)\.(weight|bias)_(ih|hh)_l(\d+)$", r"\1.cells.\4.\2_\3"),  # a torch.nn.LSTM's
    (r"^critic\.", "critic_linear."),
    (r"^mlp_extractor\.policy_net\.", "actor_mlp."),
    (r"^mlp_extractor\.value_net\.", "critic_mlp."),
)
"""Patterns in the names of weights that version 0.1 and sb3-contrib saved, and their replacements."""


def pack(
    network: nn.Module,
    values: Mapping[str, Any],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> dict[str, bytes]:
    """Return the files of a checkpoint, by name.

    Args:
        network: The network whose weights are saved.
        values: Plain JSON values for state.json, including `steps`.
        optimizer: The optimizer whose moments are saved.
        arrays: The arrays for training.safetensors.

    Raises:
        UserError: If the weights hold NaN or infinity, from which no training could continue, or the optimizer's state
            holds anything but tensors and numbers.
        TypeError, ValueError: If a value is not a plain JSON value.
    """
    weights = _contiguous(network.state_dict())
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"the weights cannot be saved: {name} holds NaN or infinity.")
    files = {WEIGHTS: safetensors.torch.save(weights)}
    if optimizer is not None:
        files[OPTIMIZER] = safetensors.torch.save(_optimizer_tensors(optimizer))
    if arrays is not None:
        files[TRAINING] = safetensors.numpy.save({name: np.asarray(a, order="C") for name, a in arrays.items()})
    return {**files, STATE: (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()}


def load_weights(folder: Folder, network: nn.Module) -> dict[str, Any]:
    """Load the weights of a checkpoint into a network, and return the values in state.json.

    Raises:
        UserError: If a file is missing, truncated or broken, or the weights belong to another architecture.
    """
    tensors = _tensors(folder / WEIGHTS)
    values = load_values(folder)
    fill(network, tensors, f"the checkpoint {folder}")
    return values


def weight_names(folder: Folder) -> list[str]:
    """Return the names of the weights of a checkpoint.

    Raises:
        UserError: If the file is missing, truncated or broken.
    """
    return list(_tensors(folder / WEIGHTS))


def weights(folder: Folder) -> dict[str, Tensor]:
    """Return the weights of a checkpoint by their current names.

    Raises:
        UserError: If the file is missing, truncated or broken.
    """
    return current_names(_tensors(folder / WEIGHTS))


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights by their current names; version 0.1 and sb3-contrib used other names."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if name:
            renamed[name] = tensor
    return renamed


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a network; their names may be the current ones or those of version 0.1.

    Raises:
        UserError: If they belong to another architecture or hold NaN; the message starts with `source`.
    """
    found, wanted = current_names(tensors), network.state_dict()
    for name in sorted(wanted.keys() | found.keys()):
        have, want = _shown(found.get(name)), _shown(wanted.get(name))
        if have != want:
            raise UserError(
                f"{source} belongs to another architecture: {name} is {have} in it and {want} in the network."
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise UserError(f"{source} is broken: {name} holds NaN or infinity.")
    network.load_state_dict(found)


def load_values(folder: Folder) -> dict[str, Any]:
    """Return the values in state.json of a checkpoint.

    Raises:
        UserError: If the file is missing, truncated or broken.
    """
    file = folder / STATE
    try:
        values: dict[str, Any] = json.loads(read(file))
        values["steps"] = int(values["steps"])
        if isinstance(folder, Path) and values["steps"] != steps_of(folder):
            raise ValueError("steps of another checkpoint")
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"the checkpoint {file} is truncated or broken.") from None
    return values


def load_optimizer(folder: Folder, optimizer: torch.optim.Optimizer) -> None:
    """Load the moments of a checkpoint into an optimizer with the same parameters.

    Raises:
        UserError: If the file is missing, truncated or broken, or belongs to another network.
    """
    file = folder / OPTIMIZER
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    is_torchs = type(optimizer).__module__.startswith("torch.optim.")  # the state of any other optimizer is unknown
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for key, tensor in _tensors(file).items():
            index, _, name = key.partition(".")
            if not index.isdecimal():
                raise ValueError(f"{key} belongs to no parameter")
            parameter = parameters[int(index)]
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{key} holds NaN or infinity")
            if is_torchs and not _spreads(tensor, parameter):
                raise ValueError(f"{key} has another shape")
            if is_torchs and tensor.dtype not in (parameter.dtype, torch.float32):
                raise ValueError(f"{key} has another type of numbers")
            state.setdefault(int(index), {})[name] = tensor
        if is_torchs and (lacking := _lacking(state, parameters)):
            raise ValueError(f"{lacking[0]} is missing")
    except UserError:
        raise
    except (ValueError, IndexError) as error:
        raise UserError(f"the checkpoint {file} is truncated or broken ({error}).") from None
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _spreads(moment: Tensor, parameter: Tensor) -> bool:
    """Return whether a moment has one number per parameter tensor, per element, per row or per column."""
    pairs = zip(moment.shape, parameter.shape, strict=False)
    return moment.dim() in (0, parameter.dim()) and all(size in (1, whole) for size, whole in pairs)


def _lacking(state: Mapping[int, Mapping[str, Tensor]], parameters: Sequence[Tensor]) -> list[str]:
    """Return the moments that one parameter lacks but another with the same number of dimensions has."""
    names: dict[int, set[str]] = {}
    for index, moments in state.items():
        names.setdefault(parameters[index].dim(), set()).update(moments)
    return [
        f"{index}.{name}"
        for index, moments in state.items()
        for name in sorted(names[parameters[index].dim()] - moments.keys())
    ]


def load_arrays(folder: Folder) -> dict[str, np.ndarray]:
    """Return the arrays in training.safetensors of a checkpoint.

    Raises:
        UserError: If the file is missing, truncated or broken.
    """
    file = folder / TRAINING
    data = read(file)
    try:
        arrays: dict[str, np.ndarray] = safetensors.numpy.load(data)
    except Exception as error:  # KeyError for a number type that numpy lacks
        raise _broken(file, error) from None
    return arrays


def read(file: Folder) -> bytes:
    """Return the content of a file of a checkpoint.

    Raises:
        UserError: If it is missing or cannot be read.
    """
    try:
        if isinstance(file, Path):
            file = inside(file.parent, file.name)
        data: bytes = file.read_bytes()
    except (FileNotFoundError, KeyError):
        if isinstance(file, Path) and not file.parent.exists():
            raise UserError(f"the checkpoint {file.parent} was removed while it was read; try again.") from None
        raise UserError(f"the checkpoint {file.parent} is incomplete: {file.name} is missing.") from None
    except zipfile.BadZipFile as error:
        raise UserError(f"the checkpoint {file.parent} is truncated or broken ({error}).") from None
    except OSError as error:
        raise UserError(f"the checkpoint {file.parent} cannot be read: {error.strerror or error}.") from None
    return data


def _tensors(file: Folder) -> dict[str, Tensor]:
    data = read(file)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except Exception as error:  # KeyError for a number type that torch lacks
        raise _broken(file, error) from None
    return tensors


def _broken(file: Folder, error: Exception) -> UserError:
    reason = str(error) if isinstance(error, SafetensorError) else f"{type(error).__name__}: {error}"
    return UserError(f"the checkpoint {file} is truncated or broken ({' '.join(reason.split())[:200]}).")


def _shown(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors as `<parameter index>.<name>`."""
    state = optimizer.state_dict()["state"]
    held = {f"{i}.{name}": value for i, moments in state.items() for name, value in moments.items()}
    for name, value in held.items():
        if not isinstance(value, Tensor | int | float | type(None)):
            raise UserError(
                f"the optimizer {type(optimizer).__name__} cannot be saved: its state {name} is a "
                f"{type(value).__name__}, but only tensors and numbers can be saved."
            )
    return _contiguous({name: torch.as_tensor(value) for name, value in held.items() if value is not None})
