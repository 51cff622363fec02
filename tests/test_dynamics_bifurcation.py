import numpy as np
import pytest
import torch

from bistable_rl import bifurcation
from bistable_rl.cells import BRCCell, Cell, GRUCell, NBRCCell


def positive_root(a: float) -> float:
    """h1 of Theorem A.1, by bisection."""
    low, high = 1e-9, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.tanh(a * middle) > middle else (low, middle)
    return low


@pytest.fixture(params=[BRCCell, NBRCCell])
def cell(request: pytest.FixtureRequest) -> Cell:
    torch.manual_seed(0)
    made: Cell = request.param(3, 4)
    return made


def test_there_is_one_stable_point_up_to_a_1_and_beyond_it_three_whatever_c(cell: Cell) -> None:
    for c in (0.05, 0.5, 0.99):
        points = bifurcation(cell, [0.2, 0.9, 0.999, 1.001, 1.1, 1.9], c=c)
        for a in (0.2, 0.9, 0.999):
            assert points.h[points.a == a] == pytest.approx([0], abs=1e-12)
            assert points.stable[points.a == a].tolist() == [True]
        for a in (1.001, 1.1, 1.9):
            assert points.h[points.a == a] == pytest.approx([-positive_root(a), 0, positive_root(a)], abs=1e-9)
            assert points.stable[points.a == a].tolist() == [True, False, True]


def test_the_bifurcation_is_at_1_and_a_pitchfork(cell: Cell) -> None:
    points = bifurcation(cell, 1 + np.array([-1e-6, 1e-6, 4e-6]))
    assert len(points.a) == 1 + 3 + 3
    upper = points.h[(points.h > 0) & (points.a > 1)][-2:]
    assert upper == pytest.approx(np.sqrt(3 * np.array([1e-6, 4e-6])), rel=1e-3)  # tanh v = v - v³/3
    [marginal] = bifurcation(cell, [1.0]).slope
    assert marginal == pytest.approx(1)


def test_an_input_leaves_one_point_when_it_is_strong_and_three_when_weak(cell: Cell) -> None:
    U_h = cell.weight_ih[2 * 4 + 1].detach()
    toward = U_h / U_h.norm() ** 2  # u = 1 for unit 1
    weak, strong = (bifurcation(cell, [1.5], x=u * toward, unit=1) for u in (0.05, 1.0))
    for u, points in ((0.05, weak), (1.0, strong)):
        np.testing.assert_allclose(points.h, np.tanh(u + 1.5 * points.h), atol=1e-6)
    assert weak.stable.tolist() == [True, False, True]
    assert strong.stable.tolist() == [True]
    assert strong.h > 0
    assert len(bifurcation(cell, [1.5], x=1e6 * toward, unit=1).h) == 1


def test_the_cell_is_left_as_it_was(cell: Cell) -> None:
    before = [p.clone() for p in cell.parameters()]
    bifurcation(cell, [1.5])
    assert all(torch.equal(p, q) and p.requires_grad for p, q in zip(cell.parameters(), before, strict=True))


def test_what_does_not_fit_is_refused(cell: Cell) -> None:
    with pytest.raises(ValueError, match=r"BRC or an nBRC.*; for any other cell, attractors\(rnn, x\) .* time_con"):
        bifurcation(GRUCell(1, 2))
    with pytest.raises(ValueError, match=r"got a=2\.0"):
        bifurcation(cell, [2.0])
    with pytest.raises(ValueError, match="unit must be from 0 to 3, got 4"):
        bifurcation(cell, unit=4)
    with pytest.raises(ValueError, match=r"x must be \(3,\)"):
        bifurcation(cell, x=torch.zeros(2))
