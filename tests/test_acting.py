"""A single step without gradients: the short way gives what the plain loop gives, or leaves it to the long way."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from bistable_rl import kernels
from bistable_rl.kernels import cpu
from bistable_rl.rnn import RNN, make_rnn

B, F, H = 5, 3, 20

pytestmark = pytest.mark.skipif(not cpu.available()[0], reason=cpu.available()[1])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> list[RNN]:
    """Whose steps took the short way so far."""
    taken: list[RNN] = []
    act = RNN._act

    def watched(rnn: RNN, *arguments: Tensor) -> tuple[Tensor, Tensor] | None:
        acted = act(rnn, *arguments)
        if acted is not None:
            taken.append(rnn)
        return acted

    monkeypatch.setattr(RNN, "_act", watched)
    return taken


def expected(rnn: RNN, *arguments: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the plain loop gives."""
    with kernels.use_backend("reference"):
        output, h_n = rnn(*arguments)
    assert isinstance(output, Tensor)
    return output, h_n


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", kernels.KINDS)
@torch.no_grad()
def test_a_step_is_that_of_the_equation(name: str, learned: bool, dtype: torch.dtype, short_steps: list[RNN]) -> None:
    rnn = make_rnn(name, F, H, cell_kwargs={"learn_initial_state": learned}, dtype=dtype)
    for parameter in rnn.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    x, hx = torch.randn(1, B, F, dtype=dtype), torch.randn(1, B, rnn.state_size, dtype=dtype)
    resets = torch.tensor([[1, 0, 2, 0, 0]])
    for given in (None, resets, resets.double(), resets.bool()):
        with kernels.watch() as ran:
            found = rnn(x, hx, given)
        assert ran == {(name, "cpu")}
        torch.testing.assert_close(found, expected(rnn, x, hx, given))
    assert len(short_steps) == 4


@torch.no_grad()
def test_the_output_and_the_state_share_nothing(short_steps: list[RNN]) -> None:
    for name in kernels.KINDS:
        rnn = make_rnn(name, F, H)
        x, hx = torch.randn(1, B, F), torch.randn(1, B, rnn.state_size)
        before = hx.clone()
        output, h_n = rnn(x, hx)
        state = h_n.clone()
        output.zero_()
        assert torch.equal(h_n, state)
        h_n.zero_()
        assert torch.equal(hx, before)
    assert len(short_steps) == len(kernels.KINDS)


@torch.no_grad()
def test_a_step_follows_the_weights(short_steps: list[RNN]) -> None:
    rnn = make_rnn("nbrc", F, H)
    (cell,) = rnn.cells
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)

    def check() -> None:
        torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))

    check()
    cell.get_parameter("weight_hh").mul_(0.5)
    check()
    cell.get_parameter("weight_ih").data.add_(0.1)
    check()
    cell.weight_ih = nn.Parameter(torch.randn(3 * H, F))
    check()
    rnn.load_state_dict(make_rnn("nbrc", F, H).state_dict())
    check()
    rnn.load_state_dict(make_rnn("nbrc", F, H).state_dict(), assign=True)
    check()
    nn.utils.parametrizations.weight_norm(cell, "weight_hh")
    check()
    other = copy.deepcopy(make_rnn("nbrc", F, H))
    torch.testing.assert_close(other(x, hx), expected(other, x, hx))
    assert len(short_steps) == 8


def test_a_training_step_moves_the_next_step(short_steps: list[RNN]) -> None:
    rnn = make_rnn("gru", F, H)
    optimizer = torch.optim.Adam(rnn.parameters(), lr=0.1)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)
    for _ in range(3):
        with torch.no_grad():
            torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
        rnn(torch.randn(4, B, F))[0].sum().backward()
        optimizer.step()
    assert len(short_steps) == 3


