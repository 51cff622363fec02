"""Permuted line-sequential MNIST: classify an image after its lines and a number of black lines."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bistable_rl.benchmarks.tasks.images import Images, ImageTask, permute_pixels, permute_rows
from bistable_rl.benchmarks.tasks.task import Batch, DataProtocol, Samples
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
    """Classify the digit of an image after reading its lines, one per step, and N black lines.

    The pixels are permuted first. The authors' code permutes the rows instead, and its black lines are grey (0).

    Vecoven et al. (2021), section 5 and Table 4.

    Args:
        black_lines: N, the number of black lines.
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

    def samples(self, images: Images, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return sequences of lines."""
        pixels, black = permuted(images.pixels, protocol)
        return _Lines(Images(pixels, images.labels), self.black_lines, black)


def permuted(pixels: Tensor, protocol: DataProtocol) -> tuple[Tensor, float]:
    """Return permuted images and the value of a black line, as in the paper or its authors' code."""
    return (permute_pixels(pixels), BLACK) if protocol == "paper" else (permute_rows(pixels), 0.0)
