"""Permuted sequential MNIST: classify an image after reading it pixel by pixel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bistable_rl.benchmarks.tasks.images import Images, ImageTask, permute_pixels
from bistable_rl.benchmarks.tasks.task import Batch, DataProtocol, Samples


@dataclass
class _Pixels:
    images: Images

    def __len__(self) -> int:
        return len(self.images.labels)

    def batch(self, index: Tensor) -> Batch:
        return self.images.pixels[index].flatten(1).T.unsqueeze(-1).contiguous(), self.images.labels[index].unsqueeze(0)


@dataclass(kw_only=True)
class SequentialMNIST(ImageTask):
    """Classify the digit of an image after reading its pixels, one per step, in one fixed permutation.

    Vecoven et al. (2021), section 5 and Table 3.

    Args:
        dataset: `mnist`, or `digits`, scikit-learn's 1797 images of 8x8.
        train_size: Use the first images of the training set only (null: all).
        test_size: Use the first images of the test set only (null: all).
    """

    input_size = 1

    @property
    def steps(self) -> int:
        """T, the most steps of a sequence."""
        return self.side**2

    def samples(self, images: Images, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return sequences of pixels."""
        return _Pixels(Images(permute_pixels(images.pixels), images.labels))
