"""A single step without gradients: the short way gives what the plain loop gives, or leaves it to the long way.

Outside `fixed_weights` it sees every edit of the weights, by whatever road; inside, it does not look.
"""

import asyncio
import copy
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from bistable_rl import fixed_weights, kernels
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


def test_fixed_weights_are_those_of_the_task_that_fixed_them() -> None:
    rnn = make_rnn("nbrc", F, H)
    weight = rnn.get_parameter("cells.0.weight_hh")
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)

    async def edits_outside() -> None:
        await asyncio.sleep(0)
        weight.data.mul_(3)
        torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))

    async def outlives() -> None:
        await asyncio.sleep(0.01)
        weight.data.mul_(0.5)
        torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))

    async def both() -> None:
        other = asyncio.create_task(edits_outside())
        with fixed_weights(rnn):
            later = asyncio.create_task(outlives())
            before = rnn(x, hx)[0]
            await other
            assert torch.equal(rnn(x, hx)[0], before)
        await later

    with torch.no_grad():
        asyncio.run(both())


def test_weights_that_functional_call_puts_in_their_place_are_seen_inside() -> None:
    rnn = make_rnn("gru", F, H)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)
    doubled = {name: 2 * parameter.detach() for name, parameter in rnn.named_parameters()}
    with torch.no_grad():
        outside = torch.func.functional_call(rnn, doubled, (x, hx))
        with fixed_weights(rnn):
            torch.testing.assert_close(torch.func.functional_call(rnn, doubled, (x, hx)), outside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", kernels.KERNELS)
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
    for name in kernels.KERNELS:
        rnn = make_rnn(name, F, H)
        x, hx = torch.randn(1, B, F), torch.randn(1, B, rnn.state_size)
        before = hx.clone()
        output, h_n = rnn(x, hx)
        state = h_n.clone()
        output.zero_()
        assert torch.equal(h_n, state)
        h_n.zero_()
        assert torch.equal(hx, before)
    assert len(short_steps) == len(kernels.KERNELS)


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
    dropped = make_rnn("brc", F, H, 2, dropout=0.5)
    torch.manual_seed(1)
    truth = expected(dropped, x, hx[:2])
    torch.manual_seed(1)
    torch.testing.assert_close(dropped(x, hx[:2]), truth)
    assert not short_steps


@torch.no_grad()
def test_all_layers_take_the_short_way(short_steps: list[RNN]) -> None:
    x, resets = torch.randn(1, B, F), torch.tensor([[1, 0, 1, 0, 0]])
    for name in kernels.KERNELS:
        rnn = make_rnn(name, F, H, 3, dropout=0.5).eval()
        hx = torch.randn(3, B, rnn.state_size)
        truth = expected(rnn, x, hx, resets)
        torch.testing.assert_close(rnn(x, hx, resets), truth)
        with fixed_weights(rnn):
            torch.testing.assert_close(rnn(x, hx, resets), truth)
        for wrong in (hx[:2], hx.repeat(2, 1, 1), hx[0]):
            with pytest.raises(RuntimeError, match=r"hidden size|hx should also be 3-D"):
                rnn(x, wrong)
    assert len(short_steps) == 2 * len(kernels.KERNELS)


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


# Roads to a parameter's numbers: each gives an array or tensor that writes where the parameter lies.
ROADS: dict[str, Callable[[nn.Parameter], Any]] = {
    "in place": lambda p: p,
    ".data": lambda p: p.data,
    "detach().numpy()": lambda p: p.detach().numpy(),
    "a view": lambda p: p.detach().view(-1).view_as(p),
    "shared storage": lambda p: torch.empty(0, dtype=p.dtype).set_(p.untyped_storage(), 0, p.shape, p.stride()),
    "dlpack": lambda p: torch.from_dlpack(p.detach()),
}


def partial(shape: tuple[int, ...], generator: random.Random) -> tuple[Any, ...]:
    """A part of a parameter: one number, a row, a column, a unit, a block, every other number, all of it."""
    parts: list[tuple[Any, ...]] = [
        tuple(generator.randrange(n) for n in shape),
        (generator.randrange(shape[0]),),
        (..., generator.randrange(shape[-1])),
        (slice(generator.randrange(shape[0]), None),),
        (..., slice(None, None, 2)),
        (...,),
    ]
    return generator.choice(parts)


@pytest.mark.parametrize("name", kernels.KERNELS)
@torch.no_grad()
def test_every_edit_by_every_road_shows_in_the_next_step(name: str) -> None:
    generator = random.Random(0)
    for size in (7, 16, 20, 64):
        cell_kwargs: dict[str, object] = {"candidate_bias": True} if name in ("brc", "nbrc") else {}
        rnn = make_rnn(name, F, size, cell_kwargs=cell_kwargs)
        x, hx = torch.randn(1, B, F), torch.rand(1, B, rnn.state_size)
        last = rnn(x, hx)[1]
        for road, open_road in ROADS.items():
            for parameter in rnn.parameters():
                original = parameter.clone()
                for _ in range(4):
                    part = partial(tuple(parameter.shape), generator)
                    open_road(parameter)[part] += generator.choice([-1, 1]) * generator.uniform(0.5, 2)
                    found = rnn(x, hx)
                    torch.testing.assert_close(found, expected(rnn, x, hx), msg=f"{road}, {part}")
                    assert not torch.equal(found[1], last), f"{road}, {part}"
                    parameter.copy_(original)
                    assert torch.equal(rnn(x, hx)[1], last)


@torch.no_grad()
def test_pruned_and_parametrized_weights_are_those_of_now() -> None:
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)
    rnn = make_rnn("nbrc", F, H)
    cell: Any = rnn.cells[0]
    rnn(x, hx)
    prune.random_unstructured(cell, "weight_hh", 0.5)
    torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
    assert (cell.weight_hh == 0).any()
    before = rnn(x, hx)[1]
    cell.weight_hh_orig.data.mul_(3)
    torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
    assert not torch.equal(rnn(x, hx)[1], before)
    prune.remove(cell, "weight_hh")
    nn.utils.parametrizations.orthogonal(cell, "weight_hh")
    torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
    before = rnn(x, hx)[1]
    cell.parametrizations.weight_hh.original.data[0] += 1
    torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
    assert not torch.equal(rnn(x, hx)[1], before)


