"""Recurrent PPO: its first update against sb3-contrib's, its bootstrapping against a loop, its doors to SB3."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import sb3_contrib
import torch
from gymnasium import spaces
from noise_env import NUMBERS, Noise, agent, live, noise, value_by_hand
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor

from bistable_rl import kernels
from bistable_rl.agents import MlpRecurrentPolicy, RecurrentPPO, evaluation
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.sequences import Minibatch
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.cells import CELLS
from bistable_rl.envs import make_batched_env, make_env
from bistable_rl.errors import NonFiniteError, UserError
from bistable_rl.kernels import cpu
from bistable_rl.runs import checkpoint

CRITICS = ("separate", "shared", "feedforward")
BOX = spaces.Box(-1, 1, (2,), np.float32)
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "box": BOX,
    "double": spaces.Box(-1, 1, (2,), np.float64),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
}


def quiet(model: Any) -> dict[str, Any]:
    """Give an algorithm a logger that writes nothing, and return where it records."""
    model.set_logger(Logger(None, []))
    record: dict[str, Any] = model.logger.name_to_value
    return record


def gradients(policy: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


# --- the first update, against sb3-contrib's ---------------------------------------------------------------


def same_rollout(action_space: spaces.Space[Any], use_sde: bool = False, **policy: Any) -> tuple[RecurrentPPO, Any]:
    """Let sb3-contrib live through two rollouts, and hand the second one to an agent of ours with equal weights."""
    T, n = 24, 4
    shared: dict[str, Any] = {"n_steps": T, "batch_size": T * n, "n_epochs": 1, "seed": 3, "device": "cpu"}
    shared |= {"ent_coef": 0.01, "max_grad_norm": 0.3, "gae_lambda": 0.9, "clip_range_vf": 0.1}
    shared |= {"use_sde": use_sde, "sde_sample_freq": 5}
    kwargs = {"cell": "nbrc", "hidden_size": 8, "critic": "shared", "net_arch": [6], **policy}
    theirs: Any = sb3_contrib.RecurrentPPO(
        MlpRecurrentPolicy, noise(NUMBERS, action_space, n), policy_kwargs=kwargs, **shared
    )
    ours = agent(noise(NUMBERS, action_space, n), policy=kwargs, learning_rate=3e-4, popart=False, **shared)
    ours.policy.load_state_dict(theirs.policy.state_dict())
    _, callback = theirs._setup_learn(10_000, None)
    theirs.collect_rollouts(theirs.env, callback, theirs.rollout_buffer, T)
    first = theirs._last_lstm_states
    theirs.collect_rollouts(theirs.env, callback, theirs.rollout_buffer, T)
    buffer, rollout = theirs.rollout_buffer, ours.rollout
    state = first.pi[0]
    rollout.begin(state)
    ends = np.concatenate([buffer.episode_starts[1:], theirs._last_episode_starts[None]]).astype(np.bool_)
    for t in range(T):
        actions = torch.as_tensor(buffer.actions[t]).reshape(n, *(action_space.shape or ()))
        starts = buffer.episode_starts[t].astype(np.bool_)
        seen = torch.as_tensor(buffer.observations[t])
        # their rewards hold the value behind a time limit already
        rollout.add(seen, starts, ours.policy.restart(state, starts), actions, buffer.rewards[t], ends[t])
    rollout.end(state)
    assert not buffer.episode_starts[0].all()
    assert 8 < ends.sum() < T * n / 2
    with torch.no_grad():
        last = theirs._last_lstm_states.vf, torch.as_tensor(theirs._last_episode_starts).float()
        rollout.last_values[:] = theirs.policy.predict_values(torch.as_tensor(theirs._last_obs), *last).flatten()
        ours._evaluate_rollout()
    return ours, theirs


@pytest.mark.parametrize("actions", sorted(ACTIONS))
@pytest.mark.parametrize(
    "policy",
    [
        {"critic": "separate"},
        {"critic": "feedforward"},
        {"critic": "shared"},
        {"critic": "shared", "critic_gradient": False},
        {"critic": "separate", "cell": "lstm"},
    ],
    ids=str,
)
def test_the_first_update_is_sb3_contribs(policy: dict[str, Any], actions: str) -> None:
    check_first_update(*same_rollout(ACTIONS[actions], **policy))


@pytest.mark.parametrize("actions", ["box", "double"])
@pytest.mark.parametrize("critic", CRITICS)
def test_the_first_update_with_gsde_is_sb3_contribs(actions: str, critic: str) -> None:
    check_first_update(*same_rollout(ACTIONS[actions], use_sde=True, critic=critic))


def check_first_update(ours: RecurrentPPO, theirs: Any) -> None:
    """Check that both estimate the same of a rollout, and that their losses and gradients are the same."""
    buffer, rollout = theirs.rollout_buffer, ours.rollout
    for name in ("values", "log_probs", "advantages", "returns"):
        np.testing.assert_allclose(getattr(rollout, name), getattr(buffer, name), rtol=1e-4, atol=2e-5)
    record, expected = quiet(ours), quiet(theirs)
    ours.train()
    theirs.train()
    for name in ("loss", "policy_gradient_loss", "value_loss", "entropy_loss"):
        assert record[f"train/{name}"] == pytest.approx(expected[f"train/{name}"], rel=1e-4, abs=1e-5), name
    assert record["train/approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert record["train/clip_fraction"] == 0.0
    got, wanted = gradients(ours.policy), gradients(theirs.policy)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=2e-3, atol=2e-6)


def test_a_shared_critic_without_its_gradient_is_sb3_contribs_own() -> None:
    """What `critic_gradient: false` computes is what sb3-contrib's own policy computes for every shared critic."""
    lstm: dict[str, Any] = {"lstm_hidden_size": 8, "shared_lstm": True, "enable_critic_lstm": False, "net_arch": [6]}
    theirs: Any = sb3_contrib.RecurrentPPO("MlpLstmPolicy", noise(), policy_kwargs=lstm, device="cpu").policy
    kwargs: dict[str, Any] = {"cell": "lstm", "hidden_size": 8, "critic": "shared", "net_arch": [6]}
    ours = MlpRecurrentPolicy(NUMBERS, spaces.Discrete(2), lambda _: 0.0, critic_gradient=False, **kwargs)
    checkpoint.fill(ours, theirs.state_dict(), "sb3-contrib")
    h, c = torch.randn(2, 1, 2, 8)
    obs, actions, starts = torch.randn(12, 3), torch.randint(2, (12,)), torch.zeros(12)
    state = torch.cat([h, c], -1)
    states = RNNStates((h, c), (h, c)), RNNStates((state, state), (state, state))
    for k in range(2):
        for policy, before in zip((theirs, ours), states, strict=True):
            policy.zero_grad()
            policy.evaluate_actions(obs, actions, before, starts)[k].sum().backward()
        expected, found = checkpoint.current_names(gradients(theirs)), gradients(ours)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("batch_size", [20, 64, 10_000])
