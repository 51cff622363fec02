"""From the `env` section of a config to the vectorised environment that SB3 steps."""

import gymnasium
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from bistable_rl.agents.vec_env import BatchedVecEnv
from bistable_rl.config import EnvConfig, UserError, one_sentence
from bistable_rl.envs import ENVIRONMENTS, make_batched_env, make_env


def make_vec_env(env: EnvConfig, num_envs: int, seed: int) -> VecEnv:
    """Make copies of an environment: ours in one batch of numpy arrays, any other one copy after the other.

    Raises:
        UserError: The id, an argument or a wrapper is wrong, or the environment cannot be built.
    """

    def one() -> gymnasium.Env:
        return Monitor(make_env(env.id, kwargs=env.kwargs, wrappers=env.wrappers))

    try:
        if env.id in ENVIRONMENTS and not env.wrappers:
            vec_env: VecEnv = BatchedVecEnv(make_batched_env(env.id, num_envs=num_envs, kwargs=env.kwargs))
        else:
            vec_env = DummyVecEnv([one] * num_envs)
        # channels first for images, as SB3's algorithms do it
        vec_env = BaseAlgorithm._wrap_env(vec_env, verbose=0, monitor_wrapper=False)
    except (ValueError, gymnasium.error.Error) as error:
        raise UserError(f"env: {one_sentence(error)}") from None
    vec_env.seed(seed)
    return vec_env


def derived_seed(seed: int, purpose: int) -> int:
    """Return a seed for something that must not share the episodes of training (evaluation: 1)."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0] >> 1)
