"""The light distributions, against SB3's and torch's."""

import pytest
import torch
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution

from bistable_rl.agents.distributions import Categorical, DiagGaussian


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_log_probabilities_entropies_and_modes_equal_sb3s(shape: tuple[int, ...]) -> None:
    logits = torch.randn(7, 4, dtype=torch.double) * 5
    ours, theirs = Categorical(4).proba_distribution(logits), CategoricalDistribution(4).proba_distribution(logits)
    actions = torch.randint(4, (7,))
    torch.testing.assert_close(ours.log_prob(actions.reshape(shape)), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), theirs.mode())


def test_gradients_equal_sb3s() -> None:
    start = torch.randn(5, 3, dtype=torch.double)
    gradients = []
    for kind in (Categorical, CategoricalDistribution):
        logits = start.clone().requires_grad_()
        distribution = kind(3).proba_distribution(logits)
        (distribution.log_prob(torch.tensor([0, 1, 2, 0, 1])).sum() + 0.3 * distribution.entropy().sum()).backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


def test_samples_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    samples = Categorical(4).proba_distribution(p.log().expand(40_000, 4)).sample()
    share = torch.bincount(samples, minlength=4) / len(samples)
    torch.testing.assert_close(share, p, atol=0.01, rtol=0)


def test_an_action_of_next_to_no_probability_is_never_drawn() -> None:
    """And a logit far below the others makes no NaN, nor an infinite entropy."""
    torch.manual_seed(0)
    distribution = Categorical(3).proba_distribution(torch.tensor([0.0, -1e4, 0.0]).expand(2000, 3))
    assert not (distribution.sample() == 1).any()
    assert torch.isfinite(distribution.entropy()).all()


def test_samples_are_those_of_the_seed() -> None:
    distribution = Categorical(3).proba_distribution(torch.zeros(50, 3))
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(distribution.get_actions())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(distribution.get_actions(deterministic=True), torch.zeros(50, dtype=torch.long))


@pytest.mark.parametrize("shape", [(3,), (5, 3)])
def test_the_normal_one_is_sb3s(shape: tuple[int, ...]) -> None:
    mean, log_std, actions = torch.randn(5, 3), torch.randn(shape), torch.randn(5, 3)
    found = []
    for kind in (DiagGaussian, DiagGaussianDistribution):
        m, s = mean.clone().requires_grad_(), log_std.clone().requires_grad_()
        distribution = kind(3).proba_distribution(m, s)
        entropy = distribution.entropy()
        assert entropy is not None
        (distribution.log_prob(actions) * torch.arange(5.0)).sum().add(entropy.sum()).backward()
        torch.manual_seed(0)
        sample = distribution.get_actions()
        found.append((distribution.log_prob(actions), entropy, distribution.mode(), sample, m.grad, s.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_normal_samples_have_the_declared_spread() -> None:
    distribution = DiagGaussian(2).proba_distribution(
        torch.tensor([[1.0, -2.0]]).expand(40_000, 2), torch.tensor([0.0, -1.0])
    )
    samples = distribution.sample()
    torch.testing.assert_close(samples.mean(0), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(samples.std(0).log(), torch.tensor([0.0, -1.0]), atol=0.02, rtol=0)
