"""Pass the steps before an answer in one scan of their observations, which are known in advance."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.vec_envs import BatchedVecEnv

AHEAD = 1 << 15
"""The most observations, of all copies together, that are looked ahead at once, to bound the memory."""


class Predicts(Protocol):
    """Anything with SB3's recurrent `predict`.

    An agent that has `predict_ahead` and `remember` too, as `RecurrentPolicy` does, passes many steps at once. One
    whose `predict` has an argument `action_masks` is given those of the environment.
    """

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Return actions and the next state."""


class LookAhead:
    """An agent that acts in copies of an environment, and passes steps that are known in advance.

    Where the environment says which action leads on to the answer (`DistractedEnv.MEANWHILE`), its observations are
    known as long as the agent takes this action. So they are scanned at once; each copy passes the steps up to the
    first at which the agent wants another action, and takes this one. Where any action leads on, none is asked for.

    The states are those of single steps: bit for bit by the compiled kernels, up to rounding by torch's operations. So
    deterministic decisions are the same. Sampled ones come from the same distributions by other random numbers.

    Args:
        agent: Has SB3's recurrent `predict`.
        env: The copies. Each one goes on by itself: after a scan they are at different steps.
        deterministic: Take the most likely actions instead of sampling them.
        masks: The masks of the environment's actions.
    """

    def __init__(self, agent: Predicts, env: VecEnv, deterministic: bool, masks: EnvMasks) -> None:
        self.agent: Any = agent
        self.env: Any = env
        self.deterministic = deterministic
        self.masks = masks
        able = isinstance(env, BatchedVecEnv) and hasattr(agent, "remember")
        self.distracted = env.distracted if able else None  # type: ignore[attr-defined]
        self.most = self.limit = max(1, AHEAD // env.num_envs)

    def act(self, obs: Any, state: Any, starts: np.ndarray, playing: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        """Pass steps, none or many in each copy, and choose the actions of the steps that come then.

        Args:
            obs: The observations of the present step.
            state: The agent's state before it.
            starts: (n,), where an episode starts with it.
            playing: (n,), the copies that matter for how far to look ahead, at least one.

        Returns:
            The number of steps that each copy has passed (n,), the actions, and the agent's state.
        """
        passed = np.zeros(len(starts), np.int64)
        if self.distracted is None:
            return (passed, *self.agent.predict(obs, state, starts, self.deterministic, **self.masks.given))
        steps = np.minimum(self.distracted.steps_ahead, self.most)
        strays, wanted = np.zeros(len(starts), np.bool_), passed
        if steps.any():
            passed, strays, wanted, state = self._pass(steps, state, starts)
            obs, starts = self.env.go_on(passed), np.zeros_like(starts)
            self.masks.see(starts, ())
        actions, state = self.agent.predict(obs, state, starts, self.deterministic, **self.masks.given)
        meanwhile = self.distracted.MEANWHILE
        if meanwhile is not None:
            actions = np.where(strays, wanted, actions)
            # as far again as the copies went: not at all where most stray at once, then farther and farther
            self.most = min(self.limit, int(2 * (passed + (actions == meanwhile))[playing].mean()))
        return passed, actions, state

    def _pass(
        self, steps: np.ndarray, state: Any, starts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """Return how many of the steps (n,) each copy passes, which ones stray then, by what action, and the state."""
        assert self.distracted is not None
        T, n = int(steps.max()), len(steps)
        seen = self.distracted.look_ahead(T)
        meanwhile = self.distracted.MEANWHILE
        if meanwhile is None:
            nothing = np.zeros(n, np.bool_)
            return steps, nothing, nothing, self.agent.remember(seen, state, starts, steps)
        given = {} if self.masks.now is None else {"action_masks": self.distracted.masks_ahead(T)}
        actions, after = self.agent.predict_ahead(seen, state, starts, steps, self.deterministic, **given)
        straying = (actions != meanwhile) & (np.arange(T)[:, None] < steps)
        strays, first = straying.any(0), straying.argmax(0)
        if strays.any():
            steps = np.where(strays, first, steps)
            after = self.agent.remember(seen, state, starts, steps)
        return steps, strays, actions[first, np.arange(n)], after
