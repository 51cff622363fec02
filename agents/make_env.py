"""From the `env` section of a config to the vectorised environment that SB3 steps."""

import warnings
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from bistable_rl.agents.spaces import check_spaces
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.envs import ENVIRONMENTS, make_batched_env, make_env
from bistable_rl.envs.previous_action_reward import PreviousActionRewardVector
from bistable_rl.envs.registry import find_spec
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.capacity import check_memory
from bistable_rl.runs.schema import EnvConfig

# what a derived seed is for
TRAINING, EVALUATION, FINAL_EVALUATION, WATCHING, WARM_UP, ANALYSIS = range(6)

# the wrappers, as a config gives them, that have a batched form
BATCHED_WRAPPERS = ({"name": "previous_action_reward"}, {"name": "previous_action_reward", "kwargs": {}})

# episodes of an evaluation played at once, at most: in a batch, a step of hundreds costs little more than a step of one
BATCHED_COPIES, COPIES = 256, 16


def make_vec_env(env: EnvConfig, num_envs: int, seed: int) -> VecEnv:
    """Make copies of an environment: ours in one batch of numpy arrays, any other one copy after the other.

    Raises:
        UserError: The id, an argument or a wrapper is wrong, or the environment cannot be built.
    """
    check_memory(f"env.num_envs {num_envs}: so many copies", 500 * num_envs)  # only what SB3 says of each in a step

    def one() -> gymnasium.Env:
        single = make_env(env.id, kwargs=env.kwargs, wrappers=env.wrappers)
        check_spaces(single.observation_space, single.action_space)
        return Monitor(single)

    try:
        if _is_batched(env):
            batch: Any = make_batched_env(env.id, num_envs=num_envs, kwargs=env.kwargs)
            for _ in env.wrappers:
                batch = PreviousActionRewardVector(batch)
            vec_env: VecEnv = BatchedVecEnv(batch)
        else:
            vec_env = DummyVecEnv([one] * num_envs)
        # channels first for images, as SB3's algorithms do it
        vec_env = BaseAlgorithm._wrap_env(vec_env, verbose=0, monitor_wrapper=False)
    except (ValueError, gymnasium.error.Error) as error:
        raise UserError(f"env: {one_sentence(error)}") from None
    vec_env.seed(seed)
    return vec_env


def make_evaluation_env(env: EnvConfig, episodes: int, seed: int) -> VecEnv:
    """Make as many copies of an environment as serve to play so many episodes.

    Raises:
        UserError: As `make_vec_env`.
    """
    try:
        most = BATCHED_COPIES if _is_batched(env) else COPIES
    except (ValueError, gymnasium.error.Error) as error:
        raise UserError(f"env: {one_sentence(error)}") from None
    check_memory(f"evaluation.episodes {episodes}: what is kept of so many", 100 * episodes)
    return make_vec_env(env, min(most, episodes), seed)


def close(env: VecEnv) -> None:
    """Close copies of an environment that have done their work; if they cannot, warn, for nothing depends on it."""
    try:
        env.close()
    except (Exception, SystemExit) as error:  # whatever somebody else's environment does
        warnings.warn(
            f"the environment could not be closed: {type(error).__name__}: {one_sentence(error)}", stacklevel=2
        )


def _is_batched(env: EnvConfig) -> bool:
    return find_spec(env.id).id in ENVIRONMENTS and all(wrapper in BATCHED_WRAPPERS for wrapper in env.wrappers)


def derived_seed(seed: int, *purpose: int) -> int:
    """Return a seed of its own for each purpose, so that neither purposes nor neighbouring seeds share episodes."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1)[0] >> 1)
