"""The door from gymnasium's vector environments to SB3, without stepping the copies one by one."""

import copy
import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn


def _of_copy(infos: dict[str, Any], copy: int) -> dict[str, Any]:
    """Return what a vector environment's infos say of one copy: a key holds where the mask "_key" is true."""
    info: dict[str, Any] = {}
    for key, value in infos.items():
        if key.startswith("_") or not infos.get(f"_{key}", np.ones(copy + 1, np.bool_))[copy]:
            continue
        if isinstance(value, dict):
            info[key] = _of_copy(value, copy)
        else:
            info[key] = value[copy].item() if isinstance(value[copy], np.generic) else value[copy]
    return info


class BatchedVecEnv(VecEnv):
    """A `gymnasium.vector.VectorEnv` as an SB3 `VecEnv`.

    Infos are as SB3 expects them after `Monitor`: where an episode ends, `episode` (return `r`, length `l`, seconds
    since the start `t`), `terminal_observation` and `TimeLimit.truncated` stand beside what the environment says
    itself (`is_success`). `env_is_wrapped(Monitor)` is therefore true.

    Args:
        env: The vector environment, in autoreset mode SAME_STEP.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"SB3 resets an environment in the step that ends its episode: autoreset_mode must be SAME_STEP, "
                f"not {getattr(mode, 'name', mode)}"
            )
        self.env = env
        self._actions: np.ndarray | None = None
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._started = time.time()
        space = copy.copy(env.single_observation_space)
        if isinstance(space, gymnasium.spaces.Dict):
            space.spaces = dict(space.spaces)  # VecNormalize replaces what it normalises, in the space it is given
        super().__init__(env.num_envs, space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Start an episode in every copy, with the seeds and options that were set for it."""
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
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Apply the actions and start the next episode where one has ended."""
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

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of each copy."""
        pictures: Any = self.env.render()
        return list(pictures or [None] * self.num_envs)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute for each of the copies; they share it, and a wrapper shows what it wraps."""
        env: Any = self.env
        while isinstance(env, VectorWrapper) and not hasattr(env, attr_name):
            env = env.env
        return [getattr(env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute, which all copies share."""
        self._check_all(indices, f"set {attr_name}")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method once for all copies; a tuple of one result for each is handed out, anything else is shared."""
        self._check_all(indices, f"call {method_name}")
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        if isinstance(result, tuple) and len(result) == self.num_envs:
            return list(result)
        return [result] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Say whether the copies do what a wrapper does: `Monitor` only."""
        return [wrapper_class is Monitor] * len(list(self._get_indices(indices)))

    def get_state(self) -> dict[str, np.ndarray]:
        """Return the environment's state, and the returns and lengths of the episodes under way."""
        state = self.env.get_state()  # type: ignore[attr-defined]
        return {**state, "episode_returns": self._returns.copy(), "episode_lengths": self._lengths.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `get_state` returned."""
        state = dict(state)
        self._returns = state.pop("episode_returns").copy()
        self._lengths = state.pop("episode_lengths").copy()
        self.env.set_state(state)  # type: ignore[attr-defined]

    def _check_all(self, indices: VecEnvIndices, what: str) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(f"can't {what} for some copies only: they are one object")
