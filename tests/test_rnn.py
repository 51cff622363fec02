"""The stacked layers: nn.GRU's interface, and resets."""

import ast
import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import bistable_rl
from bistable_rl import rnn as rnn_module
from bistable_rl.cells import CELLS, NBRCCell, cell_options
from bistable_rl.cells.options import defaults
from bistable_rl.rnn import GRU, LSTM, NBRC, RNN, from_torch, make_rnn

NAMES = list(CELLS)
LAYERS = {cls._cell: cls for cls in vars(rnn_module).values() if hasattr(cls, "_cell")}  # a class per cell is optional
F, H, B, T = 3, 4, 5, 7


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_those_of_nn_gru(name: str, bidirectional: bool) -> None:
    D = 2 if bidirectional else 1
    rnn = make_rnn(name, F, H, 2, bidirectional=bidirectional)
    theirs = nn.GRU(F, H, 2, bidirectional=bidirectional)
    x = torch.randn(T, B, F)
    output, h_n = rnn(x)
    assert output.shape == theirs(x)[0].shape
    assert h_n.shape == (2 * D, B, rnn.state_size)
    assert rnn(x, h_n)[1].shape == h_n.shape
    assert rnn(x[:, 0])[0].shape == theirs(x[:, 0])[0].shape
    assert rnn(x[:, 0], h_n[:, 0])[1].shape == h_n[:, 0].shape
    assert rnn(x[:1])[0].shape == (1, B, D * H)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_sequence_gives_no_output_and_a_copy_of_the_state(name: str, layers: int, grad: bool) -> None:
    rnn = make_rnn(name, F, H, layers, bidirectional=layers == 2)
    hx = torch.randn(len(rnn.layers), B, rnn.state_size)
    with torch.set_grad_enabled(grad):
        output, h_n = rnn(torch.randn(0, B, F), hx)
    assert output.shape == (0, B, layers * H)
    assert torch.equal(h_n, hx)
    assert h_n.data_ptr() != hx.data_ptr()


@pytest.mark.parametrize("name", LAYERS)
def test_the_class_and_make_rnn_build_the_same(name: str) -> None:
    made = make_rnn(name, F, H, 2)
    cls = LAYERS[name]
    named = cls(F, H, 2)
    named.load_state_dict(made.state_dict())
    x = torch.randn(T, B, F)
    assert torch.equal(named(x)[0], made(x)[0])
    assert repr(cls(F, H, 2, False, True, 0.5, True).cells) == repr(
        make_rnn(name, F, H, 2, False, True, 0.5, True).cells
    )
    assert defaults(cls) == {**cell_options(name), "device": None, "dtype": None}
    assert all(f"    {option}: " in cls.__doc__ for option in defaults(cls))


