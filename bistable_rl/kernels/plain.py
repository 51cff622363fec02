"""The kernels' cells in plain operations of torch, from the kernels' arguments.

What the kernels cannot do is done here, by the reference loop: torch follows it through forward-mode AD, `torch.func`,
batched gradients and a second derivative. The equations are those of `bistable_rl.cells`, and tested against them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bistable_rl.kernels import reference
from bistable_rl.kernels.cpu import Gradients
from bistable_rl.kernels.reference import Step


def scan(
    kind: str,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    initial: Tensor | None,
    batch_sizes: Tensor | None,
    *,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run a whole sequence; arguments and results are those of `operators.scan`."""
    rows, H = weight_ih.shape[0], weight_hh.shape[1]
    if bias_ih is not None and len(bias_ih) < rows:  # the bistable cells' candidate may have no bias
        bias_ih = nn.functional.pad(bias_ih, (0, rows - len(bias_ih)))
    return reference.scan(
        _STEPS[kind](weight_hh, bias_hh),
        nn.functional.linear(x, weight_ih, bias_ih),
        state,
        output_size=H,
        initial=initial,
        resets=resets,
        batch_sizes=batch_sizes,
        recompute=recompute,
    )


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
    *,
    batch_sizes: Tensor | None,
    initial: Tensor | None,
    recompute: bool,
) -> Gradients:
    """The gradients of all inputs that require one, by running the sequence again.

    They can themselves be differentiated where gradients are enabled, and be batched and transformed anywhere.
    """
    again = torch.is_grad_enabled()
    # Not under autocast, which a backward pass may run under: see `Cell.scan`.
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        # Views, so that the gradients stop at this scan and still are functions of the inputs.
        given = [
            None if t is None else t.view_as(t) for t in (x, state, weight_ih, weight_hh, bias_ih, bias_hh, initial)
        ]
        x, state, weight_ih, weight_hh, bias_ih, bias_hh, initial = given  # type: ignore[assignment]
        results = scan(
            kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, initial, batch_sizes, recompute=recompute
        )
        pairs = [
            (result, gradient)
            for result, gradient in zip(results, (grad_outputs, grad_final), strict=True)
            if gradient is not None and result.requires_grad
        ]
        wanted = [t for t in given if t is not None and t.requires_grad]
        found = iter(
            torch.autograd.grad(
                [result for result, _ in pairs],
                wanted,
                [gradient for _, gradient in pairs],
                create_graph=again,
                allow_unused=True,
            )
            if pairs
            else [None] * len(wanted)
        )
    return Gradients(*(next(found) if t is not None and t.requires_grad else None for t in given))  # type: ignore[arg-type]


def _brc(weight_hh: Tensor, _: Tensor | None) -> Step:
    w_a, w_c = weight_hh
    return lambda projected, h: _bistable(projected, w_a * h, w_c * h, h)


def _nbrc(weight_hh: Tensor, _: Tensor | None) -> Step:
    def step(projected: Tensor, h: Tensor) -> Tensor:
        w_a, w_c = nn.functional.linear(h, weight_hh).chunk(2, -1)
        return _bistable(projected, w_a, w_c, h)

    return step


def _bistable(projected: Tensor, w_a: Tensor, w_c: Tensor, h: Tensor) -> Tensor:
    u_a, u_c, u_h = projected.chunk(3, -1)
    a = 1 + torch.tanh(u_a + w_a)
    c = torch.sigmoid(u_c + w_c)
    return c * h + (1 - c) * torch.tanh(u_h + a * h)


def _gru(weight_hh: Tensor, bias_hh: Tensor | None) -> Step:
    def step(projected: Tensor, h: Tensor) -> Tensor:
        u_r, u_z, u_n = projected.chunk(3, -1)
        w_r, w_z, w_n = nn.functional.linear(h, weight_hh, bias_hh).chunk(3, -1)
        r = torch.sigmoid(u_r + w_r)
        z = torch.sigmoid(u_z + w_z)
        return z * h + (1 - z) * torch.tanh(u_n + r * w_n)

    return step


def _lstm(weight_hh: Tensor, bias_hh: Tensor | None) -> Step:
    def step(projected: Tensor, state: Tensor) -> Tensor:
        h, c = state.chunk(2, -1)
        i, f, g, o = (projected + nn.functional.linear(h, weight_hh, bias_hh)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], -1)

    return step


_STEPS: dict[str, Callable[[Tensor, Tensor | None], Step]] = {"brc": _brc, "nbrc": _nbrc, "gru": _gru, "lstm": _lstm}
