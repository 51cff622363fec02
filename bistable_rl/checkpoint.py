"""Checkpoints: weights and optimizer in safetensors, counters in JSON, written whole or not at all.

checkpoints/<steps>/weights.safetensors
                    optimizer.safetensors
                    state.json
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bistable_rl import runs
from bistable_rl.config import UserError


def save(
    run: Path, steps: int, network: nn.Module, optimizer: torch.optim.Optimizer, *, keep: int, **state: Any
) -> Path:
    """Write the checkpoint of a run at a number of steps and drop the oldest ones past `keep`.

    Args:
        run: The run folder.
        steps: Environment steps, or updates, so far; names the checkpoint.
        network: Its weights are kept.
        optimizer: Its moments are kept.
        keep: How many of the latest checkpoints remain.
        **state: Further plain values for state.json.

    Raises:
        UserError: The disk is full or cannot be written to; earlier checkpoints are intact.
    """
    folder = run / runs.CHECKPOINTS / f"{steps:012d}"
    with runs.written_folder(folder) as temporary:
        try:
            safetensors.torch.save_file(_contiguous(network.state_dict()), temporary / "weights.safetensors")
            safetensors.torch.save_file(_optimizer_tensors(optimizer), temporary / "optimizer.safetensors")
        except SafetensorError as error:
            raise UserError(f"{folder} cannot be written: {error}.") from None
        runs.write_json(temporary / "state.json", {"steps": steps, **state})
    for old in folders(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def folders(run: Path) -> list[Path]:
    """Return the checkpoints of a run, the oldest first."""
    return sorted(p for p in (run / runs.CHECKPOINTS).glob("*") if re.fullmatch("[0-9]{12,}", p.name))


def latest(run: Path) -> Path:
    """Return the last checkpoint of a run.

    Raises:
        UserError: There is none.
    """
    found = folders(run)
    if not found:
        raise UserError(f"{run} holds no checkpoint yet; it was stopped before its first one.")
    return found[-1]


def load_weights(folder: Path, network: nn.Module) -> dict[str, Any]:
    """Load a checkpoint's weights into a network and return its state.json.

    Raises:
        UserError: A file is missing, truncated or broken, or the weights belong to another architecture.
    """
    file = folder / "weights.safetensors"
    try:
        tensors = safetensors.torch.load_file(file)
        state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        state["steps"] = int(state["steps"])
    except FileNotFoundError as error:
        raise UserError(
            f"the checkpoint {folder} is incomplete: {Path(error.filename or file).name} is missing."
        ) from None
    except SafetensorError as error:
        raise UserError(f"the checkpoint {file} is truncated or broken ({error}).") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"the checkpoint {folder / 'state.json'} is truncated or broken.") from None
    except OSError as error:
        raise UserError(f"the checkpoint {folder} cannot be read: {error.strerror or error}.") from None
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        have, want = _shown(tensors.get(name)), _shown(wanted.get(name))
        if have != want:
            raise UserError(
                f"the checkpoint {folder} belongs to another architecture: {name} is {have} in it "
                f"and {want} in the network of {runs.CONFIG}."
            )
        if not bool(torch.isfinite(tensors[name]).all()):
            raise UserError(f"the checkpoint {folder} is broken: {name} holds NaN or infinity.")
    network.load_state_dict(tensors)
    return state


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load a checkpoint's moments into an optimizer of the same parameters.

    Raises:
        UserError: The file is missing, truncated or broken, or belongs to another network.
    """
    file = folder / "optimizer.safetensors"
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for key, tensor in safetensors.torch.load_file(file).items():
            index, _, name = key.partition(".")
            if tensor.dim() and tensor.shape != parameters[int(index)].shape:
                raise ValueError(f"{key} has another shape")
            state.setdefault(int(index), {})[name] = tensor
    except FileNotFoundError:
        raise UserError(f"the checkpoint {folder} is incomplete: {file.name} is missing.") from None
    except (SafetensorError, OSError, ValueError, IndexError) as error:
        raise UserError(f"the checkpoint {file} is truncated or broken ({error}).") from None
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _shown(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors as `<parameter index>.<name>`."""
    state = optimizer.state_dict()["state"]
    return _contiguous({f"{i}.{name}": torch.as_tensor(v) for i, s in state.items() for name, v in s.items()})
