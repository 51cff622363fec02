"""The gradient of all parameters as one vector: one call for its norm and one to clip it, not one per parameter."""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.linalg import vector_norm


class Gradient:
    """A vector; the gradient of each parameter is a view of it, until something replaces that gradient.

    Args:
        parts: The parameters by their purpose, all of one dtype and on one device.
    """

    def __init__(self, parts: dict[str, list[nn.Parameter]]) -> None:
        parameters = [parameter for part in parts.values() for parameter in part]
        self.vector = cat([parameter.detach().flatten() for parameter in parameters]).zero_()
        for parameter, piece in zip(parameters, self.vector.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = piece.view_as(parameter)
        sizes = [sum(parameter.numel() for parameter in part) for part in parts.values()]
        self._parts = dict(zip(parts, self.vector.split(sizes), strict=True))

    def clear(self) -> None:
        """Set the gradient to zero, before `backward` adds to it."""
        self.vector.zero_()

    def norms(self) -> dict[str, Tensor]:
        """Return the norm of the gradient as "norm", and the norm of each part by its name."""
        norms = {name: vector_norm(part) for name, part in self._parts.items()}
        norms["norm"] = vector_norm(self.vector)
        return norms

    def clip(self, norm: Tensor, max_norm: float) -> None:
        """Scale the gradient, which has the given norm, down to at most `max_norm`."""
        self.vector.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
