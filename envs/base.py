"""The base class of the environments: n copies of one environment, stepped together.

An environment writes its dynamics on arrays whose first axis is the copy. `BatchedEnv` does the rest: seeds, episodes,
autoreset, final observations, saved states, rendering.
"""

import sys
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from bistable_rl.checks import check_choice, check_size
from bistable_rl.envs import rng
from bistable_rl.envs.batching import Copies, find_autoreset_mode, masked_infos, replace_rows, rows
from bistable_rl.errors import unknown

StepResult = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, np.ndarray]]
"""Rewards, terminations, truncations, and the info of the copies whose episode has ended; each array is (n, ...)."""


class BatchOptions(TypedDict, total=False):
    """The arguments that every environment takes besides its own; `BatchedEnv` describes them."""

    num_envs: int
    autoreset_mode: str | AutoresetMode
    render_mode: str | None


class BatchedEnv(VectorEnv[Any, np.ndarray, np.ndarray]):
    """n copies of one environment, stepped together in numpy.

    With an int seed s, copy k has the episodes of a single environment with the seed s + k, also after an autoreset.

    A subclass names the arrays that change in `STATE`, sets `horizon`, `optimal_return` and `memoryless_return`, and
    implements:

    - `_begin(i)`: start an episode in the copies `i`, with random numbers drawn from `self.keys[i]`;
    - `_advance(actions)`: apply every copy's action at step `self.t`;
    - `_observe(i)`: return the observations of the copies `i` at step `self.t`, in new arrays, also after the last
      step of an episode;
    - `_set_cue(i, cue)`: replace the cue that `_begin` drew, with one cue for all copies or one for each;
    - `observation_text(k)`, `memory_text(k)` and `_picture(k)`: show copy `k` to a person.

    Args:
        observation_space: The observation space of one copy.
        action_space: The action space of one copy.
        num_envs: n, the number of copies.
        autoreset_mode: When a copy starts its next episode, as in `gymnasium.vector`: `SAME_STEP` (in the step that
            ends an episode; the info keeps `final_obs` and `final_info`), `NEXT_STEP` or `DISABLED` (by
            `reset(options={"reset_mask": mask})`). The mode, its name or its value.
        render_mode: None, "human" (prints the text), "ansi" (returns the text) or "rgb_array".

    Raises:
        ValueError: If an argument is out of range or not one of the choices.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - gymnasium's own declaration
        "render_modes": ["human", "rgb_array", "ansi"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    STATE: ClassVar[tuple[str, ...]] = ()
    FORMER_STATE: ClassVar[tuple[str, ...]] = ()
    """Arrays of states saved by version 0.1 that are no longer needed."""
    CUE_NDIM: ClassVar[int] = 0
    """The number of dimensions of one copy's cue: 0 for a number, 1 for a vector."""
    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """The options of `reset` besides cue and reset_mask."""

    optimal_return: float
    """The expected return of an optimal policy; if it is not known, a bound that the class names."""
    memoryless_return: float
    """The expected return of the best policy that sees the current observation only, or of one without memory that the
    class names where that is not known."""
    horizon: int
    """The maximum number of steps in an episode."""

    def __init__(
        self,
        *,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs = check_size("num_envs", num_envs)
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.autoreset_mode = find_autoreset_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode

        self.seeds = np.zeros(num_envs, np.uint64)
        self.episode = np.full(num_envs, -1, np.int64)  # -1: neither an episode nor a seed yet
        self.keys = np.zeros(num_envs, np.uint64)
        self.t = np.zeros(num_envs, np.int64)
        self.over = np.zeros(num_envs, np.bool_)  # ended and not reset yet
        self.copies: Copies = np.arange(num_envs)

    # Implemented by a subclass.

    def _begin(self, i: Copies) -> None:
        raise NotImplementedError

    def _advance(self, actions: np.ndarray) -> StepResult:
        raise NotImplementedError

    def _observe(self, i: Copies) -> Any:
        raise NotImplementedError

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        raise NotImplementedError

    def _use_options(self, options: dict[str, Any]) -> None:
        """Apply the options of `reset` that `OPTIONS` names."""

    def observation_text(self, k: int) -> str:
        """Return the current observation of copy `k` as text."""
        raise NotImplementedError

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        raise NotImplementedError

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        raise NotImplementedError

    # Called by a user.

    @property
    def generator(self) -> np.random.Generator:
        """The generator that the single environment has as its `np_random`."""
        return self.np_random

    @property
    def reward_threshold(self) -> float:
        """The return that counts as solved: nine tenths of the way from `memoryless_return` to `optimal_return`."""
        return self.memoryless_return + 0.9 * (self.optimal_return - self.memoryless_return)

    def normalized_score(self, mean_return: float) -> float:
        """Scale a mean return so that `memoryless_return` is 0 and `optimal_return` is 1."""
        return (mean_return - self.memoryless_return) / (self.optimal_return - self.memoryless_return)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every copy.

        Args:
            seed: An int s seeds copy k with s + k. A sequence has a seed for each copy. A copy whose seed is None
                starts the next episode of its current seed.
            options: "cue" sets the cue, one for all copies or one for each. "reset_mask", (n,) of bool, selects the
                copies to reset; the others continue.

        Returns:
            The observations of all copies, and an empty info.

        Raises:
            ValueError: If a seed is negative, or the seeds, an option or the cue do not fit.
        """
        options = dict(options or {})
        for name in options:
            if name not in ("cue", "reset_mask", *self.OPTIONS):
                raise ValueError(unknown("reset option", name, ["cue", "reset_mask", *self.OPTIONS]))
        i = self._masked(options.get("reset_mask"))
        cue = options.get("cue")
        self._use_options(options)
        self._seed(i, self._seed_list(seed))
        self._start(i)
        if cue is not None:
            cue = np.asarray(cue)
            if cue.ndim > self.CUE_NDIM + 1 or (cue.ndim == self.CUE_NDIM + 1 and len(cue) != self.num_envs):
                raise ValueError(f"cue must be one for all copies or one for each of {self.num_envs}, not {cue}")
            self._set_cue(i, cue[i] if cue.ndim == self.CUE_NDIM + 1 else cue)
        if self.render_mode == "human":
            self.render()
        return self._observe(self.copies), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Apply one action in every copy.

        Args:
            actions: (n, ...), one action for each copy. Continuous ones are clipped to [-1, 1].

        Returns:
            The observations, rewards, terminations, truncations and infos of a `gymnasium.vector.VectorEnv`.

        Raises:
            ResetNeeded: If a copy has no episode, or its episode has ended and autoreset is disabled.
            ValueError: If the actions do not fit the action space.
        """
        if self.episode.min() < 0:
            raise ResetNeeded("call reset() before the first step()")
        waiting = np.flatnonzero(self.over)
        if len(waiting) and self.autoreset_mode is AutoresetMode.DISABLED:
            raise ResetNeeded(f"the episode of copy {waiting[0]} is over; reset it before the next step()")

        reward, terminated, truncated, last = self._advance(self._valid(actions))
        self.t += 1
        if len(waiting):  # NEXT_STEP: these copies are reset by this step, and their action is ignored
            reward[waiting], terminated[waiting], truncated[waiting] = 0.0, False, False
            self._start(waiting)
        observations = self._observe(self.copies)
        self.over = terminated | truncated

        infos: dict[str, Any] = {}
        if self.over.any():
            ended = self.over.copy()
            infos = masked_infos(last, ended)
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                i = np.flatnonzero(ended)
                final = np.full(self.num_envs, None, dtype=object)
                for copy, row in zip(i.tolist(), rows(observations, i), strict=True):
                    final[copy] = row
                infos = masked_infos({"final_obs": final}, ended) | {
                    "final_info": infos,
                    "_final_info": ended.copy(),
                }
                self._start(i)
                replace_rows(observations, i, self._observe(i))
        if self.render_mode == "human":
            self.render()
        return observations, reward, terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """Return the picture or text of every copy, or print the texts, as `render_mode` says."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() shows nothing without a render_mode; give one when the environment is made")
            return None
        if self.render_mode == "rgb_array":
            return tuple(np.kron(self._picture(k), np.ones((16, 16, 1), np.uint8)) for k in range(self.num_envs))
        texts = tuple(
            f"step {self.t[k]}  seen: {self.observation_text(k)}  to remember: {self.memory_text(k)}"
            for k in range(self.num_envs)
        )
        if self.render_mode == "ansi":
            return texts
        sys.stdout.write("\n".join(texts) + "\n")
        return None

    def get_state(self) -> dict[str, np.ndarray]:
        """Return copies of the arrays from which `set_state` continues bit for bit."""
        return {name: getattr(self, name).copy() for name in self._state_names()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state of `get_state`, from this environment or another one with the same arguments.

        Raises:
            ValueError: If the state has other arrays or other shapes.
        """
        names = self._state_names()
        if set(state) - set(self.FORMER_STATE) != set(names):
            raise ValueError(f"the state must hold {', '.join(names)}, not {', '.join(sorted(state))}")
        for name in names:
            present, value = getattr(self, name), np.asarray(state[name])
            if value.shape != present.shape:
                raise ValueError(f"the state's {name} must have shape {present.shape}, not {value.shape}")
            setattr(self, name, value.astype(present.dtype, copy=True))

    # Bookkeeping.

    @property
    def _size(self) -> int:
        """The number of entries of a vector observation."""
        return int(self.observation_space.shape[1])  # type: ignore[index]

    def _blank(self, i: Copies) -> npt.NDArray[np.float32]:
        """Return an array of zeros for the observations of the copies `i`."""
        return np.zeros((len(i), *self.observation_space.shape[1:]), np.float32)  # type: ignore[index]

    def _state_names(self) -> tuple[str, ...]:
        return ("seeds", "episode", "keys", "t", "over", *self.STATE)

    def _seed_list(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + k for k in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed must be an int or {self.num_envs} ints, one for each copy, not {len(seed)}")
        return list(seed)

    def _seed(self, i: Copies, seeds: list[int | None]) -> None:
        """Set the seeds of the copies `i`; a copy without one draws it at random."""
        if seeds[0] is not None:
            super().reset(seed=seeds[0])  # seeds np_random; refuses a negative seed
        for copy in i:
            seed = seeds[copy]
            if seed is not None:
                if seed < 0:
                    raise ValueError(f"seed must not be negative, got {seed}")
                self.seeds[copy] = seed % 2**64
                self.episode[copy] = -1
            elif self.episode[copy] < 0:
                self.seeds[copy] = self.np_random.integers(2**64, dtype=np.uint64)

    def _start(self, i: Copies) -> None:
        """Start the next episode of the copies `i`."""
        self.episode[i] += 1
        self.keys[i] = rng.episode_keys(self.seeds[i], self.episode[i])
        self.t[i] = 0
        self.over[i] = False
        self._begin(i)

    def _masked(self, mask: Any) -> Copies:
        if mask is None:
            return self.copies
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must be {self.num_envs} booleans, one for each copy, and at least one must be true"
            )
        return np.flatnonzero(mask)

    def _valid(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions as an array of valid ones."""
        actions = np.asarray(actions)
        space = self.single_action_space
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions must have shape {self.action_space.shape}, not {actions.shape}")
        if isinstance(space, gymnasium.spaces.Discrete):
            if actions.dtype.kind not in "iu" or actions.min() < 0 or actions.max() >= space.n:
                raise ValueError(f"actions must be integers from 0 to {space.n - 1}, not {actions}")
            return actions.astype(np.int64, copy=False)
        if isinstance(space, gymnasium.spaces.MultiDiscrete):
            if actions.dtype.kind not in "iu" or actions.min() < 0 or (actions >= space.nvec).any():
                raise ValueError(f"actions must be integers from 0 to {(space.nvec - 1).tolist()}, not {actions}")
            return actions.astype(np.int64, copy=False)
        if not np.isfinite(actions).all():
            raise ValueError(f"actions must be finite numbers, not {actions}")
        return np.clip(actions, -1.0, 1.0)
