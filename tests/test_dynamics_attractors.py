import numpy as np
import pytest
import torch

from bistable_rl import NBRC, RNN, attractors, make_rnn
from bistable_rl.cells import BRCCell
from bistable_rl.dynamics.attractors import vaa, vaa_star


def bistable_units(hidden_size: int, gain: float) -> RNN:
    """BRC units of a fixed feedback gain, which their input starts on one side or the other."""
    rnn = make_rnn("brc", 1, hidden_size)
    cell = rnn.layers[0]
    assert isinstance(cell, BRCCell)
    assert cell.bias is not None
    with torch.no_grad():
        cell.weight_ih.zero_()
        cell.weight_ih[2 * hidden_size :] = 1e-3  # the settling input, N(0, 1), is far too small to flip a unit
        cell.weight_hh.zero_()
        cell.bias.zero_()
        cell.bias[:hidden_size] = np.arctanh(gain - 1)
    return rnn


def test_vaa_counts_different_states() -> None:
    states = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.9, 0.0], [0.9, 1e-6], [0.9, 0.0], [-1.0, 1.0]])
    assert vaa(states) == pytest.approx(3 / 6)
    assert vaa(torch.zeros(5, 3)) == pytest.approx(1 / 5)
    torch.testing.assert_close(vaa(torch.stack([states, 0 * states])), torch.tensor([3 / 6, 1 / 6]))


def test_vaa_star_is_the_equation() -> None:
    states = torch.randn(7, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    states[1] = states[0] + 5e-5  # within ε
    states[3] = states[2] + 2e-4  # just beyond it
    expected = 0.0
    for i in range(7):
        crowd = 0.0
        for j in range(7):
            d = float(np.linalg.norm(np.tanh(states[i].numpy()) - np.tanh(states[j].numpy())))
            crowd += 1 - max(d - 1e-4, 0) / (d + 1e-6)
        expected += 1 / crowd / 7
    assert vaa_star(states).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_of_vaa_star_drives_near_states_apart_and_is_finite_for_equal_ones() -> None:
    states = torch.tensor([[0.1], [0.1 + 3e-4], [0.5], [0.5]], requires_grad=True)
    vaa_star(states).backward()
    assert states.grad is not None
    assert torch.isfinite(states.grad).all()
    assert states.grad[0] < 0 < states.grad[1]


@pytest.mark.parametrize(("gain", "count"), [(0.5, 1), (1.5, 2)])
def test_a_unit_has_two_attractors_where_its_gain_is_above_1(gain: float, count: int) -> None:
    rnn = bistable_units(1, gain)
    x = torch.cat([torch.full((20, 4, 1), 500.0), torch.full((20, 4, 1), -500.0)], 1)
    found = attractors(rnn, x, steps=1000, estimates=3)
    assert found.count == pytest.approx(count)
    assert found.vaa.shape == (3,)
    assert found.vaa_star.shape == (3, 1)
    np.testing.assert_allclose(found.vaa_star, count / 8, atol=1e-3)


def test_bistable_units_multiply_and_a_gru_as_it_starts_has_one_attractor() -> None:
    rnn = bistable_units(2, 1.5)
    rnn.get_parameter("cells.0.weight_ih").data[-1] *= -1
    x = 500 * torch.randn(10, 16, 1, generator=torch.Generator().manual_seed(0))
    assert attractors(rnn, x, steps=500, estimates=2).count <= 4
    torch.manual_seed(0)
    assert attractors(make_rnn("gru", 1, 16, 2), x / 500, steps=1000, estimates=2).count == pytest.approx(1)


def test_lengths_cut_what_is_padding() -> None:
    torch.manual_seed(0)
    rnn = NBRC(1, 8)
    x = torch.randn(12, 6, 1)
    lengths = torch.tensor([3, 12, 5, 7, 1, 4])
    padded = x.clone()
    for i, length in enumerate(lengths.tolist()):
        padded[length:, i] = 1e3
    kept = attractors(rnn, x, lengths, steps=100, estimates=2)
    np.testing.assert_array_equal(attractors(rnn, padded, lengths, steps=100, estimates=2).vaa_star, kept.vaa_star)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="bidirectional=True"):
        attractors(NBRC(1, 4, bidirectional=True), torch.zeros(5, 2, 1))
    with pytest.raises(ValueError, match=r"must be \(T, n, 3\)"):
        attractors(NBRC(3, 4), torch.zeros(5, 2, 1))
    with pytest.raises(ValueError, match="each from 1 to 5"):
        attractors(NBRC(1, 4), torch.zeros(5, 2, 1), torch.tensor([6, 1]))
    with pytest.raises(ValueError, match="at least 1"):
        attractors(NBRC(1, 4), torch.zeros(5, 2, 1), steps=0)
