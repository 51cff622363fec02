"""The floor of PPO's time: the products of an iteration, at the rate that a large product reaches on this core.

That rate stands for the peak of a core's fused multiply-adds, which a BLAS comes close to. What else an iteration
does, such as gates, losses and environments, counts as nothing.
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
    """Return the operations of the products for a step of a copy in an iteration of PPO: two for each multiplication.

    The step is acted on (without the value), evaluated once after the rollout, and in each epoch it goes forward, and
    backward to all weights and to all inputs but the observations.

    Args:
        policy: A policy of one recurrent layer that reads the observations as they are, and linear heads on it.
        n_epochs: The passes over the rollout.
    """
    forward, value = 2 * _weights(policy), 2 * policy.value_net.weight.numel()
    into_observations = 2 * policy.memory.layers[0].weight_ih.numel()
    return forward - value + forward + n_epochs * (3 * forward - into_observations)


def _weights(policy: RecurrentPolicy) -> int:
    return sum(weight.numel() for weight in policy.parameters() if weight.dim() == 2)
