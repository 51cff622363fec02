import numpy as np
import torch

from bistable_rl.agents.agent import make_policy
from bistable_rl.agents.play import random_actions, record
from bistable_rl.agents.run_spaces import spaces_of_env
from bistable_rl.agents.vec_envs import make_vec_env
from bistable_rl.runs.schema import EnvConfig, Experiment, PolicyConfig


def test_episodes_are_what_the_memory_is_given_and_end_where_they_end() -> None:
    env_config = EnvConfig("bistable_rl/CopyFirst-v0", {"length": (3, 6), "num_symbols": 2})
    env = make_vec_env(env_config, 20, 0)
    policy = make_policy(
        Experiment("x", env_config, PolicyConfig(hidden_size=4)), spaces_of_env(env), torch.device("cpu")
    )
    episodes = record(env, policy, random_actions(env, 0), 100)
    lengths = episodes.lengths.numpy()
    assert set(lengths) == {3, 4, 5, 6}
    T, n, F = episodes.features.shape
    assert (T, n, F) == (6, 20, 4)
    for i, length in enumerate(lengths):  # flags: 1 at the first step, 1 at the last
        np.testing.assert_array_equal(np.flatnonzero(episodes.features[:, i, 2]), [0])
        np.testing.assert_array_equal(np.flatnonzero(episodes.features[:, i, 3]), [length - 1])
        assert not episodes.features[length:, i].any()
    assert episodes.successes is not None
    assert 0 < episodes.successes.mean() < 1


def test_a_long_episode_is_cut() -> None:
    env_config = EnvConfig("bistable_rl/TMaze-v0", {"length": 50})
    env = make_vec_env(env_config, 3, 0)
    policy = make_policy(
        Experiment("x", env_config, PolicyConfig(hidden_size=4)), spaces_of_env(env), torch.device("cpu")
    )
    episodes = record(env, policy, random_actions(env, 0), 7)
    assert episodes.lengths.tolist() == [7, 7, 7]
    assert episodes.successes is None
