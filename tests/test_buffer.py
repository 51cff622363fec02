"""What a rollout keeps and computes, against runs of the policy step by step and copy by copy."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from noise_env import agent, live, log_prob_by_hand, noise, states_by_hand, value_by_hand
from torch import Tensor

from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.buffer import RolloutBuffer
from bistable_rl.agents.sequences import Minibatch
from bistable_rl.agents.stored_states import refresh, start_states

T = 16
LEARNED = {"cell_kwargs": {"learn_initial_state": True}}


def close(got: Tensor, expected: Tensor | float) -> None:
    torch.testing.assert_close(got, torch.as_tensor(expected), atol=1e-5, rtol=1e-4)


def all_of(rollout: RolloutBuffer) -> Minibatch:
    return rollout.sequences.pack(np.arange(len(rollout.sequences)))


def shifted(model: RecurrentPPO) -> None:
    """Give the policy other weights, as an update does."""
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)


def updated(model: RecurrentPPO) -> None:
    """Give the policy other weights, and refresh the states, as the end of an update does."""
    shifted(model)
    model._refresh()


class Watched:
    """An agent, and the states its memory was in at every step of several rollouts."""

    def __init__(self, rollouts: int, *, between: Any = None, **kwargs: Any) -> None:
        self.model = agent(n_steps=T, **kwargs)
        self.behaviour: list[Tensor] = []
        rollout = self.model.rollout
        add = rollout.add

        def watch(observation: Any, starts: Any, state: Tensor, *rest: Any) -> None:
            self.behaviour.append(state.clone())
            add(observation, starts, state, *rest)

        watched: Any = rollout
        watched.add = watch
        _, callback = self.model._setup_learn(10_000, None)
        for k in range(rollouts):
            if k and between is not None:
                between(self.model)
            assert self.model.env is not None
            self.model.collect_rollouts(self.model.env, callback, self.model.rollout_buffer, T)


@pytest.mark.parametrize("critic", ["separate", "shared", "feedforward"])
@pytest.mark.parametrize(
    "policy", [{"cell": "nbrc", "num_layers": 2}, {"cell": "lstm"}, {"cell": "half_pbrc"}, LEARNED]
)
def test_values_and_log_probabilities_are_those_of_the_steps(critic: str, policy: dict[str, Any]) -> None:
    """In a second rollout too, whose first pieces go on with episodes of the first."""
    model = agent(policy={"critic": critic, "net_arch": [6], **policy}, n_steps=T)
    if policy is LEARNED:
        shifted(model)
    live(model)
    state = model._last_state
    live_on(model)
    rollout = model.rollout
    assert isinstance(rollout.obs, Tensor)
    assert not rollout.episode_starts[0].all()
    states = states_by_hand(model.policy, rollout.obs, rollout.episode_starts, state)
    for t in range(T):
        for copy in (0, 3):
            seen = rollout.obs[t, copy]
            value = value_by_hand(model.policy, seen, states[t][:, copy])
            log_prob = log_prob_by_hand(model.policy, seen, states[t][:, copy], rollout.actions[t, copy])
            close(rollout.values[t, copy], value)
            close(rollout.log_probs[t, copy], log_prob)
    close(model._last_state, states[T])


def live_on(model: RecurrentPPO) -> None:
    """Collect another rollout, with the episodes under way."""
    _, callback = model._setup_learn(10_000, None, reset_num_timesteps=False)
    assert model.env is not None
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("bptt_length", [None, 1, 5, 16, 40])
def test_sequences_begin_in_the_states_of_the_behaviour(bptt_length: int | None, critic: str) -> None:
    watched = Watched(2, bptt_length=bptt_length, policy={"critic": critic, **LEARNED}, between=shifted)
    model, rollout = watched.model, watched.model.rollout
    sequences, minibatch = rollout.sequences, all_of(rollout)
    assert not sequences.fresh.all()
    got = start_states(model.policy, rollout, minibatch)
    for place, k in enumerate(minibatch.sequences):
        step, copy = sequences.step[k], sequences.copy[k]
        assert torch.equal(got[:, place], watched.behaviour[T + step][:, copy])


def test_a_sequence_that_begins_an_episode_at_a_cut_begins_in_the_initial_state() -> None:
    """Stored states that are those before the reset would leak the last episode into this one."""
    watched = Watched(3, bptt_length=2, policy=LEARNED, between=shifted)
    rollout, policy = watched.model.rollout, watched.model.policy
    minibatch = all_of(rollout)
    fresh = rollout.sequences.fresh[minibatch.sequences]
    assert fresh[rollout.sequences.step[minibatch.sequences] % 2 == 0].any()
    got = start_states(policy, rollout, minibatch)
    initial = policy.initial_state(len(fresh))
    assert torch.equal(got[:, fresh], initial[:, fresh])
    assert not torch.isclose(got[:, ~fresh], initial[:, ~fresh]).all(-1).any()


def test_the_learned_initial_state_gets_gradient_through_fresh_sequences_only() -> None:
    model = agent(policy=LEARNED, n_steps=T)
    live(model)
    live_on(model)
    rollout, policy = model.rollout, model.policy
    initial: Any = policy.memory.cells[0].initial
    assert initial is not None
    for fresh in (True, False):
        sequences = np.flatnonzero(rollout.sequences.fresh == fresh)
        assert len(sequences)
        policy.zero_grad()
        values, _, _ = model._evaluate(rollout.sequences.pack(sequences))
        values.sum().backward()
        assert (initial.grad is not None and bool(initial.grad.abs().sum() > 0)) == fresh


@pytest.mark.parametrize("bptt_length", [None, 6])
@pytest.mark.parametrize("burn_in", [1, 4, 6])
def test_burn_in_runs_the_steps_before_a_sequence_with_the_present_weights(
    burn_in: int, bptt_length: int | None
) -> None:
    watched = Watched(2, burn_in=burn_in, bptt_length=bptt_length, policy={**LEARNED, "critic": "separate"})
    model, rollout = watched.model, watched.model.rollout
    assert isinstance(rollout.obs, Tensor)
    shifted(model)
    minibatch, sequences = all_of(rollout), rollout.sequences
    got = start_states(model.policy, rollout, minibatch)
    checked = 0
    for place, k in enumerate(minibatch.sequences):
        if sequences.fresh[k]:
            continue
        step, copy = int(sequences.step[k]), int(sequences.copy[k])
        begin = rollout.context + step - burn_in  # the rollout's first step is that of the context after it
        seen = rollout.obs[begin : begin + burn_in, copy : copy + 1]
        starts = rollout.episode_starts[begin : begin + burn_in, copy : copy + 1]
        kept = watched.behaviour[T + step - burn_in][:, copy : copy + 1]
        expected = states_by_hand(model.policy, seen, starts, kept)[-1]
        close(got[:, place : place + 1], expected)
        assert not torch.allclose(got[:, place], watched.behaviour[T + step][:, copy], atol=1e-3)
        checked += 1
    assert checked > 2


def test_no_gradient_flows_into_the_burn_in() -> None:
    model = Watched(2, burn_in=4).model
    rollout = model.rollout
    within = np.flatnonzero(~rollout.sequences.fresh)
    assert len(within)
    assert not start_states(model.policy, rollout, rollout.sequences.pack(within)).requires_grad


@pytest.mark.parametrize("burn_in", [0, 3])
@pytest.mark.parametrize("bptt_length", [None, 5])
def test_refreshed_states_are_those_of_a_fresh_run(bptt_length: int | None, burn_in: int) -> None:
    """From the oldest state kept, through the rollout before and this one, with the present weights."""
    watched = Watched(
        3,
        refresh_states=True,
        bptt_length=bptt_length,
        burn_in=burn_in,
        policy={**LEARNED, "critic": "separate"},
        between=updated,
    )
    model, rollout = watched.model, watched.model.rollout
    assert isinstance(rollout.obs, Tensor)
    shifted(model)
    oldest, last = rollout.states[0].clone(), model._last_state.clone()
    fresh = states_by_hand(model.policy, rollout.obs, rollout.episode_starts, oldest)
    refreshed, staleness = refresh(model.policy, rollout, last)
    close(refreshed, fresh[2 * T])
    minibatch, sequences = all_of(rollout), rollout.sequences
    got = start_states(model.policy, rollout, minibatch)
    drifts = []
    for place, k in enumerate(minibatch.sequences):
        step, copy = int(sequences.step[k]), int(sequences.copy[k])
        close(got[:, place], fresh[T + step][:, copy])
        if not burn_in and not sequences.fresh[k]:
            new = fresh[T + step][:, copy]
            drifts.append(float((watched.behaviour[2 * T + step][:, copy] - new).norm() / new.norm()))
    if not burn_in:
        ended = rollout.dones[T - 1]
        drifts += [float((last - refreshed)[:, c].norm() / refreshed[:, c].norm()) for c in np.flatnonzero(~ended)]
        assert staleness == pytest.approx(np.mean(drifts), rel=1e-3)


def test_states_are_stale_after_an_update_and_only_then() -> None:
    model = Watched(2, refresh_states=True, bptt_length=4).model
    _, staleness = refresh(model.policy, model.rollout, model._last_state)
    assert staleness < 1e-5
    shifted(model)
    _, staleness = refresh(model.policy, model.rollout, model._last_state)
    assert 0.01 < staleness < 10
    _, staleness = refresh(model.policy, model.rollout, model._last_state)
    assert staleness > 0  # the last state handed in is still the old one


@pytest.mark.parametrize("bptt_length", [None, 32])
def test_states_are_kept_where_sequences_begin_only(bptt_length: int | None) -> None:
    """A Hebbian state of H + H² numbers at every step of 64 copies would be 2.2 GB in sb3-contrib's buffer."""
    steps, n, H = 128, 64, 128
    numbers = spaces.Box(-1, 1, (10,), np.float32)
    rollout = RolloutBuffer(
        n_steps=steps,
        n_envs=n,
        observation_space=numbers,
        action_space=spaces.Discrete(4),
        device=torch.device("cpu"),
        bptt_length=bptt_length,
    )
    state = torch.zeros(1, n, H + H * H)
    one_state = state.nbytes
    observation, starts = torch.zeros(n, 10), np.zeros(n, np.bool_)
    for _ in range(2):
        rollout.begin(state.clone())
        for _ in range(steps):
            rollout.add(observation, starts, state.clone(), torch.zeros(n), np.zeros(n, np.float32), starts)
        rollout.end(state.clone())
    kept = len(range(0, steps, bptt_length or steps)) + 1  # and the last, with which the next rollout begins
    assert rollout.nbytes() <= kept * one_state + 2**20
    assert one_state == pytest.approx(4.2e6, rel=0.02)


def test_observations_are_kept_as_they_come_however_their_kind() -> None:
    parts = {"view": spaces.Box(0, 255, (2, 2, 3), np.uint8), "kind": spaces.Discrete(5)}
    model = agent(noise(spaces.Dict(parts)), n_steps=T, policy={"observation_kinds": {"view": "numbers"}})
    live(model)
    kept = model.rollout.obs
    assert isinstance(kept, dict)
    assert kept["view"].dtype == torch.uint8
    assert kept["view"].nbytes == T * 4 * 12
    assert kept["kind"].max() > 1
