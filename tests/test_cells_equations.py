"""Each cell against a transcription of its equations in numpy, float64, that shares no code with it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bistable_rl import make_rnn
from bistable_rl.cells import CELLS, Cell, LSTMCell, NBRCCell, cell_options, get_cell

Array = np.ndarray
Weights = dict[str, Array]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def brc(w: Weights, x: Array, h: Array) -> Array:
    H = h.shape[1]
    U, b = w["weight_ih"], np.concatenate([w["bias"], np.zeros(3 * H - len(w["bias"]))])
    a = 1 + np.tanh(x @ U[:H].T + w["weight_hh"][0] * h + b[:H])
    c = sigmoid(x @ U[H : 2 * H].T + w["weight_hh"][1] * h + b[H : 2 * H])
    return c * h + (1 - c) * np.tanh(x @ U[2 * H :].T + a * h + b[2 * H :])


def nbrc(w: Weights, x: Array, h: Array) -> Array:
    H = h.shape[1]
    U, W, b = w["weight_ih"], w["weight_hh"], np.concatenate([w["bias"], np.zeros(3 * H - len(w["bias"]))])
    a = 1 + np.tanh(x @ U[:H].T + h @ W[:H].T + b[:H])
    c = sigmoid(x @ U[H : 2 * H].T + h @ W[H:].T + b[H : 2 * H])
    return c * h + (1 - c) * np.tanh(x @ U[2 * H :].T + a * h + b[2 * H :])


def gru(w: Weights, x: Array, h: Array) -> Array:
    i_r, i_z, i_n = np.split(x @ w["weight_ih"].T + w["bias_ih"], 3, axis=1)
    h_r, h_z, h_n = np.split(h @ w["weight_hh"].T + w["bias_hh"], 3, axis=1)
    z = sigmoid(i_z + h_z)
    return z * h + (1 - z) * np.tanh(i_n + sigmoid(i_r + h_r) * h_n)


def lstm(w: Weights, x: Array, state: Array) -> Array:
    h, c = np.split(state, 2, axis=1)
    gates = x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
    i, f, g, o = np.split(gates, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.concatenate([sigmoid(o) * np.tanh(c), c], axis=1)


def goru(w: Weights, x: Array, h: Array) -> Array:
    H = h.shape[1]
    u_r, u_g, u_c = np.split(x @ w["weight_ih"].T, 3, axis=1)
    b_r, b_g, b_c = np.split(w["bias"], 3)
    turned = h.copy()
    for layer, d in enumerate([H >> k for k in range(1, H.bit_length())]):
        angles, before = list(w["angles"][layer]), turned.copy()
        for p in range(H):
            if (p // d) % 2 == 0:
                angle = angles.pop(0)
                turned[:, p] = np.cos(angle) * before[:, p] - np.sin(angle) * before[:, p + d]
                turned[:, p + d] = np.cos(angle) * before[:, p + d] + np.sin(angle) * before[:, p]
    r = sigmoid(u_r + h @ w["weight_hh"][:H].T + b_r)
    g = sigmoid(u_g + h @ w["weight_hh"][H:].T + b_g)
    v = u_c + r * turned
    return g * h + (1 - g) * np.sign(v) * np.maximum(np.abs(v) + 0.001 + b_c, 0)


def lmu(w: Weights, x: Array, state: Array) -> Array:
    cont2discrete = pytest.importorskip("scipy.signal").cont2discrete
    d, theta = 5, 7.0
    A, B_ = np.zeros((d, d)), np.zeros((d, 1))
    for i in range(d):
        B_[i, 0] = (2 * i + 1) * (-1) ** i / theta
        for j in range(d):
            A[i, j] = (2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1))
    A, B_, *_ = cont2discrete((A, B_, np.eye(d), np.zeros((d, 1))), dt=1.0, method="zoh")
    h, m = state[:, :-d], state[:, -d:]
    u = x @ w["encoder_x"] + h @ w["encoder_h"] + m @ w["encoder_m"]
    m = m @ A.T + u[:, None] * B_[:, 0]
    h = np.tanh(x @ w["weight_ih"].T + h @ w["weight_hh"].T + m @ w["weight_mh"].T)
    return np.concatenate([h, m], axis=1)


def plastic(kind: str, w: Weights, x: Array, state: Array) -> Array:
    H = w["weight_hh"].shape[1]
    u_1, u_z, u_n = np.split(x @ w["weight_ih"].T + w["bias"], 3, axis=1)
    rows = []
    for b in range(len(x)):
        h, hebb = state[b, :H], state[b, H:].reshape(H, -1)
        w_1, w_z = np.split(w["weight_hh"] @ h, 2)
        z = sigmoid(u_z[b] + w_z)
        plastic_part = (w["plasticity"] * hebb).T @ h
        if kind == "plastic_gru":
            r = sigmoid(u_1[b] + w_1)
            n = np.tanh(u_n[b] + r * (w["weight_nh"].T @ h + plastic_part + w["bias_nh"]))
        elif kind == "pbrc":
            n = np.tanh(u_n[b] + (1 + np.tanh(u_1[b] + w_1)) * plastic_part)
        else:
            v = np.concatenate([h[: H // 2], w["weight_nh"].T @ h + plastic_part])
            n = np.tanh(u_n[b] + (1 + np.tanh(u_1[b] + w_1)) * v)
        eta, traced = w["eta"], n[: hebb.shape[1]]
        hebb = np.clip((1 - eta) * hebb + eta * np.outer(h, traced), -1, 1)
        rows.append(np.concatenate([z * h + (1 - z) * n, hebb.ravel()]))
    return np.stack(rows)


def mixed(w: Weights, x: Array, state: Array) -> Array:
    """Half nBRC and half GRU, H/2 units each."""
    h, g = np.split(state, 2, axis=1)
    first, second = ({k.removeprefix(f"kinds.{i}."): v for k, v in w.items() if f"kinds.{i}." in k} for i in (0, 1))
    return np.concatenate([nbrc(first, x, h), gru(second, x, g)], axis=1)


def mixed_with_lstm(w: Weights, x: Array, state: Array) -> Array:
    """2 units of LSTM, 2 of GORU, 4 of BRC: the state is h of all three, then the LSTM's c."""
    lstms, gorus, brcs, kept = np.split(state, [2, 4, 8], axis=1)
    parts = [{k.removeprefix(f"kinds.{i}."): v for k, v in w.items() if f"kinds.{i}." in k} for i in range(3)]
    h, c = np.split(lstm(parts[0], x, np.concatenate([lstms, kept], axis=1)), 2, axis=1)
    return np.concatenate([h, goru(parts[1], x, gorus), brc(parts[2], x, brcs), c], axis=1)


