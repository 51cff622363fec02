"""Tasks on images of digits: their images, one fixed permutation, the sizes of their sets."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bistable_rl.benchmarks.tasks.task import DataProtocol, Samples, Task
from bistable_rl.data import digits
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.keys import PositiveInt

PERMUTATION_SEED = 0
"""One permutation for every cell and seed, so that all of them learn the same task."""


@dataclass
class Images:
    """Images on a device.

    Attributes:
        pixels: (n, rows, columns), from -0.5 (black) to 0.5 (white).
        labels: (n,), from 0 to 9.
    """

    pixels: Tensor
    labels: Tensor


@dataclass(kw_only=True)
class ImageTask(Task):
    """A task in which an image of a digit is read in parts, and classified at the end.

    Args:
        dataset: `mnist`, or `digits`, scikit-learn's 1797 images of 8x8.
        train_size: Use the first images of the training set only (null: all).
        test_size: Use the first images of the test set only (null: all).
    """

    dataset: Literal["mnist", "digits"] = "mnist"
    train_size: PositiveInt | None = None
    test_size: PositiveInt | None = None

    classification = True
    answers = 1
    output_size = 10

    @property
    def side(self) -> int:
        """Rows, and columns, of an image."""
        return 28 if self.dataset == "mnist" else 8

    @abstractmethod
    def samples(self, images: Images, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return the images as sequences."""

    def train_set(self, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return the training set, on the generator's device."""
        return self._set("train", self.train_size, generator, protocol)

    def test_set(self, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return the test set, on the generator's device."""
        return self._set("test", self.test_size, generator, protocol)

    def _set(
        self, split: Literal["train", "test"], size: int | None, generator: torch.Generator, protocol: DataProtocol
    ) -> Samples:
        try:
            found = digits.load(self.dataset, split)
        except ValueError as error:
            raise UserError(one_sentence(error)) from None
        if size is not None and size > len(found.labels):
            raise UserError(
                f"task.kwargs.{split}_size must be at most {len(found.labels)}, the size of the set, not {size}."
            )
        pixels = torch.tensor(found.images[:size]).to(generator.device).float() / found.white - 0.5
        return self.samples(Images(pixels, torch.tensor(found.labels[:size]).to(generator.device)), generator, protocol)


def permute_pixels(pixels: Tensor) -> Tensor:
    """Return images with their pixels in the order of one fixed permutation."""
    order = np.random.default_rng(PERMUTATION_SEED).permutation(pixels[0].numel())
    return pixels.flatten(1)[:, torch.tensor(order, device=pixels.device)].reshape(pixels.shape)


def permute_rows(pixels: Tensor) -> Tensor:
    """Return images with their rows in the order of one fixed permutation."""
    order = np.random.default_rng(PERMUTATION_SEED).permutation(pixels.shape[1])
    return pixels[:, torch.tensor(order, device=pixels.device)]
