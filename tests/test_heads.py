"""Both heads as one product, and the memory that minibatches use again."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from torch import Tensor, nn
from torch.nn.utils import prune

from bistable_rl.agents import heads
from bistable_rl.agents.heads import both_heads
from bistable_rl.agents.policy import RecurrentPolicy
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
        for evaluate in (both_heads, both_apart):
            outputs = evaluate(latent, *nets)
            loss = outputs[0].exp().sum() + outputs[1].square().sum()
            found.append([*outputs, *torch.autograd.grad(loss, inputs)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_both_heads_can_be_differentiated_twice() -> None:
    nets = nn.Linear(4, 2).double(), nn.Linear(4, 1).double()
    latent = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: both_heads(x, *nets), latent)


class Doubled(RecurrentPolicy):
    """A policy of a user who has a distribution of his own."""

    def _distribution(self, latent: Tensor) -> Distribution:  # type: ignore[override]
        return super()._distribution(2 * latent)


def evaluated(policy: RecurrentPolicy) -> list[Tensor]:
    """Values, log-probabilities and entropies of one packed batch, and the gradients of all parameters."""
    torch.manual_seed(1)
    policy.action_space.seed(1)
    n = 6
    actions = torch.from_numpy(np.stack([policy.action_space.sample() for _ in range(n)]))
    obs, sizes = torch.randn(n, 3), torch.tensor([3, 2, 1])
    results = policy.evaluate_packed(obs, actions, policy.initial_state(3), sizes)
    loss = sum(((i + 1) * result.square().sum() for i, result in enumerate(results)), torch.zeros(()))
    parameters = [p for p in policy.parameters() if p.requires_grad]
    return [*results, *(torch.zeros(()) if g is None else g for g in grad_of(loss, parameters))]


def grad_of(loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def make_policy(kind: type[RecurrentPolicy] = RecurrentPolicy, action_space: Any = None, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    space = spaces.Discrete(4) if action_space is None else action_space
    small: dict[str, Any] = {"cell": "nbrc", "hidden_size": 8, "net_arch": [], **kwargs}
    return kind(spaces.Box(-1, 1, (3,)), space, lambda _: 1e-3, **small)


def how_often_joined(
    policy: RecurrentPolicy, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[Tensor], list[Tensor]]:
    """How often both heads were one product, and what was evaluated so and apart."""
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return joined(*args)

    joined = heads._Heads.apply
    monkeypatch.setattr(heads._Heads, "apply", counted)
    found = evaluated(policy)
    monkeypatch.setattr(RecurrentPolicy, "_heads_share_input", lambda self: False)
    return len(calls), found, evaluated(policy)


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Discrete(4),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Box(-1, 1, (2,)),
    ],
    ids=lambda space: type(space).__name__,
)
def test_a_policy_evaluates_as_with_two_layers(action_space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, found, apart = how_often_joined(make_policy(action_space=action_space, critic="shared"), monkeypatch)
    assert calls == 1
    torch.testing.assert_close(found, apart)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"critic": "shared"}, 1),
        ({"critic": "shared", "state_dependent_std": True, "action_space": spaces.Box(-1, 1, (2,))}, 1),
        ({"critic": "shared", "use_sde": True, "action_space": spaces.Box(-1, 1, (2,))}, 1),
        ({"critic": "separate"}, 0),
        ({"critic": "feedforward"}, 0),
        ({"critic": "shared", "critic_gradient": False}, 0),
        ({"critic": "shared", "net_arch": [5]}, 0),
        ({"critic": "shared", "kind": Doubled}, 0),
    ],
    ids=str,
)
def test_heads_are_joined_only_where_they_read_the_same(
    kwargs: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, found, apart = how_often_joined(make_policy(**kwargs), monkeypatch)
    assert calls == expected
    torch.testing.assert_close(found, apart)


def changed(how: str) -> Any:
    """A policy on whose heads a user did something that their weights do not show."""
    policy = make_policy(critic="shared")
    net = policy.action_net
    if how == "hook":
        net.register_forward_hook(lambda module, args, output: 2 * output)
    elif how == "backward hook":
        net.register_full_backward_hook(lambda module, inputs, outputs: (2 * inputs[0],))
    elif how == "spectral norm":
        torch.nn.utils.spectral_norm(net)
    elif how == "parametrization":
        torch.nn.utils.parametrizations.weight_norm(net)
    elif how == "pruning":
        prune.random_unstructured(net, "weight", 0.5)
    elif how == "no bias":
        policy.action_net = nn.Linear(8, 4, bias=False)
    elif how == "frozen":
        for parameter in policy.memory.parameters():
            parameter.requires_grad_(False)
    return policy.eval()


@pytest.mark.parametrize(
    "how", ["hook", "backward hook", "spectral norm", "parametrization", "pruning", "no bias", "frozen"]
)
def test_what_a_user_did_to_a_head_counts(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, found, apart = how_often_joined(changed(how), monkeypatch)
    assert calls == (how == "frozen")
    torch.testing.assert_close(found, apart)


def test_heads_under_autocast_are_what_they_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        calls, found, apart = how_often_joined(make_policy(critic="shared"), monkeypatch)
    assert calls == 0
    torch.testing.assert_close(found, apart, rtol=0, atol=0)


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


def test_each_thread_and_each_block_has_its_own_memory() -> None:
    like = torch.empty(0)
    places: list[int] = []

    def elsewhere() -> None:
        places.append(memory.empty((2000, 1000), like).data_ptr())

    with memory.reused():
        tensor = memory.empty((2000, 1000), like)
        place = tensor.data_ptr()
        with memory.reused():
            inner = memory.empty((2000, 1000), like).fill_(1.0)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        del tensor
        assert memory.empty((2000, 1000), like).data_ptr() == place
        assert bool((inner == 1.0).all())


def test_a_tensor_may_die_in_another_thread_and_after_an_error() -> None:
    like, kept = torch.empty(0), []

    @memory.reused()
    def fail() -> None:
        kept.append(memory.empty((2000, 1000), like).fill_(2.0))
        raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        fail()
    assert memory._free.get() is None
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_memory_of_any_type(dtype: torch.dtype) -> None:
    with memory.reused():
        for _ in range(2):
            tensor = memory.empty((3000, 1000), torch.empty(0, dtype=dtype)).fill_(1.0)
            assert tensor.dtype == dtype
            assert tensor.shape == (3000, 1000)
