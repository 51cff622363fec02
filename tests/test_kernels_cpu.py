"""The compiled CPU kernels against a plain float64 loop: forward and every gradient."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from bistable_rl.kernels import cpu, cpu_step

BUILT, WHY = cpu.available()
pytestmark = pytest.mark.skipif(not BUILT, reason=WHY)

KINDS = ("brc", "nbrc", "gru", "lstm")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}  # of the norm of the error relative to that of the result


class Problem(NamedTuple):
    """The inputs of one call, and random gradients for its results."""

    kind: str
    x: Tensor
    state: Tensor | None
    resets: Tensor | None
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None]
    batch_sizes: Tensor | None
    initial: Tensor | None
    grad_outputs: Tensor
    grad_final: Tensor


def equation(kind: str, x: Tensor, s: Tensor, weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None]) -> Tensor:
    """One step, from the papers' equations."""
    w_ih, w_hh, b_ih, b_hh = weights
    if kind in ("brc", "nbrc"):
        H = s.shape[1]
        p = x @ w_ih.T
        if b_ih is not None:
            p = p + torch.cat([b_ih, b_ih.new_zeros(3 * H - b_ih.shape[0])])
        r = torch.cat([s * w_hh[0], s * w_hh[1]], 1) if kind == "brc" else s @ w_hh.T
        a = 1 + torch.tanh(p[:, :H] + r[:, :H])
        c = torch.sigmoid(p[:, H : 2 * H] + r[:, H:])
        return c * s + (1 - c) * torch.tanh(p[:, 2 * H :] + a * s)
    p = x @ w_ih.T if b_ih is None else x @ w_ih.T + b_ih
    if kind == "gru":
        r, z, n = p.chunk(3, 1)
        q = s @ w_hh.T if b_hh is None else s @ w_hh.T + b_hh
        hr, hz, hn = q.chunk(3, 1)
        z = torch.sigmoid(z + hz)
        return z * s + (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn)
    h, c = s.chunk(2, 1)
    p = p + h @ w_hh.T
    i, f, g, o = (p if b_hh is None else p + b_hh).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], 1)


def loop(p: Problem) -> tuple[Tensor, Tensor]:
    """The whole sequence, step by step."""
    H = p.weights[0].shape[0] // (4 if p.kind == "lstm" else 3)
    S = 2 * H if p.kind == "lstm" else H
    if p.batch_sizes is None:
        sizes, B = [p.x.shape[1]] * p.x.shape[0], p.x.shape[1]
    else:
        sizes = p.batch_sizes.tolist()
        B = sizes[0]
    x, outputs, row = p.x.reshape(-1, p.x.shape[-1]), [], 0
    initial = p.x.new_zeros(S) if p.initial is None else p.initial
    state = initial.expand(B, S) if p.state is None else p.state
    for n in sizes:
        before = state[:n]
        if p.resets is not None:
            before = torch.where(p.resets.reshape(-1)[row : row + n, None], initial, before)
        after = equation(p.kind, x[row : row + n], before, p.weights)
        outputs.append(after[:, :H])
        state = torch.cat([after, state[n:]])
        row += n
    stacked = torch.cat(outputs) if outputs else p.x.new_zeros(0, H)
    return stacked.reshape(*p.x.shape[:-1], H), state


def make(
    kind: str,
    dtype: torch.dtype,
    T: int,
    B: int,
    F: int,
    H: int,
    *,
    bias: str = "usual",
    state: bool = True,
    resets: bool = False,
    packed: bool = False,
    initial: bool = False,
    seed: int = 0,
) -> Problem:
    """A random problem. `bias`: "none", "usual" or "candidate" (with a third block, for brc and nbrc)."""
    g = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * scale).to(dtype)

    S, gates = (2 * H, 4) if kind == "lstm" else (H, 3)
    own = kind in ("brc", "nbrc")
    blocks = (3 if bias == "candidate" else 2) if own else gates
    shape = {"brc": (2, H), "nbrc": (2 * H, H)}.get(kind, (gates * H, H))
    weights = (
        random(gates * H, F, scale=F**-0.5),
        random(*shape, scale=1 if kind == "brc" else H**-0.5),
        None if bias == "none" else random(blocks * H),
        None if bias == "none" or own else random(gates * H),
    )
    sizes = None
    leading: tuple[int, ...] = (T, B)
    if packed:
        lengths = torch.randint(1, T + 1, (B,), generator=g).sort(descending=True).values
        lengths[0] = T
        sizes = torch.tensor([int((lengths > t).sum()) for t in range(T)])
        leading = (int(sizes.sum()),)
    return Problem(
        kind,
        random(*leading, F),
        random(B, S, scale=0.5) if state else None,
        torch.rand(*leading, generator=g) < 0.2 if resets else None,
        weights,
        sizes,
        random(S, scale=0.5) if initial else None,
        random(*leading, H),
        random(B, S),
    )


