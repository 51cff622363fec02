import numpy as np
import pytest
import torch

from bistable_rl import NBRC, gate_trace, make_rnn


@pytest.mark.parametrize("cell", ["brc", "nbrc", "gru", "lstm"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_gates_are_those_that_made_the_states(cell: str, batch_first: bool) -> None:
    torch.manual_seed(0)
    rnn = make_rnn(cell, 3, 5, 2, batch_first=batch_first, cell_kwargs={"learn_initial_state": True})
    for name, parameter in rnn.named_parameters():
        if name.endswith("initial"):
            torch.nn.init.normal_(parameter)
    x = torch.randn(7, 4, 3)
    trace = gate_trace(rnn, x)
    output, _ = rnn(x.transpose(0, 1) if batch_first else x)
    top = output.transpose(0, 1) if batch_first else output
    np.testing.assert_allclose(trace.h[1], top.detach().numpy(), atol=1e-6)
    assert trace.c.shape == (2, 7, 4, 5)
    assert (trace.a is None) == (cell in ("gru", "lstm"))
    if cell == "lstm":
        return  # its h does not show the cell state that f keeps; see the test below
    for layer, module in enumerate(rnn.layers):
        seen = x if layer == 0 else torch.from_numpy(trace.h[0])
        start = module.get_parameter("initial").detach().expand(1, 4, 5)
        h = torch.cat([start, torch.from_numpy(trace.h[layer])])
        c = torch.from_numpy(trace.c[layer])
        u = seen @ module.get_parameter("weight_ih").chunk(3)[2].T
        if cell == "gru":  # c is z: what is left of h once c h is taken away is (1 - c) n, |n| < 1
            assert bool(((h[1:] - c * h[:-1]).abs() <= 1 - c).all())
        else:
            assert trace.a is not None
            a = torch.from_numpy(trace.a[layer])
            expected = c * h[:-1] + (1 - c) * torch.tanh(u + a * h[:-1])
            np.testing.assert_allclose(expected.detach(), h[1:], atol=1e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_gate_of_a_gru_is_z_and_that_of_an_lstm_f(cell: str) -> None:
    rnn = make_rnn(cell, 1, 3, cell_kwargs={"c_bias": 2.0})  # the slow gate's bias, by the cell's own option
    for name, parameter in rnn.named_parameters():
        if "weight" in name:
            torch.nn.init.zeros_(parameter)
    np.testing.assert_allclose(gate_trace(rnn, torch.randn(4, 2, 1)).c, 1 / (1 + np.exp(-2)), rtol=1e-6)


def test_the_share_of_bistable_units_counts_gains_above_1() -> None:
    rnn = NBRC(1, 4)
    for parameter in rnn.parameters():
        torch.nn.init.zeros_(parameter)
    rnn.get_parameter("cells.0.bias").data[:3] = torch.tensor([0.1, -0.1, 2.0])  # the fourth is exactly 1
    trace = gate_trace(rnn, torch.zeros(2, 1, 1))
    assert trace.bistable is not None
    np.testing.assert_allclose(trace.bistable, np.full((1, 2, 1), 0.5))
    np.testing.assert_allclose(trace.mean_c, np.full((1, 2, 1), 0.5))


def test_what_has_no_such_gates_is_refused() -> None:
    with pytest.raises(ValueError, match="lmu has no gates that can be traced; the cells that have them are brc"):
        gate_trace(make_rnn("lmu", 1, 4), torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match="one direction"):
        gate_trace(NBRC(1, 4, bidirectional=True), torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match=r"x must be \(T, B, 1\)"):
        gate_trace(NBRC(1, 4), torch.zeros(2, 1))