@torch.no_grad()
def test_what_is_not_just_so_takes_the_long_way_to_the_same(short_steps: list[RNN]) -> None:
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)
    rnn = make_rnn("brc", F, H)
    truth = expected(rnn, x, hx)
    torch.testing.assert_close(rnn(x.mT.contiguous().mT, hx), truth)
    torch.testing.assert_close(rnn(x, hx.mT.contiguous().mT), truth)
    torch.testing.assert_close(rnn(x[0, :1], hx[:, 0]), (truth[0][0, :1], truth[1][:, 0]))
    torch.testing.assert_close(rnn(x), expected(rnn, x, torch.zeros_like(hx)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(rnn(x, hx), truth)
    with kernels.use_backend("torch"), kernels.watch() as ran:
        torch.testing.assert_close(rnn(x, hx), truth)
    assert ran == {("brc", "torch")}
    first = make_rnn("brc", F, H, batch_first=True)
    first.load_state_dict(rnn.state_dict())
    torch.testing.assert_close(first(x.transpose(0, 1), hx)[0].transpose(0, 1), truth[0])
    wide = make_rnn("brc", F, H, 2, bidirectional=True)
    hx = torch.randn(4, B, H)
    torch.testing.assert_close(wide(x, hx), expected(wide, x, hx))
    assert not short_steps


@torch.no_grad()
def test_inference_mode_and_sequences_of_no_batch_are_served() -> None:
    with torch.inference_mode():
        rnn = make_rnn("lstm", F, H)  # its weights have no versions
        x, hx = torch.randn(1, B, F), torch.randn(1, B, 2 * H)
        torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
        rnn.cells[0].get_parameter("weight_ih").mul_(2)
        torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
    output, h_n = rnn(torch.zeros(1, 0, F), torch.zeros(1, 0, 2 * H))
    assert (output.shape, h_n.shape) == ((1, 0, H), (1, 0, 2 * H))


WRONG = [
    ((torch.zeros(1, B, F + 1), torch.zeros(1, B, H)), RuntimeError, "Expected 3, got 4"),
    ((torch.zeros(1, B, F), torch.zeros(1, B, H + 1)), RuntimeError, "Expected hidden size"),
    ((torch.zeros(1, B, F), torch.zeros(1, B + 1, H)), RuntimeError, "Expected hidden size"),
    ((torch.zeros(1, B, F), torch.zeros(2, B, H)), RuntimeError, "Expected hidden size"),
    ((torch.zeros(1, B, F), torch.zeros(B, H)), RuntimeError, "hx should also be 3-D"),
    ((torch.zeros(1, B, F).double(), torch.zeros(1, B, H)), ValueError, "does not match weight dtype"),
    ((torch.zeros(1, B, F), torch.zeros(1, B, H).double()), ValueError, "the state's dtype"),
    ((torch.zeros(1, B, F), torch.zeros(1, B, H, device="meta")), ValueError, "the state is on meta"),
    ((torch.zeros(1, B, F, device="meta"), torch.zeros(1, B, H)), ValueError, "the input is on meta"),
    ((torch.zeros(1, B, F), torch.zeros(1, B, H), torch.zeros(1, B + 1)), ValueError, "resets must be"),
    ((torch.zeros(1, B, F), torch.zeros(1, B, H), torch.zeros(1, B, device="meta")), ValueError, "resets must be"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
@torch.no_grad()
def test_a_wrong_step_is_told_what_is_wrong(
    arguments: tuple[Tensor, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_rnn("nbrc", F, H)(*arguments)


@torch.no_grad()
def test_a_backend_asked_for_that_cannot_serve_is_refused_in_a_step_too() -> None:
    with kernels.use_backend("triton"), pytest.raises(ValueError, match="'triton' was asked for, but"):
        make_rnn("nbrc", F, 1000)(torch.zeros(1, B, F), torch.zeros(1, B, 1000))


@torch.no_grad()
def test_a_step_can_be_compiled_exported_and_traced() -> None:
    torch._dynamo.reset()
    rnn = make_rnn("nbrc", F, H)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)
    truth = expected(rnn, x, hx)
    torch.testing.assert_close(torch.compile(rnn, fullgraph=True, backend="aot_eager")(x, hx), truth)
    torch.testing.assert_close(torch.export.export(rnn, (x, hx)).module()(x, hx), truth)


FORK = """
import os, sys, torch
from bistable_rl import NBRC
torch.set_num_threads(2)
torch.randn(500, 500) @ torch.randn(500, 500)
rnn, x, h = NBRC(3, 256), torch.randn(1, 400, 3), torch.zeros(1, 400, 256)
with torch.no_grad():
    truth = rnn(x, h)[1].tolist()
    child = os.fork()
    if child == 0:
        os._exit(0 if rnn(x, h)[1].tolist() == truth else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_takes_steps() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)


@torch.no_grad()
def test_a_step_does_not_depend_on_the_number_of_threads() -> None:
    rnn, x, hx = make_rnn("nbrc", F, 256), torch.randn(1, 400, F), torch.randn(1, 400, 256)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = rnn(x, hx)
        torch.set_num_threads(2)
        assert torch.equal(rnn(x, hx)[0], one[0])
    finally:
        torch.set_num_threads(before)


def test_weights_that_lie_the_other_way_are_read_in_their_own_order() -> None:
    rnn = make_rnn("gru", F, H)
    (cell,) = rnn.cells
    cell.weight_ih = nn.Parameter(torch.randn(F, 3 * H).T)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)
    with torch.no_grad():
        torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
        cell.weight_ih.data.add_(0.5)
        torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
