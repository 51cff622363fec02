"""The speed of the benchmarks is measured on the network that is trained, beside the same one on torch.nn.GRU."""

import torch
from torch import nn

from bistable_rl.benchmarks.network import Network
from bistable_rl.benchmarks.tasks import make_task
from bistable_rl.rnn import from_torch
from bistable_rl.runs.schema import NetworkConfig, TaskConfig
from bistable_rl.speed.benchmarks import TorchNetwork, measure

TASK = TaskConfig("denoising", {"length": 12, "forgetting": 5})


def test_every_network_is_timed() -> None:
    found = measure(TASK, cells=("brc", "nbrc"), rounds=1)
    assert [(one.layer, one.steps) for one in found] == [
        ("brc", 12), ("nbrc", 12), ("nn.GRU", 12), ("nn.GRU, denormals flushed", 12),
    ]  # fmt: skip
    assert all(one.seconds > 0 for one in found)
    assert float(torch.tensor(1e-45) * 1) > 0  # denormals are numbers again


def test_the_network_on_torch_is_the_same_as_ours() -> None:
    task, sizes = make_task(TASK), NetworkConfig(cell="gru", hidden_size=8)
    theirs, ours = TorchNetwork(sizes, task), Network(sizes, task)
    ours.rnn = from_torch(theirs.rnn)
    ours.head = theirs.head
    x = torch.randn(12, 3, 2)
    torch.testing.assert_close(ours(x), theirs(x))
    assert isinstance(theirs.rnn, nn.GRU)