def test_the_ratio_is_one_at_every_minibatch_while_the_weights_are_those_of_the_rollout(
    critic: str, batch_size: int
) -> None:
    """Bootstrapped over cuts, with a burn-in and without: then the states are those of the behaviour."""
    for options in ({}, {"bptt_length": 5}, {"bptt_length": 5, "burn_in": 3}, {"refresh_states": True}):
        model = agent(policy={"critic": critic}, **options)
        live(model, 2)
        generator = np.random.default_rng(0)
        for minibatch in model.rollout.sequences.minibatches(batch_size, generator):
            _, log_probs, _ = model._evaluate(minibatch)
            ratio = (log_probs - model.rollout.rows(model.rollout.log_probs, minibatch)).exp()
            torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=2e-6)


# --- time limits -------------------------------------------------------------------------------------------


class Kept(BaseCallback):
    """Keeps what the environment said."""

    def __init__(self) -> None:
        super().__init__()
        self.infos: list[Any] = []
        self.dones: list[np.ndarray] = []

    def _on_step(self) -> bool:
        self.infos.append(self.locals["infos"])
        self.dones.append(self.locals["dones"].copy())
        return True


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("normalize", [False, True])
def test_time_limits_are_bootstrapped_as_copy_by_copy(critic: str, normalize: bool) -> None:
    T, n, gamma, gae_lambda = 24, 4, 0.9, 0.8
    env = VecNormalize(noise()) if normalize else noise()
    model = agent(env, policy={"critic": critic, "num_layers": 2}, n_steps=T, gamma=gamma, gae_lambda=gae_lambda)
    kept, after = Kept(), []
    step = model.policy.step

    def watch(*args: Any) -> tuple[Tensor, Tensor]:
        actions, state = step(*args)
        after.append(state.clone())
        return actions, state

    policy: Any = model.policy
    policy.step = watch
    _, callback = model._setup_learn(10_000, kept)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, T)  # type: ignore[arg-type]
    rollout = model.rollout
    limits, terminations = 0, 0
    for copy in range(n):
        following = 0.0
        for t in reversed(range(T)):
            info = kept.infos[t][copy]
            if not kept.dones[t][copy]:
                seen = torch.as_tensor(model._last_obs[copy]) if t == T - 1 else rollout.obs[t + 1, copy]  # type: ignore[index]
                next_value = value_by_hand(model.policy, seen, after[t][:, copy])
            elif info["TimeLimit.truncated"]:
                last = torch.as_tensor(info["terminal_observation"])
                next_value = value_by_hand(model.policy, last, after[t][:, copy])
                limits += 1
            else:
                next_value = 0.0
                terminations += 1
            value = rollout.values[t, copy].item()
            delta = rollout.rewards[t, copy].item() + gamma * next_value - value
            following = delta + (0.0 if kept.dones[t][copy] else gamma * gae_lambda * following)
            assert rollout.advantages[t, copy].item() == pytest.approx(following, rel=1e-4, abs=1e-5)
            assert rollout.returns[t, copy].item() == pytest.approx(following + value, rel=1e-4, abs=1e-5)
    assert limits > 4
    assert terminations > 4


