"""From any observation to a feature vector: images, MiniGrid's symbolic views, numbers, and Dicts of them.

What a Box of bytes means is said, never guessed from its size: by its class (`Categories`, which our environments and
wrappers use), by `observation_kinds`, or, of a network that was saved, by its weights.
"""

import copy
import re
from collections.abc import Collection, Iterable, Mapping

import gymnasium
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor, nn

from bistable_rl.agents.spaces import ONLY, spaces_of
from bistable_rl.envs.wrappers import Categories, minigrid_views

# NatureCNN's kernels and strides need at least this many pixels.
SMALLEST_IMAGE = 36

KINDS = ("categories", "pixels", "numbers")
"""How an observation is read: embedded cell by cell, by the CNN, or flat."""


def with_categories(space: spaces.Space, keys: Collection[str]) -> spaces.Space:
    """Return a space whose Boxes of these keys are `Categories`."""
    if not keys:
        return space
    parts = spaces_of(space)
    marked = {
        key: Categories(part.low, part.high, dtype=part.dtype.type)
        if key in keys and isinstance(part, spaces.Box)
        else part
        for key, part in parts.items()
    }
    if not isinstance(space, spaces.Dict):
        return marked[ONLY]
    copied = copy.copy(space)  # a new one would sort its keys
    copied.spaces = marked
    return copied


def declared_categories(env: VecEnv) -> list[str]:
    """Return the keys of the observations of which the environment says that they are categories.

    SB3 puts channels first in a plain Box, so the copies' own space is asked, below SB3's wrappers; in MiniGrid's own
    environments, for as long as no wrapper has put another image in its place, the view is categories.
    """
    inner = spaces_of(env.unwrapped.observation_space)
    views = minigrid_views(env.unwrapped.envs[0]) if isinstance(env.unwrapped, DummyVecEnv) else []
    return [
        key
        for key, part in spaces_of(env.observation_space).items()
        if isinstance(inner.get(key), Categories) or any(inner.get(key) is view for view in views)
        if sorted(part.shape or ()) == sorted(inner[key].shape or ()) and part.dtype == inner[key].dtype
    ]


def saved_kinds(names: Iterable[str], space: spaces.Space) -> dict[str, str]:
    """Return which observations a saved network reads as categories, told by the names of its weights."""
    keys = list(spaces_of(space))
    found = {
        int(part) for name in names for part in re.findall(r"^features_extractor\.parts\.(\d+)\.embeddings\.", name)
    }
    return {keys[part]: "categories" for part in sorted(found) if part < len(keys)}


def _kinds(space: spaces.Space, given: Mapping[str, str]) -> dict[str, str]:
    """Return how each part of an observation is read.

    Raises:
        ValueError: One cannot be read so, or it cannot be told.
    """
    parts = spaces_of(space)
    if not isinstance(given, Mapping):
        raise ValueError(f"observation_kinds must be a mapping such as {{image: categories}}, got {given!r}")
    for key, kind in given.items():
        if key not in parts:
            raise ValueError(f"observation_kinds has no observation {key!r}; there are {', '.join(map(repr, parts))}")
        if kind not in KINDS:
            raise ValueError(f"observation_kinds: {key} must be one of {', '.join(KINDS)}, got {kind!r}")
    return {key: given.get(key) or _kind(key, part) for key, part in parts.items()}


def _kind(key: str, space: spaces.Space) -> str:
    if isinstance(space, Categories):
        return "categories"
    size = " x ".join(map(str, space.shape or ()))
    if _is_bytes(space) and 3 in (space.shape[0], space.shape[2]) and max(space.shape) < SMALLEST_IMAGE:  # type: ignore[index,arg-type]
        raise ValueError(
            f"the observation {key!r} of {size} bytes may be a small picture or a grid of categories, such as "
            f"MiniGrid's view: say it by observation_kinds={{{key!r}: 'categories'}} or {{{key!r}: 'numbers'}} "
            f"(policy.observation_kinds in a config), or enlarge a picture to {SMALLEST_IMAGE} pixels a side"
        )
    if not is_image_space(space):
        return "numbers"
    return "pixels"


def _is_bytes(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == "uint8" and len(space.shape) == 3


def _module(key: str, kind: str, space: spaces.Space) -> tuple[nn.Module, int]:
    """Return what reads a part of an observation, and how many features it gives."""
    size = " x ".join(map(str, space.shape or ()))
    if kind == "categories":
        if not _is_bytes(space) or 3 not in (space.shape[0], space.shape[2]):  # type: ignore[index]
            raise ValueError(f"categories are bytes in V x V cells of 3, but the observation {key!r} is {space}")
        if space.shape[0] == space.shape[2] != space.shape[1]:  # type: ignore[index]
            raise ValueError(
                f"in the observation {key!r} of {size} either side may be the 3 categories of a cell; give a grid that "
                "is 3 cells wide as many cells high, or flat"
            )
        return SymbolicView(space.shape or (), 64), 64
    if kind == "pixels":
        if not isinstance(space, spaces.Box) or not is_image_space(space):
            raise ValueError(f"pixels are bytes from 0 to 255 in an image, but the observation {key!r} is {space}")
        if min(sorted(space.shape)[1:]) < SMALLEST_IMAGE:
            raise ValueError(
                f"an image of {size} is too small for the CNN, which needs {SMALLEST_IMAGE} pixels a side; enlarge it, "
                f"or say observation_kinds={{{key!r}: 'numbers'}} to read it flat (policy.observation_kinds in a file)"
            )
        return Image(space, 256), 256
    flat = Scaled() if is_image_space(space) else nn.Flatten()
    return flat, int(get_flattened_obs_dim(space))


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


class Scaled(nn.Module):
    """An image read flat, in numbers from 0 to 1.

    Shape:
        - Input: (B, C, height, width), values 0 to 255
        - Output: (B, C · height · width)
    """

    def forward(self, image: Tensor) -> Tensor:
        """Scale and flatten."""
        return image.flatten(1) / 255.0


class Features(BaseFeaturesExtractor):
    """One module for every observation, concatenated over the keys of a Dict.

    Args:
        observation_space: Any space of numbers, or a Dict of them.
        observation_kinds: By key ("observation" where there is no Dict) how it is read: "categories" (bytes in V x V
            cells of 3, embedded), "pixels" (an image, by a CNN) or "numbers" (flat). Left out: categories in a
            `Categories` space, pixels in an image, else numbers.

    Shape:
        - Output: (B, features_dim)

    Raises:
        ValueError: A space cannot be read as asked, an image is too small for the CNN, or bytes of its size may be a
            picture or categories and nothing says which.
    """

    def __init__(self, observation_space: gymnasium.Space, observation_kinds: Mapping[str, str] | None = None) -> None:
        kinds = _kinds(observation_space, observation_kinds or {})
        modules: dict[str, nn.Module] = {}
        width = 0
        for key, space in spaces_of(observation_space).items():
            modules[key], size = _module(key, kinds[key], space)
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
