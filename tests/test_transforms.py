"""Forward-mode AD, torch.func, batched gradients and second derivatives: what nn.GRU does, the layers do."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, stack_module_state, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from bistable_rl import kernels
from bistable_rl.cells import CELLS, GRUCell, cell_options
from bistable_rl.kernels import torch_state
from bistable_rl.rnn import RNN, from_torch, make_rnn

T, B, F, H = 3, 2, 3, 4
NAMES = list(CELLS)
RECOMPUTE = [(name, False) for name in NAMES] + [(n, True) for n in NAMES if "recompute" in cell_options(n)]
TORCHS = pytest.mark.parametrize("theirs", [nn.GRU, nn.LSTM])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(name: str, recompute: bool = False, layers: int = 1, bidirectional: bool = False) -> RNN:
    options: dict[str, object] = {"learn_initial_state": True, **({"recompute": True} if recompute else {})}
    rnn = make_rnn(name, F, H, layers, bidirectional=bidirectional, cell_kwargs=options, dtype=torch.float64)
    with torch.no_grad():
        for parameter in rnn.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return rnn


def pair(theirs: type[nn.GRU] | type[nn.LSTM]) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Our layers' outputs and torch's, of the same weights."""
    module = theirs(F, H, 2, bidirectional=True, dtype=torch.float64)
    rnn = from_torch(module)
    return lambda x: rnn(x)[0], lambda x: module(x)[0]


