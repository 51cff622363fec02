"""Our policies under an unmodified sb3_contrib.RecurrentPPO."""

import copy
import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from bistable_rl.agents import CnnRecurrentPolicy, MlpRecurrentPolicy, MultiInputRecurrentPolicy
from bistable_rl.agents.features import Features
from bistable_rl.agents.spaces import check_spaces
from bistable_rl.cells import CELLS
from bistable_rl.envs import make_env
from bistable_rl.envs.wrappers import Categories

QUICK: dict[str, Any] = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "seed": 0, "device": "cpu"}
CRITICS = ("separate", "shared", "feedforward")


def cartpole(policy_kwargs: dict[str, Any]) -> Any:
    env = make_vec_env("CartPole-v1", 4, seed=0)
    return RecurrentPPO(MlpRecurrentPolicy, env, policy_kwargs=policy_kwargs, **QUICK)


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_every_cell_and_critic_trains_and_moves_all_its_weights(cell: str, critic: str) -> None:
    kwargs = {"cell": cell, "hidden_size": 8, "num_layers": 2, "critic": critic, "net_arch": [8]}
    model = cartpole(json.loads(json.dumps(kwargs)))
    before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    model.learn(128)
    still = [name for name, p in model.policy.named_parameters() if torch.equal(before[name], p)]
    assert still == []


def test_a_shared_critic_trains_the_memory() -> None:
    policy = cartpole({"hidden_size": 8, "critic": "shared"}).policy
    state = policy.initial_state(1)
    values, _, _ = policy.evaluate_actions(
        torch.randn(6, 4), torch.zeros(6), RNNStates((state, state), (state, state)), torch.zeros(6)
    )
    values.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.memory.parameters())


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_a_sequence_in_one_call_equals_its_steps(cell: str, critic: str) -> None:
    """Three sequences of five steps, with episodes that start in their midst, against a call for every step."""
    policy = cartpole({"cell": cell, "hidden_size": 8, "num_layers": 2, "critic": critic}).policy
    n, T = 3, 5
    obs, actions = torch.randn(n, T, 4), torch.randint(2, (n, T)).float()
    starts = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]).float()
    state = torch.randn_like(policy.initial_state(n))
    pair = (state, torch.zeros_like(state))
    with torch.no_grad():
        values, log_probs, _ = policy.evaluate_actions(
            obs.reshape(n * T, 4), actions.reshape(-1), RNNStates(pair, pair), starts.reshape(-1)
        )
        states = RNNStates(pair, pair)
        for t in range(T):
            value, log_prob, _ = policy.evaluate_actions(obs[:, t], actions[:, t], states, starts[:, t])
            _, _, _, states = policy(obs[:, t], states, starts[:, t])
            torch.testing.assert_close(value.flatten(), values.reshape(n, T)[:, t], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(log_prob, log_probs.reshape(n, T)[:, t], atol=1e-5, rtol=1e-5)


def test_no_layer_is_stepped_in_python_when_an_episode_starts() -> None:
    policy = cartpole({"hidden_size": 8}).policy
    calls: list[int] = []
    policy.memory.register_forward_hook(lambda *_: calls.append(1))
    state = policy.initial_state(2)
    starts = torch.ones(20)
    policy.evaluate_actions(torch.randn(20, 4), torch.zeros(20), RNNStates((state, state), (state, state)), starts)
    assert len(calls) == 1


def test_the_state_is_remembered_until_an_episode_starts() -> None:
    model = cartpole({"hidden_size": 8})
    first, second = np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32)
    _, state = model.predict(first)
    _, kept = model.predict(second, state, episode_start=np.array([False, True]))
    _, fresh = model.predict(second)
    assert state is not None
    assert kept is not None
    assert fresh is not None
    np.testing.assert_allclose(kept[0][:, 1], fresh[0][:, 1], atol=1e-6)
    assert np.abs(kept[0][:, 0] - fresh[0][:, 0]).max() > 1e-3


def test_predict_without_a_state_starts_from_a_learned_initial_state() -> None:
    model = cartpole({"cell": "nbrc", "hidden_size": 8, "cell_kwargs": {"learn_initial_state": True}})
    observation = np.zeros((1, 4), np.float32)
    _, zero = model.predict(observation)
    with torch.no_grad():
        model.policy.memory.cells[0].initial.fill_(0.9)
    _, learned = model.predict(observation)
    assert zero is not None
    assert learned is not None
    assert np.abs(zero[0] - learned[0]).max() > 0.01


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_trained_policy_can_be_copied(env_id: str) -> None:
    model = RecurrentPPO(MlpRecurrentPolicy, env_id, policy_kwargs={"hidden_size": 8}, **QUICK)
    model.learn(16)
    copied = copy.deepcopy(model.policy)
    obs = model.observation_space.sample()
    action, _ = model.policy.predict(obs, deterministic=True)
    np.testing.assert_array_equal(copied.predict(obs, deterministic=True)[0], action)


