"""What would lead a kernel outside its tensors is refused before memory is touched, with and without `python -O`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bistable_rl import kernels
from bistable_rl.kernels import KERNELS, Batch, Weights, cpu, reference, torch_scan
from bistable_rl.kernels.interface import Results
from bistable_rl.rnn import make_rnn

T, B, I, H = 3, 4, 5, 8
SIZES = torch.tensor([4, 3, 1])
BACKENDS = ["torch", *(["cpu"] if cpu.available()[0] else [])]

Arguments = dict[str, Any]


def bundle(kind: type[Any], given: Arguments) -> Any:
    """The tensors in `Batch`, `Weights` or `Results`."""
    return kind(**{name: given[name] for name in kind._fields})


def arguments(kind: str, *, packed: bool = False) -> Arguments:
    """Every tensor that a scan takes, none of them None."""
    S, gates, own = (2 * H, 4 * H, False) if kind == "lstm" else (H, 3 * H, kind in ("brc", "nbrc"))
    leading = (int(SIZES.sum()),) if packed else (T, B)
    rows = {"brc": 2, "nbrc": 2 * H}.get(kind, gates)
    return {
        "x": torch.randn(*leading, I),
        "state": torch.randn(B, S),
        "resets": torch.rand(*leading) < 0.3,
        "weight_ih": torch.randn(gates, I),
        "weight_hh": torch.randn(rows, H),
        "bias_ih": torch.randn(2 * H if own else gates),
        "bias_hh": None if own else torch.randn(gates),
        "initial": torch.randn(S),
        "batch_sizes": SIZES if packed else None,
    }


def narrower(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor with less in it, or more, along each of its dimensions."""
    for dim in range(tensor.dim()):
        yield tensor.narrow(dim, 0, tensor.shape[dim] - 1).clone()
        yield torch.cat([tensor, tensor], dim)


def wrong(tensor: Tensor) -> Iterator[Tensor]:
    """What must not be read in the tensor's place."""
    yield from narrower(tensor)
    yield tensor.unsqueeze(0)
    yield tensor.to(torch.int32)
    yield tensor.to("meta")
    emptied = tensor.clone()
    emptied.untyped_storage().resize_(0)
    yield emptied


