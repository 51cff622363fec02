"""The four cells for `torch_scan`: a step in place, the factors of the gates' gradients, and a step back.

The backward pass rests on one fact: each gate's gradient is the gradient of the new state times a factor known without
it. With n the candidate, ' the derivative of a gate's nonlinearity at its value, and h the state before the step:

    BRC, nBRC   dn = (1-c) n' dh    dc = (h-n) c' dh    da = h a' dn              dh_prev = c dh + a dn + W^T (da, dc)
    GRU         dn = (1-z) n' dh    dz = (h-n) z' dh    dr = (W_n h + b) r' dn    dh_prev = z dh + W^T (dr, dz, r dn)
    LSTM        dc = dc + o tanh'(c) dh    do = tanh(c) o' dh    (di, df, dg) = (g i', c_prev f', i g') dc

A step is (gates, state, weights, output, extra) -> the new state (n, S). Gates (n, G·H) hold the projected input and
become the gates' values; output (n, H) is written, and so is extra (n, H) where the cell has one.

Factors are (gates (rows, G, H), extra, the states before (rows, S), weight_hh) -> a list of tensors (rows, ...).

A step back is (the factors of its rows, the gradient of the state after it (n, S), grad_gates (n, G, H), weight_hh) ->
the gradient of the state before it, a new tensor; grad_gates, the gradient of the gates' arguments, is written.
"""

import torch
from torch import Tensor

from bistable_rl.kernels.interface import Weights
from bistable_rl.kernels.products import add_product, product


def _bistable_step(gates: Tensor, h: Tensor, output: Tensor) -> Tensor:
    a, c, n = gates.chunk(3, 1)
    a.tanh_().add_(1)
    c.sigmoid_()
    n.addcmul_(a, h).tanh_()
    return torch.lerp(n, h, c, out=output)


def brc_step(gates: Tensor, h: Tensor, weights: Weights, output: Tensor, extra: Tensor | None) -> Tensor:
    """One step of BRC."""
    H = h.shape[1]
    gates[:, : 2 * H].view(-1, 2, H).addcmul_(h.unsqueeze(1), weights.weight_hh)
    return _bistable_step(gates, h, output)


def nbrc_step(gates: Tensor, h: Tensor, weights: Weights, output: Tensor, extra: Tensor | None) -> Tensor:
    """One step of nBRC."""
    add_product(gates[:, : 2 * h.shape[1]], h, weights.weight_hh.T)
    return _bistable_step(gates, h, output)


def gru_step(gates: Tensor, h: Tensor, weights: Weights, output: Tensor, extra: Tensor | None) -> Tensor:
    """One step of GRU; extra is W_n h + b."""
    assert extra is not None
    H, recurrent = h.shape[1], product(h, weights.weight_hh.T, weights.bias_hh)
    gates[:, : 2 * H].add_(recurrent[:, : 2 * H]).sigmoid_()
    extra.copy_(recurrent[:, 2 * H :])
    n = gates[:, 2 * H :].addcmul_(gates[:, :H], extra).tanh_()
    return torch.lerp(n, h, gates[:, H : 2 * H], out=output)


def lstm_step(gates: Tensor, state: Tensor, weights: Weights, output: Tensor, extra: Tensor | None) -> Tensor:
    """One step of LSTM; extra is c."""
    assert extra is not None
    H = state.shape[1] // 2
    add_product(gates, state[:, :H], weights.weight_hh.T)
    i, f, g, o = gates.chunk(4, 1)
    gates[:, : 2 * H].sigmoid_()
    g.tanh_()
    o.sigmoid_()
    torch.mul(f, state[:, H:], out=extra).addcmul_(i, g)
    torch.mul(o, extra.tanh(), out=output)
    return torch.cat([output, extra], 1)


def nbrc_factors(gates: Tensor, extra: Tensor | None, h: Tensor, weight_hh: Tensor) -> list[Tensor]:
    """Return the factors of (a, c, n), and the direct one of the state before."""
    a, c, n = gates.unbind(1)
    dn = (1 - c) * (1 - n * n)
    dc = (h - n) * c * (1 - c)
    da = dn * h * a * (2 - a)  # a = 1 + tanh, so a' = 1 - (a - 1)^2 = a (2 - a)
    return [torch.stack([da, dc, dn], 1), c + a * dn]


def brc_factors(gates: Tensor, extra: Tensor | None, h: Tensor, weight_hh: Tensor) -> list[Tensor]:
    """Return the factors of (a, c, n), and the whole one of the state before: W is elementwise."""
    d, through = nbrc_factors(gates, extra, h, weight_hh)
    return [d, through + (d[:, :2] * weight_hh).sum(1)]


def gru_factors(gates: Tensor, extra: Tensor | None, h: Tensor, weight_hh: Tensor) -> list[Tensor]:
    """Return the factors of (r, z, n), the direct one of the state before, and r."""
    assert extra is not None
    r, z, n = gates.unbind(1)
    dn = (1 - z) * (1 - n * n)
    return [torch.stack([dn * extra * r * (1 - r), (h - n) * z * (1 - z), dn], 1), z, r]


def lstm_factors(gates: Tensor, extra: Tensor | None, state: Tensor, weight_hh: Tensor) -> list[Tensor]:
    """Return the factors of (i, f, g) from dc, of o and of dc from dh, and of the c before from dc."""
    assert extra is not None
    i, f, g, o = gates.unbind(1)
    tanh_c, c_before = extra.tanh(), state[:, weight_hh.shape[1] :]
    from_c = torch.stack([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], 1)
    return [from_c, tanh_c * o * (1 - o), o * (1 - tanh_c * tanh_c), f]


def brc_step_back(factors: list[Tensor], grad: Tensor, grad_gates: Tensor, weight_hh: Tensor) -> Tensor:
    """One step of BRC backwards."""
    torch.mul(factors[0], grad.unsqueeze(1), out=grad_gates)
    return factors[1] * grad


def nbrc_step_back(factors: list[Tensor], grad: Tensor, grad_gates: Tensor, weight_hh: Tensor) -> Tensor:
    """One step of nBRC backwards."""
    torch.mul(factors[0], grad.unsqueeze(1), out=grad_gates)
    return add_product(factors[1] * grad, grad_gates[:, :2].flatten(1), weight_hh)


def gru_step_back(factors: list[Tensor], grad: Tensor, grad_gates: Tensor, weight_hh: Tensor) -> Tensor:
    """One step of GRU backwards."""
    torch.mul(factors[0], grad.unsqueeze(1), out=grad_gates)
    H = grad.shape[1]
    before = add_product(factors[1] * grad, grad_gates[:, :2].flatten(1), weight_hh[: 2 * H])
    return add_product(before, grad_gates[:, 2] * factors[2], weight_hh[2 * H :])


def lstm_step_back(factors: list[Tensor], grad: Tensor, grad_gates: Tensor, weight_hh: Tensor) -> Tensor:
    """One step of LSTM backwards."""
    from_c, to_o, to_c, f = factors
    H = f.shape[1]
    grad_h = grad[:, :H]
    grad_c = torch.addcmul(grad[:, H:], grad_h, to_c)
    torch.mul(from_c, grad_c.unsqueeze(1), out=grad_gates[:, :3])
    torch.mul(to_o, grad_h, out=grad_gates[:, 3])
    return torch.cat([product(grad_gates.flatten(1), weight_hh), grad_c * f], 1)
