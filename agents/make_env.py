"""From the `env` section of a config to the vectorised environment that SB3 steps."""

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from bistable_rl.agents.vec_env import BatchedVecEnv
from bistable_rl.config import UserError, one_sentence
from bistable_rl.envs import ENVIRONMENTS, make_batched_env, make_env
from bistable_rl.envs.make import find_spec
from bistable_rl.experiments import EnvConfig

# what a derived seed is for
TRAINING, EVALUATION, FINAL_EVALUATION, WATCHING, WARM_UP, ANALYSIS = range(6)


def make_vec_env(env: EnvConfig, num_envs: int, seed: int) -> VecEnv:
    """Make copies of an environment: ours in one batch of numpy arrays, any other one copy after the other.

    Raises:
        UserError: The id, an argument or a wrapper is wrong, or the environment cannot be built.
    """

    def one() -> gymnasium.Env:
        single = make_env(env.id, kwargs=env.kwargs, wrappers=env.wrappers)
        check_spaces(single.observation_space, single.action_space)
        return Monitor(single)

    try:
        if find_spec(env.id).id in ENVIRONMENTS and not env.wrappers:
            vec_env: VecEnv = BatchedVecEnv(make_batched_env(env.id, num_envs=num_envs, kwargs=env.kwargs))
        else:
            vec_env = DummyVecEnv([one] * num_envs)
        # channels first for images, as SB3's algorithms do it
        vec_env = BaseAlgorithm._wrap_env(vec_env, verbose=0, monitor_wrapper=False)
    except (ValueError, gymnasium.error.Error) as error:
        raise UserError(f"env: {one_sentence(error)}") from None
    vec_env.seed(seed)
    return vec_env


def check_spaces(observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
    """Check that the policies can read an environment's observations and give it actions.

    Raises:
        ValueError: They cannot; names the space.
    """
    seen = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    for key, space in seen.items():
        where = f"its observation space{f' {key!r}' if key else ''} is {space}"
        if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise ValueError(f"{where}, but a policy reads Box, Discrete, MultiDiscrete, MultiBinary or a Dict of them")
        if isinstance(space, spaces.Box) and (space.shape == () or 0 in space.shape):
            raise ValueError(f"{where}, which holds no numbers along an axis")
        _check_start(space, where)
    where = f"its action space is {action_space}"
    if not isinstance(action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ValueError(f"{where}, but a policy gives Box, Discrete, MultiDiscrete or MultiBinary actions")
    if isinstance(action_space, spaces.Box):  # noqa: SIM102 - two questions, the second of a Box only
        if not (np.issubdtype(action_space.dtype, np.floating) and action_space.is_bounded()):
            raise ValueError(
                f"{where}, but a policy's continuous actions are floating-point numbers with finite bounds"
            )
    _check_start(action_space, where)


def _check_start(space: gymnasium.Space, where: str) -> None:
    if np.any(np.asarray(getattr(space, "start", 0)) != 0):
        raise ValueError(f"{where}, but a discrete space must start at 0")


def derived_seed(seed: int, *purpose: int) -> int:
    """Return a seed of its own for each purpose, so that neither purposes nor neighbouring seeds share episodes."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1)[0] >> 1)
