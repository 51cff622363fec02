"""Generalised state-dependent exploration: its noise in rollouts, evaluations, runs and archives."""

import copy
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from noise_env import NUMBERS, agent, live, noise

from bistable_rl.agents.agent import load
from bistable_rl.agents.evaluation import evaluate
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.training import train
from bistable_rl.agents.vec_envs import make_vec_env
from bistable_rl.compare.jobs import hashed_keys
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import EnvConfig, Experiment

BOX = spaces.Box(-1, 1, (2,), np.float32)


def exploring(**kwargs: Any) -> RecurrentPPO:
    return agent(noise(NUMBERS, BOX), use_sde=True, **kwargs)


def continuous(experiment: Experiment) -> Experiment:
    """Return the small experiment, with actions in a Box and gSDE."""
    env = EnvConfig("bistable_rl/CopyFirstContinuous-v0", {"length": 5}, num_envs=4)
    return replace(experiment, env=env, algorithm=replace(experiment.algorithm, use_sde=True))


def test_the_same_latent_gets_the_same_noise_until_it_is_drawn_again() -> None:
    policy = exploring().policy
    with torch.no_grad():
        policy.log_std.fill_(1.0)
    policy.reset_noise(4)
    obs, state = torch.randn(4, 3), torch.randn(1, 4, 8)
    first, second = policy.step(obs, state)[0], policy.step(obs, state)[0]
    assert torch.equal(first, second)
    assert not torch.allclose(first, policy.step(obs, state, deterministic=True)[0], atol=1e-2)
    policy.reset_noise(4)
    assert not torch.allclose(first, policy.step(obs, state)[0], atol=1e-2)
    same = policy.step(obs[:1].expand(4, -1), state[:, :1].expand(-1, 4, -1))[0]
    assert len(same.unique(dim=0)) == 4  # each copy has a matrix of its own


def test_the_noise_has_the_deviation_that_log_probabilities_assume() -> None:
    policy = exploring(policy={"log_std_init": -0.5}).policy
    latent = torch.randn(1, 8).expand(20_000, -1)
    policy.reset_noise(20_000)
    with torch.no_grad():
        distribution: Any = policy._distribution(latent)
        actions = distribution.get_actions()
    torch.testing.assert_close(actions.std(0), distribution.distribution.stddev[0], rtol=0.02, atol=0)


@pytest.mark.parametrize(("freq", "draws"), [(-1, 2), (0, 2), (4, 2 + 8), (5, 2 + 8), (16, 2 + 2)])
def test_the_noise_is_drawn_for_each_rollout_and_every_so_many_steps(
    freq: int, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = exploring(sde_sample_freq=freq)
    asked: list[int] = []
    reset_noise = RecurrentPolicy.reset_noise

    def count(self: RecurrentPolicy, n_envs: int = 1) -> None:
        asked.append(n_envs)
        reset_noise(self, n_envs)

    monkeypatch.setattr(RecurrentPolicy, "reset_noise", count)
    live(model, 2)
    assert asked == [4] * draws


def test_the_floor_of_the_deviation_holds_for_the_noise_too() -> None:
    policy = exploring(policy={"log_std_min": 0.0}).policy
    with torch.no_grad():
        policy.log_std.fill_(-9.0)
    policy.reset_noise(3000)
    dist: Any = policy.action_dist
    assert dist.exploration_matrices.std() == pytest.approx(1.0, rel=0.05)
    with torch.no_grad():
        found: Any = policy._distribution(torch.ones(1, 8))
    assert float(found.distribution.stddev[0, 0]) == pytest.approx(8**0.5, rel=1e-3)


def test_training_moves_the_deviations_and_the_policy_can_be_copied() -> None:
    model = exploring(learning_rate=0.01, ent_coef=0.1)
    before = model.policy.log_std.detach().clone()
    model.learn(128)
    assert model.policy.log_std.shape == (8, 2)
    assert not torch.equal(before, model.policy.log_std)
    copied = copy.deepcopy(model.policy)
    seen = np.zeros(3, np.float32)
    for deterministic in (True, False):
        found, expected = (p.predict(seen, None, np.ones(1), deterministic)[0] for p in (copied, model.policy))
        np.testing.assert_array_equal(found, expected)


def test_a_sampled_evaluation_draws_noise_for_each_copy(experiment: Experiment) -> None:
    env = make_vec_env(continuous(experiment).env, 6, seed=0)
    model = RecurrentPPO("RecurrentPolicy", env, n_steps=8, batch_size=48, use_sde=True, seed=0, device="cpu")
    returns = []
    for _ in range(2):
        env.seed(0)
        torch.manual_seed(0)
        returns.append(evaluate(model.policy, env, 6, deterministic=False).returns)
    np.testing.assert_array_equal(returns[0], returns[1])
    noise_of: Any = model.policy.action_dist
    assert len(noise_of.exploration_matrices) == 6


def test_a_run_keeps_its_deviations_and_a_loaded_agent_samples_with_them(
    experiment: Experiment, tmp_path: Path
) -> None:
    experiment = continuous(experiment)
    experiment.policy.log_std_init = -9.0
    found = load(train(experiment, tmp_path))
    assert found.policy.use_sde
    dist: Any = found.policy.action_dist
    assert 0 < dist.exploration_mat.abs().max() < 0.01
    seen = np.ones((3, 3), np.float32)
    sampled, _ = found.predict(seen, deterministic=False)
    assert 0 < np.abs(sampled - found.predict(seen, episode_start=np.ones(3))[0]).max() < 0.01


def test_an_archive_keeps_gsde_and_an_older_one_has_none(tmp_path: Path) -> None:
    exploring(sde_sample_freq=4).save(tmp_path / "model")
    again = RecurrentPPO.load(tmp_path / "model", noise(NUMBERS, BOX), device="cpu")
    assert (again.use_sde, again.sde_sample_freq, again.policy.use_sde) == (True, 4, True)
    again.learn(64)
    agent().save(tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(files["model.json"])
    for name in ("use_sde", "sde_sample_freq"):
        del about["settings"][name]
    files["model.json"] = json.dumps(about).encode()
    with zipfile.ZipFile(tmp_path / "older.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    assert not RecurrentPPO.load(tmp_path / "older", device="cpu").use_sde


def test_gsde_is_refused_where_it_makes_no_sense(experiment: Experiment, tmp_path: Path) -> None:
    discrete = replace(experiment, algorithm=replace(experiment.algorithm, use_sde=True))
    with pytest.raises(UserError, match=r"^algorithm.use_sde needs Box actions, not Discrete\(2\)\.$"):
        train(discrete, tmp_path)
    with pytest.raises(UserError, match="needs Box actions"):
        agent(use_sde=True)
    with pytest.raises(ValueError, match="state_dependent_std must be false with use_sde"):
        exploring(policy={"state_dependent_std": True})
    with pytest.raises(ValueError, match=r"^sde_sample_freq must be an integer of at least -1, got -2"):
        exploring(sde_sample_freq=-2)
    with pytest.raises(TypeError, match="unknown argument in policy_kwargs 'use_sde'"):
        agent(policy={"use_sde": True})
    assert not (tmp_path / "small").exists()


def test_the_keys_change_no_hash_while_they_are_off(experiment: Experiment) -> None:
    assert not [key for key in hashed_keys(experiment) if "sde" in key]
    assert "algorithm.use_sde" in hashed_keys(continuous(experiment))
