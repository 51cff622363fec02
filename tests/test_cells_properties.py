"""What makes each cell what it is: bistability, orthogonality, the delay window, the bounded trace."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bistable_rl.cells import BRCCell, Cell, GORUCell, HalfPBRCCell, LMUCell, NBRCCell, PBRCCell, PlasticGRUCell
from bistable_rl.cells.lmu import legendre_delay


def unit(a: float, c: float) -> BRCCell:
    """One BRC unit with these gates whatever its input, and an input that goes to the candidate alone."""
    cell = BRCCell(1, 1, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        cell.weight_hh.zero_()
        assert cell.bias is not None
        cell.bias.copy_(torch.tensor([np.arctanh(a - 1), np.log(c / (1 - c))]))
    return cell


@torch.no_grad()
def image(cell: BRCCell, h: np.ndarray, x: float = 0.0) -> np.ndarray:
    """F(h): one step from each of the states h (n,)."""
    state = torch.as_tensor(h).unsqueeze(1)
    return cell(torch.full_like(state, x), state).squeeze(1).numpy()


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where f changes its sign between low and high, by bisection to a 2^40th of their distance."""
    rising = f(high) > 0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if (f(middle) > 0) == rising else (middle, high)
    return (low + high) / 2


def brackets(cell: BRCCell, x: float = 0.0) -> list[tuple[float, float]]:
    """An interval around each h with F(h) = h; candidates stay in [-1, 1], so there are no others."""
    grid = np.linspace(-1.1, 1.1, 4002)  # without 0
    difference = image(cell, grid, x) - grid
    changes = np.flatnonzero(np.sign(difference[:-1]) != np.sign(difference[1:]))
    return [(float(grid[i]), float(grid[i + 1])) for i in changes]


def fixed_points(cell: BRCCell) -> list[float]:
    """All h with F(h) = h without input, to 1e-12."""
    return [root(lambda h: float(image(cell, np.array([h]))[0]) - h, low, high) for low, high in brackets(cell)]


def slope(cell: BRCCell, h: float, x: float = 0.0) -> float:
    """F'(h); stable where it is below 1."""
    around = image(cell, np.array([h - 1e-6, h + 1e-6]), x)
    return float(around[1] - around[0]) / 2e-6


