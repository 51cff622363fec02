"""Each step of a proof is needed: without it something false is "proved" of an agent whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from certify_networks import PhasesEnv, fill, fill_head, is_right, latch, latch_env, layers, policy, symbols_env

from bistable_rl.certify import certificate, certify, enclosure, rounding
from bistable_rl.certify.enclosure import Bounds
from bistable_rl.certify.network import read_network

Patch = pytest.MonkeyPatch


def count(agent: object, env: object) -> int:
    return certify(agent, env).proved  # type: ignore[arg-type]


def test_every_distraction_counts() -> None:
    """Only the last of four distractions flips the latch."""
    inputs, right = np.array([[2.0], [0.1], [-0.2], [-0.6]]), np.array([[1, 1, 1]])
    answers = inputs[:3]
    assert count(latch(), symbols_env(1, inputs[:3], right, answers)) == 1
    env = symbols_env(1, inputs, right, answers)
    assert count(latch(), env) == 0
    assert not is_right(latch(), env.phases(), 0, inputs[[3] * 50])


def test_every_answer_counts() -> None:
    """The state is kept, but the answer's own input turns the action."""
    assert count(latch(), latch_env(0.3, answer=0.3)) == 2
    assert count(latch(), latch_env(0.3, answer=3.0)) == 0


def test_every_action_before_the_answer_counts() -> None:
    assert count(latch(), latch_env(0.3)) == 2
    assert [cue.for_ever for cue in certify(latch(), latch_env(0.3, meanwhile=0)).cues] == [True, False]


def test_the_rounding_of_the_head_counts(monkeypatch: Patch) -> None:
    """Logits of 1000 ± 1e-5 h are equal in float32, where the first action wins."""
    agent, env = latch(), latch_env(0.3)
    fill_head(agent, [[-1e-5], [1e-5]], [1000.0, 1000.0])
    assert not is_right(agent, env.phases(), 1, [])
    assert count(agent, env) == 0
    monkeypatch.setattr(rounding, "UNIT", 0.0)
    assert count(agent, env) == 2


def without_rounding(patch: Patch) -> None:
    patch.setattr(rounding, "MIX", 0.0)
    patch.setattr(rounding, "SIGMOID", 0.0)


def with_an_end_too_many(patch: Patch) -> None:
    for name in ("ENDS", "CANDIDATES"):
        patch.setattr(rounding, name, np.sort(np.append(getattr(rounding, name), HELD)))


HELD = float(np.float32(0.9))


