"""One step of an agent in torch's own operations: what `export` writes to a file.

    (observation, state[, action mask]) -> (action, next state, the parameters of the actions' distribution)

The observation is read as the policy reads it, after normalisation if the agent was trained with it. The cells step by
their equation (`Cell.prepare`), not by a kernel of this package. The critic is left out.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from torch import Tensor, nn

from bistable_rl.agents.action_masks import choices
from bistable_rl.agents.distributions import forbid, forbid_bits
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.spaces import ONLY, spaces_of
from bistable_rl.envs.nested import NESTED

CRITIC = ("critic_mlp", "value_net", "critic_linear", "critic_memory")
"""The modules of a policy that no action needs."""


class ExportedStep(nn.Module):
    """One step of a policy, with the most likely actions.

    Args:
        policy: The policy.
        space: The space of the observations as the environment gives them.
        masked: Whether the environment says which actions are allowed.

    Attributes:
        initial_state: (L, 1, S), the state in which an episode begins, of the L layers that the actor reads.
        mask_size: The entries A of an action mask; None if the environment has no masks.

    Inputs: observation, state, action_mask
        - **observation**: n observations of `space`: a tensor (n, ...), or a dict or tuple of tensors.
        - **state**: (L, n, S).
        - **action_mask**: (n, A) of bool, true where an action is allowed; only where the environment has masks.

    Outputs: action, next_state, and those of `parameter_names`
        - **action**: n actions, as the environment takes them: in the action space's shape and dtype, clipped to a Box.
        - **next_state**: (L, n, S).
        - **logits**: (n, A) of discrete actions, (n, sum of A) of several, (n, k) of k binary ones; forbidden actions
          have the lowest finite logits.
        - **mean**, **log_std**: (n, ...) of continuous actions, in the shape of the action.
    """

    initial_state: Tensor

    def __init__(self, policy: RecurrentPolicy, space: spaces.Space, masked: bool = False) -> None:
        super().__init__()
        self.space = space
        self.mask_size = sum(choices(policy.action_space)) if masked else None
        self.actor = copy.copy(policy)
        self.actor._modules = {name: module for name, module in policy._modules.items() if name not in CRITIC}
        layers = policy.memory.layers
        with torch.no_grad():
            self._steps = [cell.prepare() for cell in layers]
            initial = torch.stack([cell.initial_state(1) for cell in layers])
        self.register_buffer("initial_state", initial.clone(), persistent=False)

    @property
    def parameter_names(self) -> list[str]:
        """The names of the outputs after the action and the next state."""
        return ["mean", "log_std"] if isinstance(self.actor.action_space, spaces.Box) else ["logits"]

    def forward(self, observation: Any, state: Tensor, action_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Take a step."""
        output, states = self.actor.extract_features(read_as(self.actor.observation_space, self.space, observation)), []
        for cell, step, before in zip(self.actor.memory.layers, self._steps, state.unbind(0), strict=True):
            states.append(step(cell.project(output), before))
            output = states[-1][:, : cell.hidden_size]
        parameters = self._distribution(self.actor.actor_mlp(output))
        if action_mask is not None:
            bits = isinstance(self.actor.action_space, spaces.MultiBinary)
            parameters = [(forbid_bits if bits else forbid)(parameters[0], action_mask)]
        return self._most_likely(parameters), torch.stack(states), *parameters

    def _distribution(self, latent: Tensor) -> list[Tensor]:
        """Return the parameters of the actions' distribution."""
        actor, space = self.actor, self.actor.action_space
        output: Tensor = actor.action_net(latent)
        if not isinstance(space, spaces.Box):
            return [output]
        log_std = actor.clamp_log_std(actor.log_std_net(latent) if actor.state_dependent_std else actor.log_std)
        if isinstance(actor.action_dist, StateDependentNoiseDistribution):
            variance = latent.square() @ (2 * log_std).exp()
            log_std = (variance + actor.action_dist.epsilon).log() / 2
        return [part.expand_as(output).reshape(-1, *space.shape) for part in (output, log_std)]

    def _most_likely(self, parameters: list[Tensor]) -> Tensor:
        """Return the most likely actions."""
        space, first, dtype = self.actor.action_space, parameters[0], torch_dtype(self.actor.action_space)
        if isinstance(space, spaces.Discrete):
            return first.argmax(-1).to(dtype)
        if isinstance(space, spaces.MultiDiscrete):
            return torch.stack([part.argmax(-1) for part in first.split(space.nvec.tolist(), -1)], -1).to(dtype)
        if isinstance(space, spaces.MultiBinary):
            return (first > 0).to(dtype)
        assert isinstance(space, spaces.Box)
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        return first.to(dtype).clamp(low, high)


def read_as(read: spaces.Space, given: spaces.Space, observation: Any) -> Any:
    """Return n observations of the given space in the form that a policy reads: flat, images with channels first."""
    parts = observation if isinstance(given, spaces.Dict) else {ONLY: observation}
    wanted, found = spaces_of(read), {}
    for key, space in spaces_of(given).items():
        part = parts[key]
        if isinstance(space, NESTED):
            part = torch.cat([flat.to(torch_dtype(wanted[key])) for flat in _flattened(space, part)], -1)
        elif space.shape != wanted[key].shape:
            part = part.movedim(-1, 1)
        found[key] = part
    return found if isinstance(read, spaces.Dict) else found[ONLY]


def torch_dtype(space: spaces.Space) -> torch.dtype:
    """Return the type of the numbers of a space."""
    return torch.from_numpy(np.empty(0, space.dtype)).dtype


def _flattened(space: spaces.Space, part: Any) -> list[Tensor]:
    """Return the flat parts (n, ...) of an observation, in the order of `gymnasium.spaces.utils.flatten`."""
    if isinstance(space, NESTED):
        keys: Any = space.spaces if isinstance(space, spaces.Dict) else range(len(space.spaces))
        return [flat for key in keys for flat in _flattened(space[key], part[key])]
    if isinstance(space, spaces.Discrete):
        return [_one_hot(part - int(space.start), int(space.n))]
    if isinstance(space, spaces.MultiDiscrete):
        sizes, starts = space.nvec.reshape(-1).tolist(), space.start.reshape(-1).tolist()
        columns = part.flatten(1).unbind(1)
        return [_one_hot(column - start, n) for column, start, n in zip(columns, starts, sizes, strict=True)]
    return [part.flatten(1)]


def _one_hot(numbers: Tensor, n: int) -> Tensor:
    return numbers.reshape(-1, 1) == torch.arange(n)
