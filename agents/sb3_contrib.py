"""Our policy in the form that an unmodified `sb3_contrib.RecurrentPPO` accepts.

sb3-contrib is written for two LSTMs, each with a hidden and a cell state. Our policy has one state (K, n, S), which
takes all four places; sb3-contrib reads their sizes from `lstm_actor`. A sequence runs in one call, even if episodes
start within it.
"""

from types import SimpleNamespace

from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from bistable_rl.agents.policy import RecurrentPolicy

Pair = tuple[Tensor, Tensor]


class MlpRecurrentPolicy(RecurrentPolicy, RecurrentActorCriticPolicy):
    """`RecurrentPolicy` with the methods that sb3-contrib calls; its arguments are the same.

    Shape:
        - obs, actions, episode_starts: (n · T, ...), sequence by sequence
        - states: (K, n, S), each of the four
    """

    @property
    def lstm_actor(self) -> SimpleNamespace:
        """The sizes of the state, under the names of an LSTM."""
        layers, _, size = self.initial_state(1).shape
        return SimpleNamespace(num_layers=layers, hidden_size=size)

    def forward(
        self, obs: PyTorchObs, lstm_states: RNNStates, episode_starts: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, RNNStates]:
        """Return actions, values (n, 1), log-probabilities and the next states of one step."""
        features, actor_output, critic_output, pair = self._run(obs, lstm_states.pi, episode_starts)
        distribution = self._distribution(self.actor_mlp(actor_output))
        actions = distribution.get_actions(deterministic)
        values = self._values(features, critic_output).unsqueeze(1)
        log_probs = distribution.log_prob(actions)
        return actions.reshape(-1, *(self.action_space.shape or ())), values, log_probs, RNNStates(pair, pair)

    def get_distribution(self, obs: PyTorchObs, lstm_states: Pair, episode_starts: Tensor) -> tuple[Distribution, Pair]:
        """Return the distribution of the actions, and the next states."""
        _, actor_output, _, pair = self._run(obs, lstm_states, episode_starts)
        return self._distribution(self.actor_mlp(actor_output)), pair

    def predict_values(self, obs: PyTorchObs, lstm_states: Pair, episode_starts: Tensor) -> Tensor:
        """Return the values (n · T, 1)."""
        features, _, critic_output, _ = self._run(obs, lstm_states, episode_starts)
        return self._values(features, critic_output).unsqueeze(1)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values (n · T, 1), log-probabilities and entropies; a shared critic trains the memory too."""
        features, actor_output, critic_output, _ = self._run(obs, lstm_states.pi, episode_starts)
        values, log_probs, entropies = self._evaluate(features, actor_output, critic_output, actions)
        return values.unsqueeze(1), log_probs, entropies

    def _run(self, obs: PyTorchObs, states: Pair, episode_starts: Tensor) -> tuple[Tensor, Tensor, Tensor, Pair]:
        """Return the features, the outputs for actor and critic, all in the order of `obs`, and the next states."""
        features, n = self.extract_features(obs), states[0].shape[1]
        x = features.reshape(n, -1, features.shape[-1]).transpose(0, 1)
        resets = episode_starts.reshape(n, -1).transpose(0, 1)
        actor_output, critic_output, state = self._advance(x, states[0], resets)
        outputs = [output.transpose(0, 1).flatten(0, 1) for output in (actor_output, critic_output)]
        return features, outputs[0], outputs[1], (state, state)


# SB3's names by kind of observation; one class reads all kinds.
CnnRecurrentPolicy = MlpRecurrentPolicy
MultiInputRecurrentPolicy = MlpRecurrentPolicy
