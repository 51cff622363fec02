"""The distribution over discrete actions, in as few tensor operations as it takes."""

from __future__ import annotations

import torch
from stable_baselines3.common.distributions import CategoricalDistribution
from torch import Tensor


class Categorical(CategoricalDistribution):
    """SB3's categorical distribution without torch.distributions, which costs more than a step of the memory."""

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
        """Draw actions (B,), as the first of n exponential clocks to ring."""
        clocks = torch.empty_like(self.log_probs).exponential_()
        return (self.log_probs - clocks.log()).argmax(-1)

    def mode(self) -> Tensor:
        """Return the likeliest actions (B,)."""
        return self.log_probs.argmax(-1)
