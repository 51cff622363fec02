"""Which backend runs, and how the operators behave under autograd, torch.compile and torch.export."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from bistable_rl import kernels
from bistable_rl.cells import CELLS, NBRCCell, cell_options
from bistable_rl.kernels import dispatch
from bistable_rl.rnn import RNN, make_rnn


def test_the_backend_asked_for_runs_and_says_so() -> None:
    cell, x = NBRCCell(3, 16), torch.randn(5, 2, 3)
    with kernels.watch() as ran:
        with kernels.use_backend("torch"):
            cell.scan(x)
        assert ran == {("nbrc", "torch")}
        with kernels.use_backend("reference"):
            cell.scan(x)
    assert ran == {("nbrc", "torch"), ("nbrc", "reference")}


def test_half_precision_runs_on_the_torch_path() -> None:
    cell = NBRCCell(3, 16, dtype=torch.bfloat16)
    with kernels.watch() as ran:
        cell.scan(torch.randn(5, 2, 3, dtype=torch.bfloat16))[0].sum().backward()
    assert ran == {("nbrc", "torch")}


def test_an_unknown_backend_lists_the_choices() -> None:
    with (
        pytest.raises(ValueError, match="unknown backend 'cuda'; choices: cpu, triton, torch, reference"),
        kernels.use_backend("cuda"),
    ):
        pass


def test_a_backend_that_cannot_serve_says_why_instead_of_falling_back() -> None:
    cell = NBRCCell(3, 16, dtype=torch.bfloat16)
    with kernels.use_backend("cpu"), pytest.raises(ValueError, match="asked for, but it takes float32 and float64"):
        cell.scan(torch.randn(5, 2, 3, dtype=torch.bfloat16))


def test_the_environment_chooses_the_backend() -> None:
    code = "from bistable_rl import kernels; print(kernels.describe()[0][1:])"
    environment = {**os.environ, "BISTABLE_RL_BACKEND": "reference"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == "('cpu', 'reference', 'asked for')"


def test_an_unknown_backend_in_the_environment_is_named_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_asked", "fast")  # where the environment's value is kept
    with pytest.raises(ValueError, match="unknown backend 'fast'; choices: cpu, triton, torch, reference"):
        NBRCCell(3, 16).scan(torch.randn(5, 2, 3))


def test_describe_names_a_backend_and_a_reason_for_every_kernel() -> None:
    lines = kernels.describe()
    assert {cell for cell, device, _, _ in lines if device == "cpu"} == set(kernels.KERNELS)
    assert all(backend in kernels.BACKENDS and why for _, _, backend, why in lines)


@pytest.mark.parametrize("kind", ["brc", "lstm"])
def test_the_operator_passes_torchs_own_checks(kind: str) -> None:
    cell = CELLS[kind](3, 16, learn_initial_state=True)
    x = torch.randn(4, 2, 3, requires_grad=True)
    state = torch.randn(2, cell.state_size, requires_grad=True)
    resets = torch.rand(4, 2) < 0.3
    arguments = (kind, x, state, resets, cell.initial, None, *cell.kernel_weights(), True, False)
    torch.library.opcheck(torch.ops.bistable_rl.scan, arguments)


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_the_operator_has_gradients_where_the_reference_is_asked_for(kind: str) -> None:
    cell = CELLS[kind](3, 16)
    x, state = torch.randn(4, 2, 3, requires_grad=True), torch.randn(2, cell.state_size)
    found = []
    for backend in (None, "reference"):
        with kernels.use_backend(backend):
            outputs, *_ = torch.ops.bistable_rl.scan(
                kind, x, state, None, None, None, *cell.kernel_weights(), True, False
            )
        found.append(torch.autograd.grad(outputs.square().sum(), [x, *cell.parameters()]))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("name", ["nbrc", "lstm"])
def test_compile_makes_one_graph_with_the_same_gradients(name: str) -> None:
    torch._dynamo.reset()
    rnn = make_rnn(name, 3, 16, 2, bidirectional=True, cell_kwargs={"learn_initial_state": True})
    compiled = torch.compile(rnn, fullgraph=True, backend="aot_eager")
    x, resets = torch.randn(7, 4, 3, requires_grad=True), torch.rand(7, 4) < 0.3
    results = []
    for module in (rnn, compiled):
        output, h_n = module(x, None, resets)
        loss = output.square().sum() + h_n.sum()
        results.append([output, h_n, *torch.autograd.grad(loss, [x, *rnn.parameters()])])
    torch.testing.assert_close(results[1], results[0])


def test_compile_takes_packed_sequences_and_autocast() -> None:
    torch._dynamo.reset()
    rnn = make_rnn("nbrc", 3, 16, 2, bidirectional=True)
    compiled = torch.compile(rnn, fullgraph=True, backend="aot_eager")
    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    torch.testing.assert_close(compiled(packed)[1], rnn(packed)[1])
    resets = pack_sequence([torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1])])
    torch.testing.assert_close(compiled(packed, None, resets)[1], rnn(packed, None, resets)[1])
    with pytest.raises(RuntimeError, match="the same lengths"):  # as many steps in all
        compiled(packed, None, pack_sequence([torch.zeros(3), torch.zeros(2), torch.zeros(1)]))
    x = torch.randn(4, 2, 3)
    expected = rnn(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(x.bfloat16())[0], expected, rtol=0.02, atol=0.02)


def test_compile_runs_the_plain_loop_of_a_cell_without_kernels() -> None:
    torch._dynamo.reset()
    rnn = make_rnn("half_pbrc", 3, 4)
    x = torch.randn(3, 2, 3)
    torch.testing.assert_close(torch.compile(rnn, fullgraph=True, backend="aot_eager")(x)[0], rnn(x)[0])


def test_functional_gradients_are_those_of_autograd() -> None:
    cell = NBRCCell(3, 16)
    x = torch.randn(4, 2, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(cell.scan(x)[0].square().sum(), x)
    found = torch.func.grad(lambda x: cell.scan(x)[0].square().sum())(x.detach())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_an_exported_program_takes_other_lengths(name: str) -> None:
    rnn = make_rnn(name, 3, 16, 2)
    program = torch.export.export(rnn, (torch.randn(5, 4, 3),), dynamic_shapes=({0: torch.export.Dim("T", min=2)},))
    x = torch.randn(9, 4, 3)
    torch.testing.assert_close(program.module()(x), rnn(x))


def test_a_second_derivative_of_what_is_compiled_is_refused() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(make_rnn("gru", 3, 16), backend="aot_eager")
    x = torch.randn(4, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(compiled(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):  # torch's own sentence
        gradient.sum().backward()


def test_deterministic_mode_has_nothing_to_object_to() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        for name in CELLS:
            make_rnn(name, 3, 16)(torch.randn(4, 2, 3))[0].sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def kept_bytes(name: str, T: int, recompute: int) -> int:
    """Bytes that a scan keeps for its backward pass."""
    options = {"recompute": bool(recompute)} if "recompute" in cell_options(name) else {}
    cell = CELLS[name](1, 16, **options)
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs, _ = cell.scan(torch.randn(T, 8, 1))
        kept[outputs.untyped_storage().data_ptr()] = outputs.untyped_storage().nbytes()
    return sum(kept.values())


@pytest.mark.parametrize(("name", "rows"), [("brc", 1), ("nbrc", 4), ("gru", 5), ("lstm", 6)])
def test_what_is_kept_grows_linearly_by_a_few_numbers_a_unit_and_step(name: str, rows: int) -> None:
    growth = kept_bytes(name, 300, False) - kept_bytes(name, 100, False)
    assert growth == 4 * 200 * 8 * (16 * rows + 1)  # the outputs, what is saved, and x


@pytest.mark.parametrize(("name", "rows"), [("brc", 1), ("nbrc", 1), ("gru", 1), ("lstm", 2)])
def test_recompute_keeps_the_states_alone(name: str, rows: int) -> None:
    growth = kept_bytes(name, 300, True) - kept_bytes(name, 100, True)
    assert growth == 4 * 200 * 8 * (16 * rows + 1)


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.kernel is None])
def test_recompute_bounds_the_memory_of_the_plain_loop(name: str) -> None:
    growth = {recompute: kept_bytes(name, 300, recompute) - kept_bytes(name, 100, recompute) for recompute in (0, 1)}
    assert growth[1] < 0.5 * growth[0]  # what is left are the outputs and the projected input


def test_layers_without_compiled_kernels_say_so_once_unless_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_CPU", (False, "no compiler built them"))
    monkeypatch.setattr(dispatch, "_has_warned", False)
    rnn, x = RNN("nbrc", 3, 4), torch.randn(5, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with kernels.use_backend("torch"):
            rnn(x)
    with pytest.warns(
        UserWarning, match="without their compiled kernels: no compiler built them. Results are the same"
    ):
        rnn(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rnn(x)
