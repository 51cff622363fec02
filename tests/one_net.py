"""A user's own networks, named in configs as `one_net:Net`."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class Net(BaseFeaturesExtractor):
    """Two layers on anything flat; keeps the largest number that it has seen."""

    def __init__(self, observation_space: spaces.Space[Any], features_dim: int = 5) -> None:
        super().__init__(observation_space, features_dim)
        width = int(spaces.utils.flatdim(observation_space))
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(width, 7), nn.ReLU(), nn.Linear(7, features_dim))
        self.largest = 0.0

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features."""
        self.largest = max(self.largest, float(observations.max()))
        features: Tensor = self.net(observations)
        return features


class Both(BaseFeaturesExtractor):
    """An image and numbers, side by side."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return the mean of the image and the numbers."""
        mean = observations["image"].flatten(1).mean(1, keepdim=True)
        return self.scale * torch.cat([mean, observations["numbers"]], 1)


class Wide(Net):
    """Returns more than it says."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features twice."""
        return super().forward(observations).repeat(1, 2)


class Double(nn.Module):
    """An activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Return twice the input."""
        return 2 * x


class Squares(torch.optim.SGD):
    """Keeps the product of each gradient with itself, in another shape and type of numbers than the parameter's."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make a step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                flat = parameter.grad.flatten()
                self.state[parameter]["squares"] = torch.outer(flat, flat)
                self.state[parameter]["calls"] = self.state[parameter].get("calls", 0) + 1
        super().step(closure)


class Lists(torch.optim.SGD):
    """Keeps what is neither a tensor nor a number."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make a step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["past"] = [parameter.grad]
        super().step(closure)
