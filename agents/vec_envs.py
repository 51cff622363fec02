"""Vectorised environments for SB3, made from the `env` section of a config; ours are one batch of numpy arrays."""

import copy
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from bistable_rl.agents.action_masks import MASKS
from bistable_rl.agents.normalization import check_normalizable
from bistable_rl.agents.spaces import becomes, check_spaces
from bistable_rl.envs import ENVIRONMENTS, make_batched_env, make_env
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.nested import FlattenNested, FlattenNestedVector, flat_space, is_nested
from bistable_rl.envs.previous_action_reward import PreviousActionRewardVector
from bistable_rl.envs.registry import find_spec
from bistable_rl.errors import UserError, one_sentence, user_errors
from bistable_rl.runs.capacity import check_memory
from bistable_rl.runs.schema import EnvConfig

# wrappers that have a batched form, by their names in a config
BATCHED_WRAPPERS = ({"name": "previous_action_reward"}, {"name": "previous_action_reward", "kwargs": {}})

# the most episodes of an evaluation that are played at once: a batched step of hundreds costs little more than of one
BATCHED_COPIES, COPIES = 256, 16


def make_vec_env(env: EnvConfig, num_envs: int, seed: int) -> VecEnv:
    """Make the vectorised environment of an `env` section: ours as one batch, any other as a list of copies.

    Raises:
        UserError: If the id, an argument or a wrapper is wrong, or the environment cannot be built.
    """
    check_memory(f"env.num_envs {num_envs}", 500 * num_envs)  # the infos of one step alone

    def one() -> gymnasium.Env:
        single = make_env(env.id, kwargs=env.kwargs, wrappers=env.wrappers)
        check_spaces(single.observation_space, single.action_space)
        return Monitor(single)

    with user_errors("env", ValueError, gymnasium.error.Error):
        if _is_batched(env):
            batch: Any = make_batched_env(env.id, num_envs=num_envs, kwargs=env.kwargs)
            for _ in env.wrappers:
                batch = PreviousActionRewardVector(batch)
            vec_env: VecEnv = BatchedVecEnv(batch)
        else:
            vec_env = DummyVecEnv([one] * num_envs)
        # channels first for images, as in SB3's algorithms
        vec_env = BaseAlgorithm._wrap_env(vec_env, verbose=0, monitor_wrapper=False)
        if env.normalize.obs:
            check_normalizable(vec_env.observation_space)
    vec_env.seed(seed)
    return vec_env


def make_rendered_env(env: EnvConfig, seed: int) -> VecEnv:
    """Make one copy that renders pictures; its `render_mode` is not "rgb_array" where the environment has none.

    Raises:
        UserError: If `make_vec_env` raises it.
    """
    try:
        return make_vec_env(replace(env, kwargs={**env.kwargs, "render_mode": "rgb_array"}), 1, seed)
    except UserError:  # it takes no render_mode; any other error is raised again below
        return make_vec_env(env, 1, seed)


def make_evaluation_env(env: EnvConfig, episodes: int, seed: int) -> VecEnv:
    """Make the vectorised environment on which a number of episodes is evaluated.

    Raises:
        UserError: If `make_vec_env` raises it, or there is no memory for so many episodes.
    """
    with user_errors("env", ValueError, gymnasium.error.Error):
        most = BATCHED_COPIES if _is_batched(env) else COPIES
    check_memory(f"the result of evaluation.episodes {episodes}", 100 * episodes)
    return make_vec_env(env, min(most, episodes), seed)


def close(env: VecEnv) -> None:
    """Close an environment that is no longer needed; a failure is only a warning, since nothing depends on it."""
    try:
        env.close()
    except (Exception, SystemExit) as error:  # an environment from elsewhere may raise anything
        warnings.warn(
            f"the environment could not be closed: {type(error).__name__}: {one_sentence(error)}", stacklevel=2
        )


def _is_batched(env: EnvConfig) -> bool:
    return find_spec(env.id).id in ENVIRONMENTS and all(wrapper in BATCHED_WRAPPERS for wrapper in env.wrappers)


AnyEnv = GymEnv | VectorEnv[Any, Any, Any]
"""An environment as `RecurrentPPO` takes it."""


