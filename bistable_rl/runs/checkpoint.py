"""The files of a checkpoint: weights and optimizer in safetensors, counters in JSON.

weights.safetensors
optimizer.safetensors
training.safetensors    what else goes on from there (agents)
state.json

The same files in one uncompressed zip are what `RecurrentPPO.save` writes. Nothing of this is ever unpickled.
"""

import json
import zipfile
from collections.abc import Mapping
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
"""Where the files of a checkpoint are: in a folder, or in an archive."""


def pack(
    network: nn.Module,
    state: Mapping[str, Any],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> dict[str, bytes]:
    """Return the files of a checkpoint, by name.

    Raises:
        UserError: The weights hold NaN or infinity, with which nothing could go on.
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
    return {**files, STATE: (json.dumps(state, indent=2, allow_nan=False) + "\n").encode()}


def load_weights(folder: Folder, network: nn.Module) -> dict[str, Any]:
    """Load a checkpoint's weights into a network and return its state.json.

    Raises:
        UserError: A file is missing, truncated or broken, or the weights belong to another architecture.
    """
    tensors = _tensors(folder / WEIGHTS)
    state = load_state(folder)
    fill(network, tensors, f"the checkpoint {folder}")
    return state


def weight_names(folder: Folder) -> list[str]:
    """Return the names of a checkpoint's weights.

    Raises:
        UserError: The file is missing, truncated or broken.
    """
    return list(_tensors(folder / WEIGHTS))


def fill(network: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load weights into a network.

    Raises:
        UserError: They belong to another architecture, or hold NaN; the sentence starts with `source`.
    """
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        have, want = _shown(tensors.get(name)), _shown(wanted.get(name))
        if have != want:
            raise UserError(
                f"{source} belongs to another architecture: {name} is {have} in it and {want} in the network."
            )
        if not bool(torch.isfinite(tensors[name]).all()):
            raise UserError(f"{source} is broken: {name} holds NaN or infinity.")
    network.load_state_dict(tensors)


def load_state(folder: Folder) -> dict[str, Any]:
    """Return a checkpoint's state.json.

    Raises:
        UserError: It is missing, truncated or broken.
    """
    file = folder / STATE
    try:
        state: dict[str, Any] = json.loads(read(file))
        state["steps"] = int(state["steps"])
        if isinstance(folder, Path) and state["steps"] != steps_of(folder):
            raise ValueError("steps of another checkpoint")
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"the checkpoint {file} is truncated or broken.") from None
    return state


def load_optimizer(folder: Folder, optimizer: torch.optim.Optimizer) -> None:
    """Load a checkpoint's moments into an optimizer of the same parameters.

    Raises:
        UserError: The file is missing, truncated or broken, or belongs to another network.
    """
    file = folder / OPTIMIZER
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for key, tensor in _tensors(file).items():
            index, _, name = key.partition(".")
            if not index.isdecimal():
                raise ValueError(f"{key} belongs to no parameter")
            parameter = parameters[int(index)]
            if tensor.dim() and tensor.shape != parameter.shape:
                raise ValueError(f"{key} has another shape")
            if tensor.dtype not in (parameter.dtype, torch.float32):
                raise ValueError(f"{key} has another type of numbers")
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{key} holds NaN or infinity")
            state.setdefault(int(index), {})[name] = tensor
        names = set().union(*state.values())
        lacking = [f"{index}.{name}" for index, moments in state.items() for name in sorted(names - moments.keys())]
        if lacking:
            raise ValueError(f"{lacking[0]} is missing")
    except UserError:
        raise
    except (ValueError, IndexError) as error:
        raise UserError(f"the checkpoint {file} is truncated or broken ({error}).") from None
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_arrays(folder: Folder) -> dict[str, np.ndarray]:
    """Return a checkpoint's training.safetensors.

    Raises:
        UserError: It is missing, truncated or broken.
    """
    file = folder / TRAINING
    data = read(file)
    try:
        arrays: dict[str, np.ndarray] = safetensors.numpy.load(data)
    except Exception as error:  # KeyError for a type of numbers that numpy does not have
        raise _broken(file, error) from None
    return arrays


def read(file: Folder) -> bytes:
    """Return a file of a checkpoint.

    Raises:
        UserError: It is missing or cannot be read.
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
    except Exception as error:  # KeyError for a type of numbers that torch does not have
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
    return _contiguous({f"{i}.{name}": torch.as_tensor(v) for i, s in state.items() for name, v in s.items()})