# One row a variant: the cell, its options, its equations.
VARIANTS: dict[str, tuple[str, dict[str, object], Callable[[Weights, Array, Array], Array]]] = {
    "brc": ("brc", {}, brc),
    "brc with candidate bias": ("brc", {"candidate_bias": True}, brc),
    "nbrc": ("nbrc", {}, nbrc),
    "nbrc with candidate bias": ("nbrc", {"candidate_bias": True, "recurrent_init": "orthogonal"}, nbrc),
    "gru": ("gru", {}, gru),
    "lstm": ("lstm", {"init": "keras"}, lstm),
    "goru": ("goru", {}, goru),
    "lmu": ("lmu", {"memory_size": 5, "theta": 7.0}, lmu),
    "plastic_gru": ("plastic_gru", {}, partial(plastic, "plastic_gru")),
    "pbrc": ("pbrc", {}, partial(plastic, "pbrc")),
    "half_pbrc": ("half_pbrc", {}, partial(plastic, "half_pbrc")),
    "mixed": ("mixed", {}, mixed),
    "mixed with lstm": ("mixed", {"parts": {"lstm": 2, "goru": 2, "brc": 4}}, mixed_with_lstm),
}
F, H, B, T = 3, 8, 4, 9


def make(name: str, options: dict[str, object], seed: int = 0) -> Cell:
    """A float64 cell whose parameters are all random, so that no term of its equation hides behind a zero."""
    torch.manual_seed(seed)
    cell = get_cell(name)(F, H, **options, dtype=torch.float64)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return cell


