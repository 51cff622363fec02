"""Generalised advantage estimation (Schulman et al. 2016), for all steps and copies at once."""

from __future__ import annotations

from torch import Tensor


def discounted_sums(x: Tensor, discount: Tensor) -> Tensor:
    """Return y with y_t = x_t + discount_t · y_{t+1} and y_T = 0, in log2(T) passes over all steps.

    Args:
        x: (T, n).
        discount: (T, n), within [0, 1], so that no product of discounts overflows.
    """
    T, y, c, reach = len(x), x.clone(), discount.clone(), 1
    while reach < T:  # y holds the sum over the next `reach` steps, c the product of their discounts
        y[:-reach] += c[:-reach] * y[reach:]
        c[:-reach] *= c[reach:].clone()
        c[-reach:] = 0.0
        reach *= 2
    return y


def advantages(
    rewards: Tensor, values: Tensor, next_values: Tensor, dones: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Return the advantages (T, n) of the actions.

    Args:
        rewards: (T, n).
        values: (T, n) V of the observation on which the action was taken.
        next_values: (T, n) V of the next observation of the same episode; 0 where the episode terminated; V of its
            last observation where a time limit truncated it.
        dones: (T, n) whether the episode ended with that step, terminated or truncated.
        gamma: Discount factor in [0, 1].
        gae_lambda: λ in [0, 1].
    """
    deltas = rewards + gamma * next_values - values
    return discounted_sums(deltas, gamma * gae_lambda * (~dones).to(deltas.dtype))