@pytest.mark.parametrize("name", ["nbrc", "half_pbrc"])
def test_a_pruned_layer_trains(name: str) -> None:
    rnn = make_rnn(name, F, H)
    prune.random_unstructured(rnn.cells[0], "weight_ih", 0.5)
    optimizer = torch.optim.SGD(rnn.parameters(), lr=0.001)
    x, losses = torch.randn(4, B, F), []
    for _ in range(3):
        optimizer.zero_grad()
        loss = rnn(x)[0].square().sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[1] < losses[0]


def edit(rnn: RNN) -> None:
    for parameter in rnn.parameters():
        parameter.data.add_(0.3)


@pytest.mark.parametrize("name", kernels.KERNELS)
@torch.no_grad()
def test_in_a_scope_steps_keep_the_weights_of_its_entry(name: str) -> None:
    rnn = make_rnn(name, F, H)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, rnn.state_size)
    first = rnn(x, hx)
    with fixed_weights(nn.ModuleDict({"memory": rnn, "head": nn.Linear(H, 2)})):
        torch.testing.assert_close(rnn(x, hx), first, rtol=0, atol=0)
        edit(rnn)
        torch.testing.assert_close(rnn(x, hx), first, rtol=0, atol=0)
        second = expected(rnn, x, hx)  # the reference reads what is there
        with fixed_weights(rnn):
            torch.testing.assert_close(rnn(x, hx), second)
            edit(rnn)
            torch.testing.assert_close(rnn(x, hx), second)
        torch.testing.assert_close(rnn(x, hx), first, rtol=0, atol=0)
    torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
    assert not torch.equal(rnn(x, hx)[1], second[1])


@torch.no_grad()
def test_a_scope_ends_with_an_exception_and_scopes_of_generators_in_any_order() -> None:
    rnn, other = make_rnn("gru", F, H), make_rnn("gru", F, H)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)

    def inside(module: nn.Module) -> Iterator[None]:
        with fixed_weights(module):
            yield

    with pytest.raises(KeyError), fixed_weights(rnn):
        raise KeyError
    edit(rnn)
    torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
    one, two, three = inside(rnn), inside(other), inside(rnn)
    for generator in (one, two, three):
        next(generator)
    three_thread = threading.Thread(target=list, args=(three,))
    list(one)
    three_thread.start()
    three_thread.join()
    edit(rnn)
    torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
    before = other(x, hx)
    edit(other)
    torch.testing.assert_close(other(x, hx), before, rtol=0, atol=0)
    list(two)
    torch.testing.assert_close(other(x, hx), expected(other, x, hx))


