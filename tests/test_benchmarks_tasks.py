"""Each task is what the papers say: checked sample by sample, and by a player who computes the answer."""

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from bistable_rl.benchmarks.batches import Batches
from bistable_rl.benchmarks.network import Network
from bistable_rl.benchmarks.tasks import TASKS, make_task
from bistable_rl.benchmarks.tasks.task import DataProtocol, SyntheticTask, Task, task_metrics
from bistable_rl.data import digits
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import Benchmark, NetworkConfig, TaskConfig, TrainingConfig

SMALL: dict[str, dict[str, Any]] = {
    "copy_first": {"length": 6, "dimension": 3, "train_size": 40, "test_size": 20},
    "denoising": {"length": 30, "forgetting": 8, "train_size": 40, "test_size": 20},
    "binary_addition": {"bits": 5, "train_size": 40, "test_size": 20},
    "permuted_sequential_mnist": {"dataset": "digits", "train_size": 40},
    "line_mnist": {"dataset": "digits", "black_lines": 4, "train_size": 40},
    "variable_line_mnist": {"dataset": "digits", "max_black_lines": 9, "train_size": 40},
}


def task(name: str, **kwargs: Any) -> Task:
    return make_task(TaskConfig(name, SMALL[name] | kwargs))


def everything(of: Task, seed: int = 0, protocol: DataProtocol = "paper") -> tuple[Tensor | PackedSequence, Tensor]:
    """Return the whole training set as one batch."""
    samples = of.train_set(torch.Generator().manual_seed(seed), protocol)
    return samples.batch(torch.arange(len(samples)))


def dense(of: Task, protocol: DataProtocol = "paper") -> tuple[Tensor, Tensor]:
    x, target = everything(of, protocol=protocol)
    assert isinstance(x, Tensor)
    return x, target


def test_every_task_has_a_small_form_here() -> None:
    assert SMALL.keys() == TASKS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_the_network_answers_every_task(name: str) -> None:
    of = task(name)
    x, target = everything(of)
    answer = Network(NetworkConfig(hidden_size=8), of)(x)
    assert answer.shape == (of.answers, 40, of.output_size)
    assert target.shape == ((of.answers, 40) if of.classification else answer.shape)


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_decides_the_samples(name: str) -> None:
    def numbers(seed: int) -> Tensor:
        x, _ = everything(task(name), seed)
        return x.data

    assert torch.equal(numbers(1), numbers(1))
    all_drawn = issubclass(TASKS[name], SyntheticTask) or name == "variable_line_mnist"
    assert torch.equal(numbers(1), numbers(2)) != all_drawn


def test_copy_first_asks_for_the_first_step() -> None:
    x, target = dense(task("copy_first", train_size=4000))
    assert x.shape == (6, 4000, 3)
    assert torch.equal(target[0], x[0])
    assert x.mean().abs() < 0.02
    assert x.std() == pytest.approx(1, abs=0.02)


