"""Recurrent policies with any of our cells, for an unmodified `sb3_contrib.RecurrentPPO`.

sb3-contrib is written for an LSTM: it stores two states, asks `lstm_actor` for their size, and steps through time in
Python when an episode starts within a sequence. Here one module holds the layers, carries their whole state as the
first of the two (the second is a dummy), and runs a sequence in one call whatever starts in it.
"""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution, Distribution
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bistable_rl.agents.distributions import Categorical, DiagGaussian
from bistable_rl.agents.features import Features
from bistable_rl.cells import Cell
from bistable_rl.checks import check_int
from bistable_rl.errors import unknown
from bistable_rl.rnn import RNN, make_rnn
from bistable_rl.runs.capacity import check_memory, layers_bytes

CRITICS = ("separate", "shared", "feedforward")

# what the parameters of a policy serve, by the beginnings of their names
PARTS = {
    "features": ("features_extractor.", "pi_features_extractor.", "vf_features_extractor."),
    "memory": ("lstm_actor.",),
    "critic_memory": ("lstm_critic.", "critic."),
    "actor": ("mlp_extractor.policy_net.", "action_net.", "log_std"),
    "critic": ("mlp_extractor.value_net.", "value_net."),
}


THEIR_NAMES = {
    "lstm_hidden_size": "hidden_size",
    "n_lstm_layers": "num_layers",
    "shared_lstm": "critic='shared'",
    "enable_critic_lstm": "critic='separate' (or 'feedforward' where it is False)",
    "lstm_kwargs": "cell_kwargs",
}
"""Arguments of sb3-contrib's recurrent policies, and what says the same here."""


def check_policy_kwargs(policy: type, policy_kwargs: Mapping[str, Any] | None) -> None:
    """Check that a policy has arguments of these names.

    Raises:
        TypeError: It has not; the sentence says which it has.
        ValueError: It is a name of sb3-contrib's; the sentence says what it is called here.
    """
    parameters = inspect.signature(policy).parameters.values()
    given = ("observation_space", "action_space", "lr_schedule")  # by the algorithm
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in given]
    for name in policy_kwargs or {}:
        if name in THEIR_NAMES:
            raise ValueError(f"policy_kwargs: {name} is sb3-contrib's name; here it is {THEIR_NAMES[name]}")
        if name not in known and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise TypeError(unknown("argument in policy_kwargs", name, known))


class Memory(nn.Module):
    """Recurrent layers in the form in which sb3-contrib holds an LSTM.

    The state of all layers is one row: (1, n, L · S) for n sequences, L layers and a state of S each.
    """

    def __init__(self, rnn: RNN) -> None:
        super().__init__()
        self.rnn = rnn
        self.input_size = rnn.input_size
        self.num_layers = 1
        self.hidden_size = rnn.num_layers * rnn.state_size

    @property
    def cells(self) -> list[Cell]:
        """The layers."""
        return list(self.rnn.cells)  # type: ignore[arg-type]

    def forward(self, features: Tensor, state: Tensor, episode_starts: Tensor) -> tuple[Tensor, Tensor]:
        """Run n sequences of T steps, restoring the initial state wherever an episode starts.

        Shape:
            - features: (n · T, F), sequence by sequence
            - state: (1, n, L · S)
            - episode_starts: (n · T,), nonzero where an episode starts
            - Output: (n · T, H) and (1, n, L · S)
        """
        n, L = state.shape[1], self.rnn.num_layers
        x = features.reshape(n, -1, self.input_size).transpose(0, 1)
        resets = episode_starts.reshape(n, -1).transpose(0, 1)
        outputs, state = self.rnn(x, state.reshape(n, L, -1).transpose(0, 1).contiguous(), resets)
        return outputs.transpose(0, 1).flatten(0, 1), state.transpose(0, 1).reshape(1, n, -1)