def tangent(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(f(forward_ad.make_dual(x, direction))).tangent
    assert found is not None
    return found


def inputs(rnn: RNN) -> tuple[Tensor, Tensor, Tensor]:
    """A sequence, a state and resets."""
    hx = torch.randn(len(rnn.cells), B, rnn.state_size, dtype=torch.float64) / 3
    return torch.randn(T, B, F, dtype=torch.float64), hx, torch.rand(T, B) < 0.4


def test_torchs_private_names_say_what_they_are_asked_for() -> None:
    seen: list[tuple[bool, bool]] = []

    def look(x: Tensor) -> Tensor:
        seen.append((torch_state.transforms_active(), torch_state.forward_mode_active()))
        return x.sum()

    x = torch.randn(3)
    look(x)
    for transform in (grad, jacrev, jacfwd, hessian, vmap):
        transform(look)(x)
    jvp(look, (x,), (x,))
    vjp(look, x)
    assert seen.pop(0) == (False, False)
    assert all(transformed for transformed, _ in seen)
    with forward_ad.dual_level():
        assert torch_state.forward_mode_active()
    assert not torch_state.forward_mode_active()

    assert not torch_state.modes_active()
    modes: list[bool] = []

    def see(x: Tensor) -> Tensor:
        modes.append(torch_state.modes_active())
        return x + 1

    make_fx(see)(x)
    assert modes == [True]

    batched: list[bool] = []
    y = x.clone().requires_grad_()
    z = y * 2
    z.register_hook(lambda gradient: batched.append(torch_state.is_batched_gradient(gradient)))
    torch.autograd.grad(z, y, torch.eye(3), is_grads_batched=True, retain_graph=True)
    torch.autograd.grad(z, y, torch.ones(3))
    assert batched == [True, False]


@pytest.mark.parametrize(("name", "recompute"), RECOMPUTE)
def test_first_derivatives_forward_backward_and_batched(name: str, recompute: bool) -> None:
    rnn = make(name, recompute, 2, True)
    x, hx, resets = inputs(rnn)
    assert torch.autograd.gradcheck(
        lambda x, hx: rnn(x, hx, resets),
        (x.requires_grad_(), hx.requires_grad_()),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        fast_mode=True,
    )


@pytest.mark.parametrize(("name", "recompute"), RECOMPUTE)
def test_second_derivatives_of_inputs_and_weights(name: str, recompute: bool) -> None:
    rnn = make(name, recompute)
    x, hx, resets = inputs(rnn)
    names, weights = zip(*rnn.named_parameters(), strict=True)

    def run(x: Tensor, hx: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        return functional_call(rnn, dict(zip(names, weights, strict=True)), (x, hx, resets))

    assert torch.autograd.gradgradcheck(
        run,
        (x.requires_grad_(), hx.requires_grad_(), *weights),
        check_batched_grad=True,
        check_fwd_over_rev=True,
        fast_mode=True,
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("through_operator", [False, True])
@pytest.mark.parametrize("name", kernels.KERNELS)
def test_a_gradient_penalty_is_the_plain_loops(name: str, through_operator: bool, bias: bool) -> None:
    cell = CELLS[name](F, H, bias, learn_initial_state=True, dtype=torch.float64)
    data, sizes = torch.randn(6, F, dtype=torch.float64), torch.tensor([3, 2, 1])
    x = nn.Parameter(data) if through_operator else data.requires_grad_()  # whose type tells the roads apart
    resets = torch.tensor([0, 1, 0, 0, 1, 0])
    wanted = [x, *cell.parameters()]
    results = []
    for backend in (None, "reference"):
        with kernels.use_backend(backend), kernels.watch() as ran:
            outputs, last = cell.scan(x, None, resets, sizes)
            first = torch.autograd.grad(outputs.square().sum() + last.sum(), wanted, create_graph=True)
            second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), wanted)
        results.append([*first, *second])
        assert (name, "reference") in ran
        assert len(ran) == 1 + (backend is None)  # forward by a kernel, unless the reference was asked for
    torch.testing.assert_close(results[0], results[1])


@TORCHS
@pytest.mark.parametrize("enabled", [True, False])
def test_frozen_layers_pass_on_the_tangent_of_their_input(theirs: type[nn.GRU], enabled: bool) -> None:
    module = theirs(F, H, dtype=torch.float64).requires_grad_(False)
    rnn = from_torch(module)
    x, direction = torch.randn(2, T, B, F, dtype=torch.float64)
    with torch.set_grad_enabled(enabled), kernels.watch() as ran:
        found, expected = (tangent(f, x, direction) for f in (lambda x: rnn(x)[0], lambda x: module(x)[0]))
    torch.testing.assert_close(found, expected)
    assert ran == {(rnn.cell, "reference")}


def test_a_frozen_layers_tangent_adds_to_that_of_its_input() -> None:
    module = nn.GRU(4, 4).requires_grad_(False)
    rnn = from_torch(module)
    y, direction = torch.randn(2, 5, 3, 4)
    with torch.no_grad():
        found = tangent(lambda y: y + rnn(y)[0], y, direction).norm()
    torch.testing.assert_close(found, tangent(lambda y: y + module(y)[0], y, direction).norm())
    assert abs(found - direction.norm()) > 0.01  # what it was while the layer's own was dropped


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("steps", [1, T])
@pytest.mark.parametrize("name", NAMES)
def test_whatever_alone_has_a_tangent_moves_output_and_state(
    name: str, steps: int, frozen: bool, enabled: bool
) -> None:
    rnn = make(name).requires_grad_(not frozen)
    x, hx, _ = inputs(rnn)
    x, resets = x[:steps], torch.zeros(steps, B)
    resets[-1, 0] = 1
    weights = {key: value.detach() for key, value in rnn.named_parameters()}
    given: dict[str, Tensor] = {"x": x, "hx": hx, **weights}

    def run(varied: str, value: Tensor) -> tuple[Tensor, Tensor]:
        now = {**given, varied: value}
        return functional_call(rnn, {key: now[key] for key in weights}, (now["x"], now["hx"], resets))

    for varied, value in given.items():
        direction, step = torch.randn_like(value), 1e-6
        with torch.set_grad_enabled(enabled):
            found = jvp(lambda value, varied=varied: run(varied, value), (value,), (direction,))[1]
            with forward_ad.dual_level():
                dual = run(varied, forward_ad.make_dual(value, direction))
                found_dual = [forward_ad.unpack_dual(d).tangent for d in dual]
            ends = [run(varied, value + sign * step * direction) for sign in (-1, 1)]
        for f, d, low, high in zip(found, found_dual, *ends, strict=True):
            expected = (high - low) / (2 * step)
            torch.testing.assert_close(f, expected, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(torch.zeros_like(f) if d is None else d, expected, rtol=1e-5, atol=1e-7)


@TORCHS
def test_jacobians_and_hessians_are_torchs(theirs: type[nn.GRU]) -> None:
    ours, torchs = pair(theirs)
    x, direction = torch.randn(2, T, B, F, dtype=torch.float64)
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(transform(ours)(x), transform(torchs)(x))
    torch.testing.assert_close(grad(lambda x: ours(x).square().sum())(x), grad(lambda x: torchs(x).square().sum())(x))
    torch.testing.assert_close(jvp(ours, (x,), (direction,)), jvp(torchs, (x,), (direction,)))
    torch.testing.assert_close(linearize(ours, x)[1](direction), jvp(torchs, (x,), (direction,))[1])
    output, pull, *_ = vjp(ours, x)
    torch.testing.assert_close(pull(output), vjp(torchs, x)[1](output))
    small = x[:2, :1]
    expected = hessian(lambda x: torchs(x).square().sum())(small)
    torch.testing.assert_close(hessian(lambda x: ours(x).square().sum())(small), expected)
    for vectorize in (False, True):
        found = torch.autograd.functional.hessian(lambda x: ours(x).square().sum(), small, vectorize=vectorize)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.functional.jacobian(ours, x, vectorize=True, strategy="forward-mode"), jacrev(torchs)(x)
    )


@pytest.mark.parametrize(("name", "recompute"), RECOMPUTE)
def test_a_map_over_inputs_and_one_over_weights(name: str, recompute: bool) -> None:
    models = [make(name, recompute) for _ in range(3)]
    x, hx, resets = inputs(models[0])
    found = vmap(lambda x: models[0](x, hx, resets))(torch.stack([x, 2 * x]))
    expected = zip(*[models[0](x, hx, resets) for x in (x, 2 * x)], strict=True)
    torch.testing.assert_close(found, tuple(torch.stack(e) for e in expected))

    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    ensemble = vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,))[0], in_dims=(0, 0, None))
    torch.testing.assert_close(ensemble(parameters, buffers, x), torch.stack([model(x)[0] for model in models]))

    weights = {key: value.detach() for key, value in models[0].named_parameters()}
    each = vmap(grad(lambda p, x: functional_call(models[0], p, (x,))[0].square().sum()), in_dims=(None, 1))(weights, x)
    for b in range(B):
        alone = torch.autograd.grad(models[0](x[:, b])[0].square().sum(), list(models[0].parameters()))
        torch.testing.assert_close([each[key][b] for key in weights], list(alone))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_step_of_acting_is_mapped_too(name: str) -> None:
    rnn = make(name)
    _, hx, resets = inputs(rnn)
    xs = torch.randn(4, 1, B, F, dtype=torch.float64)
    found = vmap(lambda x: rnn(x, hx, resets[:1]))(xs)
    torch.testing.assert_close(found[0], torch.stack([rnn(x, hx, resets[:1])[0] for x in xs]))


