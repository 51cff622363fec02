"""The certified loss: bounds that hold, a gradient, cues that are held after a short training, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from noise_env import noise
from torch import Tensor

from bistable_rl.agents import certified_loss
from bistable_rl.agents.certified_loss import make_certified_loss
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.cells import bounds, get_cell
from bistable_rl.cells.base import Cell
from bistable_rl.cells.bounds import Bounds
from bistable_rl.envs.copy_first import CopyFirstVectorEnv
from bistable_rl.envs.copy_first_continuous import CopyFirstContinuousVectorEnv
from bistable_rl.envs.previous_action_reward import PreviousActionRewardVector
from bistable_rl.envs.t_maze import TMazeVectorEnv
from bistable_rl.errors import UserError

CELLS = pytest.mark.parametrize("kind", bounds.BOUNDED)


def copy_first(n: int = 8, **kwargs: Any) -> BatchedVecEnv:
    return BatchedVecEnv(CopyFirstVectorEnv(num_envs=n, **{"length": 6, "num_symbols": 3, **kwargs}))


def agent(env: Any, certified_coef: Any = 1.0, policy: dict[str, Any] | None = None, **arguments: Any) -> RecurrentPPO:
    ppo = {"n_steps": 12, "batch_size": 48, "n_epochs": 4, "ent_coef": 0.0, "max_grad_norm": 0.5, "popart": False}
    arguments = {**ppo, "seed": 0, "device": "cpu", **arguments}
    kwargs = {"cell": "brc", "hidden_size": 8, "critic": "shared", "net_arch": [], **(policy or {})}
    return RecurrentPPO("RecurrentPolicy", env, certified_coef=certified_coef, policy_kwargs=kwargs, **arguments)


def drawn(kind: str, inputs: int = 5, units: int = 7) -> Cell:
    torch.manual_seed(1)
    cell: Cell = get_cell(kind)(inputs, units)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    return cell


def box(*shape: int, size: float) -> Bounds:
    low = torch.randn(shape) / 2
    return Bounds(low, low + size * torch.rand(shape))


def inside(bounds: Bounds) -> Tensor:
    """Draw from a box, corners included."""
    share = (3 * torch.rand_like(bounds.low) - 1).clamp(0, 1)
    return bounds.low + share * (bounds.high - bounds.low)


def holds(bounds: Bounds, x: Tensor) -> bool:
    return bool(((bounds.low - 1e-5 <= x) & (x <= bounds.high + 1e-5)).all())


@CELLS
def test_a_step_stays_in_its_bounds(kind: str) -> None:
    cell = drawn(kind)
    x, h = box(20, 5, size=0.3), box(20, 7, size=1.0)
    bounded = bounds.step(cell, bounds.project(cell, x), h)
    for _ in range(200):
        assert holds(bounded, cell(inside(x), inside(h)))
    points = bounds.step(cell, bounds.project(cell, Bounds(x.low, x.low)), Bounds(h.low, h.low))
    torch.testing.assert_close(points.low, cell(x.low, h.low))
    torch.testing.assert_close(points.high, cell(x.low, h.low))


@CELLS
def test_a_widened_box_holds_the_candidates_of_all_inputs(kind: str) -> None:
    cell = drawn(kind)
    x, h = box(4, 5, size=0.3), box(3, 7, size=0.5)
    wide = bounds.widen(cell, bounds.project(cell, x).at(None), h)
    for _ in range(200):
        for m in range(4):
            state = inside(h)
            assert holds(wide, state)
            assert holds(wide, cell(inside(x.at(m)).expand(3, -1), state))
    one = bounds.widen(cell, bounds.project(cell, Bounds(x.low, x.low)).at(None), Bounds(h.low, h.low))
    each = [h.low] + [_candidates(cell, x.low[m], h.low) for m in range(4)]
    torch.testing.assert_close(one.low, torch.stack(each).amin(0))
    torch.testing.assert_close(one.high, torch.stack(each).amax(0))


def _candidates(cell: Cell, x: Tensor, h: Tensor) -> Tensor:
    projected = cell.project(x).expand(len(h), -1)
    a = cell.gates(projected, h)["a"]
    return torch.tanh(projected.chunk(3, -1)[2] + a * h)


@CELLS
@pytest.mark.parametrize("num_layers", [1, 2])
def test_no_distractors_leave_the_bounds_of_the_last_layers_output(
    kind: str, num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = agent(copy_first(), policy={"cell": kind, "num_layers": num_layers})
    memory, loss = model.policy.memory, model.certified_loss
    assert loss is not None
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        monkeypatch.setattr(
            certified_loss, "WIDENINGS", (300,)
        )  # the boxes have stopped growing: for any number of steps
        bounded = loss._outputs(memory).at(0)
        for steps in (1, 5, 30):
            for _ in range(20):
                symbols = torch.eye(5)[generator.integers(3, size=steps)]
                for k in range(3):
                    for answer in range(3):
                        x = torch.cat([loss.cue[k : k + 1], symbols, loss.answer.low[answer : answer + 1]])
                        output, _ = memory(x.unsqueeze(1))
                        assert holds(bounded.at(k, answer), output[-1, 0])


def test_the_worst_logits_bound_those_of_every_stream() -> None:
    model = agent(copy_first(), policy={"net_arch": [6]})
    model.learn(96)
    loss, policy = model.certified_loss, model.policy
    assert loss is not None
    with torch.no_grad():
        output = loss._outputs(policy.memory)
        first, tanh = policy.actor_mlp
        hidden = bounds.linear(output, first.weight, first.bias)  # type: ignore[arg-type]
        leads = loss._leads(Bounds(tanh(hidden.low), tanh(hidden.high)), policy.action_net)
        for k in range(3):
            for a in range(3):
                for symbol in range(3):  # one step: the box after two widenings holds it
                    x = torch.stack([loss.cue[k], loss.distraction.low[symbol], loss.answer.low[a]])
                    logits = policy.action_net(policy.actor_mlp(policy.memory(x.unsqueeze(1))[0][-1, 0]))
                    assert (logits - logits[loss.answers[k, a]] <= leads[0, k, a] + 1e-5).all()


def test_the_answers_are_those_of_the_better_episodes() -> None:
    model = agent(copy_first(n=32), n_steps=18)
    model.learn(32 * 18)
    loss, buffer = model.certified_loss, model.rollout
    assert loss is not None
    for k, a in loss.seen.nonzero().tolist():
        assert loss.answers[k, a] == k
    cues = buffer.obs[torch.from_numpy(buffer.episode_starts)][:, :3].argmax(-1)  # type: ignore[index]
    right = (buffer.rewards > 0)[torch.from_numpy(buffer.dones)].sum()
    assert 0 < right < len(cues) == 3 * 32
    shares = []
    for k in range(3):
        of_cue = torch.from_numpy(buffer.dones) & (buffer.obs[::6, :, k] > 0).repeat_interleave(6, 0)  # type: ignore[index]
        shares.append((buffer.rewards[of_cue] > 0).float().mean())
    assert loss.share == min(shares)


def test_a_rollout_in_which_all_fail_teaches_nothing() -> None:
    model = agent(copy_first(), n_steps=18)
    model.learn(8 * 18)
    assert model.env is not None
    loss, buffer = make_certified_loss(model.env, model.policy), model.rollout
    buffer.rewards.zero_()
    buffer.rewards[5::6] = -1
    loss.see(buffer)
    assert loss.share == 0
    assert not loss.seen.any()
    buffer.rewards[5::6] = 1  # all are right
    loss.see(buffer)
    assert loss.share == 1
    assert loss.seen.any()


def test_episodes_that_begin_or_end_outside_a_rollout_are_left_out() -> None:
    model = agent(copy_first(), n_steps=9, batch_size=36)  # one and a half episodes
    model.learn(2 * 9 * 8)
    begin, end, copy = certified_loss._episodes(model.rollout)  # of the second rollout
    assert begin.tolist() == [3] * 8
    assert end.tolist() == [8] * 8
    assert copy.tolist() == list(range(8))


@CELLS
def test_the_loss_trains_the_memory_and_the_head(kind: str) -> None:
    model = agent(copy_first(), policy={"cell": kind, "num_layers": 2})
    model.learn(96)
    loss = model.certified_loss
    assert loss is not None
    loss.share = torch.ones(())
    model.policy.zero_grad()
    loss(model.policy)[0].backward()
    for name, parameter in [*model.policy.memory.named_parameters(), *model.policy.action_net.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_without_the_coefficient_nothing_changes() -> None:
    weights = []
    for coef in (0.0, (0.0, 0.0)):
        model = agent(copy_first(), certified_coef=coef)
        assert (model.certified_loss is None) == (coef == 0.0)
        model.learn(192)
        weights.append(model.policy.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, msg=name)


def test_an_algorithm_that_is_loaded_goes_on_with_the_loss(tmp_path: Path) -> None:
    agent(copy_first(), certified_coef=(1.0, 2.0)).save(tmp_path / "model")
    model = RecurrentPPO.load(tmp_path / "model", device="cpu")
    assert model.certified_loss is None
    model.set_env(copy_first())
    model.learn(96)
    assert model.certified_loss is not None
    assert model.certified_schedule(0.5) == 1.5


@pytest.mark.parametrize("kind", ["brc", "nbrc"])
def test_a_short_training_holds_cues_that_none_held_before(kind: str) -> None:
    env = copy_first(n=32, length=4, num_symbols=2)
    model = agent(env, 3.0, {"cell": kind}, n_steps=12, batch_size=48, learning_rate=1e-2, gae_lambda=0.0)
    held: list[int] = []
    for _ in range(2):
        model.learn(60 * 12 * 32 if held else 12 * 32, reset_num_timesteps=False)
        loss = model.certified_loss
        assert loss is not None
        loss.see(model.rollout)
        with torch.no_grad():
            held.append(int(loss(model.policy)[1]["train/held_cues"]))
    assert held[0] < held[1] == 2


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: agent(copy_first(), policy={"cell": "gru"}), "needs policy.cell brc or nbrc, not gru"),
        (
            lambda: agent(BatchedVecEnv(CopyFirstContinuousVectorEnv(num_envs=8))),
            "needs Discrete actions, not Box",
        ),
        (
            lambda: agent(noise(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), 2), n_steps=24),
            "needs an environment that declares the observations of each phase",
        ),
        (
            lambda: agent(BatchedVecEnv(TMazeVectorEnv(num_envs=8, length=5, distractors="blocks"))),
            "needs an environment where only the answer counts",
        ),
        (
            lambda: agent(BatchedVecEnv(PreviousActionRewardVector(CopyFirstVectorEnv(num_envs=8)))),
            "needs an environment that declares the observations of each phase",
        ),
    ],
)
def test_what_the_loss_cannot_bound_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^algorithm.certified_coef above 0 {sentence}"):
        make()