def random_state(cell: Cell) -> torch.Tensor:
    return 0.5 * torch.randn(B, cell.state_size, dtype=torch.float64)


def weights(cell: Cell) -> Weights:
    return {name: value.detach().numpy() for name, value in cell.state_dict().items()}


def test_every_cell_is_tested_here() -> None:
    assert {name for name, _, _ in VARIANTS.values()} == set(CELLS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_scan_follows_the_equations(variant: str) -> None:
    name, options, equation = VARIANTS[variant]
    cell = make(name, options)
    x, state = torch.randn(T, B, F, dtype=torch.float64), random_state(cell)
    outputs, last = cell.scan(x, state)
    expected = state.numpy()
    for t in range(T):
        expected = equation(weights(cell), x[t].numpy(), expected)
        np.testing.assert_allclose(outputs[t].detach().numpy(), expected[:, :H], atol=1e-12)
    np.testing.assert_allclose(last.detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_is_one_step_with_and_without_a_batch(variant: str) -> None:
    name, options, equation = VARIANTS[variant]
    cell = make(name, options)
    x, state = torch.randn(B, F, dtype=torch.float64), random_state(cell)
    expected = equation(weights(cell), x.numpy(), state.numpy())
    np.testing.assert_allclose(cell(x, state).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(cell(x[1], state[1]).detach().numpy(), expected[1], atol=1e-12)
    torch.testing.assert_close(cell(x), cell(x, torch.zeros_like(state)))
    torch.testing.assert_close(cell(x)[0], cell(x[0]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_finite_differences(variant: str) -> None:
    name, options, _ = VARIANTS[variant]
    cell = make(name, options)
    names, parameters = zip(*cell.named_parameters(), strict=True)
    x = torch.randn(3, 2, F, dtype=torch.float64, requires_grad=True)
    state = random_state(cell)[:2].requires_grad_()
    resets = torch.tensor([[0, 1], [0, 0], [1, 0]])

    def function(x: torch.Tensor, state: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scan = Scan(cell)
        return torch.func.functional_call(
            scan, {f"cell.{n}": v for n, v in zip(names, values, strict=True)}, (x, state, resets)
        )

    assert torch.autograd.gradcheck(function, (x, state, *parameters), fast_mode=True)


class Scan(nn.Module):
    """`scan` as a forward, which functional_call needs."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cell.scan(*arguments)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reset_starts_a_separate_sequence(variant: str, learned: bool) -> None:
    name, options, _ = VARIANTS[variant]
    cell = make(name, {**options, "learn_initial_state": learned})
    x, state = torch.randn(T, B, F, dtype=torch.float64), random_state(cell)
    resets = torch.zeros(T, B)
    resets[4, 0] = resets[0, 1] = resets[6, 1] = 1
    outputs, last = cell.scan(x, state, resets)
    torch.testing.assert_close(outputs[:, 2:], cell.scan(x[:, 2:], state[2:])[0])
    torch.testing.assert_close(outputs[:4, :1], cell.scan(x[:4, :1], state[:1])[0])
    torch.testing.assert_close(outputs[4:, :1], cell.scan(x[4:, :1])[0])
    torch.testing.assert_close(outputs[:6, 1:2], cell.scan(x[:6, 1:2])[0])
    torch.testing.assert_close(outputs[6:, 1:2], cell.scan(x[6:, 1:2])[0])
    torch.testing.assert_close(last[1:2], cell.scan(x[6:, 1:2])[1])
    torch.testing.assert_close(cell.scan(x, state, resets.bool())[0], outputs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_state_carries_everything_from_one_call_to_the_next(variant: str) -> None:
    name, options, _ = VARIANTS[variant]
    cell = make(name, options)
    x = torch.randn(T, B, F, dtype=torch.float64)
    outputs, last = cell.scan(x)
    first, state = cell.scan(x[:4])
    second, end = cell.scan(x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), outputs)
    torch.testing.assert_close(end, last)
    for t in range(4, T):
        state = cell(x[t], state)
        torch.testing.assert_close(state[:, :H], outputs[t])
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_empty_sequence_leaves_the_state_as_it_was(variant: str) -> None:
    name, options, _ = VARIANTS[variant]
    cell = make(name, options)
    state = random_state(cell)
    outputs, last = cell.scan(torch.empty(0, B, F, dtype=torch.float64), state)
    assert outputs.shape == (0, B, H)
    assert torch.equal(last, state)
    assert last.data_ptr() != state.data_ptr()


@pytest.mark.parametrize("variant", VARIANTS)
def test_recomputing_changes_no_gradient(variant: str) -> None:
    name, options, _ = VARIANTS[variant]
    if "recompute" not in cell_options(name):
        pytest.skip(f"{name} keeps nothing but its states anyway")
    gradients = []
    for recompute in (False, True):
        cell = make(name, {**options, "recompute": recompute, "learn_initial_state": True}, seed=1)
        x = torch.randn(T, B, F, dtype=torch.float64, requires_grad=True)
        outputs, last = cell.scan(x, None, torch.rand(T, B) < 0.2)
        gradients.append(torch.autograd.grad(outputs.square().sum() + last.sum(), [x, *cell.parameters()]))
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept)


@pytest.mark.parametrize(("name", "theirs"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_gru_and_lstm_compute_what_torch_does(name: str, theirs: type[nn.GRU] | type[nn.LSTM]) -> None:
    cell, module = make(name, {}), theirs(F, H, dtype=torch.float64)
    module.load_state_dict({f"{key}_l0": value for key, value in cell.state_dict().items()})
    x = torch.randn(T, B, F, dtype=torch.float64)
    torch.testing.assert_close(cell.scan(x)[0], module(x)[0])


@pytest.mark.filterwarnings("error")
def test_numpys_numbers_are_numbers() -> None:
    for number in (np.float16(2), np.float32(2), np.float64(2), np.int64(2)):
        cell = get_cell("gru")(F, H, c_bias=number)
        assert any((parameter == 2).sum() == H for parameter in cell.parameters())
        get_cell("gru")(F, H, c_bias="chrono", t_max=number)
        assert make_rnn("lmu", F, H, cell_kwargs={"theta": number}).cells[0].theta == 2.0
    assert make_rnn("gru", F, H, 2, dropout=np.float32(0.5)).dropout == 0.5
    for wrong in (np.float32("inf"), np.float64(1e50), np.bool_(True), np.float32("nan")):
        with pytest.raises(ValueError, match="c_bias must be"):
            get_cell("gru")(F, H, c_bias=wrong)


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.slow_gate])
def test_c_bias_makes_the_slow_gate_keep_longer(name: str) -> None:
    torch.manual_seed(0)
    kept = []
    for c_bias in (-9.0, 9.0):
        options: dict[str, Any] = {"start": "paper"} if name == "mixed" else {}  # in halves it is of some units
        cell = get_cell(name)(F, H, c_bias=c_bias, **options)
        state = torch.zeros(B, cell.state_size)
        state[:, cell.memory] = 0.9 * torch.randn(B, H).sign()
        after = cell(torch.randn(B, F), state)[:, cell.memory]
        kept.append((after - state[:, cell.memory]).abs().max().item())
    assert kept[1] < 0.05 < 0.3 < kept[0]


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.slow_gate])
def test_the_slow_gate_is_among_the_gates(name: str) -> None:
    cell = make(name, {})
    gates = cell.gates(cell.project(torch.randn(B, F, dtype=torch.float64)), random_state(cell))
    assert cell.slow_gate in gates, f"{type(cell).__name__}.gates must return the gate {cell.slow_gate!r}"
    kept = gates[cell.slow_gate]
    assert kept.shape == (B, H)
    assert bool((kept >= 0).all() and (kept <= 1).all())


@pytest.mark.parametrize(("name", "slow_bias"), [("brc", "bias"), ("nbrc", "bias"), ("gru", "bias_ih")])
def test_chrono_draws_the_slow_bias_between_0_and_log_t_max(name: str, slow_bias: str) -> None:
    torch.manual_seed(0)
    cell = get_cell(name)(F, 4000, c_bias="chrono", t_max=100.0)
    drawn = getattr(cell, slow_bias)[4000:8000].exp()
    assert drawn.min() >= 1
    assert drawn.max() <= 100.01
    assert abs(drawn.mean().item() - 50.5) < 2


def test_chrono_gives_the_lstm_minus_the_forget_bias_on_its_input_gate() -> None:
    cell = LSTMCell(F, H, c_bias="chrono", t_max=50)
    assert cell.bias_ih is not None
    assert cell.bias_hh is not None
    assert torch.equal(cell.bias_ih[:H], -cell.bias_ih[H : 2 * H])
    assert torch.count_nonzero(cell.bias_hh[: 2 * H]) == 0


def test_keras_init_is_orthogonal_with_a_forget_bias_of_1() -> None:
    cell = LSTMCell(F, H, init="keras")
    assert cell.bias_ih is not None
    assert cell.bias_hh is not None
    torch.testing.assert_close(cell.weight_hh.T @ cell.weight_hh, torch.eye(H))
    assert (cell.bias_ih + cell.bias_hh).tolist() == [0.0] * H + [1.0] * H + [0.0] * 2 * H
    bound = (6 / (F + 4 * H)) ** 0.5
    assert 0.8 * bound < cell.weight_ih.abs().max() <= bound


def test_nbrc_recurrent_init_is_glorot_unless_orthogonal_is_asked_for() -> None:
    torch.manual_seed(0)
    W_a = NBRCCell(F, H, recurrent_init="orthogonal").weight_hh[:H]
    torch.testing.assert_close(W_a @ W_a.T, torch.eye(H))
    drawn = NBRCCell(F, 100).weight_hh
    bound = (6 / 200) ** 0.5
    assert 0.95 * bound < drawn.abs().max() <= bound


@pytest.mark.parametrize("name", ["brc", "nbrc"])
def test_of_the_halves_one_keeps_and_the_other_forgets_at_many_speeds(name: str) -> None:
    torch.manual_seed(0)
    cell = get_cell(name)(F, 41, start="halves")
    state, silence = torch.full((1, 41), 0.3), torch.zeros(1, F)
    gone = torch.full((41,), torch.inf)
    for t in range(1, 201):
        state = cell(silence, state)
        gone[(state[0] < 0.3 / np.e) & gone.isinf()] = t
    assert (state[0, :21] > 0.5).float().mean() > 0.8  # in nBRC one unit can switch off another's second state
    assert state[0, 21:].abs().max() < 0.01
    assert gone[21:26].mean() < 5
    assert 12 < gone[36:].mean() < 40
    assert gone[21:].unique().numel() > 8


@pytest.mark.parametrize("name", ["brc", "nbrc"])
def test_c_bias_sets_the_half_that_keeps(name: str) -> None:
    told = [get_cell(name)(F, 5, start="halves", c_bias=c_bias) for c_bias in (None, 3.0)]
    first, second = (cell.get_parameter("bias").tolist() for cell in told)
    assert first[:5] == second[:5] == [1.0, 1.0, 1.0, -1.5, -1.5]
    assert first[5:8] == [0.0] * 3
    assert second[5:8] == [3.0] * 3
    assert first[8:] == second[8:]
    drawn = get_cell(name)(F, 5, start="halves", c_bias="chrono", t_max=9).get_parameter("bias")
    assert drawn[5:8].unique().numel() == 3


BAD_OPTIONS = [
    ("nbrc", {"start": "half"}, "unknown start 'half'; did you mean 'halves'"),
    ("brc", {"start": "halves", "bias": False}, "start='halves' needs bias=True"),
    ("goru", {"hidden_size": 12}, "must be a power of two, at least 2; got 12"),
    ("half_pbrc", {"hidden_size": 7}, "must be even, got 7"),
    ("lmu", {"memory_size": 0}, "memory_size must be an integer above 0, got 0"),
    ("lmu", {"theta": -1.0}, "theta must be a number of steps above 0, got -1.0"),
    ("nbrc", {"recurrent_init": "normal"}, "unknown recurrent_init 'normal'; the choices are glorot, orthogonal"),
    ("gru", {"init": "tf"}, "unknown init 'tf'; the choices are keras, torch"),
    ("brc", {"c_bias": "crono"}, "'chrono', got 'crono'"),
    ("brc", {"c_bias": float("nan")}, "finite number"),
    ("lmu", {"theta": 1e-310}, "theta=1e-310 is too short a window"),
    ("lmu", {"theta": 10**400}, "theta must be a number of steps above 0"),
    ("nbrc", {"c_bias": 1e50}, r"c_bias must be finite in torch.float32, at most 3.403e\+38; got 1e\+50"),
    ("gru", {"c_bias": -(10**400)}, "c_bias must be finite in torch.float32"),
    ("lstm", {"c_bias": 1e5, "dtype": torch.float16}, "c_bias must be finite in torch.float16"),
    ("goru", {"c_bias": "chrono", "t_max": 1e50}, r"t_max must be finite in torch.float32.*got 1e\+50"),
    ("brc", {"c_bias": "chrono"}, "needs t_max"),
    ("brc", {"c_bias": "chrono", "t_max": 1}, "above 1; got t_max=1"),
    ("lstm", {"t_max": 9.0}, "t_max=9.0 needs c_bias='chrono'"),
    ("gru", {"c_bias": 1.0, "t_max": 9.0}, "needs c_bias='chrono', got c_bias=1.0"),
    ("gru", {"c_bias": 1.0, "bias": False}, "needs bias=True"),
    ("nbrc", {"candidate_bias": True, "bias": False}, "needs bias=True"),
    ("mixed", {"parts": {"nbrc": 4, "gru": 3}}, r"parts must add up to hidden_size 8, got {'nbrc': 4, 'gru': 3}"),
    ("mixed", {"parts": {"nbcr": 8}}, "unknown kind in parts 'nbcr'; did you mean 'nbrc'"),
    ("mixed", {"parts": {"lmu": 8}}, "unknown kind in parts 'lmu'"),
    ("mixed", {"parts": {"mixed": 8}}, "unknown kind in parts 'mixed'"),
    ("mixed", {"parts": {"nbrc": 0, "gru": 8}}, "parts: nbrc must be an integer above 0, got 0"),
    (
        "mixed",
        {"parts": ["nbrc", "gru"]},
        r"parts must map kinds to numbers of units, such as .*; got \['nbrc', 'gru'\]",
    ),
    ("mixed", {"of_kind": {"lstm": {}}}, "unknown kind in of_kind 'lstm'; the choices are gru, nbrc"),
    ("mixed", {"of_kind": {"gru": {"candidate_bias": True}}}, "of_kind: gru: unknown option 'candidate_bias'"),
    ("mixed", {"of_kind": {"gru": {"recompute": 1}}}, "of_kind: gru: recompute must be True or False, got 1"),
    ("mixed", {"of_kind": {"gru": 3}}, "of_kind: gru must map options to values.*; got 3"),
    ("mixed", {"of_kind": 3}, "of_kind must map kinds to options.*; got 3"),
    ("brc", {"input_size": 0}, "input_size must be an integer above 0, got 0"),
    *((name, {"hidden_size": 2.5}, "hidden_size must be an integer above 0, got 2.5") for name in CELLS),
    *((name, {"hidden_size": "4"}, "hidden_size must be an integer above 0, got '4'") for name in CELLS),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_a_bad_option_is_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_cell(name)(**{"input_size": F, "hidden_size": H, **options})  # type: ignore[arg-type]


def test_an_unknown_cell_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown cell 'nbcr'; did you mean 'nbrc'\? The choices are brc, goru"):
        get_cell("nbcr")
    for given, nearest in (("NBRC", "nbrc"), ("LSTMCell", "lstm"), ("Plastic_GRU", "plastic_gru")):
        with pytest.raises(ValueError, match=f"unknown cell '{given}'; did you mean '{nearest}'"):
            get_cell(given)
