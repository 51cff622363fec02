"""From any observation to a feature vector: images, MiniGrid's symbolic views, numbers, and Dicts of them.

The meaning of a Box of bytes is declared, never guessed from its size. The declaration is its class (`Categories`,
which our environments and wrappers use), `observation_kinds`, or, for a saved network, its weights. Two conventions
come from SB3: bytes from 0 to 255 in three dimensions, with at least 36 pixels a side, are pixels; a vector of bytes
(Atari's RAM) is read as numbers from 0 to 255, unscaled.
"""

import copy
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from torch import Tensor, nn

from bistable_rl.agents.embeddings import sum_of_embeddings
from bistable_rl.agents.impala import ImpalaCNN
from bistable_rl.agents.spaces import ONLY, spaces_of
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.checks import check_int
from bistable_rl.envs.wrappers import Categories, minigrid_views

# NatureCNN's kernels and strides need at least this many pixels.
SMALLEST_IMAGE = 36

READERS = {"flat": "numbers", "nature_cnn": "pixels", "impala": "pixels", "minigrid": "categories"}
"""The readers of observations by name, each with the kind of observation that it reads; others are read flat."""

OBSERVATION_KINDS = ("categories", "pixels", "numbers")
"""How an observation is read: embedded cell by cell, by the CNN, or flat."""


CHANGING = {
    "gymnasium.wrappers": (
        *("FlattenObservation", "FrameStackObservation", "ReshapeObservation", "DtypeObservation"),
        *("NormalizeObservation", "RescaleObservation", "TimeAwareObservation"),
    ),
    "minigrid.wrappers": ("FlatObsWrapper",),
    "bistable_rl.agents.vec_envs": ("BatchedVecEnv",),  # where VecNormalize has replaced the parts of its Dict
    "stable_baselines3.common.vec_env": ("VecFrameStack", "VecNormalize", "VecTransposeImage"),
}
"""Wrappers, by package, that change the form of the observations but not their meaning."""


class Changed(spaces.Box):
    """A Box of former categories that a wrapper flattened, stacked or normalised. It equals the plain Box."""


def with_categories(space: spaces.Space, keys: Collection[str], mark: type[spaces.Box] = Categories) -> spaces.Space:
    """Return a space whose Boxes under these keys are `Categories`, or another given class."""
    if not keys:
        return space
    parts = spaces_of(space)
    marked = {
        key: mark(part.low, part.high, dtype=part.dtype.type) if key in keys and isinstance(part, spaces.Box) else part
        for key, part in parts.items()
    }
    if not isinstance(space, spaces.Dict):
        return marked[ONLY]
    copied = copy.copy(space)  # a new Dict would sort its keys
    copied.spaces = marked
    return copied


def declared_categories(env: VecEnv) -> list[str]:
    """Return the keys of the observations that the environment declares to be categories.

    The space of the copies themselves counts: SB3's wrappers replace `Categories` by a plain Box with channels first.
    MiniGrid's own view holds categories too, unless a wrapper has replaced it by another image.
    """
    inner = spaces_of(env.unwrapped.observation_space)
    views = minigrid_views(env.unwrapped.envs[0]) if isinstance(env.unwrapped, DummyVecEnv) else []
    return [
        key
        for key, part in spaces_of(env.observation_space).items()
        if isinstance(inner.get(key), Categories) or any(inner.get(key) is view for view in views)
        if sorted(part.shape or ()) == sorted(inner[key].shape or ()) and part.dtype == inner[key].dtype
    ]


def changed_categories(env: VecEnv) -> list[str]:
    """Return the keys of the observations that are categories, but no longer in the environment's form.

    The meaning is followed through the wrappers of `CHANGING` only: any other wrapper may have drawn a picture.
    """
    views = minigrid_views(env.unwrapped.envs[0]) if isinstance(env.unwrapped, DummyVecEnv) else []
    shown: dict[str, spaces.Space] = {}  # the parts that one layer shows, from the innermost layer on
    for layer in reversed(list(_layers(env))):
        space = layer.single_observation_space if isinstance(layer, VectorEnv) else layer.observation_space
        meant = [*views, *shown.values()]
        below = [*shown, *([ONLY] if shown else [])] if _only_changes(layer) else []
        shown = {
            key: part
            for key, part in spaces_of(space).items()
            if isinstance(part, Categories) or key in below or any(part is other for other in meant)
        }
        if isinstance(layer, DummyVecEnv) and isinstance(space, spaces.Dict):
            # VecNormalize changes the Dict of the environment that it wraps; the buffers keep the former dtypes
            was = {key: buffer for key, buffer in layer.buf_obs.items() if buffer.dtype == "uint8" and buffer.ndim > 2}
            shown |= {key: part for key, part in space.items() if key in was and part.dtype != "uint8"}
    return [key for key, part in shown.items() if isinstance(part, spaces.Box) and key not in declared_categories(env)]