def test_evaluate_policy_and_vec_normalize_work() -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))
    model = RecurrentPPO(MlpRecurrentPolicy, env, policy_kwargs={"hidden_size": 8}, **QUICK).learn(64)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=2)
    assert np.isfinite(mean)


def test_minigrid_works_with_sb3_contrib() -> None:
    for view in (3, 7):
        env = DummyVecEnv([lambda v=view: make_env("MiniGrid-MemoryS7-v0", kwargs={"agent_view_size": v})])  # type: ignore[misc]
        kwargs: dict[str, Any] = {"hidden_size": 8, "observation_kinds": {"image": "categories"}}
        model = RecurrentPPO(MultiInputRecurrentPolicy, env, policy_kwargs=kwargs, **QUICK).learn(32)
        evaluate_policy(model, env, n_eval_episodes=1)


class Pictures(gymnasium.Env[np.ndarray, np.int64]):
    """An environment that shows noise."""

    observation_space = spaces.Box(0, 255, (40, 40, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, bool(self.np_random.random() < 0.1), False, {}


def test_pictures_go_through_the_cnn() -> None:
    model = RecurrentPPO(CnnRecurrentPolicy, Pictures(), policy_kwargs={"hidden_size": 8}, **QUICK).learn(32)
    action, _ = model.predict(np.zeros((40, 40, 3), np.uint8))
    assert action in (0, 1)


def test_a_symbolic_view_is_read_the_same_with_channels_first_and_last() -> None:
    view = torch.randint(6, (2, 7, 7, 3))
    last = Features(Categories(0, 255, (7, 7, 3), np.uint8))
    first = Features(Categories(0, 255, (3, 7, 7), np.uint8))
    first.load_state_dict(last.state_dict())
    torch.testing.assert_close(last(view.float()), first(view.movedim(-1, 1).float()))


class Sampled(gymnasium.Env[Any, Any]):
    """An environment of given spaces that shows and wants anything in them."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 0.0, bool(self.np_random.random() < 0.2), False, {}


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [
        (spaces.Discrete(3), spaces.MultiDiscrete([2, 3])),
        (spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)),
        (spaces.MultiBinary(4), spaces.Box(-1, 1, (2,), np.float32)),
        (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2, 2), np.float32)}), spaces.Discrete(2)),
    ],
)
def test_every_documented_space_works(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    check_spaces(observation_space, action_space)
    env = Sampled(observation_space, action_space)
    model = RecurrentPPO(MlpRecurrentPolicy, env, policy_kwargs={"hidden_size": 8}, **QUICK).learn(32)
    action, _ = model.predict(observation_space.sample())
    assert action_space.contains(action) or action_space.contains(int(action))


@pytest.mark.parametrize(
    ("observation_space", "action_space", "expected"),
    [
        (spaces.Tuple([spaces.Discrete(2)]), spaces.Discrete(2), "observation space is Tuple"),
        (spaces.Dict({"a": spaces.Dict({})}), spaces.Discrete(2), "observation space 'a' is Dict"),
        (spaces.Box(0, 1, (0,), np.float32), spaces.Discrete(2), "no numbers"),
        (spaces.Discrete(3, start=1), spaces.Discrete(2), "start at 0"),
        (spaces.Discrete(3), spaces.Discrete(2, start=-1), "start at 0"),
        (spaces.Discrete(3), spaces.Box(0, 5, (1,), np.int64), "floating-point"),
        (spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (1,), np.float32), "finite bounds"),
    ],
)
def test_other_spaces_are_refused_with_a_sentence(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        check_spaces(observation_space, action_space)


def test_a_picture_too_small_for_the_cnn_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="too small for the CNN"):
        Features(spaces.Box(0, 255, (20, 20, 1), np.uint8))


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"critic": "both"}, "separate, shared, feedforward"),
        ({"cell": "nbrd"}, "nbrc"),
        ({"cell_kwargs": {"cbias": 1}}, "c_bias"),
    ],
)
def test_wrong_arguments_name_the_choices(kwargs: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        cartpole(kwargs)
