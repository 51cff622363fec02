"""The floor of PPO's time: an iteration's matrix products, at the rate of a large matrix product on this core.

That rate is close to the core's peak rate of fused multiply-adds. The rest of an iteration, such as gates, losses and
environments, counts as nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bistable_rl.agents.policy import RecurrentPolicy

SIZE = 1024
PRODUCT_OPERATIONS = 2 * SIZE**3


def product() -> Callable[[], object]:
    """Return a function that multiplies two float32 matrices of 1024 x 1024, in `PRODUCT_OPERATIONS` operations."""
    a, b, out = torch.randn(3, SIZE, SIZE).unbind()
    return lambda: torch.mm(a, b, out=out)


def operations_per_step(policy: RecurrentPolicy, n_epochs: int) -> int:
    """Return the operations in the matrix products of an iteration of PPO, per step of a copy; a multiply-add is two.

    A step passes through the network without the value head when the agent acts, and once after the rollout. In each
    epoch it passes forward, and backward to all weights and to all inputs except the observations.

    Args:
        policy: A policy with one recurrent layer that reads the observations directly, and linear heads on that layer.
        n_epochs: The number of passes over the rollout.
    """
    forward, value = 2 * _weights(policy), 2 * policy.value_net.weight.numel()
    into_observations = 2 * policy.memory.layers[0].weight_ih.numel()
    return forward - value + forward + n_epochs * (3 * forward - into_observations)


def _weights(policy: RecurrentPolicy) -> int:
    return sum(weight.numel() for weight in policy.parameters() if weight.dim() == 2)
