"""One copy of a batched environment, as a `gymnasium.Env`."""

import inspect
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from bistable_rl.envs.base import BatchedEnv
from bistable_rl.envs.batching import rows


class SingleEnv(gymnasium.Env[Any, Any]):
    """One copy of a batched environment, as a `gymnasium.Env`.

    A subclass names its batched environment in `vector_class`; that class documents the task.

    Args:
        **arguments: The arguments of `vector_class`, except `num_envs` and `autoreset_mode`.
    """

    metadata = {key: value for key, value in BatchedEnv.metadata.items() if key != "autoreset_mode"}  # noqa: RUF012
    vector_class: ClassVar[type[BatchedEnv]]
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls) -> None:
        """Give the subclass the signature of its batched environment, for `help` and for checks of arguments."""
        super().__init_subclass__()
        own = inspect.signature(cls.vector_class).parameters.values()
        shared = inspect.signature(BatchedEnv).parameters
        cls.__signature__ = inspect.Signature(
            [p for p in own if p.kind is p.KEYWORD_ONLY and p.name not in shared] + [shared["render_mode"]]
        )

    def __init__(self, **arguments: Any) -> None:
        self.batch = self.vector_class(num_envs=1, autoreset_mode=AutoresetMode.DISABLED, **arguments)
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        self.render_mode = self.batch.render_mode

    @property
    def horizon(self) -> int:
        """The maximum number of steps in an episode."""
        return self.batch.horizon

    @property
    def optimal_return(self) -> float:
        """The expected return of an optimal policy."""
        return self.batch.optimal_return

    @property
    def memoryless_return(self) -> float:
        """The expected return of the best policy that sees the current observation only."""
        return self.batch.memoryless_return

    @property
    def reward_threshold(self) -> float:
        """The return that counts as solved."""
        return self.batch.reward_threshold

    def normalized_score(self, mean_return: float) -> float:
        """Scale a mean return so that `memoryless_return` is 0 and `optimal_return` is 1."""
        return self.batch.normalized_score(mean_return)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `options={"cue": ...}` sets its cue."""
        observations, _ = self.batch.reset(seed=seed, options=options)
        self._np_random, self._np_random_seed = self.batch.generator, self.batch.np_random_seed
        return rows(observations, self.batch.copies)[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Apply one action."""
        observations, reward, terminated, truncated, infos = self.batch.step(np.asarray(action)[None])
        info = {key: value[0].tolist() for key, value in infos.items() if not key.startswith("_")}
        return (
            rows(observations, self.batch.copies)[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            info,
        )

    def render(self) -> Any:
        """Return the picture or the text, or print the text, as `render_mode` says."""
        frames = self.batch.render()
        return None if frames is None else frames[0]

    def get_state(self) -> dict[str, np.ndarray]:
        """Return copies of the arrays from which `set_state` continues bit for bit."""
        return self.batch.get_state()

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state of `get_state`."""
        self.batch.set_state(state)
