"""Permuted variable-line-sequential MNIST: line-sequential MNIST with a different number of black lines per image."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from bistable_rl.benchmarks.tasks.images import Images, ImageTask
from bistable_rl.benchmarks.tasks.line_mnist import permuted
from bistable_rl.benchmarks.tasks.task import Batch, DataProtocol, Samples
from bistable_rl.runs.keys import PositiveInt

ANNOUNCEMENT = 1.0
"""The value of the last line; white is 0.5."""


@dataclass
class _VariableLines:
    images: Images
    black_lines: Tensor  # (n,), N of each image
    black: float

    def __len__(self) -> int:
        return len(self.images.labels)

    def batch(self, index: Tensor) -> Batch:
        labels = self.images.labels[index].unsqueeze(0)
        lengths, order = (self.images.pixels.shape[1] + self.black_lines[index]).sort(descending=True, stable=True)
        steps = torch.arange(int(lengths[0]), device=lengths.device)
        batch_sizes = (lengths.unsqueeze(0) > steps.unsqueeze(1)).sum(1)  # sequences that last longer than each step
        lines = self.images.pixels[index[order]].transpose(0, 1).flatten(0, 1)  # all images, before the black lines
        data = lines.new_full((int(lengths.sum()), lines.shape[-1]), self.black)
        data[: len(lines)] = lines
        starts = batch_sizes.cumsum(0) - batch_sizes
        data[starts[lengths - 1] + torch.arange(len(index), device=lengths.device)] = ANNOUNCEMENT
        return PackedSequence(data, batch_sizes.cpu(), order, order.argsort()), labels


@dataclass(kw_only=True)
class VariableLineMNIST(ImageTask):
    """Classify the digit of an image after its lines and N black lines, N uniform from 1 to a maximum.

    The last of the N lines is brighter than white and announces the answer. Sequences are packed, not padded. The
    authors' code permutes the rows instead of the pixels, its black lines are 0, and it draws one N for all images.

    Vecoven et al. (2021), section 5 and Table 5.

    Args:
        max_black_lines: The greatest N.
        dataset: `mnist`, or `digits`, scikit-learn's 1797 images of 8x8.
        train_size: Use the first images of the training set only (null: all).
        test_size: Use the first images of the test set only (null: all).
    """

    max_black_lines: PositiveInt

    def __post_init__(self) -> None:
        self.input_size = self.side

    @property
    def steps(self) -> int:
        """T, the most steps of a sequence."""
        return self.side + self.max_black_lines

    def samples(self, images: Images, generator: torch.Generator, protocol: DataProtocol) -> Samples:
        """Return sequences of lines, of different lengths."""
        n = len(images.labels) if protocol == "paper" else 1
        drawn = torch.randint(1, self.max_black_lines + 1, (n,), generator=generator, device=generator.device)
        pixels, black = permuted(images.pixels, protocol)
        return _VariableLines(Images(pixels, images.labels), drawn.expand(len(images.labels)), black)
