"""Recurrent policies with any of our cells, for an unmodified `sb3_contrib.RecurrentPPO`.

sb3-contrib is written for an LSTM: it stores two states, asks `lstm_actor` for their size, and steps through time in
Python when an episode starts within a sequence. Here one module holds the layers, carries their whole state as the
first of the two (the second is a dummy), and runs a sequence in one call whatever starts in it.
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from bistable_rl.agents.features import Features
from bistable_rl.rnn import RNN, make_rnn

CRITICS = ("separate", "shared", "feedforward")


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
        observation_space: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of them; images and MiniGrid's symbolic
            views are recognised (see `bistable_rl.agents.features`).
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
        net_arch: Widths of the tanh layers between memory and each head.

    Raises:
        ValueError: `critic` is none of the three, or the cell, its size or its options are wrong.
    """

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
        net_arch: list[int] | None = None,
    ) -> None:
        if critic not in CRITICS:
            raise ValueError(f"critic must be one of {', '.join(CRITICS)}, got {critic!r}")
        heads = list(net_arch or [])
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch={"pi": heads, "vf": heads},
            use_sde=use_sde,
            features_extractor_class=Features,
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
            "net_arch": heads,
        }

        def memory() -> Memory:
            return Memory(make_rnn(cell, self.features_dim, hidden_size, num_layers, cell_kwargs=cell_kwargs))

        # the base class built LSTMs; replace them, and the optimizer that holds their parameters
        self.lstm_actor = memory()
        self.lstm_critic = memory() if critic == "separate" else None
        self.lstm_hidden_state_shape = (1, 1, self.lstm_actor.hidden_size)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

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
        values = self.value_net(self.mlp_extractor.forward_critic(latent))
        return values, distribution.log_prob(actions), distribution.entropy()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return actions and the next state; without a state, every copy starts an episode.

        Hand the returned state back at the next call, with `episode_start` true where an episode has just begun:
        without them the agent has no memory.
        """
        if state is None:
            tensor, _ = self.obs_to_tensor(observation)
            first = next(iter(tensor.values())) if isinstance(tensor, dict) else tensor
            episode_start = np.ones(len(first))
        result: tuple[np.ndarray, tuple[np.ndarray, ...] | None] = super().predict(
            observation, state, episode_start, deterministic
        )
        return result

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
