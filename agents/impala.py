"""The deep residual network of IMPALA (Espeholt et al. 2018, fig. 3, right) for images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), both convolutions 3 x 3.

    Shape:
        - Input and output: (B, channels, height, width)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Add the output of the convolutions to the input."""
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class ImpalaCNN(nn.Module):
    """Three sections, each with a convolution, a pooling by 2 and two residual blocks; then a linear layer.

    Args:
        space: A Box of bytes, channels first.
        features_dim: Width of the output.
        channels: Channels of each section.

    Shape:
        - Input: (B, C, height, width), values 0 to 1
        - Output: (B, features_dim)
    """

    def __init__(self, space: spaces.Box, features_dim: int = 256, channels: Sequence[int] = (16, 32, 32)) -> None:
        super().__init__()
        depth, height, width = space.shape
        layers: list[nn.Module] = []
        for wide in channels:
            layers += [nn.Conv2d(depth, wide, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
            layers += [ResidualBlock(wide), ResidualBlock(wide)]
            depth, height, width = wide, (height + 1) // 2, (width + 1) // 2
        self.sections = nn.Sequential(*layers)
        self.linear = nn.Linear(depth * height * width, features_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Return the features of a batch of images."""
        return torch.relu(self.linear(torch.relu(self.sections(image)).flatten(1)))
