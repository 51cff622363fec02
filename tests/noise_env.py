"""An environment of any spaces, whose episodes end and are cut at random; and the memory's run through it by hand."""

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor

from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.policy import RecurrentPolicy

NUMBERS = spaces.Box(-1, 1, (3,), np.float32)
TWO = spaces.Discrete(2)


class Noise(gymnasium.Env[Any, Any]):
    """Shows anything, rewards anything, ends a tenth of the steps and cuts another tenth."""

    def __init__(self, observation_space: spaces.Space[Any] = NUMBERS, action_space: spaces.Space[Any] = TWO) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        chance = self.np_random.random()
        reward = float(self.np_random.normal())
        return self.observation_space.sample(), reward, bool(chance < 0.1), bool(0.1 <= chance < 0.2), {}


def noise(
    observation_space: spaces.Space[Any] = NUMBERS, action_space: spaces.Space[Any] = TWO, copies: int = 4
) -> VecEnv:
    """Return copies, each with spaces of its own: they hold random generators."""
    return DummyVecEnv([lambda: Noise(deepcopy(observation_space), deepcopy(action_space))] * copies)


def agent(env: VecEnv | None = None, *, policy: dict[str, Any] | None = None, **kwargs: Any) -> RecurrentPPO:
    """Return a small RecurrentPPO on noise."""
    settings: dict[str, Any] = {"n_steps": 16, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu", **kwargs}
    small = {"cell": "nbrc", "hidden_size": 8, "critic": "shared", "net_arch": [], **(policy or {})}
    return RecurrentPPO(RecurrentPolicy, env or noise(), policy_kwargs=small, **settings)


def live(model: RecurrentPPO, rollouts: int = 1) -> None:
    """Collect rollouts and learn nothing from them."""
    _, callback = model._setup_learn(10_000, None)
    for _ in range(rollouts):
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)  # type: ignore[arg-type]


@torch.no_grad()
def step_by_hand(policy: RecurrentPolicy, seen: Tensor, state: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Run one copy by one step, cell by cell, from the state (K, S); return features, outputs and the state."""
    features = policy.extract_features(seen.unsqueeze(0))
    outputs, new = [], []
    rows = iter(state)
    for memory in policy.memories:
        x = features
        for cell in memory.cells:
            after = cell(x, next(rows).unsqueeze(0))
            new.append(after[0])
            x = after[:, : cell.hidden_size]
        outputs.append(x)
    return features, outputs, torch.stack(new)


@torch.no_grad()
def value_by_hand(policy: RecurrentPolicy, seen: Tensor, state: Tensor) -> float:
    """Return V of what one copy sees in the state (K, S)."""
    features, outputs, _ = step_by_hand(policy, seen, state)
    latent = outputs[-1] if policy.critic_linear is None else policy.critic_linear(features)
    return float(policy.value_net(policy.critic_mlp(latent)))


@torch.no_grad()
def log_prob_by_hand(policy: RecurrentPolicy, seen: Tensor, state: Tensor, action: Tensor) -> float:
    """Return log π of one copy's action."""
    _, outputs, _ = step_by_hand(policy, seen, state)
    distribution = policy._distribution(policy.actor_mlp(outputs[0]))
    return float(distribution.log_prob(action.unsqueeze(0)))


@torch.no_grad()
def states_by_hand(policy: RecurrentPolicy, seen: Tensor, starts: np.ndarray, state: Tensor) -> Tensor:
    """Return the states (T + 1, K, n, S) before each step, where an episode starts the initial one, and after all."""
    T, n = starts.shape
    first = policy.initial_state(1)[:, 0]
    states = [torch.where(torch.from_numpy(starts[0]).reshape(1, n, 1), first.unsqueeze(1), state)]
    for t in range(T):
        columns = [step_by_hand(policy, seen[t, copy], states[t][:, copy])[2] for copy in range(n)]
        after = torch.stack(columns, 1)
        if t + 1 < T:
            after = torch.where(torch.from_numpy(starts[t + 1]).reshape(1, n, 1), first.unsqueeze(1), after)
        states.append(after)
    return torch.stack(states)
