"""The fast path in plain torch: any device, any dtype, gradients by hand.

Time is cut into chunks small enough for a chunk's projections and gates to stay in cache; what does not depend on the
step before is computed for a whole chunk at once. The functions are those of `bistable_rl.kernels.cpu`, with the same
arguments and results, but that a state must be given: see there for shapes and for what `saved` holds.

The backward pass rests on one fact: each gate's gradient is the gradient of the new state times a factor known without
it. With n the candidate, ' the derivative of a gate's nonlinearity at its value, and h the state before the step:

    BRC, nBRC   dn = (1-c) n' dh    dc = (h-n) c' dh    da = h a' dn              dh_prev = c dh + a dn + W^T (da, dc)
    GRU         dn = (1-z) n' dh    dz = (h-n) z' dh    dr = (W_n h + b) r' dn    dh_prev = z dh + W^T (dr, dz, r dn)
    LSTM        dc = dc + o tanh'(c) dh    do = tanh(c) o' dh    (di, df, dg) = (g i', c_prev f', i g') dc
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from bistable_rl.kernels.cpu import Gradients, check_inputs, check_results, saved_shape

GATES = {"brc": 3, "nbrc": 3, "gru": 3, "lstm": 4}

# A chunk's projections should stay in a core's second-level cache; elsewhere fewer, larger operations win.
_CHUNK_BYTES = {"cpu": 1 << 20}
_OTHER_CHUNK_BYTES = 1 << 26


def forward(
    kind: str,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    batch_sizes: Tensor | None = None,
    initial: Tensor | None = None,
    save: bool = True,
    recompute: bool = False,
    steps: "Steps | None" = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a whole sequence; arguments and results are those of `cpu.forward`, and `steps` runs a chunk's steps."""
    sizes = check_inputs(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, batch_sizes, initial)
    H, rows = weight_hh.shape[1], x.flatten(0, -2)
    last = state
    outputs = x.new_empty(len(rows), H)
    n, kept_rows, padded = saved_shape(kind, len(rows), H, recompute=recompute)
    saved = x.new_empty(n, kept_rows if save else 0, padded)
    bias = _full_bias(kind, bias_ih, bias_hh, H)
    flags = None if resets is None else resets.reshape(-1) != 0
    for chunk, start, end in _chunks(sizes, GATES[kind] * H, x):
        gates = _project(rows[start:end], weight_ih, bias)
        kept = x.new_empty(end - start, H) if kind in ("gru", "lstm") else None
        flag = None if flags is None else flags[start:end]
        last = (steps or _steps)(kind, chunk, gates, last, flag, initial, weight_hh, bias_hh, outputs[start:end], kept)
        if saved.shape[1] >= GATES[kind]:
            saved[start:end, : GATES[kind], :H] = gates.view(end - start, GATES[kind], H)
        if kept is not None and saved.shape[1]:
            saved[start:end, -1, :H] = kept
    # `last` may be a view of `outputs` or the state that was given; what is returned must be neither.
    return outputs.view(*x.shape[:-1], H), last.clone(), saved