class RecurrentPolicy(RecurrentActorCriticPolicy):
    """Actor and critic on recurrent layers of any cell; every argument is a plain JSON value.

    Args:
        observation_space: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of them; images are recognised, and
            MiniGrid's symbolic views where the space is `Categories` (see `bistable_rl.agents.features`).
        action_space: Discrete, Box, MultiDiscrete or MultiBinary.
        lr_schedule: The learning rate by remaining progress, given by the algorithm.
        use_sde: Generalised state-dependent exploration, given by the algorithm.
        cell: A key of `bistable_rl.CELLS`.
        hidden_size: H, units of each recurrent layer.
        num_layers: L, recurrent layers.
        cell_kwargs: Options of the cell.
        critic: `shared`: the value head reads the actor's memory, and the value loss trains it too (sb3-contrib stops
            that gradient); `separate`: recurrent layers of its own; `feedforward`: a linear layer on the present
            observation.
        critic_gradient: With a shared critic, whether the value loss trains the memory and what lies before it.
        net_arch: Widths of the tanh layers between memory and each head.
        ortho_init: Start features and heads orthogonally, the action head small, as SB3 does; else as torch does.
        action_bias: For Discrete actions, what the logits are at first, one for each action; empty for zeros.
        log_std_init: For Box actions, the logarithm of the standard deviation at first.
        log_std_min: For Box actions, its lower bound, or None.
        state_dependent_std: For Box actions, whether the standard deviation depends on the memory; else it is a
            parameter.
        observation_kinds: How observations are read where their space does not say it, by key (`observation` where
            there is no Dict): "categories", "pixels" or "numbers".

    Raises:
        ValueError: `critic` is none of the three, the cell, a size or its options are wrong, or a number isn't finite.
    """

    action_dist: Distribution

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        use_sde: bool = False,
        *,
        cell: str = "nbrc",
        hidden_size: int = 64,
        num_layers: int = 1,
        cell_kwargs: dict[str, Any] | None = None,
        critic: str = "shared",
        critic_gradient: bool = True,
        net_arch: list[int] | None = None,
        ortho_init: bool = True,
        action_bias: list[float] | None = None,
        log_std_init: float = 0.0,
        log_std_min: float | None = None,
        state_dependent_std: bool = False,
        observation_kinds: dict[str, str] | None = None,
    ) -> None:
        if critic not in CRITICS:
            raise ValueError(f"critic must be one of {', '.join(CRITICS)}, got {critic!r}")
        if not isinstance(net_arch, list | tuple | None) or any(isinstance(w, dict | list) for w in net_arch or ()):
            raise ValueError(
                f"net_arch must be a list of widths, the same for both heads, such as [64, 64], got {net_arch!r}"
            )
        heads = list(net_arch or [])
        for name, size in [("hidden_size", hidden_size), ("num_layers", num_layers), *(("net_arch", w) for w in heads)]:
            check_int(name, size, 1)
        given: dict[str, Any] = {
            "action_bias": action_bias or [],
            "log_std_init": log_std_init,
            "log_std_min": log_std_min or 0.0,
        }
        for name, value in given.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite, got {value}")
        if log_std_min is not None and log_std_min > log_std_init:
            raise ValueError(f"log_std_init must be at least log_std_min = {log_std_min:g}, got {log_std_init:g}")
        if action_bias and (not isinstance(action_space, spaces.Discrete) or len(action_bias) != action_space.n):
            raise ValueError(f"action_bias must be one logit for each of Discrete actions, got {action_bias}")
        self._check_memory(cell, hidden_size, num_layers, cell_kwargs, heads, 2 if critic == "separate" else 1)
        self.action_bias = list(action_bias or [])
        self.critic_gradient = critic_gradient
        self.log_std_min = log_std_min
        self.state_dependent_std = state_dependent_std
        self._predicted_first = False  # whether the last call of `predict` came without a state
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch={"pi": heads, "vf": heads},
            use_sde=use_sde,
            ortho_init=ortho_init,
            log_std_init=log_std_init,
            features_extractor_class=Features,
            features_extractor_kwargs={"observation_kinds": observation_kinds or {}},
            normalize_images=False,  # Features scales what is an image and leaves categories alone
            lstm_hidden_size=hidden_size,
            shared_lstm=critic == "shared",
            enable_critic_lstm=critic == "separate",
        )
        self.constructor_args = {
            "cell": cell,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "cell_kwargs": dict(cell_kwargs or {}),
            "critic": critic,
            "critic_gradient": critic_gradient,
            "net_arch": heads,
            "ortho_init": ortho_init,
            "action_bias": self.action_bias,
            "log_std_init": log_std_init,
            "log_std_min": log_std_min,
            "state_dependent_std": state_dependent_std,
            "observation_kinds": dict(observation_kinds or {}),
        }

        def memory() -> Memory:
            return Memory(make_rnn(cell, self.features_dim, hidden_size, num_layers, cell_kwargs=cell_kwargs))

        # the base class built LSTMs; replace them, and the optimizer that holds their parameters
        self.lstm_actor = memory()
        self.lstm_critic = memory() if critic == "separate" else None
        self.lstm_hidden_state_shape = (1, 1, self.lstm_actor.hidden_size)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), fused=True, **self.optimizer_kwargs)

    @staticmethod
    def _check_memory(
        cell: str,
        hidden_size: int,
        num_layers: int,
        cell_kwargs: dict[str, Any] | None,
        heads: list[int],
        memories: int,
    ) -> None:
        """Check that there is memory for the network, features aside, and for the LSTMs that the base class builds."""
        layers = layers_bytes(cell, 1, hidden_size, num_layers, cell_kwargs) + 16 * hidden_size**2
        widths = [hidden_size, *heads]
        dense = 4 * sum(a * b for a, b in zip(widths, heads, strict=False))
        sizes = f"hidden_size {hidden_size}, num_layers {num_layers}"
        sizes += "".join(
            f", {name} {value}" for name, value in (("cell_kwargs", cell_kwargs), ("net_arch", heads)) if value
        )
        check_memory(f"a network of {sizes}", memories * layers + 2 * dense)

    def _build(self, lr_schedule: Schedule) -> None:
        if isinstance(self.action_dist, CategoricalDistribution):
            self.action_dist = Categorical(self.action_dist.action_dim)
        if isinstance(self.action_dist, DiagGaussianDistribution):
            self.action_dist = DiagGaussian(self.action_dist.action_dim)
        super()._build(lr_schedule)
        if self.action_bias:
            with torch.no_grad():
                self.action_net.bias.copy_(torch.tensor(self.action_bias))
        if self.state_dependent_std and isinstance(self.action_dist, DiagGaussian):
            del self.log_std
            self.log_std_net = nn.Linear(self.mlp_extractor.latent_dim_pi, self.action_net.out_features)
            nn.init.zeros_(self.log_std_net.weight)
            nn.init.constant_(self.log_std_net.bias, self.log_std_init)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        if not isinstance(self.action_dist, DiagGaussian):
            if isinstance(self.action_dist, Categorical):
                return self.action_dist.proba_distribution(self.action_net(latent_pi))
            return super()._get_action_dist_from_latent(latent_pi)
        log_std = self.log_std_net(latent_pi) if self.state_dependent_std else self.log_std
        return self.action_dist.proba_distribution(self.action_net(latent_pi), self.floored(log_std))

    def floored(self, log_std: Tensor) -> Tensor:
        """Return the logarithm of the standard deviation, kept at its lower bound if there is one."""
        return log_std if self.log_std_min is None else log_std.clamp(min=self.log_std_min)

    # What our own algorithm needs. The states of all layers are one tensor (K, n, S): the actor's L layers, then, with
    # a separate critic, its L.

    def initial_state(self, n: int) -> Tensor:
        """Return the state (K, n, S) in which an episode begins: zero, or learned."""
        return torch.stack([cell.initial_state(n) for memory in self._memories() for cell in memory.cells])

    def step(
        self, observations: Tensor | dict[str, Tensor], state: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the actions (n, ...) for one observation of each copy, and the next state (K, n, S)."""
        features = self.extract_features(observations)
        outputs, state = self._advance(features.unsqueeze(0), state, None)
        latent = self.mlp_extractor.forward_actor(outputs[0][0])
        actions = self._get_action_dist_from_latent(latent).get_actions(deterministic)
        return actions.reshape(-1, *(self.action_space.shape or ())), state

    def advance(self, observations: Tensor | dict[str, Tensor], state: Tensor, resets: Tensor) -> Tensor:
        """Return the state after T steps of observations (T, n, ...), starting anew where `resets` (T, n) is true."""
        T, n = resets.shape
        if isinstance(observations, dict):
            features = self.extract_features({key: part.flatten(0, 1) for key, part in observations.items()})
        else:
            features = self.extract_features(observations.flatten(0, 1))
        return self._advance(features.reshape(T, n, -1), state, resets)[1]

    def values(self, observations: Tensor | dict[str, Tensor], state: Tensor) -> Tensor:
        """Return the values (n,) of one observation of each copy, seen in the given state."""
        features = self.extract_features(observations)
        outputs, _ = self._advance(features.unsqueeze(0), state, None)
        latent = self._critic_input(features, [output[0] for output in outputs])
        values: Tensor = self.value_net(self.mlp_extractor.forward_critic(latent))
        return values.flatten()

    def evaluate_packed(
        self, observations: Tensor | dict[str, Tensor], actions: Tensor, state: Tensor, batch_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropies (N,) of packed sequences, in one call per layer.

        Args:
            observations: (N, ...) in the order of a `PackedSequence`.
            actions: (N, ...).
            state: (K, B, S) before the first step of each sequence.
            batch_sizes: (T,) as in a `PackedSequence`.
        """
        features = self.extract_features(observations)
        outputs, _ = self._advance(PackedSequence(features, batch_sizes), state, None)
        outputs = [output.data for output in outputs]
        if isinstance(self.action_space, spaces.MultiBinary | spaces.Box):
            # kept as the environment takes them: in any shape, bytes or in double precision
            actions = actions.reshape(len(actions), -1).float()
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(outputs[0]))
        values = self.value_net(self.mlp_extractor.forward_critic(self._critic_input(features, outputs)))
        entropy = distribution.entropy()
        assert entropy is not None
        return values.flatten(), distribution.log_prob(actions), entropy

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by what they serve, as `PARTS` names it."""
        parts: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            part = next(part for part, prefixes in PARTS.items() if name.startswith(prefixes))
            parts.setdefault(part, []).append(parameter)
        return parts

    def _memories(self) -> list[Memory]:
        return [self.lstm_actor] if self.lstm_critic is None else [self.lstm_actor, self.lstm_critic]

    def _advance(
        self, features: Tensor | PackedSequence, state: Tensor, resets: Tensor | None
    ) -> tuple[list[Any], Tensor]:
        """Run every memory over time; return the outputs of each and the states of all."""
        if self.lstm_critic is None:
            output, state = self.lstm_actor.rnn(features, state, resets)
            return [output], state
        actor, critic = state.chunk(2)
        actor_output, actor = self.lstm_actor.rnn(features, actor.contiguous(), resets)
        critic_output, critic = self.lstm_critic.rnn(features, critic.contiguous(), resets)
        return [actor_output, critic_output], torch.cat([actor, critic])

    def _critic_input(self, features: Tensor, outputs: list[Tensor]) -> Tensor:
        """Return what the value head reads."""
        if self.critic is not None:
            seen: Tensor = self.critic(features)
            return seen
        return outputs[-1] if self.critic_gradient or not self.shared_lstm else outputs[-1].detach()

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: Memory
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = lstm(features, lstm_states[0], episode_starts)
        return outputs, (state, lstm_states[1])

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropies; with a shared critic the values train the memory too."""
        if isinstance(self.action_space, spaces.MultiBinary):
            actions = actions.float()  # the buffer keeps them as bytes
        if not self.shared_lstm:
            result: tuple[Tensor, Tensor, Tensor] = super().evaluate_actions(obs, actions, lstm_states, episode_starts)
            return result
        latent, _ = self._process_sequence(self.extract_features(obs), lstm_states.pi, episode_starts, self.lstm_actor)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent))
        values = self.value_net(self.mlp_extractor.forward_critic(self._critic_input(latent, [latent])))
        entropy = distribution.entropy()
        assert entropy is not None
        return values, distribution.log_prob(actions), entropy

    @torch.no_grad()
    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return actions and the next state; without a state, every copy starts an episode.

        Hand the returned state back at the next call, with `episode_start` true where an episode has just begun:
        without them the agent has no memory, of which a warning tells. Who says `episode_start` at the first call of an
        episode, as an evaluation does, is never warned.
        """
        first = state is None and not (episode_start is not None and np.all(episode_start))
        if first and self._predicted_first:
            warnings.warn(
                "predict was called twice in a row without a state, and has started an episode each time: within an "
                "episode, hand back the state that the last call returned; at the start of one, say episode_start=True",
                stacklevel=4,
            )
        self._predicted_first = first
        if self.training:  # going through all modules costs as much as a step
            self.set_training_mode(False)
        seen, vectorized = self.obs_to_tensor(observation)
        if state is None:
            n = len(next(iter(seen.values())) if isinstance(seen, dict) else seen)
            memory = self.initial_state(n)
        else:
            device = self.action_net.weight.device  # self.device looks through all modules for it
            memory = torch.from_numpy(state[0]).to(device)
            n = len(next(iter(seen.values())) if isinstance(seen, dict) else seen)
            if memory.shape[1] != n:
                raise ValueError(f"the state is of {memory.shape[1]} copies and the observation of {n}")
            if episode_start is not None and np.any(episode_start):
                begins = torch.from_numpy(np.asarray(episode_start, np.bool_)).to(device).reshape(1, -1, 1)
                memory = torch.where(begins, self.initial_state(1), memory)
        actions, memory = self.step(seen, memory, deterministic)
        taken = actions.cpu().numpy()
        if isinstance(self.action_space, spaces.Box):
            taken = np.clip(taken, self.action_space.low, self.action_space.high)
        return (taken if vectorized else taken[0]), (memory.cpu().numpy(),)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "use_sde": self.use_sde,
            **self.constructor_args,
        }


# SB3's names, by kind of observation; the features are chosen by the observation space, so the class is one.
MlpRecurrentPolicy = RecurrentPolicy
CnnRecurrentPolicy = RecurrentPolicy
MultiInputRecurrentPolicy = RecurrentPolicy
