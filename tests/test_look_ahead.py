"""Evaluation that passes the steps whose actions change nothing in one scan of their observations."""

from typing import Any

import numpy as np
import pytest
import torch

from bistable_rl.agents import look_ahead
from bistable_rl.agents.evaluation import Evaluation, evaluate
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.vec_envs import make_vec_env
from bistable_rl.envs.streams import KINDS
from bistable_rl.errors import RunFailedError
from bistable_rl.runs.schema import EnvConfig

AHEAD = {
    "CopyFirst": {"length": 30, "num_symbols": 2},
    "CopyFirstContinuous": {"length": 30},
    "Denoising": {"length": 30, "window": 20},
    "DenoisingDiscrete": {"length": 30, "window": 20, "num_symbols": 2},
    "MemoryLength": {"length": 30},
    "MemorySize": {"length": 30},
}


class Steps:
    """A policy that can only `predict`, and so takes every step; it counts them."""

    def __init__(self, policy: RecurrentPolicy) -> None:
        self.policy = policy
        self.count = 0

    def predict(self, *args: Any) -> tuple[np.ndarray, Any]:
        self.count += 1
        return self.policy.predict(*args)


def make(config: EnvConfig, cell: str = "nbrc", copies: int = 6) -> tuple[Any, RecurrentPolicy]:
    env = make_vec_env(config, copies, seed=3)
    torch.manual_seed(0)
    policy = RecurrentPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 0.0,
        cell=cell,
        hidden_size=8,
        critic="shared",
        net_arch=[],
        ortho_init=False,
    )
    with torch.no_grad():
        policy.action_net.weight *= 20  # so that the actions depend on the state
    return env, policy


def walker(
    kind: str, cell: str, bias: float, *, scale: float = 1.0, copies: int = 6, length: int = 40
) -> tuple[Any, RecurrentPolicy]:
    """Make mazes and a player that prefers to go right, and turns at the junction if the bias is not too great."""
    kwargs = {"length": length, "num_symbols": 3, "distractors": kind}
    env, policy = make(EnvConfig("bistable_rl/TMaze-v0", kwargs), cell, copies)
    with torch.no_grad():
        policy.action_net.weight *= scale
        policy.action_net.bias[0] += bias
        policy.memory.layers[0].weight_ih[:, 3] *= 8
    return env, policy


def both(config: EnvConfig, cell: str = "nbrc", deterministic: bool = True) -> tuple[Evaluation, Evaluation, int]:
    """Return the episodes by scans and by steps, and the calls of `predict` that the scans have spared."""
    return play_both(*make(config, cell), deterministic)


def play_both(env: Any, policy: RecurrentPolicy, deterministic: bool = True) -> tuple[Evaluation, Evaluation, int]:
    """Return the episodes by scans and by steps, and the calls of `predict` that the scans have spared."""
    played = []
    steps, calls = Steps(policy), []
    for agent in (policy, steps):
        env.seed(3)
        torch.manual_seed(1)
        with pytest.MonkeyPatch.context() as patch:
            asked: list[int] = []
            predict = policy.predict
            patch.setattr(
                policy, "predict", lambda *args, asked=asked, predict=predict: asked.append(1) or predict(*args)
            )
            played.append(evaluate(agent, env, 20, deterministic=deterministic))
        calls.append(len(asked))
    assert calls[1] == steps.count
    return played[0], played[1], calls[1] - calls[0]


def assert_equal(a: Evaluation, b: Evaluation) -> None:
    for name in ("returns", "lengths", "successes", "errors"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", AHEAD)
def test_scans_give_the_episodes_of_single_steps(name: str, kind: str) -> None:
    config = EnvConfig(f"bistable_rl/{name}-v0", {**AHEAD[name], "distractors": kind})
    scanned, stepped, spared = both(config)
    assert_equal(scanned, stepped)
    assert spared >= 4 * 24  # of 4 episodes each
    assert len(set(stepped.returns.tolist())) > 1  # they depend on what the agent does


@pytest.mark.parametrize("cell", ["brc", "gru", "lstm", "goru"])
def test_scans_give_the_episodes_of_single_steps_with_every_kind_of_kernel(cell: str) -> None:
    scanned, stepped, _ = both(EnvConfig("bistable_rl/CopyFirstContinuous-v0", {"length": 200}), cell)
    assert_equal(scanned, stepped)


def test_episodes_of_different_lengths_are_the_same_too() -> None:
    scanned, stepped, spared = both(EnvConfig("bistable_rl/CopyFirstContinuous-v0", {"length": [5, 40]}))
    assert_equal(scanned, stepped)
    assert len(set(stepped.lengths.tolist())) > 5
    assert spared > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("cell", "bias", "how"),
    [
        ("lstm", 4, "straight"),
        ("lstm", 2, "strays"),
        ("nbrc", 8, "strays"),
        ("goru", 1, "strays"),
        ("lstm", 1, "often"),
        ("brc", 4, "never arrives"),
        ("goru", 2, "never turns"),
    ],
)
def test_scans_give_the_walks_of_single_steps(cell: str, bias: float, how: str, kind: str) -> None:
    scanned, stepped, spared = play_both(*walker(kind, cell, bias))
    assert_equal(scanned, stepped)
    least, most = stepped.lengths.min(), stepped.lengths.max()
    late, never = stepped.lengths > 41, stepped.lengths == 119
    if how == "straight":
        assert (least, most) == (41, 41)
        assert spared == 4 * 40
    elif how == "strays":
        assert late.any()
        assert not never.all()
        assert 0 < spared < 4 * 119
    elif how == "often":
        assert late.mean() > 0.7
    else:
        assert never.all()
        assert (stepped.returns < -9).all() == (how == "never arrives")