def as_vec_env(env: AnyEnv) -> GymEnv:
    """Return an environment in SB3's form: gymnasium's vector environments as VecEnv, no nested observations.

    Raises:
        ValueError: If its autoreset mode is not SAME_STEP, or its nested observations cannot be flattened.
    """
    if isinstance(env, VectorEnv):
        return BatchedVecEnv(env)
    if isinstance(env, gymnasium.Env) and is_nested(env.observation_space):
        return FlattenNested(env)
    return env


def nested_space_of(env: VecEnv) -> gymnasium.Space | None:
    """Return the space of an environment's observations before they were flattened; None if they were not."""
    space = attribute_of(env, "nested_space")
    try:
        return space if is_nested(space) and becomes(flat_space(space), env.observation_space) else None
    except ValueError:  # a foreign attribute of that name
        return None


def attribute_of(env: VecEnv, name: str) -> Any:
    """Return an attribute of an environment's first copy; None if it has none or reading it fails.

    The attribute is read only if it exists: otherwise a process of SubprocVecEnv would end.
    """
    try:
        return env.get_attr(name)[0] if env.has_attr(name) else None
    except (Exception, SystemExit):  # a foreign property or VecEnv may raise anything
        return None


def first_copy(env: VecEnv) -> Any:
    """Return the first copy without its wrappers; None if it lives in another process and would have to be pickled.

    Raises:
        Exception: Any error of a VecEnv from elsewhere.
    """
    return None if isinstance(env.unwrapped, SubprocVecEnv) else env.get_attr("unwrapped")[0]


