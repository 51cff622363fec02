"""The gradient of all parameters as one vector: its norms and its clipping take a call each, not one a parameter."""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.linalg import vector_norm


class Gradient:
    """A vector of which each parameter's gradient is a piece, from now on until something replaces it.

    Args:
        parts: The parameters, by what they serve; all of one type, on one device.
    """

    def __init__(self, parts: dict[str, list[nn.Parameter]]) -> None:
        parameters = [parameter for part in parts.values() for parameter in part]
        self.vector = cat([parameter.detach().flatten() for parameter in parameters]).zero_()
        for parameter, piece in zip(parameters, self.vector.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = piece.view_as(parameter)
        sizes = [sum(parameter.numel() for parameter in part) for part in parts.values()]
        self._parts = dict(zip(parts, self.vector.split(sizes), strict=True))

    def clear(self) -> None:
        """Set it to zero, for `backward` to add to."""
        self.vector.zero_()

    def norms(self) -> dict[str, Tensor]:
        """Return its norm, as "norm", and that of each part."""
        norms = {name: vector_norm(part) for name, part in self._parts.items()}
        norms["norm"] = vector_norm(self.vector)
        return norms

    def clip(self, norm: Tensor, max_norm: float) -> None:
        """Scale it, which has a norm, down to another one."""
        self.vector.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