def relative_error(ours: Tensor, truth: Tensor) -> float:
    if ours.numel() == 0:
        return 0.0
    truth = truth.detach()
    return float((ours.double() - truth).norm() / truth.norm().clamp_min(1e-6))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The loops of small operators below are slower on two threads; our calls ask for theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(p: Problem, *, threads: int = 1, recompute: bool = False, tolerance: float | None = None) -> None:
    """Compare everything with the float64 loop."""
    tolerance = tolerance or TOLERANCE[p.x.dtype]

    def leaf(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.double().requires_grad_()

    x = leaf(p.x)
    assert x is not None
    weights = tuple(leaf(w) for w in p.weights)
    exact = p._replace(x=x, state=leaf(p.state), initial=leaf(p.initial), weights=weights)  # type: ignore[arg-type]
    outputs, final = loop(exact)
    leaves = [exact.x, exact.state, *exact.weights, exact.initial]
    wanted = [t for t in leaves if t is not None]
    total = (outputs * p.grad_outputs.double()).sum() + (final * p.grad_final.double()).sum()
    total = total + sum((0 * t).sum() for t in wanted)  # so that T = 0 has a graph too
    found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    truth = [None if t is None else next(found) for t in leaves]

    torch.set_num_threads(threads)
    ours, ours_final, saved = cpu.forward(
        p.kind, p.x, p.state, p.resets, *p.weights, batch_sizes=p.batch_sizes, initial=p.initial, recompute=recompute
    )
    N = ours.reshape(-1, ours.shape[-1]).shape[0] if ours.shape[-1] else 0
    assert saved.shape == cpu.saved_shape(p.kind, N, ours.shape[-1], recompute=recompute)
    assert ours.shape == outputs.shape
    assert ours_final.shape == final.shape
    assert relative_error(ours, outputs) <= tolerance
    assert relative_error(ours_final, final) <= tolerance
    gradients = cpu.backward(
        p.kind,
        p.grad_outputs,
        p.grad_final,
        p.x,
        p.state,
        p.resets,
        *p.weights,
        ours,
        saved,
        batch_sizes=p.batch_sizes,
        initial=p.initial,
        recompute=recompute,
    )
    torch.set_num_threads(1)
    for name, mine, given, true in zip(gradients._fields, gradients, leaves, truth, strict=True):
        if given is None:
            assert mine is None, name
            continue
        assert mine is not None, name
        assert mine.shape == given.shape, name
        expected = torch.zeros_like(given) if true is None else true
        error = relative_error(mine, expected)
        assert error <= 4 * tolerance, f"gradient of {name}: relative error {error:.1e}"


OPTIONS = [
    dict(zip(("resets", "initial", "packed", "state"), o, strict=True))
    for o in itertools.product((False, True), (False, True), (False, True), (True, False))
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradients_are_those_of_the_plain_loop(kind: str, dtype: torch.dtype, threads: int) -> None:
    for seed, options in enumerate(OPTIONS):
        F, H = ((1, 5), (3, 33), (20, 16), (1, 32))[seed % 4]
        bias = ("usual", "candidate", "none")[seed % 3]
        check(make(kind, dtype, 6, 9, F, H, seed=seed, bias=bias, **options), recompute=seed % 5 < 2, threads=threads)


@pytest.mark.parametrize(("T", "B", "F", "H"), [(0, 3, 2, 4), (1, 3, 2, 4), (5, 0, 2, 4), (0, 0, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_empty_and_single_steps_and_batches(kind: str, T: int, B: int, F: int, H: int) -> None:
    for resets, initial, state in itertools.product((False, True), repeat=3):
        check(make(kind, torch.float64, T, B, F, H, resets=resets, initial=initial, state=state))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_long_sequences_of_many_chunks_and_slices(kind: str, threads: int) -> None:
    check(make(kind, torch.float32, 20, 300, 17, 40, resets=True, initial=True), threads=threads)
    check(make(kind, torch.float32, 60, 20, 1, 130, resets=True), recompute=True, threads=threads)
    check(make(kind, torch.float32, 60, 140, 70, 24, packed=True, initial=True), threads=threads)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_gru_and_lstm_equal_those_of_torch(kind: str) -> None:
    p = make(kind, torch.float64, 12, 5, 6, 10)
    module = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind](6, 10, dtype=torch.float64)
    for parameter, value in zip(module.parameters(), p.weights, strict=True):
        parameter.data = value
    assert p.state is not None
    hx = p.state[None] if kind == "gru" else tuple(s[None].contiguous() for s in p.state.chunk(2, 1))
    torch.testing.assert_close(cpu.forward(kind, p.x, p.state, None, *p.weights)[0], module(p.x, hx)[0])


def test_resets_are_the_boundaries_of_separate_sequences() -> None:
    p = make("nbrc", torch.float64, 9, 4, 3, 8, resets=False)
    resets = torch.zeros(9, 4, dtype=torch.bool)
    resets[5] = True
    whole, final, _ = cpu.forward("nbrc", p.x, p.state, resets, *p.weights)
    first, _, _ = cpu.forward("nbrc", p.x[:5], p.state, None, *p.weights)
    second, last, _ = cpu.forward("nbrc", p.x[5:], None, None, *p.weights)
    torch.testing.assert_close(whole, torch.cat([first, second]))
    torch.testing.assert_close(final, last)


def test_missing_gradients_count_as_zero_and_the_gradient_of_x_is_optional() -> None:
    for kind in KINDS:
        p = make(kind, torch.float64, 5, 3, 4, 6)
        outputs, final, saved = cpu.forward(kind, p.x, p.state, None, *p.weights)
        rest = (p.x, p.state, None, *p.weights, outputs, saved)
        zeros = cpu.backward(kind, torch.zeros_like(outputs), p.grad_final, *rest)
        for mine, expected in zip(cpu.backward(kind, None, p.grad_final, *rest), zeros, strict=True):
            assert (mine is None and expected is None) or torch.equal(mine, expected)  # type: ignore[arg-type]
        zeros = cpu.backward(kind, p.grad_outputs, torch.zeros_like(final), *rest)
        without = cpu.backward(kind, p.grad_outputs, None, *rest, need_x=False)
        assert without.x is None
        assert torch.equal(without.weight_ih, zeros.weight_ih)


def test_inputs_need_not_be_contiguous_and_are_left_alone() -> None:
    p = make("gru", torch.float32, 6, 5, 4, 7, resets=True, initial=True)
    assert p.resets is not None
    assert p.state is not None
    strange = p._replace(
        x=p.x.transpose(0, 1).contiguous().transpose(0, 1),
        state=p.state[:1].expand(5, 7),
        resets=p.resets.T.contiguous().T,
        grad_outputs=torch.ones(()).expand(6, 5, 7),
    )
    before = [t.clone() for t in (strange.x, strange.state, strange.resets, *p.weights) if t is not None]
    check(strange)
    after = [t for t in (strange.x, strange.state, strange.resets, *p.weights) if t is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def take_step(p: Problem, resets: Tensor | None = None, *, packed: bool = True) -> tuple[Tensor, Tensor]:
    assert p.state is not None
    weights = cpu_step.pack(p.kind, p.weights) if packed else cpu_step.unpacked(p.kind, p.weights)
    assert weights is not None
    done = cpu_step.step(weights, p.x, p.state[None], resets, p.initial)
    assert done is not None
    return done


@pytest.mark.parametrize("through_ctypes", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_step_is_the_forward_pass_of_length_one(
    kind: str, through_ctypes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if through_ctypes:  # as where Python's headers were missing at the build
        monkeypatch.setattr(cpu_step, "_compiled", lambda: (cpu.library().brl_step, cpu.library().brl_step_once))
    for dtype, B in ((torch.float32, 3), (torch.float64, 200), (torch.float32, 0)):
        p = make(kind, dtype, 1, B, 5, 21, resets=True, initial=True)
        for resets in (None, p.resets):
            outputs, final, _ = cpu.forward(kind, p.x, p.state, resets, *p.weights, initial=p.initial)
            for packed in (False, True):
                ours, last = take_step(p, resets, packed=packed)
                assert torch.equal(ours, outputs)
                assert torch.equal(last[0], final)


def test_one_step_leaves_alone_what_it_cannot_read_as_it_is() -> None:
    p = make("nbrc", torch.float32, 1, 4, 5, 8)
    assert p.state is not None
    state, resets = p.state[None], torch.zeros(1, 4, dtype=torch.bool)
    both = [cpu_step.pack("nbrc", p.weights), cpu_step.unpacked("nbrc", p.weights)]
    without_memory = p.x.clone()
    without_memory.untyped_storage().resize_(0)
    unreadable = [
        (p.x[0], state, resets),
        (p.x.expand(2, 4, 5), state, resets),
        (p.x[:, :, :4].contiguous(), state, resets),
        (p.x.mT.contiguous().mT, state, resets),
        (p.x.double(), state.double(), resets),
        (p.x.to("meta"), state, resets),
        (p.x, p.state, resets),
        (p.x, state[:, :3], resets),
        (p.x, state.mT.contiguous().mT, resets),
        (p.x, state.double(), resets),
        (p.x, state.to("meta"), resets),
        (p.x, state, resets[0]),
        (p.x, state, resets.float()),
        (p.x, state, resets.repeat(1, 2)[:, ::2]),
        (p.x, state, resets.to("meta")),
        (p.x.to_sparse(), state, resets),
        (p.x.to_mkldnn(), state, resets),
        (torch._neg_view(p.x), state, resets),
        (without_memory, state, resets),
    ]
    for weights in both:
        assert weights is not None
        assert cpu_step.step(weights, p.x, state, resets) is not None
        for x, h, r in unreadable:
            assert cpu_step.step(weights, x, h, r) is None, (x.shape, h.shape, r.shape)
        for initial in (torch.zeros(7), torch.zeros(8).double(), torch.zeros(8, device="meta"), torch.zeros(16)[::2]):
            assert cpu_step.step(weights, p.x, state, resets, initial) is None


def test_packed_weights_outlive_those_that_they_were_made_of() -> None:
    for kind in KINDS:
        p = make(kind, torch.float32, 1, 4, 5, 8)
        expected = take_step(p)
        weights = cpu_step.pack(kind, p.weights)
        assert weights is not None
        for parameter in p.weights:
            if parameter is not None:
                parameter.fill_(torch.nan).untyped_storage().resize_(0)
        assert p.state is not None
        found = cpu_step.step(weights, p.x, p.state[None], None)
        assert found is not None
        assert torch.equal(found[0], expected[0])


def test_weights_are_packed_as_their_tensors_read_not_as_they_lie() -> None:
    p = make("nbrc", torch.float32, 1, 4, 5, 8)
    w_ih, w_hh, bias, _ = p.weights
    strange = p._replace(weights=(w_ih.T.contiguous().T, torch._neg_view(w_hh.neg()), bias, None))
    assert cpu_step.unpacked("nbrc", strange.weights) is None
    assert torch.equal(take_step(strange)[0], take_step(p)[0])
    assert torch.equal(cpu.forward("nbrc", p.x, p.state, None, *strange.weights)[0], take_step(p)[0])


def test_a_binary_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_INTERFACE", -1)
    assert cpu._load.__wrapped__() == (
        None,
        "the C++ kernels were built from another version of their sources; install again",
    )


def test_not_a_number_is_passed_on() -> None:
    for kind in KINDS:
        p = make(kind, torch.float32, 3, 2, 2, 4)
        p.x[0, 0, 0] = float("nan")
        outputs, _, _ = cpu.forward(kind, p.x, p.state, None, *p.weights)
        assert outputs[:, 0].isnan().all()
        assert not outputs[:, 1].isnan().any()


def test_saturated_gates_are_exact_and_states_stay_within_one() -> None:
    w_ih = torch.tensor([[0.0], [1000.0], [1000.0]])  # a, c, candidate of one unit: c is 1 where x > 0
    w_hh = torch.zeros(2, 1)
    hold = cpu.forward("brc", torch.ones(1000, 1, 1), torch.tensor([[0.3]]), None, w_ih, w_hh)[0]
    assert (hold == torch.tensor(0.3)).all()
    x = 20 * torch.randn(50, 7, 3, generator=torch.Generator().manual_seed(0))
    for kind in KINDS:
        p = make(kind, torch.float32, 50, 7, 3, 19, state=False)
        assert (cpu.forward(kind, x, None, None, *p.weights)[0].abs() <= 1).all()


def test_every_instruction_set_gives_the_same_results() -> None:
    library = cpu.library()
    best = library.brl_choose_isa(-1)
    try:
        for isa in range(best + 1):
            assert library.brl_choose_isa(isa) == isa
            for kind, dtype in itertools.product(KINDS, TOLERANCE):
                check(make(kind, dtype, 5, 11, 18, 37, resets=True, initial=True))
                check(make(kind, dtype, 5, 11, 1, 20, packed=True), recompute=True)
                p = make(kind, dtype, 1, 6, 4, 9)
                expected = equation(kind, p.x[0], p.state, p.weights)  # type: ignore[arg-type]
                for packed in (False, True):
                    torch.testing.assert_close(take_step(p, packed=packed)[1][0], expected)
    finally:
        library.brl_choose_isa(-1)


def test_vanishing_gradients_are_flushed_but_only_inside() -> None:
    p = make("gru", torch.float32, 200, 2, 1, 8, state=False)
    outputs, _, saved = cpu.forward("gru", p.x, None, None, *p.weights)
    tiny = torch.full_like(outputs, 1e-40)
    gradients = cpu.backward("gru", tiny, None, p.x, None, None, *p.weights, outputs, saved)
    assert (gradients.weight_hh == 0).all()
    assert (tiny * 0.5 != 0).all()


def test_results_do_not_depend_on_the_run() -> None:
    p = make("nbrc", torch.float32, 40, 30, 20, 40)

    def once() -> list[Tensor]:
        outputs, _, saved = cpu.forward("nbrc", p.x, p.state, None, *p.weights)
        g = cpu.backward("nbrc", p.grad_outputs, None, p.x, p.state, None, *p.weights, outputs, saved)
        return [t for t in g if t is not None]

    torch.set_num_threads(2)
    first = once()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, once(), strict=True))


def test_calls_from_several_threads_do_not_disturb_each_other() -> None:
    problems = [make(kind, torch.float32, 30, 20, 5, 24, seed=i) for i, kind in enumerate(KINDS)]
    expected = [cpu.forward(p.kind, p.x, p.state, None, *p.weights)[0] for p in problems]
    wrong: list[str] = []

    def work(p: Problem, truth: Tensor) -> None:
        for _ in range(20):
            if not torch.equal(cpu.forward(p.kind, p.x, p.state, None, *p.weights)[0], truth):
                wrong.append(p.kind)

    workers = [threading.Thread(target=work, args=a) for a in zip(problems, expected, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


FORK = """
import os, sys, torch
from bistable_rl.kernels import cpu
torch.set_num_threads(2)
x, w_ih, w_hh = torch.randn(50, 40, 8), torch.randn(192, 8), torch.randn(128, 64) / 8
run = lambda: cpu.forward("nbrc", x, None, None, w_ih, w_hh)[0][-1].tolist()  # torch's own operators may hang there
torch.randn(500, 500) @ torch.randn(500, 500)
if sys.argv[1] == "used":
    run()
child = os.fork()
if child == 0:
    os._exit(0 if len(run()) == 40 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("before", ["used", "unused"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_works_on_one_thread(before: str) -> None:
    subprocess.run([sys.executable, "-c", FORK, before], check=True, timeout=30)


def test_no_second_openmp_runtime_is_loaded() -> None:
    code = (
        "import sys, torch; from bistable_rl.kernels import cpu; assert cpu.available()[0];"
        "assert cpu.library().brl_shares_threads() or sys.platform != 'linux';"
        "maps = [l.split()[-1] for l in open('/proc/self/maps') if 'omp' in l.rsplit('/', 1)[-1]];"
        "assert len(set(maps)) <= 1, set(maps)"
    )
    if not os.path.exists("/proc/self/maps"):
        pytest.skip("needs /proc")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
