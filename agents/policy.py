"""The policy: features of the observation, recurrent layers of any cell, and heads for actions and value.

`RecurrentPPO` of this package trains it directly; `bistable_rl.agents.sb3_contrib` adapts it to that of sb3-contrib.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution, StateDependentNoiseDistribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from bistable_rl.agents.action_masks import checked
from bistable_rl.agents.arguments import from_arguments, with_arguments_of
from bistable_rl.agents.distributions import DiagGaussian, make_distribution, masked
from bistable_rl.agents.features import Features
from bistable_rl.agents.footprint import check_policy_memory
from bistable_rl.agents.heads import both_heads
from bistable_rl.agents.networks import extractor_of, layers, make_optimizer
from bistable_rl.agents.normalization import Normalization
from bistable_rl.agents.obs import map_obs
from bistable_rl.agents.spaces import ONLY, spaces_of
from bistable_rl.envs.nested import copies_of, flat_batch, flat_observation, is_flat
from bistable_rl.envs.wrappers import Categories
from bistable_rl.errors import unknown
from bistable_rl.rnn import RNN, make_rnn
from bistable_rl.runs.named import built
from bistable_rl.runs.schema import PolicyConfig

POLICY_PARTS = {
    "features": ("features_extractor",),
    "actor": ("actor_mlp", "action_net", "log_std_net"),
    "critic": ("critic_mlp", "value_net"),
    "memory": ("memory",),
    "critic_memory": ("critic_linear", "critic_memory"),
}
"""The modules of each part of a policy whose gradient is logged."""

THEIR_NAMES = {
    "lstm_hidden_size": "hidden_size",
    "n_lstm_layers": "num_layers",
    "shared_lstm": "critic='shared'",
    "enable_critic_lstm": "critic='separate' (for False, critic='feedforward')",
    "lstm_kwargs": "cell_kwargs",
}
"""Arguments of sb3-contrib's recurrent policies, and the arguments that take their place here."""


def check_policy_kwargs(policy: type, policy_kwargs: Mapping[str, Any] | None) -> None:
    """Check that a policy has arguments of these names.

    Raises:
        TypeError: If it has no such argument; the message lists its arguments.
        ValueError: If a name is sb3-contrib's; the message gives the name that is used here.
    """
    parameters = inspect.signature(policy).parameters.values()
    by_the_algorithm = ("observation_space", "action_space", "lr_schedule", "use_sde")
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in by_the_algorithm]
    for name in policy_kwargs or {}:
        if name in THEIR_NAMES:
            raise ValueError(f"policy_kwargs: {name} is sb3-contrib's name; here it is {THEIR_NAMES[name]}")
        if name not in known and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise TypeError(unknown("argument in policy_kwargs", name, known))


