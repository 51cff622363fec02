"""The gradient as one vector, against torch, which handles one parameter at a time."""

import copy

import pytest
import torch
from torch import nn

from bistable_rl.agents.flat_gradient import Gradient


def backward(module: nn.Module, scale: float = 1.0) -> None:
    x = torch.linspace(-1, 1, 12).reshape(4, 3)
    (scale * module(x)).square().mean().backward()


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def parts(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    # neither in the order of the module nor all its parameters beside one another
    first, last = list(module.parameters())[:2], list(module.parameters())[2:]
    return {"last": last[::-1], "first": first}


@pytest.mark.parametrize("max_norm", [0.01, 100.0])
def test_it_is_clipped_as_torch_clips_it(module: nn.Module, max_norm: float) -> None:
    theirs = copy.deepcopy(module)
    gradient = Gradient(parts(module))
    backward(module)
    norms = gradient.norms()
    gradient.clip(norms["norm"], max_norm)
    backward(theirs)
    expected = {name: nn.utils.get_total_norm([p.grad for p in part]) for name, part in parts(theirs).items()}  # type: ignore[misc]
    expected["norm"] = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
    torch.testing.assert_close(norms, expected)
    for ours, other in zip(module.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad)


def test_cleared_it_forgets_what_was_added(module: nn.Module) -> None:
    gradient = Gradient(parts(module))
    backward(module, scale=3.0)
    gradient.clear()
    backward(module)
    once = gradient.vector.clone()
    assert once.norm() > 0
    fresh = Gradient(parts(module))  # begins at zero, whatever the parameters held
    backward(module)
    torch.testing.assert_close(fresh.vector, once)


def test_an_optimizer_steps_along_it(module: nn.Module) -> None:
    theirs = copy.deepcopy(module)
    gradient = Gradient(parts(module))
    steppers = [torch.optim.Adam(m.parameters(), lr=0.1, fused=True) for m in (module, theirs)]
    for _ in range(3):
        gradient.clear()
        steppers[1].zero_grad()
        for m, optimizer in zip((module, theirs), steppers, strict=True):
            backward(m)
            optimizer.step()
    torch.testing.assert_close(module.state_dict(), theirs.state_dict())
