"""The scans as operators of torch, so that autograd, `torch.compile` and `torch.export` take them as one node.

Each runs the backend that `choice` names at the time it runs. What is kept for the backward pass has the same layout in
all of them, so that the shapes are known without asking which.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bistable_rl.kernels import cpu, cpu_step, plain, torch_scan
from bistable_rl.kernels.dispatch import choose, note
from bistable_rl.kernels.torch_state import is_batched_gradient, modes_active


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
    """Run a whole sequence, with gradients where they are wanted.

    Args:
        kind: "brc", "nbrc", "gru" or "lstm".
        x: (T, B, I), or (N, I) when packed.
        state: (B, S), the state before the first step.
        resets: bool, (T, B), or (N,) when packed; or None.
        weight_ih: (G·H, I), the gates in the order of `cpu`'s table, as the others.
        weight_hh: (2, H) for BRC, (2H, H) for nBRC, (G·H, H) for GRU and LSTM.
        bias_ih: (G·H,), or (2H,) for the bistable cells, or None.
        bias_hh: (G·H,) for GRU and LSTM, or None.
        initial: (S,), the state that a reset restores; None is zero.
        batch_sizes: (T,) int64 on the CPU, when packed, as `check_batch_sizes` allows.
        recompute: keep only the states for the backward pass.

    Returns:
        The outputs (T, B, H), or (N, H) when packed, and each sequence's last state (B, S).

    Raises:
        ValueError: if a tensor is not of the shape, dtype or device that it has to be, or the backend asked for cannot
            serve this, see `choose`; from a backward pass, too.
        RuntimeError: from a second differentiation of what `torch.compile` made.
    """
    if weight_hh.dim() != 2:
        raise ValueError(f"weight_hh must have 2 dimensions, got {tuple(weight_hh.shape)}")
    backend = choose(kind, x.device.type, x.dtype, weight_hh.shape[1]).backend
    if backend == "reference":
        note(kind, backend)
        return plain.scan(
            kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, initial, batch_sizes, recompute=recompute
        )
    tensors = (x, state, weight_ih, weight_hh, bias_ih, bias_hh, initial)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    arguments = (
        kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, initial, batch_sizes, save, recompute,
    )  # fmt: skip
    if _is_traced(x):
        return torch.ops.bistable_rl.scan(*arguments)[:2]
    # The same without torch's dispatcher, which costs 140 microseconds there and back: much, for a short sequence.
    if save:
        return _Scan.apply(*arguments)[:2]
    if batch_sizes is None and x.shape[0] == 1 and backend == "cpu":
        weights = cpu_step.unpacked(kind, (weight_ih, weight_hh, bias_ih, bias_hh))
        if weights is not None:
            done = cpu_step.step(
                weights, x.contiguous(), state.contiguous().unsqueeze(0), _contiguous(resets), _contiguous(initial)
            )
            if done is not None:
                note(kind, backend)
                return done[0], done[1].squeeze(0)
    return _forward(*arguments)[:2]


def has_short_step(kind: str, x: Tensor, state: Tensor, hidden_size: int) -> bool:
    """Whether `step` can run this step: without gradients, by the compiled kernels, and nothing follows the operators.

    Args:
        kind: as in `scan`.
        x: the input.
        state: the state; it may be no tensor at all.
        hidden_size: H.

    Raises:
        ValueError: if the backend asked for cannot serve this, see `choose`.
    """
    if torch.is_grad_enabled() or _is_traced(x) or type(state) is not Tensor or torch.is_autocast_enabled("cpu"):
        return False
    return x.is_cpu and choose(kind, "cpu", x.dtype, hidden_size).backend == "cpu"


def step(
    kind: str, weights: cpu_step.Weights, x: Tensor, state: Tensor, resets: Tensor | None, initial: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Run one step without gradients by the shortest way, where `has_short_step`, or leave it to `scan`.

    Half of the time of a step of acting would go into making ready what mostly is ready already. Here nothing is
    converted, and no mistake is explained: whatever is not just as the compiled kernel takes it is left alone.

    Args:
        kind: as in `scan`.
        weights: as `pack` or `unpacked` gives them.
        x: (1, B, I).
        state: (1, B, S).
        resets: nonzero where `initial` replaces the state before the step, (1, B), or None.
        initial: (S,), the state that a reset restores; None is zero.

    Returns:
        The outputs (1, B, H) and the next state (1, B, S), which share nothing; None if `scan` has to do it.
    """
    done = cpu_step.step(weights, x, state, None if resets is None else resets != 0, initial)
    if done is not None:
        note(kind, "cpu")
    return done


