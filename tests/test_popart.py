"""PopArt: the steps are those of the paper's rewritten head, and no size of the rewards changes what is learned."""

from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from noise_env import Noise, agent, live
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.popart import RATE, SMALLEST, PopArt

SIZES = [0.5, 40.0, 41.0, 900.0, 3.0]


class Textbook(nn.Module):
    """Algorithm 1 of van Hasselt et al. (2016): the head of the normalised value, rewritten when μ and σ move."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(head.weight.detach().clone()), nn.Parameter(head.bias.detach().clone())
        self.mean, self.std = 0.0, 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w[0] + self.b

    @torch.no_grad()
    def rescale(self, mean: float, std: float) -> None:
        self.w.mul_(self.std / std)
        self.b.copy_((self.std * self.b + self.mean - mean) / std)
        self.mean, self.std = mean, std


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_values_are_those_of_the_textbook(optimizer: Any) -> None:
    torch.manual_seed(0)
    head, popart = nn.Linear(5, 1, dtype=torch.float64), PopArt()
    trunk = nn.Linear(3, 5, dtype=torch.float64)
    other = nn.Linear(3, 5, dtype=torch.float64)
    other.load_state_dict(trunk.state_dict())
    textbook = Textbook(head)
    ours = optimizer([*trunk.parameters(), *head.parameters()], lr=0.05)
    theirs = optimizer([*other.parameters(), *textbook.parameters()], lr=0.05)
    x = torch.randn(20, 3, dtype=torch.float64)
    for size in SIZES:
        returns = size * (torch.randn(20, dtype=torch.float64) + 2)
        popart.update(returns)
        textbook.rescale(popart.mean / popart.weight, popart.scale)
        for _ in range(3):
            ours.zero_grad()
            values = head(trunk(x)).flatten()
            (nn.functional.mse_loss(values, returns) / popart.scale**2).backward()
            with popart.normalised(head):
                ours.step()
            theirs.zero_grad()
            normalised = textbook(other(x))
            nn.functional.mse_loss(normalised, (returns - textbook.mean) / textbook.std).backward()
            theirs.step()
            torch.testing.assert_close(values, textbook.std * normalised + textbook.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(trunk.weight, other.weight, rtol=1e-9, atol=1e-9)


def test_the_scale_is_the_spread_of_the_last_returns_to_the_nearest_power_of_two() -> None:
    popart = PopArt()
    assert popart.scale == 1.0
    popart.update(torch.full((4, 2), 7.0))
    assert popart.scale == 2.0**-7  # nearest to SMALLEST
    assert abs(popart.scale / SMALLEST - 1) < 0.5
    alone = PopArt()
    alone.update(torch.tensor([-100.0, 100.0]))
    assert alone.scale == 128.0
    popart.update(torch.tensor([-100.0, 100.0]))
    weights = [RATE * (1 - RATE), RATE]
    mean, square = 7 * weights[0] / sum(weights), (49 * weights[0] + 100**2 * weights[1]) / sum(weights)
    assert popart.scale == 64.0
    assert 64 / 2**0.5 < (square - mean**2) ** 0.5 < 64 * 2**0.5
    for _ in range(200):
        popart.update(torch.tensor([-1.0, 1.0]))
    assert popart.scale == 1.0


def test_a_head_that_is_left_alone_keeps_every_bit() -> None:
    head, popart = nn.Linear(64, 1), PopArt()
    before = head.weight.detach().clone()
    popart.update(torch.randn(100) * 37)
    with popart.normalised(head):
        assert torch.equal(head.weight, before / 32)
    assert torch.equal(head.weight, before)
    with pytest.raises(KeyboardInterrupt), popart.normalised(head):
        raise KeyboardInterrupt
    assert torch.equal(head.weight, before)


class Paid(gymnasium.RewardWrapper[Any, Any]):
    """Every reward times a number."""

    def __init__(self, size: float) -> None:
        super().__init__(Noise())
        self.size = size

    def reward(self, reward: Any) -> float:
        return self.size * float(reward)


def trained(size: float, **settings: Any) -> RecurrentPPO:
    model = agent(DummyVecEnv([lambda: Paid(size)] * 4), **settings)
    with torch.no_grad():
        for parameter in model.policy.value_net.parameters():
            parameter.zero_()
    return model.learn(4 * 64)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_rewards_of_any_size_teach_the_same(critic: str) -> None:
    small, large = (trained(size, popart=True, policy={"critic": critic}) for size in (1.0, 1024.0))
    for (name, one), other in zip(small.policy.named_parameters(), large.policy.parameters(), strict=True):
        size = 1024 if name.startswith("value_net") else 1
        torch.testing.assert_close(size * one, other, rtol=1e-4, atol=1e-5 * size, msg=name)
    without = trained(1024.0, popart=False, policy={"critic": critic}).policy
    assert not torch.allclose(without.memory.layers[0].weight_ih, large.policy.memory.layers[0].weight_ih, atol=1e-3)


def test_it_is_logged_saved_and_continued(tmp_path: Path) -> None:
    model = agent(popart=True)
    model.set_logger(Logger(None, []))
    live(model)
    model.train()
    logged = model.logger.name_to_value
    assert logged["train/popart_scale"] == model.returns_spread.scale
    model.save(tmp_path / "model")
    again = RecurrentPPO.load(tmp_path / "model", device="cpu")
    assert again.popart is True
    assert vars(again.returns_spread) == vars(model.returns_spread)
    assert again.returns_spread.weight == RATE