# --- what learns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_every_cell_and_critic_trains_and_moves_all_its_weights(cell: str, critic: str) -> None:
    kwargs = {"cell": cell, "num_layers": 2, "critic": critic, "net_arch": [8]}
    model = agent(policy=json.loads(json.dumps(kwargs)), n_epochs=1, batch_size=64)
    before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    model.learn(64)
    assert [name for name, p in model.policy.named_parameters() if torch.equal(before[name], p)] == []


def test_it_learns_to_remember() -> None:
    """The first of five symbols of two kinds: a coin without a memory."""
    env = BatchedVecEnv(
        make_batched_env("bistable_rl/CopyFirst-v0", num_envs=16, kwargs={"length": 5, "num_symbols": 2})
    )
    model = RecurrentPPO(
        "MlpRecurrentPolicy", env, n_steps=20, batch_size=80, learning_rate=5e-3, gae_lambda=0.0, seed=0, device="cpu",
        policy_kwargs={"hidden_size": 16},
    )  # fmt: skip
    model.learn(16 * 20 * 20)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=100)
    assert isinstance(mean, float)
    assert mean > 0.95


@pytest.mark.parametrize(("bptt_length", "reached"), [(None, 10), (4, 4)])
def test_gradient_reaches_back_to_the_cut_and_no_further(bptt_length: int | None, reached: int) -> None:
    """From the value of the last step of an episode: to its first step, or to the last cut before."""
    model = agent(n_steps=12, bptt_length=bptt_length, policy={"critic_gradient": True})
    live(model)
    rollout = model.rollout
    starts = np.zeros((12, 4), np.bool_)
    starts[0] = True
    rollout.episode_starts[:] = starts
    rollout.end(model._last_state)
    observations = rollout.obs
    assert isinstance(observations, Tensor)
    rollout.obs = observations.clone().requires_grad_()
    minibatch = rollout.sequences.pack(np.arange(len(rollout.sequences)))
    values, _, _ = model._evaluate(minibatch)
    last = np.flatnonzero(minibatch.rows == 11 * 4 + 2)
    values[last].sum().backward()
    gradient = rollout.obs.grad
    assert gradient is not None
    touched = gradient.abs().sum(-1) > 0
    assert not touched[:, [0, 1, 3]].any()
    assert touched[:, 2].tolist() == [t >= (0 if bptt_length is None else 8) for t in range(12)]


@pytest.mark.parametrize("n_steps", [1, 3])
def test_one_copy_and_rollouts_of_next_to_no_steps_make_no_nan(n_steps: int) -> None:
    """A minibatch of a single step has no spread to divide by."""
    model = agent(noise(copies=1), n_steps=n_steps, batch_size=1, n_epochs=1)
    model.learn(20)
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())


def test_the_advantages_of_a_single_step_are_left_as_they_are() -> None:
    """sb3-contrib's minibatches of 128 out of 129 steps divide by the spread of one: NaN."""
    model = agent(noise(copies=1), n_steps=1, batch_size=128, n_epochs=1)
    live(model)
    rollout = model.rollout
    minibatch = next(rollout.sequences.minibatches(128, np.random.default_rng(0)))
    _, measured = model.loss(minibatch)
    assert measured["train/policy_gradient_loss"].item() == pytest.approx(-rollout.advantages.item(), rel=1e-5)