class BatchedVecEnv(VecEnv):
    """A `gymnasium.vector.VectorEnv` as an SB3 `VecEnv`.

    Infos are those that SB3 expects after `Monitor`: where an episode ends, `episode` (return `r`, length `l`, seconds
    since the start `t`), `terminal_observation` and `TimeLimit.truncated` are added to the environment's own keys, such
    as `is_success`. `env_is_wrapped(Monitor)` is therefore true.

    Action masks come from the environment's method `action_masks()`, one for each copy. In gymnasium's SyncVectorEnv or
    AsyncVectorEnv they come from the method of the copies.

    Args:
        env: The vector environment, in autoreset mode SAME_STEP; nested observations are flattened.

    Raises:
        ValueError: If the environment is in another mode, or its observations cannot be flattened.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"SB3 resets an environment in the step that ends its episode, so autoreset_mode must be SAME_STEP, "
                f"not {getattr(mode, 'name', mode)}; give autoreset_mode=AutoresetMode.SAME_STEP where the vector "
                "environment is made (to gymnasium.make_vec of CartPole: vectorization_mode='sync', "
                "vector_kwargs={'autoreset_mode': AutoresetMode.SAME_STEP})"
            )
        if is_nested(env.single_observation_space):
            env = FlattenNestedVector(env)
        self.env = env
        self._actions: np.ndarray | None = None
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._started = time.time()
        self._offers_masks = hasattr(_owner(env, MASKS), MASKS) or _copies_have(env, MASKS)
        space = copy.copy(env.single_observation_space)
        if isinstance(space, gymnasium.spaces.Dict):
            space.spaces = dict(space.spaces)  # VecNormalize replaces the normalised parts in the given space
        super().__init__(env.num_envs, space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Start an episode in every copy, with the seeds and options set before."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        if any(options != self._options[0] for options in self._options):
            raise ValueError("the options of reset must be the same for all copies, which are reset together")
        observations, infos = self.env.reset(seed=seeds, options=self._options[0] or None)  # type: ignore[arg-type]
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0.0, 0
        self.reset_infos = [_of_copy(infos, copy) for copy in range(self.num_envs)]
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Apply the actions, and start the next episode where one has ended."""
        observations, rewards, terminated, truncated, infos = self.env.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        ended = terminated | truncated
        records: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ends = np.flatnonzero(ended).tolist()
        if ends:
            seconds = round(time.time() - self._started, 6)
            final_infos, final_obs = infos.pop("final_info"), infos.pop("final_obs")
            for copy in ends:
                records[copy] = _of_copy(final_infos, copy) | {
                    "episode": {
                        "r": round(float(self._returns[copy]), 6),
                        "l": int(self._lengths[copy]),
                        "t": seconds,
                    },
                    "terminal_observation": final_obs[copy],
                    "TimeLimit.truncated": bool(truncated[copy] and not terminated[copy]),
                }
                self.reset_infos[copy] = _of_copy(infos, copy)
            self._returns[ended], self._lengths[ended] = 0.0, 0
        if not infos.keys() <= {"_final_info", "_final_obs"}:
            for copy in np.flatnonzero(~ended).tolist():
                records[copy] = _of_copy(infos, copy)
        return observations, rewards.astype(np.float32), ended, records

    @property
    def distracted(self) -> DistractedEnv | None:
        """The environment, if it allows looking ahead."""
        return self.env if isinstance(self.env, DistractedEnv) else None

    def go_on(self, steps: np.ndarray) -> np.ndarray:
        """Advance as `DistractedEnv.go_on` does, and return the observations of the step that follows."""
        assert isinstance(self.env, DistractedEnv)
        self.env.go_on(steps)
        self._lengths += steps
        return self.env.observe()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of each copy."""
        pictures: Any = self.env.render()
        return list(pictures or [None] * self.num_envs)

    def action_masks(self) -> Any:
        """Return the masks of the actions that are allowed now, one for each copy."""
        owner = _owner(self.env, MASKS)
        return owner.action_masks() if hasattr(owner, MASKS) else owner.call(MASKS)

    def has_attr(self, attr_name: str) -> bool:
        """Return whether the environment, or one that it wraps, has an attribute."""
        return self._offers_masks if attr_name == MASKS else super().has_attr(attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute once per copy; the copies share it. It may belong to the wrapped environment."""
        return [getattr(_owner(self.env, attr_name), attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute, which all copies share."""
        self._check_all(indices, f"set {attr_name}")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method once for all copies; masks and tuples with one result per copy are split, others are shared."""
        if method_name == MASKS and self._offers_masks:
            masks = self.action_masks()
            return [masks[copy] for copy in self._get_indices(indices)]
        self._check_all(indices, f"call {method_name}")
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        if isinstance(result, tuple) and len(result) == self.num_envs:
            return list(result)
        return [result] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether the copies do the work of a wrapper: of `Monitor` only."""
        return [wrapper_class is Monitor] * len(list(self._get_indices(indices)))

    def get_state(self) -> dict[str, np.ndarray]:
        """Return the environment's state, and the returns and lengths of the current episodes."""
        state = self.env.get_state()  # type: ignore[attr-defined]
        return {**state, "episode_returns": self._returns.copy(), "episode_lengths": self._lengths.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from the state that `get_state` returned."""
        state = dict(state)
        self._returns = state.pop("episode_returns").copy()
        self._lengths = state.pop("episode_lengths").copy()
        self.env.set_state(state)  # type: ignore[attr-defined]

    def _check_all(self, indices: VecEnvIndices, what: str) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(f"cannot {what} for some copies only, since all copies are one object")


def _owner(env: VectorEnv[Any, Any, Any], name: str) -> Any:
    """Return the outermost environment of a stack of wrappers that has an attribute, else the innermost one."""
    while isinstance(env, VectorWrapper) and not hasattr(env, name):
        env = env.env
    return env


def _copies_have(env: VectorEnv[Any, Any, Any], name: str) -> bool:
    """Return whether gymnasium's list of single environments has an attribute in each of them."""
    copies = env.unwrapped
    return isinstance(copies, SyncVectorEnv | AsyncVectorEnv) and all(copies.call("has_wrapper_attr", name))


def _of_copy(infos: dict[str, Any], copy: int) -> dict[str, Any]:
    """Return one copy's info from those of a vector environment; its mask "_key" marks the copies that have a key."""
    info: dict[str, Any] = {}
    for key, value in infos.items():
        if key.startswith("_") or not infos.get(f"_{key}", np.ones(copy + 1, np.bool_))[copy]:
            continue
        if isinstance(value, dict):
            info[key] = _of_copy(value, copy)
        else:
            info[key] = value[copy].item() if isinstance(value[copy], np.generic) else value[copy]
    return info