def _is_traced(x: Tensor) -> bool:
    """Whether something follows the operators on x, so that they have to go through torch's dispatcher."""
    return _is_watched() or type(x) is not Tensor or torch.jit.is_tracing()


def _is_watched() -> bool:
    """Whether torch.compile traces this, or a mode such as make_fx's or FlopCounterMode sees each operator."""
    return torch.compiler.is_compiling() or modes_active()


def _forward(
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
    save: bool,
    recompute: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, last state, and what the backward pass needs."""
    backend, x, state, initial = (
        _backend(kind, x, weight_hh.shape[1]),
        x.contiguous(),
        state.contiguous(),
        _contiguous(initial),
    )
    weight_ih, weight_hh, bias_ih, bias_hh = (
        weight_ih.contiguous(), weight_hh.contiguous(), _contiguous(bias_ih), _contiguous(bias_hh),
    )  # fmt: skip
    return backend.forward(
        kind, x, state, _contiguous(resets), weight_ih, weight_hh, bias_ih, bias_hh,
        batch_sizes=batch_sizes, initial=initial, save=save, recompute=recompute,
    )  # fmt: skip


def _backward(
    kind: str,
    grad_outputs: Tensor | None,
    grad_last: Tensor | None,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    initial: Tensor | None,
    batch_sizes: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    recompute: bool,
    need_x: bool,
) -> tuple[Tensor | None, ...]:
    """The gradients of x, state, weight_ih, weight_hh, bias_ih, bias_hh and initial; None where there is none."""
    if torch.is_autocast_enabled(x.device.type):  # which a backward pass may run under, though `Cell.scan` does not
        with torch.autocast(x.device.type, enabled=False):
            return _backward(
                kind, grad_outputs, grad_last, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, initial,
                batch_sizes, outputs, saved, recompute, need_x,
            )  # fmt: skip
    return _backend(kind, x, weight_hh.shape[1]).backward(
        kind, _contiguous(grad_outputs), _contiguous(grad_last), x.contiguous(), state.contiguous(),
        _contiguous(resets), weight_ih.contiguous(), weight_hh.contiguous(), _contiguous(bias_ih),
        _contiguous(bias_hh), outputs, saved,
        batch_sizes=batch_sizes, initial=_contiguous(initial), recompute=recompute, need_x=need_x,
    )  # fmt: skip


def _backend(kind: str, x: Tensor, hidden_size: int) -> ModuleType:
    """The module that runs this now."""
    name = choose(kind, x.device.type, x.dtype, hidden_size).backend
    note(kind, name)
    if name == "triton":
        from bistable_rl.kernels import triton_scan  # only where it is used: its import takes a second

        return triton_scan
    return cpu if name == "cpu" else torch_scan


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


@torch.library.custom_op("bistable_rl::scan", mutates_args=())
def _scan(
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
    save: bool,
    recompute: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _forward(
        kind, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, initial, batch_sizes, save, recompute
    )


@_scan.register_fake
def _(
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
    save: bool,
    recompute: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    H = weight_hh.shape[1]
    rows = x.shape[0] if batch_sizes is not None else x.shape[0] * x.shape[1]
    n, kept, padded = cpu.saved_shape(kind, rows, H, recompute=recompute)
    return (
        x.new_empty(*x.shape[:-1], H),
        torch.empty_like(state).contiguous(),
        x.new_empty(n, kept if save else 0, padded),
    )


@torch.library.custom_op("bistable_rl::scan_backward", mutates_args=())
def _scan_backward(
    kind: str,
    grad_outputs: Tensor | None,
    grad_last: Tensor | None,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    initial: Tensor | None,
    batch_sizes: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    recompute: bool,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    gradients = _backward(
        kind, grad_outputs, grad_last, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh, initial,
        batch_sizes, outputs, saved, recompute, need_x,
    )  # fmt: skip
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, initial = (
        outputs.new_empty(0) if gradient is None else gradient for gradient in gradients
    )
    return x, state, weight_ih, weight_hh, bias_ih, bias_hh, initial


@_scan_backward.register_fake
def _(
    kind: str,
    grad_outputs: Tensor | None,
    grad_last: Tensor | None,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    initial: Tensor | None,
    batch_sizes: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    recompute: bool,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(tensor: Tensor | None) -> Tensor:
        return outputs.new_empty(0) if tensor is None else torch.empty_like(tensor).contiguous()

    return (
        like(x if need_x else None), like(state), like(weight_ih), like(weight_hh), like(bias_ih), like(bias_hh),
        like(initial),
    )  # fmt: skip


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """What the backward pass will ask for."""
    kind, *tensors, save, recompute = inputs
    outputs, _, saved = output
    ctx.set_materialize_grads(False)
    ctx.kind, ctx.recompute, ctx.saving = kind, recompute, save
    ctx.save_for_backward(*tensors, outputs, saved)


def _arguments(ctx: Any, grad_outputs: Tensor | None, grad_last: Tensor | None) -> tuple[Any, ...]:
    if not ctx.saving:
        raise RuntimeError("nothing was kept for this backward pass: the scan was run without gradients")
    return (ctx.kind, grad_outputs, grad_last, *ctx.saved_tensors, ctx.recompute, ctx.needs_input_grad[1])


def _plain_gradients(
    kind: str,
    grad_outputs: Tensor | None,
    grad_last: Tensor | None,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    initial: Tensor | None,
    batch_sizes: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    recompute: bool,
    need_x: bool,
) -> cpu.Gradients | None:
    """The gradients by the reference, where it has to compute them; None where a kernel can."""
    only_reference = None
    if torch.is_grad_enabled():
        only_reference = "only the reference has a second derivative"
    elif any(g is not None and is_batched_gradient(g) for g in (grad_outputs, grad_last)):
        only_reference = "only the reference has batched gradients"
    if choose(kind, x.device.type, x.dtype, weight_hh.shape[1], only_reference=only_reference).backend != "reference":
        return None
    note(kind, "reference")
    return plain.backward(
        kind, grad_outputs, grad_last, x, state, resets, weight_ih, weight_hh, bias_ih, bias_hh,
        batch_sizes=batch_sizes, initial=initial, recompute=recompute,
    )  # fmt: skip


def _placed(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The gradients in the places of the operator's arguments."""
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, initial = gradients
    return None, x, state, None, weight_ih, weight_hh, bias_ih, bias_hh, initial, None, None, None


def _through_operator(ctx: Any, grad_outputs: Tensor | None, grad_last: Tensor | None, _: None) -> tuple[Any, ...]:
    arguments = _arguments(ctx, grad_outputs, grad_last)
    found = None if _is_watched() else _plain_gradients(*arguments)
    if found is not None:
        return _placed(found)
    gradients = torch.ops.bistable_rl.scan_backward(*arguments)
    given = (1, 2, 4, 5, 6, 7, 8)
    return _placed(
        tuple(gradient if ctx.needs_input_grad[i] else None for i, gradient in zip(given, gradients, strict=True))
    )


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError("what torch.compile made has no second derivative; differentiate twice without torch.compile")


_scan.register_autograd(_through_operator, setup_context=_keep)
_scan_backward.register_autograd(_refuse)


class _Scan(torch.autograd.Function):
    """The operator without the dispatcher."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        return _forward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs, output)
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor | None, grad_last: Tensor | None, _: None) -> tuple[Any, ...]:
        arguments = _arguments(ctx, grad_outputs, grad_last)
        return _placed(_plain_gradients(*arguments) or _backward(*arguments))