def test_a_shared_critic_trains_the_memory_unless_told_not_to() -> None:
    for critic_gradient in (True, False):
        model = agent(policy={"critic_gradient": critic_gradient})
        live(model)
        values, _, _ = model._evaluate(everything(model))
        values.sum().backward()
        trained = {name.split(".")[0] for name in gradients(model.policy)}
        assert ("memory" in trained) == critic_gradient


def everything(model: RecurrentPPO) -> Minibatch:
    sequences = model.rollout.sequences
    return sequences.pack(np.arange(len(sequences)))


# --- what stops it, what it logs, what it follows ----------------------------------------------------------


def test_an_update_stops_early_past_one_and_a_half_times_target_kl() -> None:
    model = agent(n_epochs=50, target_kl=0.01, learning_rate=0.01)
    record = quiet(model)
    live(model)
    record = quiet(model)
    model.train()
    epochs = model._n_updates
    assert 1 <= epochs < 50
    steps = int(next(iter(model.policy.optimizer.state.values()))["step"])
    assert 2 * (epochs - 1) <= steps < 2 * epochs  # the minibatch that is too far is not learned from
    assert record["train/approx_kl"] > 0.005
    patient = agent(n_epochs=5, learning_rate=0.01)
    live(patient)
    quiet(patient)
    patient.train()
    assert patient._n_updates == 5


def test_schedules_follow_the_remaining_progress() -> None:
    logged: list[tuple[float, ...]] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            values = self.logger.name_to_value
            if "train/clip_range" in values:
                logged.append(tuple(values[f"train/{name}"] for name in ("learning_rate", "clip_range", "ent_coef")))

    schedules = {"learning_rate": (0.0, 1e-3), "clip_range": (0.1, 0.2), "ent_coef": (0.0, 0.5)}
    lines: dict[str, Any] = {name: LinearSchedule(b, a, 1.0) for name, (a, b) in schedules.items()}
    model = agent(**lines)
    model.learn(64 * 4, Look(), log_interval=None)
    expected = [(1e-3 * left, 0.1 + 0.1 * left, 0.5 * left) for left in (0.75, 0.5, 0.25)]
    np.testing.assert_allclose(logged, expected)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_a_schedule_down_to_0_ends_with_an_update_that_changes_nothing() -> None:
    weights: list[Tensor] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            assert isinstance(self.model, RecurrentPPO)
            weights.append(torch.cat([p.detach().flatten().clone() for p in self.model.policy.parameters()]))

    model = agent(learning_rate=(1e-2, 0.0), clip_range=(0.2, 0.0), clip_range_vf=(0.2, 0.0))
    model.learn(64 * 3, Look())
    last = torch.cat([p.detach().flatten() for p in model.policy.parameters()])
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[-1], last)


