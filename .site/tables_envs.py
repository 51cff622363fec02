"""What the pages say of environments, from the environments."""

from __future__ import annotations

import os

import gymnasium

import bistable_rl.envs
from bistable_rl.data import digits

os.environ.pop(digits.FOLDER, None)  # the pages are the same with and without MNIST


def returns(name: str) -> list[str]:
    """Return the argument of the horizon, the steps of an episode, and the best return with and without memory."""
    env_id = f"bistable_rl/{name}-v0"
    env = gymnasium.make_vec(env_id, num_envs=1).unwrapped
    horizon = bistable_rl.envs.ENVIRONMENTS[env_id].horizon
    best = (env.optimal_return, env.memoryless_return)  # type: ignore[attr-defined]
    return [f"`{horizon}`", str(env.horizon), *(f"{value:.2f}".rstrip("0").rstrip(".") for value in best)]  # type: ignore[attr-defined]
