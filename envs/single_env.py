"""One copy of a batched environment, as a `gymnasium.Env`."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from bistable_rl.envs.base import BatchedEnv, rows


class SingleEnv(gymnasium.Env[Any, Any]):
    """One copy of a batched environment, as a `gymnasium.Env`.

    Args:
        batch: The batched environment, made with `num_envs=1` and autoreset disabled.
    """

    def __init__(self, batch: BatchedEnv) -> None:
        self.batch = batch
        self.observation_space = batch.single_observation_space
        self.action_space = batch.single_action_space
        self.metadata = {key: value for key, value in batch.metadata.items() if key != "autoreset_mode"}
        self.render_mode = batch.render_mode

    @property
    def horizon(self) -> int:
        """The most steps an episode takes."""
        return self.batch.horizon

    @property
    def optimal_return(self) -> float:
        """Expected return of an optimal player."""
        return self.batch.optimal_return

    @property
    def memoryless_return(self) -> float:
        """Expected return of the best player whose action depends on the present observation only."""
        return self.batch.memoryless_return

    @property
    def reward_threshold(self) -> float:
        """The return that counts as solved."""
        return self.batch.reward_threshold

    def normalized_score(self, mean_return: float) -> float:
        """Return where `mean_return` lies between the best player without memory (0) and the optimum (1)."""
        return self.batch.normalized_score(mean_return)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `options={"cue": ...}` forces its cue."""
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
        """Show the copy as `render_mode` says."""
        frames = self.batch.render()
        return None if frames is None else frames[0]

    def get_state(self) -> dict[str, np.ndarray]:
        """Return copies of the arrays from which `set_state` goes on bit for bit."""
        return self.batch.get_state()

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `get_state` returned."""
        self.batch.set_state(state)


def single(batched: type[BatchedEnv]) -> Callable[..., SingleEnv]:
    """Return the constructor of the n = 1 view of `batched`: its arguments, less `num_envs` and `autoreset_mode`."""
    signature = inspect.signature(batched)
    kept = [p for p in signature.parameters.values() if p.name not in ("num_envs", "autoreset_mode")]
    signature = signature.replace(parameters=kept, return_annotation=SingleEnv)

    @wraps(batched, updated=())
    def make(*args: Any, **kwargs: Any) -> SingleEnv:
        arguments = signature.bind(*args, **kwargs).arguments  # a TypeError for what isn't there
        return SingleEnv(batched(num_envs=1, autoreset_mode=AutoresetMode.DISABLED, **arguments))

    make.__signature__ = signature  # type: ignore[attr-defined]
    make.metadata = {k: v for k, v in batched.metadata.items() if k != "autoreset_mode"}  # type: ignore[attr-defined]
    return make