def backward(
    kind: str,
    grad_outputs: Tensor | None,
    grad_final: Tensor | None,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    *,
    batch_sizes: Tensor | None = None,
    initial: Tensor | None = None,
    recompute: bool = False,
    need_x: bool = True,
    steps_back: "StepsBack | None" = None,
) -> Gradients:
    """The gradients of all that `forward` was given; as `cpu.backward`, and `steps_back` runs a chunk's steps."""
    sizes = check_inputs(kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, batch_sizes, initial)
    H, rows = weight_hh.shape[1], x.flatten(0, -2)
    check_results(kind, x, len(state), H, grad_outputs, grad_final, outputs, saved, recompute=recompute)
    states = outputs.reshape(-1, H)
    if kind == "lstm":
        states = torch.cat([states, saved[:, -1, :H]], 1)
    flags = None if resets is None else resets.reshape(-1) != 0
    bias = _full_bias(kind, bias_ih, bias_hh, H)
    grad_rows = None if grad_outputs is None else grad_outputs.reshape(-1, H)
    carried = torch.zeros_like(state) if grad_final is None else grad_final.clone()

    grad_x = torch.empty_like(rows) if need_x else None
    grad_weight_ih, grad_weight_hh = torch.zeros_like(weight_ih), torch.zeros_like(weight_hh)
    grad_bias = x.new_zeros(GATES[kind] * H)
    grad_bias_hh = x.new_zeros(GATES[kind] * H)
    grad_initial = None if initial is None else torch.zeros_like(initial)

    for chunk, start, end in reversed(list(_chunks(sizes, GATES[kind] * H, x))):
        before = _states_before(states, state, sizes, start, chunk)
        if flags is not None:
            before = _restored(before, flags[start:end], initial)
        if kind != "brc" and not recompute:
            gates = saved[start:end, :, :H]
        else:
            cells = saved[start:end, -1, :H] if kind == "lstm" else None
            gates = _gates(kind, rows[start:end], before, weight_ih, weight_hh, bias, bias_hh, cells)
        factors = _FACTORS[kind](gates, before, weight_hh)
        grad_gates = x.new_empty(end - start, GATES[kind], H)
        carried = (steps_back or _steps_back)(
            kind,
            chunk,
            factors,
            None if grad_rows is None else grad_rows[start:end],
            carried,
            None if flags is None else flags[start:end],
            grad_initial,
            weight_hh,
            grad_gates,
        )
        flat = grad_gates.flatten(1)
        if grad_x is not None:
            torch.mm(flat, weight_ih, out=grad_x[start:end])
        grad_weight_ih.addmm_(flat.T, rows[start:end])
        grad_bias += flat.sum(0)
        if kind == "brc":
            grad_weight_hh += (grad_gates[:, :2] * before.unsqueeze(1)).sum(0)
            continue
        if kind == "gru":  # W_n h + b enters the candidate through r
            grad_gates[:, 2] *= gates[:, 0]
            grad_bias_hh += flat.sum(0)
        flat = flat[:, : len(weight_hh)]
        grad_weight_hh.addmm_(flat.T, before[:, :H])

    if kind == "lstm":
        grad_bias_hh = grad_bias
    return Gradients(
        x=None if grad_x is None else grad_x.view(x.shape),
        state=carried,
        weight_ih=grad_weight_ih,
        weight_hh=grad_weight_hh,
        bias_ih=None if bias_ih is None else grad_bias[: len(bias_ih)].clone(),
        bias_hh=None if bias_hh is None else grad_bias_hh.clone(),
        initial=grad_initial,
    )


# How a chunk's steps are run. Its rows are those of `sizes`, one size a step; flags (rows,) says where to reset.
# Forward: (kind, sizes, gates, state, flags, initial, weight_hh, bias_hh, outputs, kept) -> the state after (B, S);
# gates (rows, G·H) hold the projected input and become the gates' values; outputs and kept (rows, H) are written.
Steps = Callable[
    [str, list[int], Tensor, Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor, Tensor | None], Tensor
]
# Backward: (kind, sizes, factors, grad_outputs, carried, flags, grad_initial, weight_hh, grad_gates) -> the gradient of
# the state before the chunk (B, S), in the place of carried, that of the state after it; grad_gates is written, what
# resets cut off is added to grad_initial (S,).
StepsBack = Callable[
    [str, list[int], list[Tensor], Tensor | None, Tensor, Tensor | None, Tensor | None, Tensor, Tensor], Tensor
]


def _steps(
    kind: str,
    sizes: list[int],
    gates: Tensor,
    state: Tensor,
    flags: Tensor | None,
    initial: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    outputs: Tensor,
    kept: Tensor | None,
) -> Tensor:
    start = 0
    for size in sizes:
        now = slice(start, start + size)
        before = state[:size]
        if flags is not None:
            before = _restored(before, flags[now], initial)
        keep = None if kept is None else kept[now]
        new = _STEP[kind](gates[now], before, weight_hh, bias_hh, outputs[now], keep)
        state = new if size == len(state) else torch.cat([new, state[size:]])
        start += size
    return state


def _steps_back(
    kind: str,
    sizes: list[int],
    factors: list[Tensor],
    grad_outputs: Tensor | None,
    carried: Tensor,
    flags: Tensor | None,
    grad_initial: Tensor | None,
    weight_hh: Tensor,
    grad_gates: Tensor,
) -> Tensor:
    end, H = len(grad_gates), weight_hh.shape[1]
    for size in reversed(sizes):
        now, grad = slice(end - size, end), carried[:size]
        if grad_outputs is not None:
            grad[:, :H] += grad_outputs[now]
        grad = _STEP_BACK[kind]([factor[now] for factor in factors], grad, grad_gates[now], weight_hh)
        if flags is not None:
            flag = flags[now].unsqueeze(1)
            if grad_initial is not None:
                grad_initial += torch.where(flag, grad, 0).sum(0)
            grad = grad.masked_fill_(flag, 0)
        if size == len(carried):
            carried = grad
        else:
            carried[:size] = grad
        end -= size
    return carried


