"""The compiled CPU kernels against a plain float64 loop: forward and every gradient."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bistable_rl.kernels import KERNELS, Batch, Weights, cpu, cpu_step
from bistable_rl.kernels.interface import Gradients, Results

BUILT, WHY = cpu.available()
pytestmark = pytest.mark.skipif(not BUILT, reason=WHY)

KINDS = tuple(KERNELS)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}  # of the norm of the error relative to that of the result


class Problem(NamedTuple):
    """The inputs of one call, and random gradients for its results."""

    kind: str
    batch: Batch
    weights: Weights
    grad_outputs: Tensor
    grad_last: Tensor

    def changed(self, **tensors: Any) -> Problem:
        """The same problem with other sequences."""
        return self._replace(batch=self.batch._replace(**tensors))


def forward(p: Problem, *, save: bool = True, recompute: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    return cpu.forward(KERNELS[p.kind], p.batch, p.weights, save=save, recompute=recompute)


def backward(p: Problem, results: Results, *, recompute: bool = False, need_x: bool = True) -> Gradients:
    return cpu.backward(KERNELS[p.kind], p.batch, p.weights, results, recompute=recompute, need_x=need_x)


def equation(kind: str, x: Tensor, s: Tensor, weights: Weights) -> Tensor:
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
    batch, row, outputs = p.batch, 0, []
    H, S = p.weights.weight_hh.shape[1], batch.state.shape[1]
    sizes = [batch.x.shape[1]] * batch.x.shape[0] if batch.batch_sizes is None else batch.batch_sizes.tolist()
    x, state = batch.x.reshape(-1, batch.x.shape[-1]), batch.state
    initial = x.new_zeros(S) if batch.initial is None else batch.initial
    for n in sizes:
        before = state[:n]
        if batch.resets is not None:
            before = torch.where(batch.resets.reshape(-1)[row : row + n, None], initial, before)
        after = equation(p.kind, x[row : row + n], before, p.weights)
        outputs.append(after[:, :H])
        state = torch.cat([after, state[n:]])
        row += n
    stacked = torch.cat(outputs) if outputs else x.new_zeros(0, H)
    return stacked.reshape(*batch.x.shape[:-1], H), state


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
    """A random problem. `bias`: "none", "usual" or "candidate" (with a third block, for brc and nbrc).

    Without `state` the sequences start from the initial state.
    """
    g = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * scale).to(dtype)

    S, gates = (2 * H, 4) if kind == "lstm" else (H, 3)
    own = kind in ("brc", "nbrc")
    blocks = (3 if bias == "candidate" else 2) if own else gates
    shape = {"brc": (2, H), "nbrc": (2 * H, H)}.get(kind, (gates * H, H))
    weights = Weights(
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
    x, start = random(*leading, F), random(B, S, scale=0.5) if state else None
    flags = torch.rand(*leading, generator=g) < 0.2 if resets else None
    learned = random(S, scale=0.5) if initial else None
    if start is None:
        start = x.new_zeros(B, S) if learned is None else learned.repeat(B, 1)
    return Problem(kind, Batch(x, start, flags, learned, sizes), weights, random(*leading, H), random(B, S))


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


def leaf(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.double().requires_grad_() if t.is_floating_point() else t


def truth(p: Problem) -> tuple[Tensor, Tensor, dict[str, Tensor | None]]:
    """Outputs, last state and gradients of the loop in float64."""
    batch, weights = Batch(*map(leaf, p.batch)), Weights(*map(leaf, p.weights))  # type: ignore[arg-type]
    outputs, last = loop(p._replace(batch=batch, weights=weights))
    given = {**batch._asdict(), **weights._asdict()}
    wanted = {name: given[name] for name in Gradients._fields if given[name] is not None}
    total = (outputs * p.grad_outputs.double()).sum() + (last * p.grad_last.double()).sum()
    total = total + sum((0 * t).sum() for t in wanted.values())  # so that T = 0 has a graph too
    found = torch.autograd.grad(total, list(wanted.values()), materialize_grads=True, allow_unused=True)
    return outputs, last, {**dict.fromkeys(Gradients._fields), **dict(zip(wanted, found, strict=True))}


def check(p: Problem, *, threads: int = 1, recompute: bool = False, tolerance: float | None = None) -> None:
    """Compare everything with the float64 loop."""
    tolerance = tolerance or TOLERANCE[p.batch.x.dtype]
    outputs, last, expected = truth(p)

    torch.set_num_threads(threads)
    ours, our_last, saved = forward(p, recompute=recompute)
    rows, H = ours.shape[:-1].numel(), ours.shape[-1]
    assert saved.shape == KERNELS[p.kind].saved_shape(rows, H, recompute=recompute)
    assert ours.shape == outputs.shape
    assert our_last.shape == last.shape
    assert relative_error(ours, outputs) <= tolerance
    assert relative_error(our_last, last) <= tolerance
    gradients = backward(p, Results(ours, saved, p.grad_outputs, p.grad_last), recompute=recompute)
    torch.set_num_threads(1)
    for name, mine in gradients._asdict().items():
        true = expected[name]
        if true is None:
            assert mine is None, name
            continue
        assert mine is not None, name
        assert mine.shape == true.shape, name
        error = relative_error(mine, true)
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
    state = p.batch.state
    hx = state[None] if kind == "gru" else tuple(s[None].contiguous() for s in state.chunk(2, 1))
    torch.testing.assert_close(forward(p)[0], module(p.batch.x, hx)[0])


def test_resets_are_the_boundaries_of_separate_sequences() -> None:
    p = make("nbrc", torch.float64, 9, 4, 3, 8, resets=False)
    resets = torch.zeros(9, 4, dtype=torch.bool)
    resets[5] = True
    whole, whole_last, _ = forward(p.changed(resets=resets))
    first, _, _ = forward(p.changed(x=p.batch.x[:5]))
    second, last, _ = forward(p.changed(x=p.batch.x[5:], state=torch.zeros_like(p.batch.state)))
    torch.testing.assert_close(whole, torch.cat([first, second]))
    torch.testing.assert_close(whole_last, last)


def test_missing_gradients_count_as_zero_and_the_gradient_of_x_is_optional() -> None:
    for kind in KINDS:
        p = make(kind, torch.float64, 5, 3, 4, 6)
        outputs, last, saved = forward(p)
        zeros = backward(p, Results(outputs, saved, torch.zeros_like(outputs), p.grad_last))
        for mine, expected in zip(backward(p, Results(outputs, saved, None, p.grad_last)), zeros, strict=True):
            assert (mine is None and expected is None) or torch.equal(mine, expected)  # type: ignore[arg-type]
        zeros = backward(p, Results(outputs, saved, p.grad_outputs, torch.zeros_like(last)))
        without = backward(p, Results(outputs, saved, p.grad_outputs, None), need_x=False)
        assert without.x is None
        assert torch.equal(without.weight_ih, zeros.weight_ih)  # type: ignore[arg-type]


def test_inputs_need_not_be_contiguous_and_are_left_alone() -> None:
    p = make("gru", torch.float32, 6, 5, 4, 7, resets=True, initial=True)
    assert p.batch.resets is not None
    strange = p.changed(
        x=p.batch.x.transpose(0, 1).contiguous().transpose(0, 1),
        state=p.batch.state[:1].expand(5, 7),
        resets=p.batch.resets.T.contiguous().T,
    )._replace(grad_outputs=torch.ones(()).expand(6, 5, 7))
    given = [t for t in (*strange.batch, *strange.weights) if t is not None]
    before = [t.clone() for t in given]
    check(strange)
    assert all(map(torch.equal, given, before))


def take_step(p: Problem, *, packed: bool = True) -> tuple[Tensor, Tensor]:
    weights = (cpu_step.pack if packed else cpu_step.in_place)(p.kind, p.weights)
    assert weights is not None
    x, state, resets, initial, _ = p.batch
    done = cpu_step.step(weights, x, state[None], resets, initial)
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
        for given in (p.changed(resets=None), p):
            outputs, last, _ = forward(given)
            for packed in (False, True):
                ours, our_last = take_step(given, packed=packed)
                assert torch.equal(ours, outputs)
                assert torch.equal(our_last[0], last)


def test_one_step_leaves_alone_what_it_cannot_read_as_it_is() -> None:
    p = make("nbrc", torch.float32, 1, 4, 5, 8)
    x, state, resets = p.batch.x, p.batch.state[None], torch.zeros(1, 4, dtype=torch.bool)
    both = [cpu_step.pack("nbrc", p.weights), cpu_step.in_place("nbrc", p.weights)]
    without_memory = x.clone()
    without_memory.untyped_storage().resize_(0)
    unreadable = [
        (x[0], state, resets),
        (x.expand(2, 4, 5), state, resets),
        (x[:, :, :4].contiguous(), state, resets),
        (x.mT.contiguous().mT, state, resets),
        (x.double(), state.double(), resets),
        (x.to("meta"), state, resets),
        (x, p.batch.state, resets),
        (x, state[:, :3], resets),
        (x, state.mT.contiguous().mT, resets),
        (x, state.double(), resets),
        (x, state.to("meta"), resets),
        (x, state, resets[0]),
        (x, state, resets.float()),
        (x, state, resets.repeat(1, 2)[:, ::2]),
        (x, state, resets.to("meta")),
        (x.to_sparse(), state, resets),
        (x.to_mkldnn(), state, resets),
        (torch._neg_view(x), state, resets),
        (without_memory, state, resets),
    ]
    for weights in both:
        assert weights is not None
        assert cpu_step.step(weights, x, state, resets) is not None
        for bad_x, h, r in unreadable:
            assert cpu_step.step(weights, bad_x, h, r) is None, (bad_x.shape, h.shape, r.shape)
        for initial in (torch.zeros(7), torch.zeros(8).double(), torch.zeros(8, device="meta"), torch.zeros(16)[::2]):
            assert cpu_step.step(weights, x, state, resets, initial) is None


def test_packed_weights_outlive_those_that_they_were_made_of() -> None:
    for kind in KINDS:
        p = make(kind, torch.float32, 1, 4, 5, 8)
        expected = take_step(p)
        weights = cpu_step.pack(kind, p.weights)
        assert weights is not None
        for parameter in p.weights:
            if parameter is not None:
                parameter.fill_(torch.nan).untyped_storage().resize_(0)
        found = cpu_step.step(weights, p.batch.x, p.batch.state[None], None)
        assert found is not None
        assert torch.equal(found[0], expected[0])


def test_weights_are_packed_as_their_tensors_read_not_as_they_lie() -> None:
    p = make("nbrc", torch.float32, 1, 4, 5, 8)
    w_ih, w_hh, bias, _ = p.weights
    strange = p._replace(weights=Weights(w_ih.T.contiguous().T, torch._neg_view(w_hh.neg()), bias))
    assert cpu_step.in_place("nbrc", strange.weights) is None
    assert torch.equal(take_step(strange)[0], take_step(p)[0])
    assert torch.equal(forward(strange)[0], take_step(p)[0])


def test_a_binary_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_INTERFACE", -1)
    assert cpu._load.__wrapped__() == (
        None,
        "the C++ kernels were built from another version of their sources; install the package again",
    )


def test_not_a_number_is_passed_on() -> None:
    for kind in KINDS:
        p = make(kind, torch.float32, 3, 2, 2, 4)
        p.batch.x[0, 0, 0] = float("nan")
        outputs, _, _ = forward(p)
        assert outputs[:, 0].isnan().all()
        assert not outputs[:, 1].isnan().any()


def test_saturated_gates_are_exact_and_states_stay_within_one() -> None:
    w_ih = torch.tensor([[0.0], [1000.0], [1000.0]])  # a, c, candidate of one unit: c is 1 where x > 0
    w_hh = torch.zeros(2, 1)
    batch = Batch(torch.ones(1000, 1, 1), torch.tensor([[0.3]]))
    hold = cpu.forward(KERNELS["brc"], batch, Weights(w_ih, w_hh), save=False, recompute=False)[0]
    assert (hold == torch.tensor(0.3)).all()
    x = 20 * torch.randn(50, 7, 3, generator=torch.Generator().manual_seed(0))
    for kind in KINDS:
        p = make(kind, torch.float32, 50, 7, 3, 19, state=False)
        assert (forward(p.changed(x=x))[0].abs() <= 1).all()


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
                expected = equation(kind, p.batch.x[0], p.batch.state, p.weights)
                for packed in (False, True):
                    torch.testing.assert_close(take_step(p, packed=packed)[1][0], expected)
    finally:
        library.brl_choose_isa(-1)


def test_vanishing_gradients_are_flushed_but_only_inside() -> None:
    p = make("gru", torch.float32, 200, 2, 1, 8, state=False)
    outputs, _, saved = forward(p)
    tiny = torch.full_like(outputs, 1e-40)
    gradients = backward(p, Results(outputs, saved, tiny))
    assert gradients.weight_hh is not None
    assert (gradients.weight_hh == 0).all()
    assert (tiny * 0.5 != 0).all()


def test_results_do_not_depend_on_the_run() -> None:
    p = make("nbrc", torch.float32, 40, 30, 20, 40)

    def once() -> list[Tensor]:
        outputs, _, saved = forward(p)
        return [t for t in backward(p, Results(outputs, saved, p.grad_outputs)) if t is not None]

    torch.set_num_threads(2)
    first = once()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, once(), strict=True))


def test_calls_from_several_threads_do_not_disturb_each_other() -> None:
    problems = [make(kind, torch.float32, 30, 20, 5, 24, seed=i) for i, kind in enumerate(KINDS)]
    expected = [forward(p)[0] for p in problems]
    wrong: list[str] = []

    def work(p: Problem, truth: Tensor) -> None:
        for _ in range(20):
            if not torch.equal(forward(p)[0], truth):
                wrong.append(p.kind)

    workers = [threading.Thread(target=work, args=a) for a in zip(problems, expected, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


FORK = """
import os, sys, torch
from bistable_rl.kernels import KERNELS, Batch, Weights, cpu
torch.set_num_threads(2)
batch, weights = Batch(torch.randn(50, 40, 8), torch.zeros(40, 64)), Weights(torch.randn(192, 8), torch.randn(128, 64))
# torch's own operators may hang in the child
run = lambda: cpu.forward(KERNELS["nbrc"], batch, weights, save=False, recompute=False)[0][-1].tolist()
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