@pytest.mark.parametrize("through_operator", [False, True])
@pytest.mark.parametrize("name", kernels.KERNELS)
def test_a_batch_of_gradients_through_one_graph(name: str, through_operator: bool) -> None:
    rnn = make(name)
    x, hx, resets = inputs(rnn)
    x = nn.Parameter(x) if through_operator else x.requires_grad_()
    with kernels.watch() as ran:
        output = rnn(x, hx, resets)[0]
    assert ran != {(name, "reference")}
    gradients = torch.randn(5, *output.shape, dtype=torch.float64)
    wanted = [x, *rnn.parameters()]

    def pull(gradient: Tensor, batched: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(output, wanted, gradient, retain_graph=True, is_grads_batched=batched)

    expected = [torch.stack(g) for g in zip(*map(pull, gradients), strict=True)]
    torch.testing.assert_close(list(pull(gradients, batched=True)), expected)
    torch.testing.assert_close(list(vmap(pull)(gradients)), expected)
    torch.testing.assert_close(tangent(lambda g: pull(g)[0], gradients[0], gradients[1]), expected[0][1])


@pytest.mark.parametrize("name", ["nbrc", "lstm", "lmu"])
def test_packed_sequences_are_transformed(name: str) -> None:
    rnn = make(name, layers=2, bidirectional=True)
    packed = pack_sequence([torch.randn(n, F, dtype=torch.float64) for n in (2, 4, 1)], enforce_sorted=False)
    _, *order = packed

    def run(data: Tensor) -> Tensor:
        return rnn(PackedSequence(data, *order))[0].data

    expected = torch.autograd.functional.jacobian(run, packed.data)
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(transform(run)(packed.data), expected)
    torch.testing.assert_close(vmap(run)(packed.data.unsqueeze(0))[0], run(packed.data))


@pytest.mark.parametrize("grad", [True, False])
def test_a_traced_graph_follows_its_input(grad: bool) -> None:
    rnn = make("gru")
    x, hx, _ = inputs(rnn)
    with torch.set_grad_enabled(grad):
        graph = make_fx(lambda x: rnn(x, hx)[0])(x[:1])
        torch.testing.assert_close(graph(x[1:2]), rnn(x[1:2], hx)[0])


def test_transforms_inside_a_compiled_function() -> None:
    rnn = make("nbrc")
    x = inputs(rnn)[0]

    def loss(x: Tensor) -> Tensor:
        return rnn(x)[0].square().sum()

    for transformed in (hessian(loss), vmap(loss), lambda x: jvp(loss, (x,), (x,))):
        torch._dynamo.reset()
        compiled = torch.compile(transformed, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), transformed(x))


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_choose_names_the_reason(name: str) -> None:
    def why() -> str:
        choice = kernels.choose(name, "cpu", torch.float64)
        assert choice.backend == "reference"
        return choice.why

    with forward_ad.dual_level():
        assert "forward-mode AD" in why()
    reasons: list[str] = []

    def look(x: Tensor) -> Tensor:
        reasons.append(why())
        return x

    vmap(look)(torch.zeros(2))
    assert "torch.func" in reasons[0]
    given = kernels.choose(name, "cpu", torch.float64, only_reference="for a reason")
    assert given == ("reference", "for a reason")
    assert kernels.choose(name, "meta", torch.float64).backend == "reference"


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_backend_asked_for_says_that_it_cannot_serve(backend: str) -> None:
    cell = GRUCell(F, H, dtype=torch.float64)
    x = torch.randn(T, B, F, dtype=torch.float64, requires_grad=True)
    try:
        with kernels.use_backend(backend):
            outputs = cell.scan(x)[0]
    except ValueError as error:  # without a compiler
        pytest.skip(str(error))
    asked = f"backend '{backend}' was asked for, but only the reference "
    with kernels.use_backend(backend):
        with pytest.raises(ValueError, match=asked + r"runs under a transform of torch\.func"):
            vmap(lambda x: cell.scan(x)[0])(torch.zeros(2, T, B, F, dtype=torch.float64))
        with forward_ad.dual_level(), pytest.raises(ValueError, match=asked + "runs under forward-mode AD"):
            cell.scan(x)
        with pytest.raises(ValueError, match=asked + "has a second derivative"):
            torch.autograd.grad(outputs.sum(), x, create_graph=True)
        ones = torch.ones(2, *outputs.shape, dtype=torch.float64)
        with pytest.raises(ValueError, match=asked + "has batched gradients"):
            torch.autograd.grad(outputs, x, ones, is_grads_batched=True)


def test_gradients_under_autocast_keep_their_precision() -> None:
    rnn, x = make_rnn("lstm", F, H), torch.randn(T, B, F)
    weights = list(rnn.parameters())
    for backend in (None, "torch"):
        with kernels.use_backend(backend):
            expected = torch.autograd.grad(rnn(x)[0].sum(), weights)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert all(map(torch.equal, torch.autograd.grad(rnn(x)[0].sum(), weights), expected))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(rnn(x)[0].sum(), weights, create_graph=True)
    torch.testing.assert_close(found, expected)
