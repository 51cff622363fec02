"""Distributions over discrete and continuous actions, in few tensor operations."""

from __future__ import annotations

import math

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
    make_proba_distribution,
)
from torch import Tensor
from torch.distributions import Bernoulli
from torch.distributions import Categorical as TorchCategorical

from bistable_rl.errors import UserError


def make_distribution(action_space: spaces.Space, use_sde: bool = False) -> Distribution:
    """Return the distribution over the actions of a space: ours where we have one, else SB3's.

    Raises:
        UserError: If `use_sde` is set and the actions are not continuous.
    """
    check_sde(use_sde, action_space)
    if isinstance(action_space, spaces.Discrete):
        return Categorical(int(action_space.n))
    if isinstance(action_space, spaces.Box) and not use_sde:
        return DiagGaussian(math.prod(action_space.shape))
    options = {"full_std": True, "squash_output": False, "use_expln": False, "learn_features": False}
    return make_proba_distribution(action_space, use_sde, options if use_sde else None)


def masked(distribution: Distribution, masks: Tensor | None) -> Distribution:
    """Forbid actions: they are neither drawn nor the mode, and the others keep the ratios of their probabilities.

    Entropies and log-probabilities stay finite, and no gradient flows through the logit of a forbidden action.

    Args:
        distribution: A distribution of discrete actions from `make_distribution`, with its parameters; it is changed.
        masks: (B, A) of bool, true where an action is allowed, as `bistable_rl.agents.action_masks` describes them;
            None forbids nothing.
    """
    if masks is None:
        return distribution
    if isinstance(distribution, Categorical):
        distribution.log_probs = torch.log_softmax(forbid(distribution.log_probs, masks), -1)
    elif isinstance(distribution, MultiCategoricalDistribution):
        parts = zip(distribution.distribution, masks.split([int(n) for n in distribution.action_dims], -1), strict=True)
        distribution.distribution = [TorchCategorical(logits=forbid(one.logits, mask)) for one, mask in parts]
    else:
        assert isinstance(distribution, BernoulliDistribution)
        distribution.distribution = Bernoulli(logits=forbid_bits(distribution.distribution.logits, masks))
    return distribution


def forbid(logits: Tensor, mask: Tensor) -> Tensor:
    """Return logits with the lowest finite value where the mask is false; -inf would make the entropy NaN."""
    return torch.where(mask, logits, torch.finfo(logits.dtype).min)


def forbid_bits(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the logits (n, k) of k bits, with the lowest or highest finite value where the masks forbid 1 or 0.

    Args:
        logits: (n, k).
        masks: (n, 2 k), two entries for each bit, for 0 and for 1.
    """
    zero, one = masks[:, ::2], masks[:, 1::2]
    return -forbid(-forbid(logits, one), zero)


def check_sde(use_sde: bool, action_space: spaces.Space) -> None:
    """Check that generalised state-dependent exploration is used with continuous actions only.

    Raises:
        UserError: If the actions are not continuous.
    """
    if use_sde and not isinstance(action_space, spaces.Box):
        raise UserError(f"algorithm.use_sde needs Box actions, not {action_space}.")


class Categorical(CategoricalDistribution):
    """SB3's categorical distribution without torch.distributions, which takes longer than a step of the memory."""

    log_probs: Tensor
    """(B, n) normalised."""

    def proba_distribution(self, action_logits: Tensor) -> Categorical:
        """Set the logits (B, n)."""
        self.log_probs = torch.log_softmax(action_logits, -1)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probabilities (B,) of actions (B,) or (B, 1)."""
        return self.log_probs.gather(-1, actions.reshape(-1, 1).long()).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropies (B,)."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def sample(self) -> Tensor:
        """Sample actions (B,): the index of the smallest of n exponential variables with these rates."""
        clocks = torch.empty_like(self.log_probs).exponential_()
        return (self.log_probs - clocks.log()).argmax(-1)

    def mode(self) -> Tensor:
        """Return the most likely actions (B,)."""
        return self.log_probs.argmax(-1)


class DiagGaussian(DiagGaussianDistribution):
    """SB3's normal distribution, independent in each dimension, without torch.distributions."""

    mean: Tensor
    """(B, n)."""
    log_std: Tensor
    """(n,) or (B, n): logarithms of the standard deviations."""

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> DiagGaussian:
        """Set the means (B, n) and the logarithms of the standard deviations (n,) or (B, n)."""
        self.mean, self.log_std = mean_actions, log_std
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-densities (B,) of actions (B, n)."""
        deviations = (actions - self.mean) * (-self.log_std).exp()
        log_densities: Tensor = (-0.5 * deviations.square() - self.log_std).sum(-1)
        return log_densities - 0.5 * math.log(2 * math.pi) * self.action_dim

    def entropy(self) -> Tensor:
        """Return the entropies (B,)."""
        entropies: Tensor = self.log_std.sum(-1) + 0.5 * (1 + math.log(2 * math.pi)) * self.action_dim
        return entropies.expand(len(self.mean))

    def sample(self) -> Tensor:
        """Sample actions (B, n); no gradient flows through them."""
        return self.mean.detach() + self.log_std.detach().exp() * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        """Return the most likely actions (B, n)."""
        return self.mean
