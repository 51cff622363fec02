"""Process the steps before an answer in one scan, since their observations are known in advance."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.vec_envs import BatchedVecEnv

AHEAD = 1 << 15
"""The most observations of one look ahead, over all copies; it bounds the memory."""


class Predicts(Protocol):
    """Anything with SB3's recurrent `predict`.

    An agent that also has `predict_ahead` and `remember`, as `RecurrentPolicy` does, passes many steps at once. If
    `predict` has an argument `action_masks`, it gets the masks of the environment.
    """

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Return actions and the next state."""


class LookAhead:
    """An agent that acts in copies of an environment, and passes steps that are known in advance.

    If the environment names the action that leads on to the answer (`DistractedEnv.MEANWHILE`), its observations are
    known as long as the agent takes this action. So they are scanned at once. Each copy passes the steps up to the
    first one at which the agent chooses another action, and takes that action. If any action leads on, the agent
    chooses none in these steps.

    The states equal those of single steps: bit for bit with the compiled kernels, up to rounding with torch's
    operations. So deterministic decisions are the same. Sampled actions come from the same distributions, but from
    other random numbers.

    Args:
        agent: Has SB3's recurrent `predict`.
        env: The copies. Each copy advances by itself: after a scan they are at different steps.
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
        """Pass any number of steps in each copy, and choose the actions of the next steps.

        Args:
            obs: The observations of the current step.
            state: The agent's state before it.
            starts: (n,), whether an episode starts with it.
            playing: (n,), the copies that determine how far to look ahead, at least one.

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
            # as far again as the copies went: nowhere if most deviate at once, else farther and farther
            self.most = min(self.limit, int(2 * (passed + (actions == meanwhile))[playing].mean()))
        return passed, actions, state

    def _pass(
        self, steps: np.ndarray, state: Any, starts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """Return how many steps (n,) each copy passes, which copies deviate then, their actions, and the state."""
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