@torch.no_grad()
def test_what_packed_weights_cannot_serve_takes_the_long_way() -> None:
    rnn = make_rnn("lstm", F, H)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, 2 * H)
    with fixed_weights(rnn):
        first = rnn(x, hx)
        for copied in (copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
            edit(copied)
            torch.testing.assert_close(copied(x, hx), expected(copied, x, hx))
        rnn.load_state_dict(rnn.state_dict())
        rnn.double()
        torch.testing.assert_close(rnn(x.double(), hx.double()), expected(rnn, x.double(), hx.double()))
        torch.testing.assert_close(rnn(x, hx), first, rtol=0, atol=0)
        torch.testing.assert_close(rnn(x.double().float(), hx), first, rtol=0, atol=0)
        with kernels.use_backend("torch"):
            torch.testing.assert_close(rnn(x.double(), hx.double())[0].float(), first[0])
        rnn.to("meta")  # other parameters: the packed ones are not theirs
        with pytest.raises(ValueError, match="the input is on cpu and the weights are on meta"):
            rnn(x, hx)
    for strange in (make_rnn("gru", F, H, device="meta"), make_rnn("gru", F, H, dtype=torch.bfloat16), nn.Linear(2, 2)):
        with fixed_weights(strange):
            pass
    broken = make_rnn("gru", F, H)
    broken.cells[0].weight_hh = nn.Parameter(torch.zeros(3 * H, H - 1))
    with fixed_weights(broken), pytest.raises(ValueError, match="must be"):
        broken(torch.randn(1, B, F), torch.randn(1, B, H))


def test_gradients_and_sequences_in_a_scope_are_those_of_the_weights_as_they_are() -> None:
    rnn = make_rnn("nbrc", F, H)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)
    with fixed_weights(rnn):
        edit(rnn)
        torch.testing.assert_close(rnn(x, hx), expected(rnn, x, hx))
        with torch.no_grad():
            long = torch.randn(4, B, F)
            torch.testing.assert_close(rnn(long, hx), expected(rnn, long, hx))


@torch.no_grad()
def test_a_step_in_a_scope_can_be_compiled() -> None:
    torch._dynamo.reset()
    rnn = make_rnn("gru", F, H)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, H)
    compiled = torch.compile(rnn, fullgraph=True, backend="aot_eager")
    with fixed_weights(rnn):
        torch.testing.assert_close(compiled(x, hx), rnn(x, hx))
    edit(rnn)
    torch.testing.assert_close(compiled(x, hx), expected(rnn, x, hx))


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_one_thread_acts_while_another_trains_the_same_module(name: str) -> None:
    rnn = make_rnn(name, F, H)
    optimizer = torch.optim.SGD(rnn.parameters(), lr=0.01)
    x, hx = torch.randn(1, B, F), torch.randn(1, B, rnn.state_size)
    failures: list[BaseException] = []
    trained = threading.Event()

    def act() -> None:
        try:
            with torch.no_grad():
                while not trained.is_set():
                    assert rnn(x, hx)[0].isfinite().all()
        except BaseException as error:
            failures.append(error)

    actors = [threading.Thread(target=act) for _ in range(2)]
    for actor in actors:
        actor.start()
    with torch.no_grad(), fixed_weights(rnn):
        mine = rnn(x, hx)
        for _ in range(60):
            with torch.enable_grad():
                optimizer.zero_grad()
                rnn(torch.randn(4, B, F))[0].square().sum().backward()
            optimizer.step()
            torch.testing.assert_close(rnn(x, hx), mine, rtol=0, atol=0)
        now = expected(rnn, x, hx)
        elsewhere: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            other = threading.Thread(target=lambda: elsewhere.append(torch.no_grad()(rnn)(x, hx)))
            other.start()
            other.join()
    trained.set()
    for actor in actors:
        actor.join()
    assert not failures
    torch.testing.assert_close(elsewhere[0], now)  # another thread is not in the scope
    with torch.no_grad():
        torch.testing.assert_close(rnn(x, hx), now)


FORK_IN_SCOPE = """
import os, sys, torch
from bistable_rl import NBRC, fixed_weights
torch.set_grad_enabled(False)
rnn, x, h = NBRC(3, 8), torch.randn(1, 2, 3), torch.zeros(1, 2, 8)
with fixed_weights(rnn):
    before = rnn(x, h)[1]
    child = os.fork()
    if child == 0:
        rnn.cells[0].bias.data.add_(1)
        os._exit(1 if torch.equal(rnn(x, h)[1], before) else 0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_in_a_scope_is_not_in_it() -> None:
    subprocess.run([sys.executable, "-c", FORK_IN_SCOPE], check=True, timeout=60)