class RecurrentPolicy(BasePolicy):
    """Actor and critic on recurrent layers of any cell; every argument is a plain JSON value, or a class.

    The state of all recurrent layers is one tensor (K, n, S) for n copies: the L layers of the actor's memory, then,
    with a separate critic, the L layers of the critic's.

    Args:
        observation_space: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of them; images are recognised, and
            MiniGrid's symbolic views where the space is `Categories` (see `bistable_rl.agents.features`).
        action_space: Discrete, Box, MultiDiscrete or MultiBinary.
        lr_schedule: The learning rate by remaining progress, given by the algorithm.
        use_sde: Generalised state-dependent exploration, given by the algorithm.
        **arguments: The keys of `PolicyConfig`, see `help(RecurrentPolicy)`.

    Attributes:
        features_extractor: Maps an observation to F numbers.
        memory: The recurrent layers that the actor reads.
        critic_memory: The critic's own recurrent layers, or None.
        critic_linear: The linear layer of a feedforward critic, or None.
        actor_mlp: The layers before `action_net`.
        critic_mlp: The layers before `value_net`.
        action_net: The action head.
        value_net: The value head.
        nested_space: The space of the observations before they were flattened, or None; `predict` takes these
            observations too.
        normalization: The statistics that normalise the observations of a trained agent whose `env.normalize.obs` is
            true; else None.

    Raises:
        ValueError: If `critic`, the cell, a size or an option of the cell is wrong, a number is not finite, or a class
            is missing or cannot be built.
    """

    features_extractor: BaseFeaturesExtractor
    action_net: nn.Linear
    log_std: nn.Parameter

    @with_arguments_of(PolicyConfig)
    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        use_sde: bool = False,
        **arguments: Any,
    ) -> None:
        """Build the network.

        Args:
            observation_space: The space of the observations.
            action_space: The space of the actions.
            lr_schedule: The learning rate by remaining progress.
            use_sde: Generalised state-dependent exploration.
            **arguments: The keys of `PolicyConfig`:
        """
        config = from_arguments(PolicyConfig, {name: value for name, value in arguments.items() if value is not None})
        _check_action_bias(action_space, config.action_bias)
        reads, reads_kwargs = extractor_of(config)
        # not super(): in the adapter, sb3-contrib's policy stands between this class and BasePolicy
        BasePolicy.__init__(
            self,
            observation_space,
            action_space,
            features_extractor_class=reads,
            features_extractor_kwargs=reads_kwargs,
            normalize_images=reads is not Features and config.normalize_images is not False,  # Features scales itself
        )
        self._scales_all = config.normalize_images is True
        if use_sde and config.state_dependent_std:
            raise ValueError("state_dependent_std must be false with use_sde, whose deviation depends on the memory")
        self.use_sde = use_sde
        self.critic_gradient = config.critic_gradient
        self.log_std_min = config.log_std_min
        self.constructor_args = dataclasses.asdict(config)
        self.nested_space: spaces.Space | None = None
        self.normalization: Normalization | None = None
        self._predicted_first = False  # whether the last call of `predict` came without a state

        # The order of the modules is that of the parameters in the optimizer, and so in checkpoints.
        self.features_extractor = self.make_features_extractor()
        check_policy_memory(config, self.features_extractor)
        hidden_size, (actor_widths, critic_widths) = config.hidden_size, config.head_widths
        self.actor_mlp = layers(config, hidden_size, actor_widths)
        self.critic_mlp = layers(config, hidden_size, critic_widths)
        self._make_heads([hidden_size, *actor_widths][-1], [hidden_size, *critic_widths][-1], config.log_std_init)
        if config.ortho_init:
            gains = {self.features_extractor: 2**0.5, self.actor_mlp: 2**0.5, self.critic_mlp: 2**0.5}
            for module, gain in {**gains, self.action_net: 0.01, self.value_net: 1.0}.items():
                module.apply(partial(self.init_weights, gain=gain))
        if config.action_bias:
            with torch.no_grad():
                self.action_net.bias.copy_(torch.tensor(config.action_bias))
        self.state_dependent_std = config.state_dependent_std and isinstance(self.action_dist, DiagGaussian)
        if self.state_dependent_std:
            del self.log_std
            self.log_std_net = nn.Linear(self.action_net.in_features, self.action_net.out_features)
            nn.init.zeros_(self.log_std_net.weight)
            nn.init.constant_(self.log_std_net.bias, config.log_std_init)
        self._make_memories(config)
        if use_sde:
            self.reset_noise()  # without a graph: a graph cannot be copied
        self.optimizer = make_optimizer(config, self.parameters(), lr_schedule(1))

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Return the features extractor; one of the user's own is first tried on one observation.

        Raises:
            ValueError: If it cannot be built, or its features differ from what it declares.
        """
        kind = self.features_extractor_class
        if kind is Features:
            return super().make_features_extractor()
        with built("features_extractor_class", kind, self.features_extractor_kwargs):
            extractor = super().make_features_extractor().eval()
            obs = {key: torch.zeros(1, *(part.shape or ())) for key, part in spaces_of(self.observation_space).items()}
            with torch.no_grad():
                seen = obs if isinstance(self.observation_space, spaces.Dict) else obs[ONLY]
                shape = tuple(extractor(self._preprocessed(seen)).shape)
            if shape != (1, extractor.features_dim):
                raise ValueError(f"it must return (B, features_dim), {(1, extractor.features_dim)} here, not {shape}")
        return extractor.train()

    def _make_heads(self, width: int, critic_width: int, log_std_init: float) -> None:
        self.action_dist = make_distribution(self.action_space, self.use_sde)
        make_net: Any = self.action_dist.proba_distribution_net
        if isinstance(self.action_space, spaces.Box):
            self.action_net, self.log_std = make_net(width, log_std_init=log_std_init)
        else:
            self.action_net = make_net(width)
        self.value_net = nn.Linear(critic_width, 1)

    def _make_memories(self, config: PolicyConfig) -> None:
        width, hidden_size = self.features_extractor.features_dim, config.hidden_size
        make = partial(make_rnn, config.cell, width, hidden_size, config.num_layers, cell_kwargs=config.cell_kwargs)
        # The LSTMs are drawn and dropped: version 0.1 built those of sb3-contrib before its own layers. Without
        # these draws the same seed would give other weights than in that version.
        nn.LSTM(width, hidden_size)
        critic_linear = nn.Linear(width, hidden_size) if config.critic == "feedforward" else None
        if config.critic == "separate":
            nn.LSTM(width, hidden_size)
        self.memory = make()
        self.critic_linear = critic_linear
        self.critic_memory: RNN | None = None
        if config.critic == "separate":
            self.critic_memory = make()
        self._state_size = (sum(len(memory.layers) for memory in self.memories), self.memory.state_size)

    @property
    def memories(self) -> list[RNN]:
        """The actor's recurrent layers and, where the critic has its own, the critic's."""
        return [self.memory] if self.critic_memory is None else [self.memory, self.critic_memory]

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by their purpose; purposes without parameters are left out."""
        children = dict(self.named_children())
        parts: dict[str, list[nn.Parameter]] = {}
        if log_std := list(self.parameters(recurse=False)):  # first here, as it is in the optimizer
            parts["actor"] = log_std
        for part, names in POLICY_PARTS.items():
            found = [parameter for name in names if name in children for parameter in children[name].parameters()]
            if found:
                parts[part] = parts.get(part, []) + found
        return parts

    def initial_state(self, n: int) -> Tensor:
        """Return the state (K, n, S) in which an episode begins; it is zero or learned."""
        return torch.stack([cell.initial_state(n) for memory in self.memories for cell in memory.layers])

    def restart(self, state: Tensor, episode_starts: np.ndarray) -> Tensor:
        """Return the state (K, n, S) with the initial state in the copies whose episode starts (n,)."""
        if not episode_starts.any():
            return state
        starts = torch.from_numpy(episode_starts).to(state.device).reshape(1, -1, 1)
        return torch.where(starts, self.initial_state(1), state)

    def step(
        self, obs: PyTorchObs, state: Tensor, deterministic: bool = False, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the actions (n, ...) for one observation of each copy, and the next state (K, n, S).

        The actions are among those that the masks (n, A) allow, where there are any.
        """
        features = self.extract_features(obs)
        output, _, state = self._advance(features.unsqueeze(0), state)
        distribution = masked(self._distribution(self.actor_mlp(output[0])), action_masks)
        actions = distribution.get_actions(deterministic)
        return actions.reshape(-1, *(self.action_space.shape or ())), state

    def advance(self, obs: PyTorchObs, state: Tensor, resets: Tensor) -> Tensor:
        """Return the state after T steps of observations (T, n, ...), reset before the steps marked in `resets`."""
        T, n = resets.shape
        features = self.extract_features(map_obs(lambda part: part.flatten(0, 1), obs))
        return self._advance(features.reshape(T, n, -1), state, resets)[2]

    def values(self, obs: PyTorchObs, state: Tensor) -> Tensor:
        """Return the values (n,) of one observation of each copy in the given state."""
        features = self.extract_features(obs)
        _, output, _ = self._advance(features.unsqueeze(0), state)
        return self._values(features, output[0])

    def evaluate_packed(
        self,
        obs: PyTorchObs,
        actions: Tensor,
        state: Tensor,
        batch_sizes: Tensor,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropies (N,) of packed sequences, in one call per layer.

        Args:
            obs: (N, ...) in the order of a `PackedSequence`.
            actions: (N, ...).
            state: (K, B, S) before the first step of each sequence.
            batch_sizes: (T,) as in a `PackedSequence`.
            action_masks: (N, A) true where an action was allowed; None if all actions were.
        """
        features = self.extract_features(obs)
        actor_output, critic_output, _ = self._advance(PackedSequence(features, batch_sizes), state)
        return self._evaluate(features, actor_output.data, critic_output.data, actions, action_masks)

    def extract_features(self, obs: PyTorchObs, features_extractor: nn.Module | None = None) -> Tensor:
        """Return the features (n, F) of observations."""
        if self.normalization is not None:
            obs = self.normalization(obs)
        features: Tensor = self.features_extractor(self._preprocessed(obs))
        return features

    def _preprocessed(self, obs: PyTorchObs) -> PyTorchObs:
        """Return observations as numbers: discrete ones one-hot, pixels from 0 to 1 unless `Features` scales them."""
        if not self.normalize_images or self._scales_all:
            return preprocess_obs(obs, self.observation_space, normalize_images=self.normalize_images)
        space = self.observation_space
        if not isinstance(obs, dict):
            return preprocess_obs(obs, space, not isinstance(space, Categories))
        parts = spaces_of(space).items()
        read: Any = {key: preprocess_obs(obs[key], part, not isinstance(part, Categories)) for key, part in parts}
        return read

    def _advance(
        self, features: Tensor | PackedSequence, state: Tensor, resets: Tensor | None = None
    ) -> tuple[Any, Any, Tensor]:
        """Run the memories over time; return the outputs for actor and critic, and the next state of all memories."""
        if self.critic_memory is None:
            output, state = self.memory(features, state, resets)
            return output, output, state
        actor_state, critic_state = state.chunk(2)
        actor_output, actor_state = self.memory(features, actor_state.contiguous(), resets)
        critic_output, critic_state = self.critic_memory(features, critic_state.contiguous(), resets)
        return actor_output, critic_output, torch.cat([actor_state, critic_state])

    def _evaluate(
        self,
        features: Tensor,
        actor_output: Tensor,
        critic_output: Tensor,
        actions: Tensor,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropies (N,)."""
        if isinstance(self.action_space, spaces.MultiBinary | spaces.Box):
            # stored in the environment's form: in any shape, as bytes or in double precision
            actions = actions.reshape(len(actions), -1).float()
        if self._heads_share_input():
            action_output, values = both_heads(actor_output, self.action_net, self.value_net)
            distribution = self._distribution(actor_output, action_output)
        else:
            distribution = self._distribution(self.actor_mlp(actor_output))
            values = self._values(features, critic_output)
        distribution = masked(distribution, action_masks)
        entropy = distribution.entropy()
        assert entropy is not None
        return values, distribution.log_prob(actions), entropy

    def _heads_share_input(self) -> bool:
        """Return whether both heads read the same numbers, with gradient through both, and no subclass changes that."""
        shared = self.critic_memory is None and self.critic_linear is None and self.critic_gradient
        apart = len(self.actor_mlp) or len(self.critic_mlp)
        kind = type(self)
        ours = kind._distribution is RecurrentPolicy._distribution and kind._values is RecurrentPolicy._values
        return shared and not apart and ours

    def _values(self, features: Tensor, output: Tensor) -> Tensor:
        if self.critic_linear is not None:
            output = self.critic_linear(features)
        elif self.critic_memory is None and not self.critic_gradient:
            output = output.detach()
        values: Tensor = self.value_net(self.critic_mlp(output))
        return values.flatten()

    def _distribution(self, latent: Tensor, action_output: Tensor | None = None) -> Distribution:
        """Return the distribution of the actions, from the action head's output if it is known already."""
        if action_output is None:
            action_output = self.action_net(latent)
        # A copy holds the parameters: in the policy itself they would keep a graph alive, which deepcopy refuses.
        distribution: Any = copy(self.action_dist)
        if isinstance(distribution, DiagGaussian):
            log_std = self.log_std_net(latent) if self.state_dependent_std else self.log_std
            return distribution.proba_distribution(action_output, self.clamp_log_std(log_std))
        if isinstance(distribution, StateDependentNoiseDistribution):
            return distribution.proba_distribution(action_output, self.clamp_log_std(self.log_std), latent)
        return distribution.proba_distribution(action_output)

    def clamp_log_std(self, log_std: Tensor) -> Tensor:
        """Return the logarithm of the standard deviation, clamped at its lower bound if there is one."""
        return log_std if self.log_std_min is None else log_std.clamp(min=self.log_std_min)

    @torch.no_grad()
    def reset_noise(self, n_envs: int = 1) -> None:
        """Draw the matrices of gSDE's noise: one for each of n copies, and one for any other number of copies."""
        assert isinstance(self.action_dist, StateDependentNoiseDistribution)
        self.action_dist.sample_weights(self.clamp_log_std(self.log_std), batch_size=n_envs)

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return actions and the next state; without a state, every copy starts an episode.

        As in SB3 the action for one observation is an array too. A discrete action has no axis: `int(action)`.

        Pass the returned state to the next call, with `episode_start` true where an episode has just begun. Otherwise
        the agent has no memory. A second call without a state warns, unless `episode_start` is true.

        `action_masks`, one for each observation as in MaskablePPO, are true where an action is allowed: (A,) for one
        observation, (n, A) for a batch; see `bistable_rl.agents.action_masks`. Without masks all actions are allowed.
        """
        first = state is None and not (episode_start is not None and np.all(episode_start))
        if first and self._predicted_first:
            warnings.warn(
                "predict was called twice in a row without a state, and has started an episode each time. Within an "
                "episode, pass the state that the last call returned; at the start of one, pass episode_start=True.",
                stacklevel=4,
            )
        self._predicted_first = first
        if self.training:  # visiting all modules costs as much as a step
            self.set_training_mode(False)
        obs, vectorized = self.obs_to_tensor(self._flat(observation))
        n = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        if state is None:
            memory = self.initial_state(n)
        else:
            memory = self._given(state, n)
            if episode_start is not None:
                starts = np.asarray(episode_start, np.bool_)
                if starts.size not in (1, n):
                    raise ValueError(f"episode_start is for {starts.size} copies, but the observation is of {n}")
                memory = self.restart(memory, starts)
        given = {}  # a subclass may have a `step` without masks
        if action_masks is not None:
            masks = torch.from_numpy(checked(action_masks, self.action_space, n))
            given["action_masks"] = masks.to(memory.device)
        actions, memory = self.step(obs, memory, deterministic, **given)
        taken = actions.cpu().numpy()
        if isinstance(self.action_space, spaces.Box):
            taken = np.clip(taken, self.action_space.low, self.action_space.high)
        return (taken if vectorized else taken.squeeze(axis=0)), (memory.cpu().numpy(),)

    def _given(self, state: Any, n: int) -> Tensor:
        """Return the memory (K, n, S) that a call of `predict` received from the previous call.

        Raises:
            ValueError: If it is something else.
        """
        (K, S), weight = self._state_size, self.action_net.weight  # self.device searches all modules
        held = state[0] if isinstance(state, tuple | list) and len(state) == 1 else None
        if not isinstance(held, np.ndarray) or held.ndim != 3 or (held.shape[0], held.shape[2]) != (K, S):
            found = state if held is None else held
            what = f"an array {found.shape}" if isinstance(found, np.ndarray) else f"a {type(state).__name__}"
            raise ValueError(
                f"the state must be what the last call of predict returned, a tuple of one array {(K, n, S)}, not "
                f"{what}"
            )
        if held.shape[1] != n:
            raise ValueError(f"the state is of {held.shape[1]} copies, but the observation is of {n}")
        return torch.from_numpy(held).to(weight.device, weight.dtype)

    def _flat(self, observation: Any) -> Any:
        """Return one observation or a batch, flattened if the environment's observations are nested."""
        space = self.nested_space
        if space is None or is_flat(space, observation):
            return observation
        n = copies_of(space, observation)
        return flat_observation(space, observation) if n is None else flat_batch(space, observation, n)

    @torch.no_grad()
    def predict_ahead(
        self,
        observations: np.ndarray,
        state: tuple[np.ndarray, ...] | None,
        episode_start: np.ndarray,
        steps: np.ndarray,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Return the discrete actions of `predict` at the first `steps` (n,) of T steps, 0 later, and the state then.

        The arguments are those of `remember`, and masks (T, n, A) if there are any.

        Returns:
            The actions (T, n), and the state.
        """
        output, memory, i = self._scan(observations, state, episode_start, steps)
        actions = torch.zeros(observations.shape[:2], dtype=torch.int64)
        if output is not None:
            distribution = self._distribution(self.actor_mlp(output.data))
            if action_masks is not None:
                masks = pack_padded_sequence(torch.from_numpy(action_masks[:, i]), torch.from_numpy(steps[i])).data
                distribution = masked(distribution, masks.to(output.data.device))
            taken = distribution.get_actions(deterministic)
            seen, _ = pad_packed_sequence(output._replace(data=taken), total_length=len(actions))
            actions[:, i] = seen.cpu()
        return actions.numpy(), memory

    @torch.no_grad()
    def remember(
        self,
        observations: np.ndarray,
        state: tuple[np.ndarray, ...] | None,
        episode_start: np.ndarray,
        steps: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Return the state of `predict` after the first `steps` (n,) of T steps of observations (T, n, ...).

        `state` and `episode_start` are those of the first step; no episode starts at a later step.
        """
        return self._scan(observations, state, episode_start, steps)[1]

    def _scan(
        self,
        observations: np.ndarray,
        state: tuple[np.ndarray, ...] | None,
        episode_start: np.ndarray,
        steps: np.ndarray,
    ) -> tuple[PackedSequence | None, tuple[np.ndarray, ...], np.ndarray]:
        """Run the memories over the first `steps` (n,) of T observations.

        Returns:
            The actor's input in the copies that have steps, or None if no copy has any; the state of all copies; the
            copies that have steps.
        """
        if self.training:
            self.set_training_mode(False)
        i = np.argsort(-steps, kind="stable")[: np.count_nonzero(steps)]
        device = self.action_net.weight.device
        memory = self.initial_state(len(steps)) if state is None else torch.from_numpy(state[0]).to(device)
        memory = self.restart(memory, episode_start)
        output: PackedSequence | None = None
        if len(i):
            packed = pack_padded_sequence(torch.from_numpy(observations[:, i]).to(device), torch.from_numpy(steps[i]))
            packed = packed._replace(data=self.extract_features(packed.data))
            output, _, after = self._advance(packed, memory[:, i])
            memory = memory.index_copy(1, torch.from_numpy(i).to(device), after)
        return output, (memory.cpu().numpy(),), i

    def save(self, path: Any) -> None:
        """Raise an error that says how a policy is saved: SB3's policies write a pickle.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "a policy alone would be saved as a pickle, which is never opened here; save the algorithm with "
            "model.save(path), and use RecurrentPPO.load(path).policy"
        )

    @classmethod
    def load(cls, path: Any, device: Any = "auto") -> NoReturn:
        """Raise an error that says how a policy is loaded: SB3's policies open a pickle.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "a policy alone would be loaded from a pickle, which is never opened here; use "
            "RecurrentPPO.load(path).policy after model.save(path), or bistable_rl.load(run).policy of a run"
        )

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        raise NotImplementedError("a recurrent policy acts by `step` or `predict`, which take a state")

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "use_sde": self.use_sde,
            **self.constructor_args,
        }


def _check_action_bias(action_space: spaces.Space, action_bias: list[float]) -> None:
    if action_bias and (not isinstance(action_space, spaces.Discrete) or len(action_bias) != action_space.n):
        raise ValueError(f"action_bias must be one logit for each action of a Discrete space, got {action_bias}")