def calls(kind: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls forward and backward with one wrong tensor each, by what is wrong."""
    for backend in BACKENDS:
        run: Any = {"torch": torch_scan, "cpu": cpu}[backend]
        for packed in (False, True):

            def forward(given: Arguments, run: Any = run) -> Any:
                batch, weights = bundle(Batch, given), bundle(Weights, given)
                return run.forward(KERNELS[kind], batch, weights, save=True, recompute=False)

            def backward(given: Arguments, run: Any = run) -> Any:
                bundles = (bundle(Batch, given), bundle(Weights, given), bundle(Results, given))
                return run.backward(KERNELS[kind], *bundles, recompute=False, need_x=True)

            right = arguments(kind, packed=packed)
            outputs, last, saved = forward(right)
            results = {"grad_outputs": outputs, "grad_last": last, "outputs": outputs, "saved": saved}
            backward({**right, **results})
            for name, tensor in {**right, **results}.items():
                if tensor is None or name == "batch_sizes" or not tensor.numel():  # BRC saves nothing
                    continue
                for bad in wrong(tensor):
                    what = f"by {backend}, {name} {tuple(bad.shape)} {bad.dtype} {bad.device}"
                    if name in right:
                        yield f"forward {what}", partial(forward, {**right, name: bad})
                    yield f"backward {what}", partial(backward, {**right, **results, name: bad})


def accepted(kind: str) -> list[str]:
    """The calls that were not refused with one sentence."""
    found = []
    for what, call in calls(kind):
        try:
            call()
        except ValueError as error:
            if "\n" not in str(error):
                continue
        found.append(what)
    return found


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_a_tensor_of_the_wrong_shape_dtype_or_device_is_refused(kind: str) -> None:
    assert accepted(kind) == []


OPTIMISED = """
import sys, torch
assert not __debug__ or sys.exit("not optimised")
from tests.test_kernels_memory import accepted, kernels, malformed, wrong_layers
for kind in kernels.KERNELS:
    found = [*accepted(kind), *malformed(kind), *wrong_layers(kind)]
    if found:
        sys.exit(str(found))
"""


def test_it_is_refused_under_python_without_asserts_too() -> None:
    subprocess.run([sys.executable, "-O", "-c", OPTIMISED], check=True, timeout=120)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_recurrent_weights_in_a_row_are_one_sentence(kind: str, backend: str) -> None:
    right = arguments(kind, packed=False)
    right["weight_hh"] = right["weight_hh"].flatten()
    with kernels.use_backend(backend), pytest.raises(ValueError, match=r"weight_hh must have 2 dimensions, got \("):
        kernels.scan(kind, bundle(Batch, right), bundle(Weights, right))


def wrong_layers(kind: str) -> list[str]:
    """Which layers with one wrong weight ran a step, in a scope or not, or a sequence."""
    found = []
    for name in ("weight_ih", "weight_hh", "bias" if kind in ("brc", "nbrc") else "bias_hh"):
        for bad in narrower(make_rnn(kind, I, H).cells[0].get_parameter(name).detach()):
            rnn = make_rnn(kind, I, H)
            setattr(rnn.cells[0], name, torch.nn.Parameter(bad))
            for steps in (1, T):
                with torch.no_grad():
                    try:
                        rnn(torch.randn(steps, B, I), torch.zeros(1, B, rnn.state_size))
                    except (ValueError, RuntimeError):
                        pass
                    else:
                        found.append(f"{kind}: {name} {tuple(bad.shape)}, {steps} steps")
    return found


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_a_layer_with_a_wrong_weight_does_not_run(kind: str) -> None:
    assert wrong_layers(kind) == []


MALFORMED = [[1, 3], [3, -1, 2], [0, 4], [4, 0], [4, 4, 4], [3, 3], [1, 2, 1], [2**62, 2**62, -(2**63) + 4], []]


def malformed(kind: str) -> list[str]:
    """Which malformed batch_sizes were accepted, and by what."""
    found = []
    given = arguments(kind, packed=True)
    given["x"], given["resets"] = torch.randn(4, I), torch.zeros(4, dtype=torch.bool)
    sizes = [torch.tensor(s, dtype=torch.int64) for s in MALFORMED]
    good = torch.tensor([3, 1])
    sizes += [good.int(), good.double(), good.to("meta"), good.unsqueeze(0), torch.tensor(4)]
    tensors = {name: tensor for name, tensor in given.items() if name != "batch_sizes"}
    for backend in BACKENDS:
        for batch_sizes in sizes:
            rows = int(batch_sizes.flatten()[:1].sum()) if batch_sizes.device.type == "cpu" else 3
            tensors["state"] = torch.randn(rows if 0 < rows < 5 else 3, arguments(kind)["state"].shape[1])
            with kernels.use_backend(backend):
                try:
                    batch = bundle(Batch, {**tensors, "batch_sizes": batch_sizes})
                    kernels.scan(kind, batch, bundle(Weights, given))
                except ValueError as error:
                    if "batch_sizes" in str(error):
                        continue
            found.append(f"{backend}: {batch_sizes}")
    return found


@pytest.mark.parametrize("kind", kernels.KERNELS)
def test_malformed_batch_sizes_are_refused(kind: str) -> None:
    assert malformed(kind) == []


@pytest.mark.parametrize("sizes", MALFORMED)
def test_the_plain_loop_refuses_malformed_batch_sizes(sizes: list[int]) -> None:
    inputs = Batch(torch.zeros(4, H), torch.zeros(3, H), batch_sizes=torch.tensor(sizes, dtype=torch.int64))
    with pytest.raises(
        ValueError, match=r"batch_sizes must (be positive, never grow and sum to the 4 rows|have at least one step)"
    ):
        reference.scan(lambda x, state: x + state, inputs, output_size=H)


def test_an_error_says_in_one_sentence_which_tensor_is_wrong() -> None:
    def scan(cell: str, given: Arguments) -> None:
        with kernels.use_backend("torch"):
            kernels.scan(cell, bundle(Batch, given), bundle(Weights, given))

    given = arguments("nbrc")
    given["weight_hh"] = torch.randn(2 * H, H - 1)
    with pytest.raises(ValueError, match=r"weight_ih must be \(21, 5\) of torch.float32 on cpu, got \(24, 5\)"):
        scan("nbrc", given)
    given = arguments("gru", packed=True)
    given["batch_sizes"] = torch.tensor([1, 3, 4])
    with pytest.raises(ValueError, match=r"batch_sizes must be .* sum to the 8 rows .*, got \[1, 3, 4\]"):
        scan("gru", given)
    with pytest.raises(ValueError, match="unknown kernel 'rnn'; choices: brc, nbrc, gru, lstm"):
        scan("rnn", given)


@pytest.mark.skipif(not cpu.available()[0], reason=cpu.available()[1])
def test_every_status_of_the_library_has_its_own_error() -> None:
    cpu.check(0)
    with pytest.raises(MemoryError, match="not enough memory for the workspace"):
        cpu.check(1)
    with pytest.raises(RuntimeError, match="unknown status 2"):
        cpu.check(2)