@pytest.mark.parametrize("mutate", [without_rounding, with_an_end_too_many])
def test_the_rounding_of_the_state_counts(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A gate of 1 - 1.5 u and a candidate of .95: in exact numbers no state from .9 up falls below .9."""
    agent = policy(1, 2, cell_kwargs={"candidate_bias": True})
    fill(agent, U=[[0.0], [0], [0]], w=[[0.0], [0]], b=[-1000.0, -np.log(1.5 * rounding.UNIT), np.arctanh(0.95)])
    network, x, box = read_network(agent), Bounds(*np.zeros((2, 1, 1))), Bounds(np.array([HELD]), np.ones(1))
    claim = Bounds(box.low[None], box.high[None])
    assert enclosure.prove_images(network, x, [box], [claim]) is not None
    k = np.float32(0.5 - 1.5 * rounding.UNIT)  # the C++ without fused operations may compute it; then so:
    more, less = np.float32(0.5) + k, np.float32(0.5) - k
    assert more * np.float32(HELD) + less * np.float32(0.95) < HELD
    mutate(monkeypatch)
    assert enclosure.prove_images(network, x, [box], [claim]) is None


def test_an_end_needs_the_candidates(monkeypatch: Patch) -> None:
    """Just above its threshold the latch leaves every end."""
    env = latch_env(0.48)
    assert not is_right(latch(), env.phases(), 0, np.full((200, 1), 0.48))
    assert count(latch(), env) == 0
    floor = rounding.floor
    monkeypatch.setattr(rounding, "floor", lambda h, n: floor(h, np.ones_like(n)))
    assert certify(latch(), env).cues[0].for_ever


def test_an_end_needs_the_states(monkeypatch: Patch) -> None:
    """The cue moves a slow unit from 0 to .1, towards a candidate of .96; the right action would need more than .3."""
    agent, env = latch(c=0.9), symbols_env(1, np.array([[2.0]]), np.array([[1]]))
    fill_head(agent, [[-1.0], [1.0]], [0.6, 0.0])
    assert not is_right(agent, env.phases(), 0, [])
    assert count(agent, env) == 0
    floor = rounding.floor
    monkeypatch.setattr(rounding, "floor", lambda h, n: floor(np.ones_like(h), n))
    assert count(agent, env) == 1


def test_a_tie_is_no_proof(monkeypatch: Patch) -> None:
    """Without weights every logit is 0 and the first action wins; only rounding bounds of 0 leave a margin of 0."""
    agent, env = latch(), latch_env(0.3)
    fill_head(agent, [[0.0], [0.0]], [0.0, 0.0])
    assert count(agent, env) == 0
    monkeypatch.setattr(rounding, "UNIT", 0.0)
    assert count(agent, env) == 0
    strict = certificate.margins
    monkeypatch.setattr(certificate, "margins", lambda *args: strict(*args) + 1e-300)  # >= instead of >
    assert count(agent, env) == 2
    assert not is_right(agent, env.phases(), 1, [])


def test_the_inside_of_an_interval_counts(monkeypatch: Patch) -> None:
    """A gain that falls with the state: from 0 and from .95 the next state is below .5, from .4 it is above."""
    agent = policy(1, 2)
    fill(agent, U=[[0.0], [0.0], [1.0]], w=[[-8.0], [0.0]], b=[4.0, -1000.0])
    network, x, h = (
        read_network(agent),
        Bounds(np.zeros((1, 1)), np.zeros((1, 1))),
        Bounds(np.zeros(1), np.full(1, 0.95)),
    )
    narrow = Bounds(np.full((1, 1), -0.1), np.full((1, 1), 0.5))
    assert (agent.step(torch.zeros(1, 1), torch.full((1, 1, 1), 0.4), True)[1] > 0.5).all()
    assert enclosure.images(network, x, [h])[0].high[0, 0] > 0.5
    assert enclosure.prove_images(network, x, [h], [narrow]) is not None
    exact = enclosure.unit_map

    def at_the_ends(numbers: enclosure.Numbers, inputs: Bounds, own: np.ndarray, pieces: Bounds) -> Bounds:
        ends = [exact(numbers, inputs, own, Bounds(end, end)) for end in pieces]
        return Bounds(np.minimum(ends[0].low, ends[1].low), np.maximum(ends[0].high, ends[1].high))

    monkeypatch.setattr(enclosure, "unit_map", at_the_ends)
    assert enclosure.prove_images(network, x, [h], [narrow]) is None


@torch.no_grad()
def follower() -> tuple[object, PhasesEnv]:
    """Return an nBRC whose unit 1 is a latch until unit 0, which follows the second input, lowers its gain."""
    agent = policy(2, 2, "nbrc", 2)
    fill(
        agent,
        U=[[0.0, 0.0], [0, 0], [0, 0], [0, 0], [0, 3], [3, 0]],
        w=[[0.0, 0.0], [-3, 0], [0, 0], [0, 0]],
        b=[0.0, 1.47, -1000.0, -2.0],
    )
    fill_head(agent, [[0.0, -1.0], [0, 1]], [0.2, 0.0])
    x = np.array([[1.0, 0], [0, 1], [0, -1]])
    return agent, symbols_env(1, x, np.array([[1, 1, 1]]))


def test_the_other_units_of_an_nbrc_count(monkeypatch: Patch) -> None:
    agent, env = follower()
    assert not is_right(agent, env.phases(), 0, [[0, 1]] * 50)  # type: ignore[arg-type]
    assert count(agent, env) == 0
    inputs = enclosure.unit_inputs

    def at_rest(numbers: enclosure.Numbers, layer: object, x: Bounds, h: Bounds) -> Bounds:
        zero = np.zeros_like(h.low)
        return inputs(numbers, layer, x, Bounds(zero, zero))  # type: ignore[arg-type]

    monkeypatch.setattr(enclosure, "unit_inputs", at_rest)
    monkeypatch.setattr("bistable_rl.certify.search.unit_inputs", at_rest)
    assert count(agent, env) == 1


@torch.no_grad()
@pytest.mark.parametrize(("weight", "proved"), [(0.9, 0), (0.4, 1)])
def test_the_first_layers_range_counts(weight: float, proved: int) -> None:
    """The second layer is a latch, whose input is the first layer's state, up to 1, times a weight."""
    agent = policy(1, 2, num_layers=2)
    first, second = layers(agent)
    for cell, U, b in ((first, [0.0, 0, 2.0], [-9.0, 0.0]), (second, [0.0, 0, weight], [np.arctanh(0.9), -2.2])):
        cell.weight_hh.zero_()
        cell.weight_ih.copy_(torch.tensor(U)[:, None])
        cell.bias.copy_(torch.tensor(b))
    second.initial = torch.nn.Parameter(torch.tensor([0.8]))
    fill_head(agent, [[-1.0], [1.0]], [0.0, 0.0])
    env = symbols_env(1, np.array([[3.0], [-3.0], [0.0]]), np.array([[1]]), answers=np.array([[0.0]]))
    assert is_right(agent, env.phases(), 0, [[-3.0]] * 50) == proved
    assert count(agent, env) == proved