@pytest.mark.parametrize("name", LAYERS)
def test_a_class_of_layers_is_exported_and_on_the_pages(name: str) -> None:
    cls = LAYERS[name].__name__
    for module in (rnn_module, bistable_rl):
        assert cls in module.__all__
        assert getattr(module, cls) is LAYERS[name]
    source = ast.parse(Path(bistable_rl.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(source) if isinstance(node, ast.ImportFrom)]
    assert cls in {alias.name for node in imports for alias in node.names}  # for type checkers
    for page, text in (
        (".site/api/layers.md", f"bistable_rl.{cls}\n"),
        (".site/api/cells.md", f"bistable_rl.cells.{CELLS[name].__name__}\n"),
        ("bistable_rl/cells/README.md", f"`{cls}`"),
    ):
        path = Path(__file__).parents[1] / page
        if path.exists():  # in a clone
            assert text in path.read_text(encoding="utf-8"), f"{page} lacks {text.strip()}"


@pytest.mark.parametrize(("ours", "theirs"), [(GRU, nn.GRU), (LSTM, nn.LSTM)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_two_bidirectional_layers_equal_torch(
    ours: type[RNN], theirs: type[nn.GRU] | type[nn.LSTM], batch_first: bool
) -> None:
    settings = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first, "dtype": torch.float64}
    rnn, module = ours(F, H, **settings), theirs(F, H, **settings)  # type: ignore[arg-type]
    weights: dict[str, torch.Tensor] = {}
    for index, suffix in enumerate(("_l0", "_l0_reverse", "_l1", "_l1_reverse")):
        weights |= {key + suffix: value for key, value in rnn.layers[index].state_dict().items()}
    module.load_state_dict(weights)
    x = torch.randn(B, T, F, dtype=torch.float64)
    hx = torch.randn(4, B if batch_first else T, rnn.state_size, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([3, 7, 1, 7, 2]), batch_first=True, enforce_sorted=False)
    for given, state in ((x, hx), (packed, torch.randn(4, B, rnn.state_size, dtype=torch.float64))):
        output, h_n = rnn(given, state)
        expected, last = module(given, state.chunk(2, -1) if ours is LSTM else state)
        torch.testing.assert_close(h_n, torch.cat(last, -1) if ours is LSTM else last)
        if isinstance(given, PackedSequence):
            output, expected = output.data, expected.data
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("theirs", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("bias", [False, True])
def test_from_torch_takes_over_weights_and_settings(theirs: type[nn.GRU] | type[nn.LSTM], bias: bool) -> None:
    module = theirs(F, H, 2, bias, True, 0.5, True, dtype=torch.float64).eval()
    module.weight_hh_l1.requires_grad_(False)
    rnn = from_torch(module)
    x = torch.randn(B, T, F, dtype=torch.float64)
    torch.testing.assert_close(rnn(x)[0], module(x)[0])
    assert not rnn.training
    assert [p.requires_grad for p in rnn.parameters()] == [p.requires_grad for p in module.parameters()]
    nn.init.zeros_(module.get_parameter("weight_ih_l0"))  # a copy: it does not follow
    assert rnn.layers[0].get_parameter("weight_ih").abs().min() > 0


@pytest.mark.parametrize(("ours", "theirs"), [(GRU, nn.GRU), (LSTM, nn.LSTM)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_torchs_names_are_known_to_gru_and_lstm(
    ours: type[RNN], theirs: type[nn.GRU] | type[nn.LSTM], bias: bool, bidirectional: bool
) -> None:
    settings: dict[str, Any] = {"num_layers": 2, "bias": bias, "bidirectional": bidirectional}
    module = theirs(F, H, **settings)
    layers: list[Any] = [LAYERS[ours._cell](F, H, **settings), make_rnn(ours._cell, F, H, **settings)]
    weights = module.state_dict()
    nn.ModuleList(layers).load_state_dict({f"{i}.{key}": w for i in range(2) for key, w in weights.items()})
    x = torch.randn(T, B, F)
    for loaded in layers:
        torch.testing.assert_close(loaded(input=x, hx=None)[0], module(input=x, hx=None)[0])
        for name, weight in module.named_parameters():
            assert torch.equal(getattr(loaded, name), weight)
        for mine, others in zip(loaded.all_weights, module.all_weights, strict=True):
            assert all(map(torch.equal, mine, others))
            assert len(mine) == len(others)
        assert loaded.weight_hh_l1 is loaded.all_weights[-1 - bidirectional][1]
        assert hasattr(loaded, "weight_ih_l1_reverse") == bidirectional
        assert not hasattr(loaded, "weight_ih_l2")
        assert hasattr(loaded, "bias_ih_l0") == bias


def test_torchs_weights_of_another_size_or_kind_are_refused_by_their_name() -> None:
    with pytest.raises(RuntimeError, match=r"size mismatch for cells\.0\.weight_ih"):
        GRU(F, H).load_state_dict(nn.GRU(F, H + 1).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight_ih_l0_reverse"):
        GRU(F, H).load_state_dict(nn.GRU(F, H, bidirectional=True).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight_ih_l0"):
        NBRC(F, H).load_state_dict(nn.GRU(F, H).state_dict())
    for name in ("weight_ih_l0", "all_weights"):
        with pytest.raises(AttributeError, match=name):
            getattr(NBRC(F, H), name)


def test_from_torch_says_what_it_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"torch\.nn\.GRU or torch\.nn\.LSTM, got RNN"):
        from_torch(nn.RNN(F, H))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no projections, got proj_size=2"):
        from_torch(nn.LSTM(F, H, proj_size=2))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_packed_sequences_run_each_by_itself(name: str, enforce_sorted: bool, bidirectional: bool) -> None:
    rnn = make_rnn(name, F, H, 2, bidirectional=bidirectional, cell_kwargs={"learn_initial_state": True})
    lengths = [6, 4, 4, 1] if enforce_sorted else [4, 1, 6, 4]
    sequences = [torch.randn(n, F) for n in lengths]
    resets = [torch.rand(n) < 0.3 for n in lengths]
    hx = torch.randn(len(rnn.layers), 4, rnn.state_size)
    output, h_n = rnn(pack_sequence(sequences, enforce_sorted), hx, pack_sequence(resets, enforce_sorted))
    padded, _ = pad_packed_sequence(output)
    for b, (sequence, reset) in enumerate(zip(sequences, resets, strict=True)):
        alone, last = rnn(sequence, hx[:, b], reset)
        torch.testing.assert_close(padded[: len(sequence), b], alone)
        torch.testing.assert_close(h_n[:, b], last)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ["brc", "nbrc", "lstm", "lmu"])
def test_a_masked_batch_runs_as_a_packed_one(name: str, batch_first: bool) -> None:
    rnn = make_rnn(name, F, H, 2, batch_first=batch_first, bidirectional=True)
    lengths, hx = torch.tensor([2, T, 1, 5, 5]), torch.randn(4, B, rnn.state_size)
    mask = torch.arange(T) < lengths.unsqueeze(1)  # (B, T)
    x, resets = torch.randn(B, T, F), torch.rand(B, T) < 0.3

    def given(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if batch_first else tensor.transpose(0, 1)

    def pack(tensor: torch.Tensor) -> PackedSequence:
        return pack_padded_sequence(tensor, lengths, True, False)

    expected, h = rnn(pack(x), hx, pack(resets))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            output, h_n = rnn(given(x), hx, given(resets), mask=given(mask.float() if grad else mask))
        torch.testing.assert_close(h_n, h)
        torch.testing.assert_close(given(output), pad_packed_sequence(expected, True, total_length=T)[0])
    everything, last = rnn(given(x), mask=torch.ones_like(given(mask)))
    torch.testing.assert_close((everything, last), rnn(given(x)))


@pytest.mark.parametrize("name", NAMES)
def test_resets_cut_both_directions_into_separate_sequences(name: str) -> None:
    rnn = make_rnn(name, F, H, 1, bidirectional=True, cell_kwargs={"learn_initial_state": True})
    x, resets = torch.randn(T, B, F), torch.zeros(T, B)
    resets[3] = 1
    hx = torch.randn(2, B, rnn.state_size)
    output, h_n = rnn(x, hx, resets)
    start = torch.stack([rnn.layers[0].initial_state(B), rnn.layers[1].initial_state(B)])
    first, first_n = rnn(x[:3], torch.stack([hx[0], start[1]]))
    second, second_n = rnn(x[3:], torch.stack([start[0], hx[1]]))
    torch.testing.assert_close(output, torch.cat([first, second]))
    torch.testing.assert_close(h_n, torch.stack([second_n[0], first_n[1]]))


@pytest.mark.parametrize("name", NAMES)
def test_resets_follow_the_layout_of_the_input(name: str) -> None:
    rnn, first = make_rnn(name, F, H), make_rnn(name, F, H, batch_first=True)
    first.load_state_dict(rnn.state_dict())
    x, resets = torch.randn(T, B, F), torch.rand(T, B) < 0.3
    output = rnn(x, None, resets)[0]
    torch.testing.assert_close(first(x.transpose(0, 1), None, resets.T)[0].transpose(0, 1), output)
    torch.testing.assert_close(rnn(x[:, 1], None, resets[:, 1])[0], output[:, 1])


@pytest.mark.parametrize("name", NAMES)
def test_copies_pickles_and_state_dicts_compute_the_same(name: str) -> None:
    rnn, x = make_rnn(name, F, H, 2), torch.randn(T, B, F)
    expected = rnn(x)[0]
    assert torch.equal(copy.deepcopy(rnn)(x)[0], expected)
    assert torch.equal(pickle.loads(pickle.dumps(rnn))(x)[0], expected)
    other = make_rnn(name, F, H, 2)
    other.load_state_dict(rnn.state_dict())
    assert torch.equal(other(x)[0], expected)
    assert all(key.startswith(("cells.0.", "cells.1.")) for key in rnn.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_strides_do_not_matter(name: str) -> None:
    rnn = make_rnn(name, F, H)
    row = torch.randn(1, 1, F)
    torch.testing.assert_close(rnn(row.expand(T, B, F))[0], rnn(row.expand(T, B, F).contiguous())[0])
    x = torch.randn(B, F, T).permute(2, 0, 1)
    torch.testing.assert_close(rnn(x)[0], rnn(x.contiguous())[0])


@pytest.mark.parametrize("name", NAMES)
def test_autocast_keeps_the_recurrence_in_float32(name: str) -> None:
    rnn, x = make_rnn(name, F, H), torch.randn(T, B, F)
    expected = rnn(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rnn(x)[0], expected)
        assert rnn(x.bfloat16())[0].dtype == torch.float32
        hx = torch.zeros(1, B, rnn.state_size, dtype=torch.bfloat16)
        assert torch.equal(rnn(x, hx)[0], expected)


def test_dropout_acts_between_layers_and_only_while_training() -> None:
    rnn = NBRC(F, H, 2, dropout=1.0)
    x = torch.randn(T, B, F)
    first = rnn.layers[0].scan(x)[0]
    torch.testing.assert_close(rnn(x)[0], rnn.layers[1].scan(torch.zeros_like(first))[0])
    rnn.eval()
    torch.testing.assert_close(rnn(x)[0], rnn.layers[1].scan(first)[0])


def test_frozen_parameters_get_no_gradient() -> None:
    rnn = NBRC(F, H)
    cell = rnn.layers[0]
    assert isinstance(cell, NBRCCell)
    cell.weight_ih.requires_grad_(False)
    rnn(torch.randn(T, B, F))[0].sum().backward()
    assert cell.weight_ih.grad is None
    assert cell.weight_hh.grad is not None


def test_a_learned_initial_state_is_where_sequences_start() -> None:
    rnn = NBRC(F, H, learn_initial_state=True)
    initial = rnn.layers[0].initial
    assert initial is not None
    nn.init.constant_(initial, 0.7)
    x = torch.randn(T, B, F)
    torch.testing.assert_close(rnn(x)[0], rnn(x, torch.full((1, B, H), 0.7))[0])
    rnn(x)[0].sum().backward()
    assert initial.grad is not None
    assert initial.grad.abs().min() > 0


WRONG_CALLS = [
    ((torch.zeros(T, B, F + 1),), RuntimeError, "Expected 3, got 4"),
    ((torch.zeros(F),), ValueError, "Expected input to be 2D or 3D, got 1D"),
    (
        (torch.zeros(T, B, F), torch.zeros(1, B, H + 1)),
        RuntimeError,
        r"Expected hidden size \(1, 5, 4\), got \[1, 5, 5\]",
    ),
    ((torch.zeros(T, B, F), torch.zeros(1, H)), RuntimeError, "hx should also be 3-D but got 2-D"),
    ((torch.zeros(T, F), torch.zeros(1, B, H)), RuntimeError, "hx should also be 2-D but got 3-D"),
    ((torch.zeros(T, B, F, dtype=torch.float64),), ValueError, "float64.*does not match weight dtype.*float32"),
    ((torch.zeros(T, B, F), torch.zeros(1, B, H, dtype=torch.float64)), ValueError, "the state's dtype"),
    (
        (torch.zeros(T, B, F), torch.zeros(1, B, H, device="meta")),
        ValueError,
        "the state is on meta and the weights are on cpu",
    ),
    ((torch.zeros(T, B, F, device="meta"),), ValueError, "the input is on meta and the weights are on cpu"),
    ((torch.zeros(T, B, F), None, torch.zeros(B, T)), ValueError, r"resets must be \(7, 5\).*got \(5, 7\)"),
    ((pack_sequence([torch.zeros(2, F)]), None, torch.zeros(2)), ValueError, "resets must be a PackedSequence"),
    (
        (pack_sequence([torch.zeros(4, F), torch.zeros(2, F)]), None, pack_sequence([torch.zeros(3), torch.zeros(3)])),
        ValueError,
        "of the same lengths",
    ),
    ((torch.zeros(2, 1, F), None, pack_sequence([torch.zeros(2)])), ValueError, "resets must be a tensor"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG_CALLS)
def test_a_wrong_call_is_told_what_is_wrong(
    arguments: tuple[torch.Tensor, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        NBRC(F, H)(*arguments)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (torch.zeros(3, 1, F), [[1], [0], [1]], "true at the first steps of every sequence"),
        (torch.zeros(3, 1, F), [[0], [0], [0]], "at least one"),
        (torch.zeros(3, 1, F), [[1, 1, 1]], r"mask must be \(3, 1\), one for each step of the input; got \(1, 3\)"),
        (torch.zeros(3, F), [1, 1, 0], "of a padded batch, a 3D tensor"),
        (pack_sequence([torch.zeros(2, F)]), [[1], [1]], "of a padded batch, a 3D tensor"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(x: Any, mask: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NBRC(F, H)(x, mask=torch.tensor(mask))


MALFORMED: list[tuple[list[Any], str]] = [
    *(
        ([torch.tensor(sizes)], r"never grow and sum to the 4 rows")
        for sizes in ([1, 3], [3, -1, 2], [0, 4], [4, 1], [2, 1], [4, 0])
    ),
    ([torch.tensor([], dtype=torch.int64)], "at least one step"),
    ([torch.tensor([2.0, 2.0])], r"\(T,\) int64 on the CPU, got \(2,\) torch.float32 on cpu"),
    ([torch.tensor([2, 2], dtype=torch.int32)], "int64 on the CPU, got"),
    ([torch.tensor([[2, 2]])], r"got \(1, 2\)"),
    *(
        ([torch.tensor([2, 2]), torch.tensor(order), torch.tensor([0, 1])], "sorted_indices.*must be a permutation")
        for order in ([0, 5], [0, -1], [0, 0], [0], [0.0, 1.0])
    ),
    ([torch.tensor([2, 2]), None, torch.tensor([0, 5])], "unsorted_indices.*must be a permutation"),
    ([torch.tensor([2, 2]), torch.tensor([1, 0]), torch.tensor([0, 1])], "must be the inverse of sorted_indices"),
]


@pytest.mark.parametrize(("layout", "message"), MALFORMED)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["nbrc", "plastic_gru"])
def test_a_malformed_packed_sequence_is_refused(
    name: str, bidirectional: bool, layout: list[Any], message: str
) -> None:
    rnn = make_rnn(name, F, H, bidirectional=bidirectional)
    packed = PackedSequence(torch.randn(4, F), *layout)
    for hx in (None, torch.zeros(1 + bidirectional, 2, rnn.state_size)):
        with pytest.raises(ValueError, match=message):
            rnn(packed, hx)
    if len(layout) == 1:
        with pytest.raises(ValueError, match=message):
            rnn.layers[0].scan(packed.data, None, None, layout[0])


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_on_the_meta_device_there_are_shapes(name: str, grad: bool) -> None:
    real, meta = (
        make_rnn(name, F, H, 2, bidirectional=True, cell_kwargs={"learn_initial_state": True}, device=device)
        for device in ("cpu", "meta")
    )
    x, hx, resets = torch.randn(T, B, F), torch.randn(4, B, real.state_size), torch.rand(T, B) < 0.3
    packed = pack_sequence([torch.randn(2, F), torch.randn(4, F)], enforce_sorted=False)
    with torch.set_grad_enabled(grad):
        for arguments in ((x,), (x, hx, resets), (x[:, 0], hx[:, 0]), (x[:0],), (packed,), (packed, hx[:, :2])):
            expected, last = real(*arguments)
            found, found_last = meta(*(argument.to("meta") for argument in arguments))  # type: ignore[arg-type]
            found, expected = (o.data if isinstance(o, PackedSequence) else o for o in (found, expected))
            assert found.is_meta
            assert (found.shape, found_last.shape) == (expected.shape, last.shape)
        single = make_rnn(name, F, H, device="meta")
        assert single(x[:1].to("meta"), hx[:1].to("meta"))[0].shape == (1, B, H)
        elsewhere = packed.to("meta")  # type: ignore[arg-type]
        with torch.device("meta"):
            assert make_rnn(name, F, H, bidirectional=True)(elsewhere)[0].data.shape == (6, 2 * H)
    if grad:
        meta(x.to("meta"))[0].sum().backward()
        assert [p.grad.shape for p in meta.parameters() if p.grad is not None] == [p.shape for p in real.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_layers_built_without_numbers_and_filled_later_compute_the_same(name: str) -> None:
    source, x = make_rnn(name, F, H, 2), torch.randn(T, B, F)
    expected, state = source(x)[0], dict(source.state_dict())  # without the metadata, in which torch keeps `assign`

    def built() -> RNN:
        return make_rnn(name, F, H, 2, device="meta")

    empty = built().to_empty(device="cpu")
    assigned = built()
    with torch.device("meta"):
        context = make_rnn(name, F, H, 2)
    context.to_empty(device="cpu")
    skipped = nn.utils.skip_init(RNN, name, F, H, 2)
    for rnn in (empty, assigned, context, skipped):
        rnn.load_state_dict(state, assign=rnn is assigned)
        assert torch.equal(rnn(x)[0], expected)
        assert rnn.state_dict().keys() == state.keys()

    double = built().to_empty(device="cpu").double()
    double.load_state_dict(state)
    assert torch.equal(double(x.double())[0], copy.deepcopy(source).double()(x.double())[0])

    drawn = built().to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*drawn.parameters(), *drawn.buffers()):
            tensor.fill_(torch.nan)
    drawn.reset_parameters()
    assert drawn(x)[0].isfinite().all()
    assert all(map(torch.equal, drawn.buffers(), source.buffers()))


SWITCHES = [
    (name, switch)
    for name in NAMES
    for switch in ("bias", "batch_first", "bidirectional", *(o for o, v in cell_options(name).items() if v is False))
]


@pytest.mark.parametrize("value", ["False", 0, 1, None, np.bool_(True)], ids=repr)
@pytest.mark.parametrize(("name", "switch"), SWITCHES)
def test_a_switch_is_true_or_false(name: str, switch: str, value: object) -> None:
    cell = CELLS[name]
    constructors: list[Any] = [LAYERS[name]] if name in LAYERS else []
    if switch not in ("batch_first", "bidirectional"):
        constructors.append(cell)
    for make in constructors:
        with pytest.raises(TypeError, match=f"^{switch} must be True or False; got {re.escape(repr(value))}$"):
            make(F, H, **{switch: value})


WRONG_CONSTRUCTIONS = [
    ({"num_layers": 0}, "num_layers must be an integer above 0, got 0"),
    ({"dropout": 1.5}, r"range \[0, 1\], got 1.5"),
    ({"cell": "gruu"}, "did you mean 'gru'"),
    ({"cell_kwargs": {"candidatebias": True}}, "unknown option 'candidatebias'; did you mean 'candidate_bias'"),
    ({"input_size": -1}, "input_size must be an integer above 0, got -1"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_CONSTRUCTIONS)
def test_a_wrong_construction_is_told_what_is_wrong(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_rnn(**{"cell": "nbrc", "input_size": F, "hidden_size": H, **arguments})  # type: ignore[arg-type]


def test_a_wrong_option_is_refused_by_type_checkers_too() -> None:  # each ignore below is needed, or mypy complains
    NBRC(F, H, c_bias="chrono", t_max=50)
    with pytest.raises(ValueError, match="unknown option 'theta'"):
        NBRC(F, H, theta=3.0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="c_bias must be a finite number or 'chrono', got 'chron'"):
        NBRC(F, H, c_bias="chron")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="NBRCCell got an unexpected keyword argument 'theta'"):
        NBRCCell(F, H, theta=3.0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="unknown recurrent_init 'normal'"):
        NBRCCell(F, H, recurrent_init="normal")  # type: ignore[arg-type]


def test_a_tuple_of_states_is_told_how_to_become_one_tensor() -> None:
    h, c = torch.randn(2, 1, B, H)
    x = torch.randn(T, B, F)
    with pytest.raises(ValueError, match=r"one tensor.*torch\.cat\(\[h, c\], -1\)"):
        LSTM(F, H)(x, (h, c))
    LSTM(F, H)(x, torch.cat([h, c], -1))


def test_a_cell_says_what_resets_it_takes() -> None:
    cell = NBRCCell(F, H)
    with pytest.raises(ValueError, match=r"resets must be \(7, 5\) on cpu.*got \(7,\) on cpu"):
        cell.scan(torch.zeros(T, B, F), None, torch.zeros(T))


def test_code_written_for_nn_gru_may_flatten_the_parameters() -> None:
    NBRC(F, H).flatten_parameters()


def test_dropout_on_a_single_layer_warns_as_nn_gru_does() -> None:
    with pytest.warns(UserWarning, match="num_layers above 1"):
        NBRC(F, H, dropout=0.5)
