"""From any observation to a feature vector: images, MiniGrid's symbolic views, numbers, and Dicts of them."""

import gymnasium
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor, nn

# NatureCNN's kernels and strides need at least this many pixels.
SMALLEST_IMAGE = 36


def is_symbolic_view(space: spaces.Space) -> bool:
    """Whether a space is a small grid of three categories a cell, such as MiniGrid's (object, colour, state) view."""
    if not isinstance(space, spaces.Box) or space.dtype != "uint8" or len(space.shape) != 3:
        return False
    return 3 in (space.shape[0], space.shape[2]) and max(space.shape) < SMALLEST_IMAGE


class SymbolicView(nn.Module):
    """A view of V x V cells with three categories each, embedded cell by cell.

    Args:
        shape: (V, V, 3), or (3, V, V) as SB3 transposes images.
        features_dim: Width of the output.

    Shape:
        - Input: (B, V, V, 3) or (B, 3, V, V), values 0 to 255
        - Output: (B, features_dim)
    """

    def __init__(self, shape: tuple[int, ...], features_dim: int = 64) -> None:
        super().__init__()
        # SB3 takes 3x3x3 for channels first already and leaves it alone, so 3 at the end settles it.
        self.channels_last = shape[2] == 3
        height, width = shape[:2] if self.channels_last else shape[1:]
        self.embeddings = nn.ModuleList(nn.Embedding(256, 8) for _ in range(3))
        self.linear = nn.Linear(height * width * 8, features_dim)

    def forward(self, view: Tensor) -> Tensor:
        """Embed a batch of views."""
        categories = view.long() if self.channels_last else view.long().movedim(1, -1)
        # a cell's three categories share one vector: (B, V, V, 8)
        cells = torch.stack([embed(categories[..., i]) for i, embed in enumerate(self.embeddings)]).sum(0)
        return torch.relu(self.linear(cells.flatten(1)))


class Image(nn.Module):
    """An image through the CNN of Mnih et al. (2015).

    Shape:
        - Input: (B, C, height, width), values 0 to 255
        - Output: (B, features_dim)
    """

    def __init__(self, space: spaces.Box, features_dim: int = 256) -> None:
        super().__init__()
        self.cnn = NatureCNN(space, features_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Scale to [0, 1] and convolve."""
        features: Tensor = self.cnn(image / 255.0)
        return features


class Features(BaseFeaturesExtractor):
    """One module for every observation: chosen by the space, concatenated over the keys of a Dict.

    Args:
        observation_space: Any space of numbers, or a Dict of them.

    Shape:
        - Output: (B, features_dim)

    Raises:
        ValueError: An image is too small for the CNN and no symbolic view either.
    """

    def __init__(self, observation_space: gymnasium.Space) -> None:
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
        modules: dict[str, nn.Module] = {}
        width = 0
        for key, space in parts.items():
            if is_symbolic_view(space):
                modules[key], size = SymbolicView(space.shape or (), 64), 64
            elif is_image_space(space):
                assert isinstance(space, spaces.Box)
                if min(sorted(space.shape)[1:]) < SMALLEST_IMAGE:
                    raise ValueError(
                        f"an image of {' x '.join(map(str, space.shape))} is too small for the CNN, which needs "
                        f"{SMALLEST_IMAGE} pixels a side; flatten it or give it as numbers"
                    )
                modules[key], size = Image(space, 256), 256
            else:
                modules[key], size = nn.Flatten(), int(get_flattened_obs_dim(space))
            width += size
        super().__init__(observation_space, width)
        self.keys = list(modules)
        self.parts = nn.ModuleList(modules.values())

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the features of a batch of observations."""
        if isinstance(observations, dict):
            return torch.cat([part(observations[key]) for key, part in zip(self.keys, self.parts, strict=True)], dim=1)
        (part,) = self.parts  # indexing a ModuleList looks its length up first
        features: Tensor = part(observations)
        return features