def _chunks(sizes: list[int], width: int, x: Tensor) -> Iterator[tuple[list[int], int, int]]:
    """Cut time into chunks: the sizes of a chunk's steps, its first row, the row after its last."""
    rows = max(1, _CHUNK_BYTES.get(x.device.type, _OTHER_CHUNK_BYTES) // (width * x.element_size()))
    steps: list[int] = []
    start = end = 0
    for size in sizes:
        if steps and end + size - start > rows:
            yield steps, start, end
            steps, start = [], end
        steps.append(size)
        end += size
    if steps:
        yield steps, start, end


def _restored(before: Tensor, flags: Tensor, initial: Tensor | None) -> Tensor:
    """`before` (n, S), with the initial state where flags (n,) say so."""
    if initial is None:
        return before.masked_fill(flags.unsqueeze(1), 0)
    return torch.where(flags.unsqueeze(1), initial, before)


def _states_before(states: Tensor, first: Tensor, sizes: list[int], start: int, steps: list[int]) -> Tensor:
    """The state before each row of a chunk (rows, S), before any reset."""
    if start == 0:
        parts, row = [first[: steps[0]]], 0
    else:
        # The rows of the step before the chunk's first end where the chunk begins.
        size, row = 0, 0
        for size in sizes:
            row += size
            if row == start:
                break
        parts, row = [states[start - size : start - size + steps[0]]], start
    for size, following in pairwise(steps):
        parts.append(states[row : row + following])
        row += size
    return torch.cat(parts)


def _full_bias(kind: str, bias_ih: Tensor | None, bias_hh: Tensor | None, H: int) -> Tensor | None:
    """What the projection of the input adds (G·H,): the candidate's missing bias is 0, an LSTM's two are one."""
    if kind == "lstm" and bias_ih is not None and bias_hh is not None:
        return bias_ih + bias_hh
    if bias_ih is not None and len(bias_ih) < GATES[kind] * H:
        return torch.nn.functional.pad(bias_ih, (0, GATES[kind] * H - len(bias_ih)))
    return bias_hh if bias_ih is None and kind == "lstm" else bias_ih


def _project(rows: Tensor, weight_ih: Tensor, bias: Tensor | None) -> Tensor:
    return rows @ weight_ih.T if bias is None else torch.addmm(bias, rows, weight_ih.T)


def _gates(
    kind: str,
    rows: Tensor,
    before: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    bias_hh: Tensor | None,
    cells: Tensor | None,
) -> Tensor:
    """A chunk's gates again, (rows, K, H), all steps at once: the states before them are known by now."""
    n, H = len(rows), weight_hh.shape[1]
    gates, output = _project(rows, weight_ih, bias), rows.new_empty(n, H)
    kept = rows.new_empty(n, H) if kind in ("gru", "lstm") else None
    _STEP[kind](gates, before, weight_hh, bias_hh, output, kept)
    gates = gates.view(n, GATES[kind], H)
    if kept is None:
        return gates
    return torch.cat([gates, (kept if cells is None else cells).unsqueeze(1)], 1)


# One step: gates (n, G·H) hold the projected input and become the gates' values; the output goes to `output` (n, H),
# what else the backward pass needs to `kept` (n, H). Returns the new state (n, S).
StepFunction = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor | None], Tensor]


def _bistable(gates: Tensor, h: Tensor, H: int, output: Tensor) -> Tensor:
    a, c, n = gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H :]
    a.tanh_().add_(1)
    c.sigmoid_()
    n.addcmul_(a, h).tanh_()
    return torch.lerp(n, h, c, out=output)


def _brc(gates: Tensor, h: Tensor, w: Tensor, b: Tensor | None, output: Tensor, kept: Tensor | None) -> Tensor:
    H = h.shape[1]
    gates[:, : 2 * H].view(-1, 2, H).addcmul_(h.unsqueeze(1), w)
    return _bistable(gates, h, H, output)


def _nbrc(gates: Tensor, h: Tensor, w: Tensor, b: Tensor | None, output: Tensor, kept: Tensor | None) -> Tensor:
    H = h.shape[1]
    gates[:, : 2 * H].addmm_(h, w.T)
    return _bistable(gates, h, H, output)


def _gru(gates: Tensor, h: Tensor, w: Tensor, b: Tensor | None, output: Tensor, kept: Tensor | None) -> Tensor:
    assert kept is not None
    H = h.shape[1]
    recurrent = h @ w.T if b is None else torch.addmm(b, h, w.T)
    gates[:, : 2 * H].add_(recurrent[:, : 2 * H]).sigmoid_()
    kept.copy_(recurrent[:, 2 * H :])
    n = gates[:, 2 * H :].addcmul_(gates[:, :H], kept).tanh_()
    return torch.lerp(n, h, gates[:, H : 2 * H], out=output)