def test_a_walk_that_strays_is_passed_in_parts_that_grow_again(monkeypatch: pytest.MonkeyPatch) -> None:
    env, policy = walker("mixture", "nbrc", 8, length=400)
    sizes: list[int] = []
    predict_ahead = policy.predict_ahead

    def watched(obs: np.ndarray, *rest: Any) -> Any:
        sizes.append(len(obs))
        return predict_ahead(obs, *rest)

    monkeypatch.setattr(policy, "predict_ahead", watched)
    played = evaluate(policy, env, 6)
    assert played.lengths.max() > 401
    assert sizes[0] == 400
    assert min(sizes) < 40
    assert len(sizes) < played.lengths.max() / 2


def test_sampled_walks_have_the_same_distribution() -> None:
    env, policy = walker("mixture", "lstm", 2, scale=1 / 20, copies=200)
    played = []
    for agent in (policy, Steps(policy)):
        env.seed(3)
        torch.manual_seed(0)
        played.append(evaluate(agent, env, 2000, deterministic=False))
    for name in ("lengths", "returns"):
        scanned, stepped = (getattr(one, name) for one in played)
        assert stepped.std() > 1
        assert scanned.mean() == pytest.approx(stepped.mean(), abs=4 * stepped.std() * (2 / 2000) ** 0.5)
        assert scanned.std() == pytest.approx(stepped.std(), rel=0.15)


def test_sampled_actions_have_the_same_distribution() -> None:
    """They are drawn from other random numbers, so only lengths are equal, and frequencies about so."""
    env, policy = make(EnvConfig("bistable_rl/CopyFirst-v0", {"length": 30, "num_symbols": 2}), copies=200)
    successes = []
    for agent in (policy, Steps(policy)):
        env.seed(3)
        played = evaluate(agent, env, 2000, deterministic=False)
        assert played.successes is not None
        assert (played.lengths == 30).all()
        successes.append(played.successes.mean())
    assert successes[0] == pytest.approx(successes[1], abs=4 * 0.5 * (2 / 2000) ** 0.5)


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig("bistable_rl/TMaze-v0", {"length": 5, "stochasticity": 0.2}),
        EnvConfig("bistable_rl/RepeatPrevious-v0"),
        EnvConfig("bistable_rl/CopyFirst-v0", {"length": 9}, wrappers=[{"name": "previous_action_reward"}]),
    ],
    ids=["steps are random", "no distractors", "actions are seen"],
)
def test_every_step_is_taken_where_actions_count(config: EnvConfig) -> None:
    scanned, stepped, spared = both(config)
    assert spared == 0
    assert_equal(scanned, stepped)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    env, policy = make(EnvConfig("bistable_rl/CopyFirst-v0", {"length": 30}))
    sizes: list[tuple[int, ...]] = []
    remember = policy.remember

    def watched(obs: np.ndarray, *rest: Any) -> Any:
        sizes.append(obs.shape)
        return remember(obs, *rest)

    monkeypatch.setattr(policy, "remember", watched)
    monkeypatch.setattr(look_ahead, "AHEAD", 6 * 10)
    evaluate(policy, env, 6)
    assert sizes == [(10, 6, 10), (10, 6, 10), (7, 6, 10)]  # a step is taken after each


def test_an_episode_that_is_too_long_is_refused_on_both_roads() -> None:
    env, policy = make(EnvConfig("bistable_rl/CopyFirst-v0", {"length": 30}))
    for agent in (policy, Steps(policy)):
        assert evaluate(agent, env, 6, max_episode_steps=30).lengths.max() == 30
        with pytest.raises(RunFailedError, match="has not ended after 20 steps"):
            evaluate(agent, env, 6, max_episode_steps=20)


def test_an_evaluation_can_be_stopped_between_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    env, policy = make(EnvConfig("bistable_rl/CopyFirst-v0", {"length": 30}))
    monkeypatch.setattr(look_ahead, "AHEAD", 6 * 10)
    answers = iter([False] * 5 + [True])
    played = evaluate(policy, env, 12, stop=lambda: next(answers))
    assert len(played.lengths) == 6  # three scans for each episode
