"""Permuted line-sequential MNIST: read an image line by line, wait through black lines, then say which digit it was."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bistable_rl.benchmarks.tasks.images import Images, ImageTask, permute_pixels, permute_rows
from bistable_rl.benchmarks.tasks.task import Batch, Samples, Which
from bistable_rl.runs.keys import PositiveInt

BLACK = -0.5


@dataclass
class _Lines:
    images: Images
    black_lines: int
    black: float

    def __len__(self) -> int:
        return len(self.images.labels)

    def batch(self, index: Tensor) -> Batch:
        lines = self.images.pixels[index].transpose(0, 1)
        tail = lines.new_full((self.black_lines, *lines.shape[1:]), self.black)
        return torch.cat([lines, tail]), self.images.labels[index].unsqueeze(0)


@dataclass(kw_only=True)
class LineMNIST(ImageTask):
    """Say which digit an image shows after reading its lines, one a step, and N black lines.

    The pixels are permuted first. The authors' code permutes the rows instead, and its black lines are 0, a grey.

    Vecoven et al. (2021), section 5 and Table 4.

    Args:
        black_lines: N.
        dataset: `mnist`, or `digits`, scikit-learn's 1797 images of 8x8.
        train_size: Use the first images of the training set only (null: all).
        test_size: Use the first images of the test set only (null: all).
    """

    black_lines: PositiveInt

    def __post_init__(self) -> None:
        self.input_size = self.side

    @property
    def steps(self) -> int:
        """T, the most steps of a sequence."""
        return self.side + self.black_lines

    def samples(self, images: Images, generator: torch.Generator, protocol: Which) -> Samples:
        """Return sequences of lines."""
        pixels, black = permuted(images.pixels, protocol)
        return _Lines(Images(pixels, images.labels), self.black_lines, black)


def permuted(pixels: Tensor, protocol: Which) -> tuple[Tensor, float]:
    """Return permuted images and the value of a black line, as the paper says or as its authors' code does."""
    return (permute_pixels(pixels), BLACK) if protocol == "paper" else (permute_rows(pixels), 0.0)
