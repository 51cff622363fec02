"""Both heads as one product, and the memory that minibatches use again."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bistable_rl.agents.heads import both_heads
from bistable_rl.kernels import memory


def both_apart(latent: Tensor, action_net: nn.Linear, value_net: nn.Linear) -> tuple[Tensor, Tensor]:
    return action_net(latent), value_net(latent).flatten()


@pytest.mark.parametrize("rows", [1, 7, 20_000])
def test_both_heads_and_their_gradients_are_those_of_two_layers(rows: int) -> None:
    torch.manual_seed(0)
    latent = torch.randn(rows, 64, dtype=torch.float64, requires_grad=True)
    nets = nn.Linear(64, 3).double(), nn.Linear(64, 1).double()
    inputs = [latent, *nets[0].parameters(), *nets[1].parameters()]
    found = []
    with memory.reused():
        for heads in (both_heads, both_apart):
            outputs = heads(latent, *nets)
            loss = outputs[0].exp().sum() + outputs[1].square().sum()
            found.append([*outputs, *torch.autograd.grad(loss, inputs)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_both_heads_can_be_differentiated_twice() -> None:
    nets = nn.Linear(4, 2).double(), nn.Linear(4, 1).double()
    latent = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: both_heads(x, *nets), latent)


def test_memory_is_used_again_only_once_no_tensor_has_it() -> None:
    like = torch.empty(0)
    with memory.reused():
        first = memory.empty((2000, 1000), like)
        view, place = first[5:], first.data_ptr()
        del first
        view.fill_(1.0)
        other = memory.empty((2000, 1000), like).fill_(2.0)
        assert other.data_ptr() != place
        assert bool((view == 1.0).all())
        array = view.numpy()
        del view
        assert memory.empty((2000, 1000), like).data_ptr() != place
        np.testing.assert_equal(array, 1.0)
        del array, other
        tensors = [memory.empty((1990, 1000), like) for _ in range(3)]
        assert place in {tensor.data_ptr() for tensor in tensors}


def test_memory_outlives_its_block() -> None:
    with memory.reused():
        tensor = memory.empty((2000, 1000), torch.empty(0)).fill_(3.0)
    assert bool((tensor == 3.0).all())
    assert memory.empty((2000, 1000), tensor).shape == (2000, 1000)
