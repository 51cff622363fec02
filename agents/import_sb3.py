"""The weights of archives that sb3-contrib's RecurrentPPO saved; nothing else in them is read, nothing is unpickled."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bistable_rl.agents.archive import check_members
from bistable_rl.errors import UserError
from bistable_rl.runs import checkpoint

if TYPE_CHECKING:
    from bistable_rl.agents.ppo import RecurrentPPO


def import_sb3(model: RecurrentPPO, path: Path) -> None:
    """Load the weights of an archive of sb3-contrib's RecurrentPPO; see `RecurrentPPO.import_sb3`."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, path.stat().st_size)
            data = archive.read("policy.pth")
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as inner:
                check_members(inner, len(data))
        # torch's restricted reader builds tensors and refuses anything else
        tensors = torch.load(io.BytesIO(data), map_location=model.device, weights_only=True)
        if not isinstance(tensors, dict) or not all(map(_is_dense, tensors, tensors.values())):
            raise ValueError("policy.pth must map names to dense tensors")
    except Exception as error:  # torch's reader raises errors of any type
        raise UserError(
            f"{path} must be an archive of sb3-contrib's RecurrentPPO, but its weights cannot be read "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]})."
        ) from None
    checkpoint.fill(model.policy, tensors, str(path))


def _is_dense(name: object, tensor: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_meta or tensor.is_nested)
    )