@pytest.mark.parametrize("name", ["clip_range", "ent_coef", "clip_range_vf"])
def test_a_schedule_reaches_the_loss(name: str) -> None:
    schedule: dict[str, Any] = {name: LinearSchedule(0.2, 0.0, 1.0)}
    model = agent(**schedule)
    live(model)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        losses = []
        for left in (1.0, 0.2):
            model._current_progress_remaining = left
            losses.append(model.loss(everything(model))[0].item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_the_gradient_of_every_part_is_logged_and_scaled_down() -> None:
    model = agent(policy={"critic": "separate"}, max_grad_norm=1e-3, n_epochs=1, batch_size=64)
    record = quiet(model)
    live(model)
    record = quiet(model)
    model.train()
    parts = [record[f"gradient/{part}"] for part in ("memory", "critic_memory", "actor", "critic")]
    assert min(parts) > 0
    assert record["gradient/norm"] == pytest.approx(np.linalg.norm(parts), rel=1e-5)
    left = torch.cat([g.flatten() for g in gradients(model.policy).values()]).norm().item()
    assert left == pytest.approx(1e-3, rel=1e-3)


def test_staleness_is_logged_where_states_are_refreshed() -> None:
    model = agent(refresh_states=True, n_epochs=3, learning_rate=0.01)
    live(model, 2)
    record = quiet(model)
    model.train()
    assert record["train/state_staleness"] > 1e-4


# --- noise of the actions ----------------------------------------------------------------------------------


def test_the_standard_deviation_never_falls_below_its_floor() -> None:
    """Unfloored it collapses and learning stalls."""
    floor = float(np.log(0.7))
    for dependent in (False, True):
        model = agent(
            noise(NUMBERS, BOX), policy={"log_std_min": floor, "state_dependent_std": dependent}, learning_rate=0.05
        )
        with torch.no_grad():
            (model.policy.log_std_net.bias if dependent else model.policy.log_std).fill_(-5.0)
        live(model)
        latent = torch.randn(50, 8)
        distribution: Any = model.policy._distribution(latent)
        torch.testing.assert_close(distribution.log_std.exp().expand(50, 2), torch.full((50, 2), 0.7))
        if not dependent:
            record = quiet(model)
            model.train()
            assert record["train/std"] == pytest.approx(0.7)


def test_a_state_dependent_standard_deviation_depends_on_the_state_and_is_trained() -> None:
    model = agent(noise(NUMBERS, BOX), policy={"state_dependent_std": True, "log_std_init": -0.5}, learning_rate=0.05)
    latent = torch.randn(5, 8)

    def spread() -> Tensor:
        distribution: Any = model.policy._distribution(latent)
        stddev: Tensor = distribution.log_std.exp()
        return stddev

    torch.testing.assert_close(spread(), torch.full((5, 2), float(np.exp(-0.5))))
    model.learn(256)
    assert spread().std(0).min() > 1e-3


# --- SB3's doors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", sorted(ACTIONS))
def test_every_kind_of_action_trains_predicts_and_evaluates(actions: str) -> None:
    space = ACTIONS[actions]
    model = agent(noise(NUMBERS, space)).learn(128)
    action, state = model.predict(NUMBERS.sample())
    assert space.contains(action) or space.contains(int(action))
    action, _ = model.predict(NUMBERS.sample(), state, np.zeros(1, bool), deterministic=True)
    assert space.contains(action) or space.contains(int(action))
    assert np.isfinite(evaluate_policy(model, noise(NUMBERS, space), n_eval_episodes=4, warn=False)[0])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(4),
        spaces.Box(-1, 1, (2, 2), np.float64),
        spaces.Box(0, 255, (40, 40, 3), np.uint8),
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,), np.float32)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"bptt_length": 4, "burn_in": 2, "refresh_states": True}], ids=str)
def test_every_kind_of_observation_trains(space: spaces.Space[Any], options: dict[str, Any]) -> None:
    model = agent(noise(space, copies=2), n_steps=8, n_epochs=1, **options).learn(32)
    assert model.num_timesteps == 32


def test_minigrid_trains() -> None:
    env = DummyVecEnv([lambda: make_env("MiniGrid-MemoryS7-v0", kwargs={"agent_view_size": 3})] * 2)
    agent(env).learn(64)


@pytest.mark.parametrize(
    "name", ["RecurrentPolicy", "MlpRecurrentPolicy", "CnnRecurrentPolicy", "MultiInputRecurrentPolicy"]
)
def test_a_policy_can_be_named(name: str) -> None:
    assert type(RecurrentPPO(name, Noise(), device="cpu").policy) is RecurrentPolicy


def test_callbacks_and_the_logger_see_what_they_expect_of_sb3(tmp_path: Any) -> None:
    calls: list[str] = []

    class Order(BaseCallback):
        def _on_training_start(self) -> None:
            calls.append("training_start")

        def _on_rollout_start(self) -> None:
            calls.append("rollout_start")

        def _on_step(self) -> bool:
            assert {"new_obs", "rewards", "dones", "infos", "actions"} <= self.locals.keys()
            calls.append("step")
            return True

        def _on_rollout_end(self) -> None:
            calls.append("rollout_end")

        def _on_training_end(self) -> None:
            calls.append("training_end")

    env = VecNormalize(noise())
    check = EvalCallback(VecNormalize(noise(), training=False), eval_freq=16, n_eval_episodes=2, verbose=0, warn=False)
    model = agent(env, n_steps=4, tensorboard_log=str(tmp_path)).learn(32, CallbackList([Order(), check]))
    one = ["rollout_start", *["step"] * 4, "rollout_end"]
    assert calls == ["training_start", *one, *one, "training_end"]
    assert {"train/loss", "train/explained_variance", "time/fps"} <= set(read_tensorboard(tmp_path / "RecurrentPPO_1"))
    assert model.num_timesteps == 32