def _layers(env: Any) -> Iterator[Any]:
    """Yield an environment, the one that it wraps, and so on to the innermost."""
    while env is not None:
        yield env
        if isinstance(env, DummyVecEnv):
            env = env.envs[0]
        elif isinstance(env, VecEnvWrapper):
            env = env.venv
        else:
            env = env.env if isinstance(env, gymnasium.Wrapper | VectorWrapper | BatchedVecEnv) else None


def _only_changes(layer: Any) -> bool:
    return any(
        kind.__name__ in names and f"{kind.__module__}.".startswith(f"{package}.")
        for kind in type(layer).__mro__
        for package, names in CHANGING.items()
    )


def as_shown(space: spaces.Space, env: VecEnv) -> spaces.Space:
    """Return a space that declares the meaning that its environment gives it."""
    return with_categories(with_categories(space, declared_categories(env)), changed_categories(env), Changed)


def saved_kinds(names: Iterable[str], space: spaces.Space) -> dict[str, str]:
    """Return how a saved network reads each of its observations, by the names of its weights."""
    found = {
        (int(part), module)
        for name in names
        for part, module in re.findall(r"^features_extractor\.parts\.(\d+)\.(embeddings|cnn)\.", name)
    }
    kinds = {"embeddings": "categories", "cnn": "pixels"}
    return dict.fromkeys(spaces_of(space), "numbers") | {
        key: kinds[module] for i, key in enumerate(spaces_of(space)) for part, module in found if part == i
    }


