"""One suite for every backend: the same results and gradients as the reference loop in float64.

Each comparison also asserts which backend ran, so that none can pass by quietly leaving the work to another.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton's first import: its kernels then run on the CPU

from bistable_rl import kernels
from bistable_rl.cells import CELLS, Cell, cell_options
from bistable_rl.kernels import cuda_graphs, dispatch, products

GPU = "cuda" if torch.cuda.is_available() else "cpu"
DEVICE = {"triton": GPU, "torch": GPU}

# Largest error of a result, and of a gradient, relative to the largest entry of what it should be.
TOLERANCE = {torch.float64: (1e-11, 1e-10), torch.float32: (1e-5, 1e-5)}

# T, B, I, H: odd ones, single ones, none, and more than one chunk or block of each.
SIZES = [
    (6, 5, 3, 16),
    (1, 4, 2, 8),
    (0, 3, 2, 5),
    (7, 1, 1, 33),
    (1, 1, 1, 1),
    (4, 0, 3, 5),
    (9, 19, 1, 7),
    (40, 3, 5, 24),
]
LARGE = [(40, 9, 70, 130), (300, 4, 1, 128), (21, 100, 3, 64)]
WIDE = 130  # units whose matrices Triton leaves to products of torch's: those of more than 128 in float32
PACKED = [[5, 5, 3, 3, 2, 1], [1], [4, 4, 4], [17] + [2] * 20]


def _serves(backend: str) -> str | None:
    try:
        with kernels.use_backend(backend):
            kernels.choose("brc", DEVICE.get(backend, "cpu"), torch.float32)
    except ValueError as error:
        return str(error)
    return None


# Interpreted, Triton's kernels take a minute for all of this; one small test of each stays in the quick suite.
TRITON = pytest.param("triton", marks=() if torch.cuda.is_available() else pytest.mark.slow)


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan() -> Iterator[None]:
    """Fill what `torch.empty` returns with NaN, so that a result that depends on it shows.

    Not on a GPU, where the setting would choose other algorithms than users run.
    """
    torch.use_deterministic_algorithms(not torch.cuda.is_available(), warn_only=True)  # torch fills only then
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["cpu", "torch", TRITON])
def backend(request: pytest.FixtureRequest) -> str:
    obstacle = _serves(request.param)
    if obstacle:
        pytest.skip(obstacle)
    return str(request.param)


def make(kind: str, I_: int, H: int, dtype: torch.dtype, learned: bool = False, **options: object) -> Cell:
    torch.manual_seed(0)
    options = {key: value for key, value in options.items() if key in (*cell_options(kind), "bias")}
    cell = CELLS[kind](I_, H, learn_initial_state=learned, dtype=dtype, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return cell


def keep_one_stable_state(cell: Cell) -> None:
    """A unit on the edge between its two stable states would magnify a rounding error without limit: a < 1 here."""
    if cell.kernel in ("brc", "nbrc"):
        with torch.no_grad():
            cell.get_parameter("bias")[: cell.hidden_size] -= 2


def run(
    cell: Cell, x: Tensor, state: Tensor | None, resets: Tensor | None, sizes: Tensor | None, backend: str
) -> dict[str, Tensor]:
    """Outputs, last state and all gradients of a scan, in float64."""
    assert cell.kernel is not None
    x = x.clone().requires_grad_()
    state = None if state is None else state.clone().requires_grad_()
    with kernels.use_backend(backend), kernels.watch() as ran:
        outputs, last = cell.scan(x, state, resets, sizes)
        generator = torch.Generator().manual_seed(1)
        loss = x.new_zeros(())
        for result in (outputs, last):
            loss = loss + (result * torch.randn(result.shape, generator=generator, dtype=torch.float64).to(x)).sum()
        wanted = {"x": x, **({} if state is None else {"state": state}), **dict(cell.named_parameters())}
        gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, materialize_grads=True)
    assert ran == {(cell.kernel, backend)}
    named = {f"gradient of {name}": value for name, value in zip(wanted, gradients, strict=True)}
    return {k: v.detach().double().cpu() for k, v in {"outputs": outputs, "last": last, **named}.items()}


def compare(
    backend: str,
    cell: Cell,
    x: Tensor,
    state: Tensor | None,
    resets: Tensor | None,
    sizes: Tensor | None = None,
) -> None:
    """The backend in the cell's dtype against the reference in float64, from the same numbers."""
    dtype = next(cell.parameters()).dtype
    device = DEVICE.get(backend, "cpu")
    expected = run(cell.double(), x.double(), None if state is None else state.double(), resets, sizes, "reference")
    cell = cell.to(device, dtype)
    found = run(
        cell,
        x.to(device),
        None if state is None else state.to(device),
        None if resets is None else resets.to(device),
        sizes,
        backend,
    )
    for name, value in expected.items():
        tolerance = TOLERANCE[dtype][name.startswith("gradient")]
        assert found[name].shape == value.shape, name
        if value.numel():
            error = ((found[name] - value).abs().max() / value.abs().max().clamp(min=1e-3)).item()
            assert error <= tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_a_scan_equals_the_reference(backend: str, kind: str, size: tuple[int, ...], dtype: torch.dtype) -> None:
    T, B, I_, H = size
    cell = make(kind, I_, H, dtype)
    compare(backend, cell, torch.randn(T, B, I_, dtype=dtype), torch.randn(B, cell.state_size, dtype=dtype) / 2, None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_resets_equal_the_reference(backend: str, kind: str, learned: bool, dtype: torch.dtype) -> None:
    cell = make(kind, 3, 20, dtype, learned)
    x = torch.randn(12, 7, 3, dtype=dtype)
    resets = torch.rand(12, 7) < 0.3
    resets[0] = torch.arange(7) % 2 == 0
    compare(backend, cell, x, torch.randn(7, cell.state_size, dtype=dtype), resets)
    compare(backend, cell, x, None, resets.double())


@pytest.mark.parametrize("batch_sizes", PACKED, ids=lambda sizes: f"{len(sizes)} steps of {sizes[0]}..{sizes[-1]}")
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_packed_sequences_equal_the_reference(backend: str, kind: str, batch_sizes: list[int]) -> None:
    cell = make(kind, 3, 20, torch.float32, learned=True)
    x, resets = torch.randn(sum(batch_sizes), 3), torch.rand(sum(batch_sizes)) < 0.3
    state = torch.randn(batch_sizes[0], cell.state_size)
    compare(backend, cell, x, state, resets, torch.tensor(batch_sizes))
    compare(backend, cell, x, None, None, torch.tensor(batch_sizes))


OPTIONS: list[dict[str, object]] = [{"bias": False}, {"candidate_bias": True}, {"recompute": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_options_equal_the_reference(backend: str, kind: str, options: dict[str, object]) -> None:
    cell = make(kind, 3, 20, torch.float32, learned=True, **options)
    x, resets = torch.randn(12, 7, 3), torch.rand(12, 7) < 0.3
    compare(backend, cell, x, torch.randn(7, cell.state_size), resets)
    compare(backend, cell, torch.randn(9, 3), None, None, torch.tensor([4, 3, 2]))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("size", LARGE, ids=str)
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_a_large_scan_equals_the_reference(backend: str, kind: str, size: tuple[int, ...], dtype: torch.dtype) -> None:
    T, B, I_, H = size
    cell = make(kind, I_, H, dtype, learned=True)
    keep_one_stable_state(cell)
    resets = torch.rand(T, B) < 0.05
    state = torch.randn(B, cell.state_size, dtype=dtype)
    compare(backend, cell, torch.randn(T, B, I_, dtype=dtype), state, resets)


@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_a_step_without_gradients_equals_the_reference(backend: str, kind: str, with_resets: bool) -> None:
    device = DEVICE.get(backend, "cpu")
    cell = make(kind, 3, 21, torch.float32, learned=True).to(device)
    x, state = torch.randn(1, 4, 3, device=device), torch.randn(4, cell.state_size, device=device)
    resets = torch.tensor([[True, False, False, True]], device=x.device) if with_resets else None
    with torch.no_grad():
        with kernels.use_backend("reference"):
            expected = cell.scan(x, state, resets)
        for _ in range(2):
            with kernels.use_backend(backend), kernels.watch() as ran:
                found = cell.scan(x, state, resets)
            assert ran == {(kind, backend)}
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
            cell.get_parameter("weight_hh").mul_(0.5)  # a cached copy of the weights must not outlive them
            with kernels.use_backend("reference"):
                expected = cell.scan(x, state, resets)


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_only_what_needs_a_gradient_gets_one(backend: str, kind: str) -> None:
    device = DEVICE.get(backend, "cpu")
    cell = make(kind, 3, 20, torch.float32).to(device)
    cell.requires_grad_(False)
    x = torch.randn(5, 2, 3, device=device, requires_grad=True)
    with kernels.use_backend(backend):
        cell.scan(x)[0].sum().backward()
        assert x.grad is not None
        assert all(parameter.grad is None for parameter in cell.parameters())
        cell.requires_grad_(True)
        cell.scan(x.detach())[1].sum().backward()  # only the last state has a gradient
    assert all(parameter.grad is not None for parameter in cell.parameters())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_one_backend_goes_back_over_what_another_saved(backend: str, kind: str, recompute: bool) -> None:
    cell = make(kind, 3, 20, torch.float64, recompute=recompute).to(DEVICE.get(backend, "cpu"))
    x = torch.randn(9, 4, 3, dtype=torch.float64, device=cell.weight_ih.device)
    gradients = []
    for backends in ((backend, backend), (backend, "torch"), ("torch", backend)):
        cell.zero_grad()
        with kernels.use_backend(backends[0]):
            loss = cell.scan(x)[0].square().sum()
        with kernels.use_backend(backends[1]):
            gradients.append(torch.autograd.grad(loss, list(cell.parameters())))
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_the_same_run_gives_the_same_bits(backend: str, kind: str) -> None:
    cell = make(kind, 3, 20, torch.float32)
    x = torch.randn(9, 33, 3)
    device = DEVICE.get(backend, "cpu")
    first, second = (run(cell.to(device), x.to(device), None, None, None, backend) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_nothing_given_is_changed_and_nothing_returned_is_shared(backend: str, kind: str) -> None:
    device = DEVICE.get(backend, "cpu")
    cell = make(kind, 3, 20, torch.float32).to(device)
    for T in (0, 1, 4):
        x, state = torch.randn(T, 2, 3, device=device), torch.randn(2, cell.state_size, device=device)
        copies = x.clone(), state.clone()
        with kernels.use_backend(backend), torch.no_grad():
            outputs, last = cell.scan(x, state)
            kept = outputs.clone()
            last.fill_(7)
        assert torch.equal(x, copies[0])
        assert torch.equal(state, copies[1])
        assert torch.equal(outputs, kept)


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_tritons_logic_equals_the_reference(kind: str) -> None:
    obstacle = _serves("triton")
    if obstacle:
        pytest.skip(obstacle)
    cell = make(kind, 2, 5, torch.float32, learned=True)
    sizes = torch.tensor([3, 2, 2])
    x, resets = torch.randn(7, 2), torch.tensor([0, 1, 0, 0, 0, 1, 0])
    compare("triton", cell, x, torch.randn(3, cell.state_size), resets, sizes)
    compare("triton", cell, torch.randn(3, 2, 2), None, None)


@pytest.mark.parametrize("kind", ["nbrc", "gru", "lstm"])
def test_tritons_logic_for_wide_matrices_equals_the_reference(kind: str) -> None:
    obstacle = _serves("triton")
    if obstacle:
        pytest.skip(obstacle)
    cell = make(kind, 2, WIDE, torch.float32, learned=True)
    keep_one_stable_state(cell)
    x, resets = torch.randn(6, 2), torch.tensor([1, 0, 0, 1, 0, 1])
    compare("triton", cell, x, torch.randn(3, cell.state_size), resets, torch.tensor([3, 2, 1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
@pytest.mark.parametrize("kind", ["nbrc", "gru", "lstm"])
def test_wide_matrices_equal_the_reference(
    backend: str, kind: str, options: dict[str, object], dtype: torch.dtype
) -> None:
    cell = make(kind, 3, WIDE, dtype, learned=False, **options)
    if options.get("bias", True):
        keep_one_stable_state(cell)
    x, state = torch.randn(3, 2, 3, dtype=dtype), torch.randn(2, cell.state_size, dtype=dtype)
    compare(backend, cell, x, state, None)
    compare(backend, cell, x, None, torch.tensor([[1, 0], [0, 1], [1, 0]]))
    compare(backend, cell, torch.randn(6, 3, dtype=dtype), None, None, torch.tensor([3, 2, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nbrc", "gru", "lstm"])
def test_a_graph_gives_the_bits_of_its_launches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    obstacle = _serves("triton")
    if obstacle:
        pytest.skip(obstacle)
    steps = 3
    monkeypatch.setattr("bistable_rl.kernels.triton_steps._FEW", steps - 1)
    monkeypatch.setattr(cuda_graphs, "_graphs", OrderedDict())
    if GPU == "cpu":  # what a graph records is done again each time
        monkeypatch.setattr(cuda_graphs, "usable", lambda tensors: True)
        monkeypatch.setattr(cuda_graphs, "_stream", lambda: 0)
        monkeypatch.setattr(cuda_graphs, "_capture", lambda work: work)
    cell = make(kind, 2, WIDE, torch.float32, learned=True).to(GPU)
    resets = torch.tensor([[0, 1], [1, 0], [0, 1]], device=GPU)
    inputs = [torch.randn(steps, 2, 2, device=GPU) for _ in range(3)]
    first, _, third = (run(cell, x, None, resets, None, "triton") for x in inputs)
    assert all(graph is not None for graph in cuda_graphs._graphs.values())
    assert len(cuda_graphs._graphs) == 2  # forward and backward
    again = run(cell, inputs[0], None, resets, None, "triton")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["outputs"], third["outputs"])


def check_bfloat16(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Of all results, the error relative to the largest entry: what 8 bits leave, and not less."""
    errors = [float((found[name] - value).abs().max() / value.abs().max()) for name, value in expected.items()]
    assert 1e-4 < max(errors) < 0.01, dict(zip(expected, errors, strict=True))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("H", [16, WIDE])
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_autocast_rounds_operands_for_triton_and_nothing_for_the_others(
    backend: str, kind: str, H: int, recompute: bool
) -> None:
    cell = make(kind, 3, H, torch.float32, learned=True, recompute=recompute)
    keep_one_stable_state(cell)
    x, resets, device = torch.randn(20, 5, 3), torch.rand(20, 5) < 0.1, DEVICE.get(backend, "cpu")
    reference = run(cell.double(), x.double(), None, resets, None, "reference")
    cell, x, resets = cell.to(device, torch.float32), x.to(device), resets.to(device)
    with torch.autocast(device, torch.bfloat16):
        found = run(cell, x, None, resets, None, backend)
        assert cell.scan(x)[0].dtype == torch.float32
    if backend == "triton":
        check_bfloat16(found, reference)
    else:
        expected = run(cell, x, None, resets, None, backend)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_the_torch_scan_takes_matrices_of_bfloat16(kind: str, recompute: bool) -> None:
    cell = make(kind, 3, 16, torch.float32)
    keep_one_stable_state(cell)
    x, generator = torch.randn(20, 5, 3), torch.Generator().manual_seed(1)
    towards = torch.randn(20, 5, 16, generator=generator)
    results = []
    for dtype in (torch.float64, torch.float32):
        weights, batch = cell.to(dtype).kernel_weights(), kernels.Batch(x.to(dtype), cell.initial_state(5))
        leaves = [w.detach() for w in weights if w is not None]
        given = kernels.Weights(*leaves)
        if dtype == torch.float32:
            given = products.rounded(kernels.KERNELS[kind], given)
        leaves = [w.requires_grad_() for w in given if w is not None]
        with kernels.use_backend("torch"):
            outputs, _ = kernels.scan(kind, batch, given, recompute=recompute)
            gradients = torch.autograd.grad((outputs * towards.to(dtype)).sum(), leaves)
        assert outputs.dtype == dtype
        assert [g.dtype for g in gradients] == [w.dtype for w in leaves]
        results.append({str(i): t.detach().double() for i, t in enumerate((outputs, *gradients))})
    check_bfloat16(results[1], results[0])
    with pytest.raises(ValueError, match=r"weight_ih must be .* of torch.float32"), kernels.use_backend("cpu"):
        kernels.scan(kind, batch, given)


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_cuda_runs_triton_whatever_the_cell(kind: str) -> None:
    expected = "triton" if dispatch._TRITON else "torch"
    for dtype in (torch.float32, torch.float64):
        assert kernels.choose(kind, "cuda", dtype).backend == expected
    assert kernels.choose(kind, "cuda", torch.bfloat16).backend == "torch"


def test_without_triton_cuda_runs_the_torch_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_TRITON", False)
    assert kernels.choose("gru", "cuda", torch.float32) == ("torch", "not triton: triton is not installed")