def read_tensorboard(folder: Any) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return list(events.Tags()["scalars"])


@pytest.mark.parametrize("options", [{}, {"bptt_length": 5, "burn_in": 3}, {"refresh_states": True}], ids=str)
def test_a_callback_that_stops_within_a_rollout_lets_it_learn_again(options: dict[str, Any]) -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps < 4 * 16 + 4 * 7

    model = agent(**options).learn(1000, Stop())
    assert model.num_timesteps == 4 * 16 + 4 * 7
    model.learn(128, reset_num_timesteps=False)
    assert model.num_timesteps == 4 * 23 + 128
    rollout = model.rollout
    first = Starts()
    model.learn(64, first, reset_num_timesteps=True)
    assert first.starts.all()
    assert np.isfinite(rollout.values.numpy()).all()


class Starts(BaseCallback):
    """Notes whether the copies start episodes at the first step of a rollout."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        self.starts = model.rollout.episode_starts[model.rollout.context].copy()


def test_the_same_seed_gives_the_same_agent_whatever_else_draws_numbers() -> None:
    class Draws(BaseCallback):
        def _on_step(self) -> bool:
            np.random.rand(3)  # noqa: NPY002 - the global generator, which others draw from
            return True

    def weights(seed: int, callback: BaseCallback | None = None) -> list[np.ndarray]:
        return [p.detach().numpy() for p in agent(seed=seed).learn(128, callback).policy.parameters()]

    first, again, other = weights(0), weights(0, Draws()), weights(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: agent(n_steps=0), "n_steps must be an integer above 0, got 0"),
        (lambda: agent(batch_size=0), "batch_size must be an integer above 0, got 0"),
        (lambda: agent(n_epochs=0), "n_epochs must be an integer above 0, got 0"),
        (lambda: agent(bptt_length=0), "bptt_length must be an integer above 0 or None, got 0"),
        (lambda: agent(n_steps=True), "n_steps must be an integer above 0, got True"),
        (lambda: agent(bptt_length=2.5), "bptt_length must be an integer above 0 or None, got 2.5"),
        (lambda: agent(burn_in=1.5), "burn_in must be an integer of at least 0, got 1.5"),
        (lambda: agent(stats_window_size=0), "stats_window_size must be an integer above 0, got 0"),
        (lambda: agent(gamma="a"), "gamma must be a number from 0 to 1, got 'a'"),
        (lambda: agent(vf_coef=-1), "vf_coef must be a finite number of at least 0, got -1"),
        (lambda: agent(vf_coef=float("nan")), "vf_coef must be a finite number of at least 0, got nan"),
        (lambda: agent(max_grad_norm=0), "max_grad_norm must be a finite number above 0, got 0"),
        (lambda: agent(max_grad_norm=None), "max_grad_norm must be a finite number above 0, got None"),
        (lambda: agent(target_kl=-1), "target_kl must be a finite number above 0 or None, got -1"),
        (lambda: agent(learning_rate=0), "learning_rate must be a finite number above 0 or a schedule .*, got 0"),
        (lambda: agent(clip_range=-0.1), "clip_range must be a finite number above 0 or a schedule .*, got -0.1"),
        (lambda: agent(clip_range=(0, 0.2)), r"clip_range must be .*, of which the last may be 0, got \(0, 0.2\)"),
        (lambda: agent(clip_range_vf=0), "clip_range_vf must be a finite number above 0 or .* or None, got 0"),
        (lambda: agent(ent_coef="x"), "ent_coef must be a finite number of at least 0 or a schedule .*, got 'x'"),
        (lambda: agent(policy={"hidden_size": 1.5}), "hidden_size must be an integer above 0, got 1.5"),
        (lambda: agent(policy={"net_arch": [8, 0]}), r"net_arch must be a list of integers above 0, got \[8, 0\]"),
        (
            lambda: agent(policy={"action_bias": [0, np.inf]}),
            r"action_bias must be a list of finite numbers, got \[0, inf\]",
        ),
        (lambda: RecurrentPPO("RecurrentPolicy", cast(Any, None)), "env must be an environment or its id, got None"),
        (lambda: agent(burn_in=17), "burn_in 17 is more than the longest sequence, 16 steps."),
        (lambda: agent(burn_in=5, bptt_length=4), "burn_in 5 is more than the longest sequence, 4 steps."),
    ],
)
def test_what_is_out_of_range_is_told_in_a_sentence(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize(
    ("policy", "env", "message"),
    [
        ("MlpPolicy", Noise(), "policy: MlpPolicy is Stable-Baselines3's name; here it is MlpRecurrentPolicy"),
        (ActorCriticPolicy, Noise(), "policy must be RecurrentPolicy, a subclass or its name, got"),
        (None, Noise(), "policy must be RecurrentPolicy, a subclass or its name, got None"),
        (RecurrentPolicy, Noise(NUMBERS, spaces.Text(3)), "its action space is Text"),
        (RecurrentPolicy, Noise(NUMBERS, spaces.Box(-np.inf, np.inf, (1,))), "finite bounds"),
        (RecurrentPolicy, Noise(spaces.Text(3)), "its observation space is Text"),
        (RecurrentPolicy, Noise(spaces.MultiDiscrete(np.array([[2, 2], [3, 3]]))), "along one axis; flatten them"),
        (RecurrentPolicy, Noise(NUMBERS, spaces.Box(-1, 1, (0,))), "holds no numbers along an axis"),
    ],
)
def test_a_policy_or_a_space_that_is_none_of_ours_is_told_in_a_sentence(policy: Any, env: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        RecurrentPPO(policy, env, device="cpu")
    assert "\n" not in str(caught.value)


def test_an_environment_of_ours_is_known_by_its_id() -> None:
    """In a process in which nothing has registered it."""
    script = "from bistable_rl.agents import RecurrentPPO; RecurrentPPO('RecurrentPolicy', 'bistable_rl/TMaze-v0')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- what would be forgotten in silence --------------------------------------------------------------------


def t_maze(**options: Any) -> RecurrentPPO:
    """An agent where an episode takes 11 steps at most."""
    env = BatchedVecEnv(make_batched_env("bistable_rl/TMaze-v0", num_envs=2, kwargs={"length": 4}))
    return agent(env, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 10}, "an episode can take 11 steps, but the gradient reaches back at most n_steps = 10 steps"),
        (
            {"bptt_length": 4},
            "an episode can take 11 steps, but the gradient reaches back at most bptt_length = 4 steps",
        ),
    ],
)
def test_a_horizon_beyond_the_reach_of_gradient_is_warned_of(options: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        t_maze(**options)


@pytest.mark.filterwarnings("error")
def test_no_horizon_is_warned_of_where_gradient_reaches_it_or_none_is_declared() -> None:
    t_maze(n_steps=11)
    agent(n_steps=1)


def test_the_share_of_sequences_that_go_on_with_an_episode_is_logged() -> None:
    model = agent(bptt_length=4)
    live(model, 2)
    record = quiet(model)
    model.train()
    fresh = model.rollout.sequences.fresh
    assert 0.1 < record["train/continued_sequences"] < 0.9
    assert record["train/continued_sequences"] == pytest.approx((~fresh).mean())


def test_predicting_again_without_a_state_is_warned_of() -> None:
    model = agent()
    observation = NUMBERS.sample()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, state = model.predict(observation)
        _, state = model.predict(observation, state)
        model.predict(observation, state)
        model.predict(observation)  # another episode
    with pytest.warns(UserWarning, match="pass the state"):
        model.predict(observation)


# --- on a GPU ----------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("cell", ["nbrc", "brc", "lstm", "pbrc"])
def test_cpu_and_gpu_compute_the_same_loss_and_gradients(cell: str, critic: str) -> None:
    policy = {"cell": cell, "critic": critic, "hidden_size": 32}
    cpu, gpu = agent(policy=policy), agent(policy=policy, device="cuda")
    live(cpu, 2)
    live(gpu)
    gpu.policy.load_state_dict(cpu.policy.state_dict())
    ours, theirs = cpu.rollout, gpu.rollout
    for name in ("obs", "actions", "rewards", "bootstraps", "last_values"):
        getattr(theirs, name).copy_(getattr(ours, name))
    theirs.episode_starts[:], theirs.dones[:] = ours.episode_starts, ours.dones
    theirs.states = {moment: state.cuda() for moment, state in ours.states.items()}
    theirs.sequences = ours.sequences
    with torch.no_grad():
        gpu._evaluate_rollout()
    torch.testing.assert_close(theirs.values.cpu(), ours.values, rtol=1e-3, atol=1e-4)
    for model in (cpu, gpu):
        model.loss(everything(model))[0].backward()
    expected = gradients(cpu.policy)
    for name, gradient in gradients(gpu.policy).items():
        torch.testing.assert_close(gradient.cpu(), expected[name], rtol=1e-2, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{}, {"bptt_length": 4, "burn_in": 2, "refresh_states": True}], ids=str)
def test_an_agent_trains_and_evaluates_on_a_gpu(options: dict[str, Any]) -> None:
    model = agent(policy={"critic": "separate"}, device="cuda", **options).learn(256)
    assert np.isfinite(evaluate_policy(model, noise(), n_eval_episodes=4, warn=False)[0])


# --- what cannot go on -------------------------------------------------------------------------------------


def test_weights_that_become_infinite_stop_the_training_and_are_not_saved(tmp_path: Path) -> None:
    model = agent(noise(NUMBERS, BOX), learning_rate=1e39)
    with pytest.raises(NonFiniteError, match="became NaN or infinite in the update at"):
        model.learn(256)
    with pytest.raises(UserError, match=r"the weights cannot be saved: .* holds NaN or infinity"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_states_are_refreshed_between_epochs_and_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    model = agent(noise(NUMBERS, BOX), refresh_states=True, n_epochs=3)
    refresh, calls = RecurrentPPO._refresh, 0

    def counted(self: RecurrentPPO) -> None:
        nonlocal calls
        calls += 1
        refresh(self)

    monkeypatch.setattr(RecurrentPPO, "_refresh", counted)
    live(model)
    model.train()
    assert calls == 3


def test_continuous_actions_may_have_more_than_one_axis() -> None:
    space = spaces.Box(-1, 1, (2, 3))
    model = agent(noise(NUMBERS, space)).learn(128)
    action, _ = model.predict(NUMBERS.sample())
    assert space.contains(action)


@pytest.mark.parametrize(
    "space", [spaces.MultiBinary(np.array([2, 2])), spaces.MultiDiscrete(np.array([[2, 3], [3, 2]]))]
)
def test_discrete_actions_of_more_than_one_axis_are_refused(space: spaces.Space) -> None:
    with pytest.raises(ValueError, match="discrete actions are along one axis"):
        agent(noise(NUMBERS, space))


@pytest.mark.parametrize("wrong", [{"n_steps": 16.5}, {"gamma": 2.0}, {"gae_lambda": -0.1}, {"n_epochs": 0}])
def test_an_argument_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RecurrentPPO("MlpRecurrentPolicy", "CartPole-v1", **wrong)


def has_fixed_weights(policy: Any) -> bool:
    """Return whether the weights of every kind of unit in every memory are packed; fail if those of some are."""
    cells = [kind for memory in policy.memories for cell in memory.layers for kind in cell.cells]
    found = {kernels.cpu_step.fixed(cell, cell._parameters.values()) is not None for cell in cells}
    assert len(found) == 1
    return found.pop()


class Fixed(BaseCallback):
    """Notes at every moment of a rollout whether the policy's weights are fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, bool]] = []

    def _note(self, moment: str) -> None:
        self.found.append((moment, has_fixed_weights(self.model.policy)))

    def _on_rollout_start(self) -> None:
        self._note("start")

    def _on_step(self) -> bool:
        self._note("step")
        return True

    def _on_rollout_end(self) -> None:
        self._note("end")


@pytest.mark.skipif(not cpu.available()[0], reason=cpu.available()[1])
def test_the_weights_are_fixed_while_the_copies_step_and_at_no_other_time() -> None:
    model, noted = RecurrentPPO("RecurrentPolicy", "CartPole-v1", n_steps=2, device="cpu"), Fixed()
    model.learn(4, callback=noted)
    assert noted.found == [("start", False), ("step", True), ("step", True), ("end", False)] * 2


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.skipif(not cpu.available()[0], reason=cpu.available()[1])
def test_the_weights_are_fixed_while_an_agent_is_evaluated(whole: bool) -> None:
    model = RecurrentPPO("RecurrentPolicy", "CartPole-v1", device="cpu")
    found: list[bool] = []

    def stop() -> bool:
        found.append(has_fixed_weights(model.policy))
        return len(found) == 3

    assert model.env is not None
    evaluation.evaluate(model if whole else model.policy, model.env, 1000, stop=stop)
    assert found == [True] * 3
    assert not has_fixed_weights(model.policy)