def _lstm(gates: Tensor, state: Tensor, w: Tensor, b: Tensor | None, output: Tensor, kept: Tensor | None) -> Tensor:
    assert kept is not None
    H = state.shape[1] // 2
    gates.addmm_(state[:, :H], w.T)
    gates[:, : 2 * H].sigmoid_()
    gates[:, 2 * H : 3 * H].tanh_()
    gates[:, 3 * H :].sigmoid_()
    i, f, g, o = gates.chunk(4, 1)
    torch.mul(f, state[:, H:], out=kept).addcmul_(i, g)
    torch.mul(o, kept.tanh(), out=output)
    return torch.cat([output, kept], 1)


_STEP: dict[str, StepFunction] = {"brc": _brc, "nbrc": _nbrc, "gru": _gru, "lstm": _lstm}


# A chunk's factors, each (rows, ...), from its gates (rows, K, H), the states before (rows, S) and weight_hh.
def _bistable_factors(gates: Tensor, h: Tensor, weight_hh: Tensor) -> list[Tensor]:
    a, c, n = gates.unbind(1)[:3]
    dn = (1 - c) * (1 - n * n)
    dc = (h - n) * c * (1 - c)
    da = dn * h * a * (2 - a)  # a = 1 + tanh, so a' = 1 - (a - 1)^2 = a (2 - a)
    return [torch.stack([da, dc, dn], 1), c + a * dn]


def _brc_factors(gates: Tensor, h: Tensor, weight_hh: Tensor) -> list[Tensor]:
    d, through = _bistable_factors(gates, h, weight_hh)
    return [d, through + (d[:, :2] * weight_hh).sum(1)]


def _gru_factors(gates: Tensor, h: Tensor, weight_hh: Tensor) -> list[Tensor]:
    r, z, n, m = gates.unbind(1)
    dn = (1 - z) * (1 - n * n)
    return [torch.stack([dn * m * r * (1 - r), (h - n) * z * (1 - z), dn], 1), z, r]


def _lstm_factors(gates: Tensor, state: Tensor, weight_hh: Tensor) -> list[Tensor]:
    i, f, g, o, c = gates.unbind(1)
    tanh_c = c.tanh()
    from_c = torch.stack([g * i * (1 - i), state[:, weight_hh.shape[1] :] * f * (1 - f), i * (1 - g * g)], 1)
    return [from_c, tanh_c * o * (1 - o), o * (1 - tanh_c * tanh_c), f]


_FACTORS = {"brc": _brc_factors, "nbrc": _bistable_factors, "gru": _gru_factors, "lstm": _lstm_factors}


# One step back: from the factors of its rows and the gradient of the state after it (n, S), the gradient of the gates'
# arguments, written to grad_gates (n, G, H), and of the state before it, returned as a new tensor.
def _brc_back(factors: list[Tensor], grad: Tensor, grad_gates: Tensor, weight_hh: Tensor) -> Tensor:
    torch.mul(factors[0], grad.unsqueeze(1), out=grad_gates)
    return factors[1] * grad


def _nbrc_back(factors: list[Tensor], grad: Tensor, grad_gates: Tensor, weight_hh: Tensor) -> Tensor:
    torch.mul(factors[0], grad.unsqueeze(1), out=grad_gates)
    return (factors[1] * grad).addmm_(grad_gates[:, :2].flatten(1), weight_hh)


def _gru_back(factors: list[Tensor], grad: Tensor, grad_gates: Tensor, weight_hh: Tensor) -> Tensor:
    torch.mul(factors[0], grad.unsqueeze(1), out=grad_gates)
    H = grad.shape[1]
    before = (factors[1] * grad).addmm_(grad_gates[:, :2].flatten(1), weight_hh[: 2 * H])
    return before.addmm_(grad_gates[:, 2] * factors[2], weight_hh[2 * H :])


def _lstm_back(factors: list[Tensor], grad: Tensor, grad_gates: Tensor, weight_hh: Tensor) -> Tensor:
    from_c, to_o, to_c, f = factors
    H = f.shape[1]
    grad_h = grad[:, :H]
    grad_c = torch.addcmul(grad[:, H:], grad_h, to_c)
    torch.mul(from_c, grad_c.unsqueeze(1), out=grad_gates[:, :3])
    torch.mul(to_o, grad_h, out=grad_gates[:, 3])
    return torch.cat([grad_gates.flatten(1) @ weight_hh, grad_c * f], 1)


_STEP_BACK = {"brc": _brc_back, "nbrc": _nbrc_back, "gru": _gru_back, "lstm": _lstm_back}