feedback_above_1 = st.floats(1.05, 1.95)
speed = st.floats(0.02, 0.95)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(a=st.floats(0.05, 0.95), c=speed)
def test_with_a_below_1_zero_is_the_only_fixed_point_and_stable(a: float, c: float) -> None:
    cell = unit(a, c)
    assert fixed_points(cell) == pytest.approx([0], abs=1e-9)
    assert 0 <= slope(cell, 0) < 1
    assert slope(cell, 0) == pytest.approx(c + (1 - c) * a, abs=1e-6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(a=feedback_above_1, c=speed)
def test_with_a_above_1_two_stable_points_stand_on_either_side_of_zero(a: float, c: float) -> None:
    cell = unit(a, c)
    h1 = root(lambda h: float(np.tanh(a * h)) - h, 1e-3, 1.0)
    assert fixed_points(cell) == pytest.approx([-h1, 0, h1], abs=1e-9)
    assert slope(cell, 0) > 1
    assert abs(slope(cell, h1)) < 1
    assert abs(slope(cell, -h1)) < 1


@settings(max_examples=15, deadline=None, derandomize=True)
@given(a=feedback_above_1, c=st.floats(0.02, 0.9))
def test_c_sets_the_speed_and_not_the_place_of_the_fixed_points(a: float, c: float) -> None:
    assert fixed_points(unit(a, c)) == pytest.approx(fixed_points(unit(a, 0.95)), abs=1e-9)
    start = np.array([0.01])
    assert abs(image(unit(a, c), start)[0]) > abs(image(unit(a, 0.95), start)[0])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(a=feedback_above_1, c=speed)
def test_bistability_lasts_over_a_finite_range_of_input_around_zero(a: float, c: float) -> None:
    # Two of the points meet where h = tanh(u + a h) touches: 1/(1 - h^2) = a.
    touch = np.sqrt(1 - 1 / a)
    limit = a * touch - np.arctanh(touch)
    cell = unit(a, c)
    for sign in (-1, 1):
        assert len(brackets(cell, sign * 0.9 * limit)) == 3
        assert len(brackets(cell, sign * 1.1 * limit)) == 1


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_unit_with_a_above_1_keeps_a_bit_through_100_000_silent_steps(sign: int) -> None:
    cell, x = unit(1.5, 0.5), torch.zeros(100_001, 1, 1, dtype=torch.float64)
    x[0] = sign
    with torch.no_grad():
        outputs, last = cell.scan(x)
    h1 = root(lambda h: float(np.tanh(1.5 * h)) - h, 1e-3, 1.0)
    assert last.item() == pytest.approx(sign * h1, abs=1e-9)
    assert torch.equal(outputs[1000], outputs[-1])


def test_a_unit_with_a_below_1_loses_the_bit() -> None:
    cell, x = unit(0.9, 0.5), torch.zeros(2001, 1, 1, dtype=torch.float64)
    x[0] = 1
    with torch.no_grad():
        outputs, last = cell.scan(x)
    assert outputs[0].item() > 0.3
    assert abs(last.item()) < 1e-12


def test_an_nbrc_keeps_many_bits_in_float32_through_a_long_silence() -> None:
    cell = NBRCCell(4, 64)
    with torch.no_grad():
        cell.weight_hh.zero_()
        assert cell.bias is not None
        cell.bias[:64] = 1.0
    x = torch.zeros(5001, 8, 4)
    x[0] = 3 * torch.randn(8, 4)
    with torch.no_grad():
        outputs, last = cell.scan(x)
    assert torch.equal(last.sign(), outputs[0].sign())
    assert last.abs().min() > 0.9


@pytest.mark.parametrize("H", [2, 8, 64])
def test_gorus_rotation_is_orthogonal_and_no_identity(H: int) -> None:
    torch.manual_seed(0)
    Q = GORUCell(3, H, dtype=torch.float64).rotation().detach()
    torch.testing.assert_close(Q @ Q.T, torch.eye(H, dtype=torch.float64))
    assert (Q - torch.eye(H)).abs().max() > 0.1
    assert torch.linalg.det(Q).item() == pytest.approx(1)
    # Every output depends on every input, which is what log2(H) layers are for.
    assert Q.abs().min() > 0


@pytest.mark.parametrize(("order", "theta"), [(1, 3.0), (6, 20.0), (40, 300.0), (256, 1000.0)])
def test_the_lmus_matrices_are_scipys_zero_order_hold(order: int, theta: float) -> None:
    cont2discrete = pytest.importorskip("scipy.signal").cont2discrete
    i, j = np.ogrid[:order, :order]
    A = (2 * i + 1) / theta * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    B = (2 * i + 1) * (-1.0) ** i / theta
    expected, drive, *_ = cont2discrete((A, B, np.eye(order), np.zeros((order, 1))), dt=1.0, method="zoh")
    found = legendre_delay(order, theta)
    np.testing.assert_allclose(found[0], expected, atol=1e-10)
    np.testing.assert_allclose(found[1], drive[:, 0], atol=1e-10)


@pytest.mark.parametrize("delay", [0.0, 0.5, 1.0])
def test_the_lmus_memory_holds_the_window_of_a_signal(delay: float) -> None:
    order, theta = 12, 100
    cell = LMUCell(1, 1, memory_size=order, theta=float(theta), dtype=torch.float64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.encoder_x.fill_(1.0)
    t = torch.arange(1000, dtype=torch.float64)
    signal = torch.sin(2 * torch.pi * t / 120) + 0.5 * torch.cos(2 * torch.pi * t / 70)
    state = cell.initial_state(1)
    memories = []
    with torch.no_grad():
        for u in signal:
            state = cell(u.view(1, 1), state)
            memories.append(state[0, 1:].numpy())
    # u(t - r θ) = Σ P_i(2 r - 1) m_i(t), Eq. 3 of the paper
    legendre = np.polynomial.legendre.legval(2 * delay - 1, np.eye(order))
    found = np.array(memories) @ legendre
    shift = int(delay * theta)
    steps = np.arange(400, 1000)
    assert np.abs(found[steps] - signal.numpy()[steps - shift]).max() < 0.05


PLASTIC = [PlasticGRUCell, PBRCCell, HalfPBRCCell]


@pytest.mark.parametrize("make", PLASTIC)
def test_the_hebbian_trace_stays_bounded_and_a_reset_clears_it(
    make: type[PlasticGRUCell] | type[PBRCCell] | type[HalfPBRCCell],
) -> None:
    torch.manual_seed(0)
    cell = make(3, 8, learn_initial_state=True)
    with torch.no_grad():
        cell.eta.fill_(1.9)  # far outside of what keeps the trace bounded by itself
        assert cell.initial is not None
        cell.initial.fill_(0.5)
    traces, state = [], cell.initial_state(4)
    with torch.no_grad():
        for _ in range(60):
            state = cell(3 * torch.randn(4, 3), state)
            traces.append(trace(cell, state))
    assert torch.stack(traces).abs().max() == 1
    start = cell.initial_state(4)
    assert torch.equal(start[:, :8], torch.full((4, 8), 0.5))
    assert torch.count_nonzero(trace(cell, start)) == 0
    x, resets = torch.randn(5, 4, 3), torch.zeros(5, 4)
    resets[4] = 1
    torch.testing.assert_close(cell.scan(x, state, resets)[1], cell(x[4]))


@pytest.mark.parametrize("make", PLASTIC)
def test_the_trace_records_which_units_fire_together(
    make: type[PlasticGRUCell] | type[PBRCCell] | type[HalfPBRCCell],
) -> None:
    cell = make(3, 8)
    state = torch.zeros(1, cell.state_size)
    state[0, 2] = 1.0
    after = trace(cell, cell(torch.ones(1, 3), state))[0]
    assert after[2].abs().min() > 0
    assert torch.count_nonzero(after[torch.arange(8) != 2]) == 0
    assert after.abs().max() <= 0.03


def trace(cell: Cell, state: Tensor) -> Tensor:
    return state[:, cell.hidden_size :].unflatten(1, (cell.hidden_size, -1)).detach()


def test_the_delays_matrices_lose_nothing_on_their_way_through_dtypes() -> None:
    exact, cell = legendre_delay(8, 20.0)[0], LMUCell(2, 3, memory_size=8, theta=20.0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float64):
        assert torch.equal(cell.to(dtype).transition, torch.tensor(exact, dtype=dtype))