def test_denoising_asks_for_the_marked_numbers_in_order() -> None:
    T, N = 30, 8
    x, target = dense(task("denoising", train_size=4000))
    numbers, flags = x[..., 0], x[..., 1]
    assert (numbers[-5:] == 0).all()
    assert (flags[T - 5] == 0).all()
    assert set(flags.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert ((flags == 1).sum(0) == 5).all()
    assert (flags[T - N :] != 1).all()
    for sample in range(50):
        assert torch.equal(target[:, sample, 0], numbers[flags[:, sample] == 1, sample])
    marks = (flags[: T - N] == 1).float().mean(1)
    assert marks == pytest.approx(5 / (T - N), abs=0.03)  # each step as likely as any other
    assert target.std() == pytest.approx(1, abs=0.03)


def test_the_authors_denoising_has_other_flags() -> None:
    x, _ = dense(task("denoising", length=404), protocol="authors_code")
    flags = x[..., 1]
    assert (flags[399] == -1).all()
    assert ((flags == -1).sum(0) == 1).all()
    assert ((flags == 1).sum(0) == 5).all()


def test_binary_addition_adds() -> None:
    x, target = dense(task("binary_addition", train_size=1000))
    powers = 2 ** torch.arange(6).unsqueeze(1)
    first, second = (x[..., i].long() * powers for i in range(2))
    assert torch.equal(first.sum(0) + second.sum(0), (target * powers).sum(0))
    assert (x[-1] == 0).all()
    assert x[:-1].mean() == pytest.approx(0.5, abs=0.03)


def unpermuted() -> tuple[Tensor, np.ndarray]:
    """Return the first forty small images and the order in which the tasks show their pixels."""
    order = np.random.default_rng(0).permutation(64)
    return torch.tensor(digits.load("digits", "train").images[:40]) / 16 - 0.5, order


def test_sequential_images_come_pixel_by_pixel_in_one_fixed_order() -> None:
    images, order = unpermuted()
    x, target = dense(task("permuted_sequential_mnist"))
    assert x.shape == (64, 40, 1)
    assert torch.equal(x[..., 0].T, images.flatten(1)[:, order])
    assert target[0].tolist() == digits.load("digits", "train").labels[:40].tolist()


def test_lines_come_one_by_one_and_then_black_ones() -> None:
    images, order = unpermuted()
    x, _ = dense(task("line_mnist"))
    assert x.shape == (8 + 4, 40, 8)
    assert torch.equal(x[:8].transpose(0, 1).flatten(1), images.flatten(1)[:, order])
    assert (x[8:] == -0.5).all()


def test_the_authors_lines_are_permuted_whole_and_then_grey() -> None:
    images, _ = unpermuted()
    x, _ = dense(task("line_mnist"), protocol="authors_code")
    assert torch.equal(x[:8].transpose(0, 1), images[:, np.random.default_rng(0).permutation(8)])
    assert (x[8:] == 0).all()


def test_variable_lines_are_packed_each_with_its_own_length_and_announcement() -> None:
    images, order = unpermuted()
    of = task("variable_line_mnist", train_size=None)
    x, target = everything(of)
    assert isinstance(x, PackedSequence)
    padded, lengths = pad_packed_sequence(x)
    assert len(x.data) == int(lengths.sum())  # nothing but the sequences
    assert set(lengths.tolist()) == set(range(8 + 1, 8 + 9 + 1))
    counts = torch.bincount(lengths - 8)[1:].float() / len(lengths)
    assert counts == pytest.approx(1 / 9, abs=0.04)
    for sample in range(40):
        sequence = padded[: int(lengths[sample]), sample]
        assert torch.equal(sequence[:8].flatten(), images[sample].flatten()[order])
        assert (sequence[8:-1] == -0.5).all()
        assert (sequence[-1] == 1).all()
    assert target[0].tolist() == digits.load("digits", "train").labels.tolist()


def test_the_authors_variable_lines_all_wait_as_long() -> None:
    x, _ = everything(task("variable_line_mnist"), protocol="authors_code")
    _, lengths = pad_packed_sequence(x)  # type: ignore[arg-type]
    assert len(lengths.unique()) == 1


def test_a_packed_answer_is_that_of_the_sequence_alone() -> None:
    of = task("variable_line_mnist")
    network = Network(NetworkConfig(cell="lstm", hidden_size=8), of)
    x, _ = everything(of)
    padded, lengths = pad_packed_sequence(x)  # type: ignore[arg-type]
    together = network(x)
    for sample in range(5):
        alone = network(padded[: int(lengths[sample]), sample : sample + 1])
        torch.testing.assert_close(alone[0, 0], together[0, sample])


def test_mnist_has_its_own_split_and_size() -> None:
    if not os.environ.get(digits.FOLDER):
        pytest.skip(f"{digits.FOLDER} names no folder")
    of = make_task(TaskConfig("line_mnist", {"black_lines": 2, "test_size": 300}))
    samples = of.test_set(torch.Generator(), "paper")
    x, target = samples.batch(torch.arange(len(samples)))
    assert isinstance(x, Tensor)
    assert x.shape == (30, 300, 28)
    assert (x.min(), x.max()) == (-0.5, 0.5)
    assert target[0, :5].tolist() == [7, 2, 1, 0, 4]


def batches(**changes: Any) -> Batches:
    training = TrainingConfig(batch_size=12, epochs=3, validation_size=changes.pop("validation_size", 0))
    benchmark = Benchmark("x", TaskConfig("copy_first"), training=training, **changes)
    return Batches(benchmark, task("copy_first"), torch.device("cpu"))


def epoch(of: Batches, number: int) -> list[float]:
    """Return the first number of every sample of an epoch, in the order in which they come."""
    updates = range(number * of.epoch_updates, (number + 1) * of.epoch_updates)
    return [value for update in updates for value in of.batch(update)[1][0, :, 0].tolist()]


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own() -> None:
    fixed = batches()
    first, second = epoch(fixed, 0), epoch(fixed, 1)
    assert len(set(first)) == len(first) == 40
    assert sorted(first) == sorted(second)
    assert first != second
    assert epoch(fixed, 0) == first


def test_the_authors_code_shows_every_epoch_in_the_same_order() -> None:
    authors = batches(protocol="authors_code")
    assert epoch(authors, 0) == epoch(authors, 1)


def test_fresh_samples_never_come_again() -> None:
    fresh = batches(data="fresh")
    first, second = epoch(fresh, 0), epoch(fresh, 1)
    assert len(set(first + second)) == 80
    assert epoch(fresh, 0) == first


def test_no_sample_is_trained_on_and_held_out() -> None:
    fixed = batches(validation_size=10)
    samples, index = fixed.validation_set()
    held_out = set(samples.batch(index)[1][0, :, 0].tolist())
    assert len(held_out) == 10
    assert len(epoch(fixed, 0)) == 30
    assert not held_out & set(epoch(fixed, 0))


def test_test_samples_are_none_of_the_training() -> None:
    fixed = batches()
    samples, index = fixed.test_set()
    assert not set(samples.batch(index)[1][0, :, 0].tolist()) & set(epoch(fixed, 0))


def test_answers_are_judged_as_in_the_paper() -> None:
    numbers = task_metrics(torch.zeros(5, 100, 1), torch.full((5, 100, 1), 2.0), classification=False)
    assert numbers == {"mse": 4.0}
    says = torch.nn.functional.one_hot(torch.tensor([[0, 0, 1, 1]]), 3).float() * 50
    classes = task_metrics(says, torch.tensor([[0, 0, 1, 2]]), classification=True)
    assert classes["accuracy"] == 0.75
    assert classes["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert classes["loss"] == pytest.approx(50 / 4, abs=1e-3)


def test_images_cannot_be_fresh() -> None:
    benchmark = Benchmark("x", TaskConfig("line_mnist"), data="fresh")
    with pytest.raises(UserError, match="data must be fixed for line_mnist"):
        Batches(benchmark, task("line_mnist"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("line_mnist", {"black_lines": 0}, "task.kwargs.black_lines must be an integer above 0, not 0"),
        ("line_mnist", {"dataset": "cifar"}, "task.kwargs.dataset must be one of mnist, digits"),
        ("line_mnist", {"train_size": 2000}, "task.kwargs.train_size must be at most 1437"),
        ("denoising", {"forgetting": 26}, "task.kwargs.forgetting must be from 5 to length - 5"),
        ("binary_addition", {"bits": "8"}, "task.kwargs.bits must be an integer above 0"),
    ],
)
def test_a_wrong_argument_is_one_sentence(name: str, kwargs: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        everything(task(name, **kwargs))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