def unsaid(space: spaces.Space, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return the kinds that the space alone does not declare."""
    told = {}
    for key, part in spaces_of(space).items():
        try:
            told[key] = _kind(key, part)
        except ValueError:  # the space does not declare it
            continue
    return {key: kind for key, kind in kinds.items() if told.get(key) != kind}


def _kinds(space: spaces.Space, given: Mapping[str, str], reader: str | None) -> dict[str, str]:
    """Return how each part of an observation is read.

    Raises:
        ValueError: If a part cannot be read as its kind says, or its kind is unclear.
    """
    parts = spaces_of(space)
    if not isinstance(given, Mapping):
        raise ValueError(f"observation_kinds must be a mapping such as {{image: categories}}, got {given!r}")
    for key, kind in given.items():
        if key not in parts:
            raise ValueError(f"observation_kinds: there is no observation {key!r}, only {', '.join(map(repr, parts))}")
        if kind not in OBSERVATION_KINDS:
            raise ValueError(f"observation_kinds: {key} must be one of {', '.join(OBSERVATION_KINDS)}, got {kind!r}")
    if reader is None:
        return {key: given.get(key) or _kind(key, part) for key, part in parts.items()}
    views = [key for key, part in parts.items() if READERS[reader] != "numbers" and _is_bytes(part)]
    kinds = dict.fromkeys(parts, "numbers") | dict.fromkeys(views, READERS[reader]) | dict(given)
    if READERS[reader] not in kinds.values():
        raise ValueError(f"{reader} reads bytes in three dimensions, but the observations have none: {space}")
    return kinds


def _kind(key: str, space: spaces.Space) -> str:
    size = " x ".join(map(str, space.shape or ()))
    numbers = f"observation_kinds={{{key!r}: 'numbers'}} (policy.observation_kinds in a config)"
    if isinstance(space, Changed):
        raise ValueError(
            f"the observation {key!r} of {size} was made by a wrapper that flattened, stacked or normalised "
            f"bytes, which were categories or a picture; leave the wrapper out, or set {numbers} to read it flat"
        )
    if (isinstance(space, Categories) or _is_whole_byte(space)) and len(space.shape or ()) not in (0, 1, 3):
        raise ValueError(
            f"the observation {key!r} of {size} bytes may be pictures or categories; set {numbers} to read it flat, "
            "from 0 to 255 as it is, or give it 3 dimensions for 'pixels' or 'categories'"
        )
    if isinstance(space, Categories) and len(space.shape) == 3:
        return "categories"
    if _is_bytes(space) and 3 in (space.shape[0], space.shape[2]) and max(space.shape) < SMALLEST_IMAGE:  # type: ignore[index,arg-type]
        raise ValueError(
            f"the observation {key!r} of {size} bytes may be a small picture or a grid of categories, such as "
            f"MiniGrid's view; set observation_kinds={{{key!r}: 'categories'}} or {{{key!r}: 'numbers'}} "
            f"(policy.observation_kinds in a config), or enlarge a picture to {SMALLEST_IMAGE} pixels a side"
        )
    if not is_image_space(space):
        return "numbers"
    return "pixels"


def _is_whole_byte(space: spaces.Space) -> bool:
    """Return whether a space is a Box of bytes from 0 to 255, of any shape."""
    if not isinstance(space, spaces.Box) or space.dtype != "uint8":
        return False
    return bool((space.low == 0).all() and (space.high == 255).all())


def _is_bytes(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == "uint8" and len(space.shape) == 3


def _module(
    key: str, kind: str, space: spaces.Space, reader: str | None, features_dim: int | None
) -> tuple[nn.Module, int]:
    """Return the module for one part of an observation, and its number of features."""
    size = " x ".join(map(str, space.shape or ()))
    if kind == "categories":
        if not _is_bytes(space) or 3 not in (space.shape[0], space.shape[2]):  # type: ignore[index]
            raise ValueError(f"categories are bytes in V x V cells of 3, but the observation {key!r} is {space}")
        if space.shape[0] == space.shape[2] != space.shape[1]:  # type: ignore[index]
            raise ValueError(
                f"in the observation {key!r} of {size}, the first or the last axis may be the 3 categories of a cell; "
                "make a grid that is 3 cells wide also 3 cells high, or flatten it"
            )
        width = features_dim or 64
        return SymbolicView(space.shape or (), width), width
    if kind == "pixels":
        if not isinstance(space, spaces.Box) or not is_image_space(space):
            raise ValueError(f"pixels are bytes from 0 to 255 in an image, but the observation {key!r} is {space}")
        width = features_dim or 256
        if reader == "impala":
            return Image(ImpalaCNN(space, width)), width
        if min(sorted(space.shape)[1:]) < SMALLEST_IMAGE:
            raise ValueError(
                f"an image of {size} is too small for the CNN, which needs {SMALLEST_IMAGE} pixels a side; enlarge it, "
                f"or set observation_kinds={{{key!r}: 'numbers'}} (policy.observation_kinds in a config) to read it "
                "flat"
            )
        return Image(NatureCNN(space, width)), width
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
        # SB3 leaves 3x3x3 alone, as if channels came first, so 3 at the end decides.
        self.channels_last = shape[2] == 3
        height, width = shape[:2] if self.channels_last else shape[1:]
        self.embeddings = nn.ModuleList(nn.Embedding(256, 8) for _ in range(3))
        self.linear = nn.Linear(height * width * 8, features_dim)

    def forward(self, view: Tensor) -> Tensor:
        """Embed a batch of views."""
        categories = (view.movedim(-1, 0) if self.channels_last else view.movedim(1, 0)).long()
        # a cell's three categories share one vector: (B · V · V, 8)
        cells = sum_of_embeddings(categories.flatten(1), self.embeddings)
        return torch.relu(self.linear(cells.reshape(view.shape[0], -1)))


class Image(nn.Module):
    """An image through a CNN.

    Args:
        cnn: Takes values from 0 to 1: SB3's NatureCNN (Mnih et al. 2015) or `ImpalaCNN`.

    Shape:
        - Input: (B, C, height, width), values 0 to 255
        - Output: (B, features_dim)
    """

    def __init__(self, cnn: nn.Module) -> None:
        super().__init__()
        self.cnn = cnn

    def forward(self, image: Tensor) -> Tensor:
        """Scale to [0, 1] and convolve."""
        features: Tensor = self.cnn(image / 255.0)
        return features


class Scaled(nn.Module):
    """A flattened image, in numbers from 0 to 1.

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
        observation_kinds: How each key ("observation" if there is no Dict) is read: "categories" (bytes in V x V cells
            of 3, embedded), "pixels" (an image, by a CNN) or "numbers" (flat; an image scaled to 0 to 1, all else
            unscaled). By default a `Categories` space is read as categories, an image as pixels, all else as numbers.
        reader: A key of `READERS`, for all bytes in three dimensions; None chooses by the space.
        features_dim: Features of each image (default: 256) or view of categories (default: 64).

    Shape:
        - Output: (B, features_dim)

    Raises:
        ValueError: If a space cannot be read as given, an image is too small for the CNN, or a meaning is not declared:
            that of bytes that may be a small picture or categories, of bytes in two or in more than three dimensions,
            or of categories that a wrapper flattened, stacked or normalised.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        observation_kinds: Mapping[str, str] | None = None,
        reader: str | None = None,
        features_dim: int | None = None,
    ) -> None:
        if features_dim is not None:
            check_int("features_dim", features_dim, 1)
        kinds = _kinds(observation_space, observation_kinds or {}, reader)
        modules: dict[str, nn.Module] = {}
        width = 0
        for key, space in spaces_of(observation_space).items():
            modules[key], size = _module(key, kinds[key], space, reader, features_dim)
            width += size
        super().__init__(observation_space, width)
        self.keys = list(modules)
        self.parts = nn.ModuleList(modules.values())

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the features of a batch of observations."""
        if isinstance(observations, dict):
            return torch.cat([part(observations[key]) for key, part in zip(self.keys, self.parts, strict=True)], dim=1)
        (part,) = self.parts  # faster than an index into the ModuleList
        features: Tensor = part(observations)
        return features


def reads_numbers(features: nn.Module) -> bool:
    """Return whether the features extractor passes one array of numbers on unchanged."""
    return isinstance(features, Features) and len(features.parts) == 1 and type(features.parts[0]) is nn.Flatten
