"""That the measurement compares like with like and says what it saw; no test depends on a time."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bistable_rl import kernels
from bistable_rl.cli import main
from bistable_rl.runs.checkpoint import current_names
from bistable_rl.speed import floor, profile_ppo
from bistable_rl.speed import ppo as speed_ppo
from bistable_rl.speed.ppo import CELLS, ONE_CALL, STOCK, Setting, make_algorithm, rollout_bytes
from bistable_rl.speed.recall import Recall

SMALL = Setting(4, 32, 2)


def test_a_table_is_printed_and_returned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(speed_ppo, "N_STEPS", 16)
    speeds = speed_ppo.speed_ppo(settings=[SMALL], rounds=1)
    assert [speed.algorithm for speed in speeds] == [STOCK, ONE_CALL, *CELLS]
    assert all(speed.steps_per_second > 0 and speed.setting == SMALL for speed in speeds)
    assert [speed.share_of_peak is None for speed in speeds] == [
        speed.algorithm in (STOCK, ONE_CALL) for speed in speeds
    ]
    assert all(0 < speed.share_of_peak < 1 for speed in speeds if speed.share_of_peak is not None)
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*CELLS, STOCK, "4, 32, 2"))
    assert "…" not in printed


def test_the_command_writes_where_the_time_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(profile_ppo, "profile_ppo", partial(profile_ppo.profile_ppo, settings=[SMALL]))
    file = tmp_path / "profile.json"
    assert main(["speed", "ppo", "--profile", "--json", str(file)]) == 0
    shares = json.loads(file.read_text())["measured"]
    assert sum(row["share"] for row in shares) == pytest.approx(1.0)
    assert {(phase, part) for _, _, part in profile_ppo.TIMED_PARTS for phase in profile_ppo.PHASES} >= {
        (row["phase"], row["part"]) for row in shares if row["part"] != profile_ppo.REST
    }
    # every part that is watched takes its time somewhere, and gives it back when it is over
    assert {row["part"] for row in shares} == {part for _, _, part in profile_ppo.TIMED_PARTS} - {
        *profile_ppo.PHASES
    } | {profile_ppo.REST}
    assert {row["phase"] for row in shares} == set(profile_ppo.PHASES)


def test_watching_the_parts_changes_nothing_and_leaves_no_trace() -> None:
    parts = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in profile_ppo.TIMED_PARTS]
    profile_ppo.profile("nbrc", SMALL, iterations=1)
    assert [(owner, name, owner.__dict__.get(name)) for owner, name, _ in profile_ppo.TIMED_PARTS] == parts


def test_the_one_call_variant_gives_what_the_loop_gives_at_every_minibatch() -> None:
    stock: Any = make_algorithm(STOCK, SMALL)
    one_call: Any = make_algorithm(ONE_CALL, SMALL)
    stock.learn(128 * 4)
    one_call.policy.load_state_dict(stock.policy.state_dict())
    looped = 0
    for data in stock.rollout_buffer.get(32):
        arguments = (data.observations, data.actions.long().flatten(), data.lstm_states, data.episode_starts)
        looped += int((data.episode_starts > 0).any())
        for theirs, same in zip(
            stock.policy.evaluate_actions(*arguments), one_call.policy.evaluate_actions(*arguments), strict=True
        ):
            torch.testing.assert_close(same.flatten()[data.mask > 0], theirs.flatten()[data.mask > 0])
    assert looped > 0


@pytest.mark.parametrize("cell", ["nbrc", "gru", "lstm"])
def test_the_floor_counts_the_products_that_torch_does(cell: str) -> None:
    """BRC has no recurrent product; in its place it multiplies by two vectors, which torch's counter passes over."""
    policy: Any = make_algorithm(cell, SMALL).policy
    T, B = 3, 4
    obs, actions = torch.randn(T * B, 5), torch.zeros(T * B, dtype=torch.int64)
    state = policy.initial_state(B).detach()

    def counted(*, learning: bool) -> int:
        with (
            kernels.use_backend("reference"),
            torch.set_grad_enabled(learning),
            FlopCounterMode(display=False) as counter,
        ):
            results = policy.evaluate_packed(obs, actions, state, torch.full((T,), B))
            if learning:
                sum(result.sum() for result in results).backward()
        return counter.get_total_flops()

    forward, learning = counted(learning=False), counted(learning=True)
    # no gradient goes into the state before the first step
    learning += B * 2 * policy.memory.layers[0].weight_hh.numel()
    value = T * B * 2 * 128
    for n_epochs in (1, 4):
        expected = forward - value + forward + n_epochs * learning
        assert T * B * floor.operations_per_step(policy, n_epochs) == expected
    assert torch.tensor(floor.product()().shape).prod() * 2 * floor.SIZE == floor.PRODUCT_OPERATIONS  # type: ignore[attr-defined]


def test_all_train_networks_of_one_shape() -> None:
    ours: Any = make_algorithm("lstm", SMALL).policy
    theirs: Any = make_algorithm(STOCK, SMALL).policy
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in weights.items()}
        for weights in (ours.state_dict(), current_names(theirs.state_dict()))
    ]
    assert shapes[0] == shapes[1]
    assert shapes[0]["memory.cells.0.weight_hh"] == (4 * 128, 128)
    assert ours.critic_memory is theirs.lstm_critic is None


@pytest.mark.parametrize("num_envs", [8, 64])
def test_a_rollout_takes_a_quarter_of_the_memory_of_sb3s_or_less(num_envs: int) -> None:
    setting = Setting(num_envs, 4096, 1)
    stock = rollout_bytes(make_algorithm(STOCK, setting))
    assert stock > 4 * 128 * num_envs * 128 * 4  # four states of 128 floats at every step
    for cell in CELLS:
        ours = make_algorithm(cell, setting)
        ours.learn(128 * num_envs)  # states are kept as they come
        assert rollout_bytes(ours) <= 0.25 * stock


def test_episodes_take_ten_to_sixty_steps_whatever_is_done() -> None:
    env = Recall(64)
    env.reset(seed=0)
    lengths, since = set(), np.zeros(64, np.int64)
    for _ in range(600):
        over = env.step(np.zeros(64, np.int64))[2]
        since += 1
        lengths |= set(since[over].tolist())
        since[over] = 0
    assert lengths == set(range(10, 61))


def test_the_symbol_shown_is_what_is_rewarded() -> None:
    env = Recall(32)
    observations, _ = env.reset(seed=0)
    shown, ends = observations[:, :4].argmax(1), 0
    assert (observations[:, :4].sum(1) == 1).all()
    for _ in range(120):
        asked = observations[:, 4] == 1
        observations, rewards, over, _, _ = env.step(shown)
        assert (over == asked).all()
        assert (rewards == asked).all()
        shown = np.where(over, observations[:, :4].argmax(1), shown)
        ends += over.sum()
    assert ends > 32
