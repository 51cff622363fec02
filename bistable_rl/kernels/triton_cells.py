"""The four cells for the Triton kernels: a step's gates and new state, and the gradients of a step; see `torch_cells`.

Each takes blocks of numbers of any shape. The u are the gates' arguments, with both projections in them.
"""

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]


@triton.jit
def sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + e^-x)."""
    return 1 / (1 + tl.exp(-x))


@triton.jit
def tanh(x):  # type: ignore[no-untyped-def]
    """The hyperbolic tangent, with exp of a negative number only, so that nothing overflows."""
    e = tl.exp(-2 * tl.abs(x))
    y = (1 - e) / (1 + e)
    return tl.where(x < 0, -y, y)


@triton.jit
def bistable_step(u_a, u_c, u_h, h):  # type: ignore[no-untyped-def]
    """A step of BRC or nBRC: a, c, the candidate and the new state."""
    a = 1 + tanh(u_a)
    c = sigmoid(u_c)
    n = tanh(u_h + a * h)
    return a, c, n, c * h + (1 - c) * n


@triton.jit
def gru_step(u_r, u_z, u_n, m, h):  # type: ignore[no-untyped-def]
    """A step of GRU: r, z, n and the new state; m is W_n h + b, which u_n lacks."""
    r = sigmoid(u_r)
    z = sigmoid(u_z)
    n = tanh(u_n + r * m)
    return r, z, n, z * h + (1 - z) * n


@triton.jit
def lstm_step(u_i, u_f, u_g, u_o, c):  # type: ignore[no-untyped-def]
    """A step of LSTM: i, f, g, o, the new c and the new h."""
    i = sigmoid(u_i)
    f = sigmoid(u_f)
    g = tanh(u_g)
    o = sigmoid(u_o)
    new_c = f * c + i * g
    return i, f, g, o, new_c, o * tanh(new_c)


@triton.jit
def bistable_step_back(a, c, n, h, grad):  # type: ignore[no-untyped-def]
    """The gradients of u_a, u_c, u_h, and of h beside the recurrent weights."""
    d_n = grad * (1 - c) * (1 - n * n)
    return d_n * h * a * (2 - a), grad * (h - n) * c * (1 - c), d_n, grad * c + d_n * a


@triton.jit
def gru_step_back(r, z, n, m, h, grad):  # type: ignore[no-untyped-def]
    """The gradients of u_r, u_z, u_n, of m, and of h beside the recurrent weights."""
    d_n = grad * (1 - z) * (1 - n * n)
    return d_n * m * r * (1 - r), grad * (h - n) * z * (1 - z), d_n, d_n * r, grad * z


@triton.jit
def lstm_step_back(i, f, g, o, new_c, c, grad, grad_c):  # type: ignore[no-untyped-def]
    """The gradients of u_i, u_f, u_g, u_o, and of c, from those of the new h and c."""
    tanh_c = tanh(new_c)
    d_c = grad_c + grad * o * (1 - tanh_c * tanh_c)
    return d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g * g), grad * tanh_c * o * (1 - o), d_c * f
