"""The scan as an operator of torch, so that autograd, `torch.compile` and `torch.export` take it as one node.

A scan chooses its backend once, and its backward pass chooses again. `saved` has the same layout in all backends, so
one may run forward and another backward, and its shape does not depend on the choice.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from bistable_rl.kernels.dispatch import choose, get_backend, note, warn_of_slow_layers
from bistable_rl.kernels.interface import Batch, Gradients, Results, Weights
from bistable_rl.kernels.products import rounded
from bistable_rl.kernels.table import get_kernel
from bistable_rl.kernels.torch_state import is_batched_gradient, is_traced, is_watched


def scan(
    cell: str, batch: Batch, weights: Weights, *, recompute: bool = False, bfloat16: bool = False
) -> tuple[Tensor, Tensor]:
    """Run a whole sequence, with gradients where they are needed.

    Args:
        cell: A key of `KERNELS`.
        batch: The sequences.
        weights: The cell's weights.
        recompute: Keep only the states for the backward pass.
        bfloat16: Round float32 matrices, and what is multiplied by them, to bfloat16 where that is faster: on a GPU.
            Sums, gates and states stay float32.

    Returns:
        The outputs (T, B, H), or (N, H) when packed, and each sequence's last state (B, S).

    Raises:
        ValueError: If a tensor has a wrong shape, dtype or device, or the backend asked for cannot serve this, see
            `choose`; from a backward pass, too.
        RuntimeError: If the result of `torch.compile` is differentiated twice.
    """
    x = batch.x
    if weights.weight_hh.dim() != 2:
        raise ValueError(f"weight_hh must have 2 dimensions, got {tuple(weights.weight_hh.shape)}")
    backend = choose(cell, x.device.type, x.dtype).backend
    if backend == "reference":  # outside an operator, so that torch follows each of its operations
        return _forward(backend, cell, batch, weights, False, recompute)[:2]
    if bfloat16 and backend == "triton" and x.dtype == torch.float32:
        weights = rounded(get_kernel(cell), weights)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*batch, *weights))
    if is_traced(x):
        return torch.ops.bistable_rl.scan(cell, *batch, *weights, save, recompute)[:2]
    # The same without torch's dispatcher, which takes 140 microseconds there and back: much, for a short sequence.
    if save:
        return _Scan.apply(cell, *batch, *weights, save, recompute, backend)[:2]
    return _forward(backend, cell, batch, weights, save, recompute)[:2]


def _forward(
    backend: str, cell: str, batch: Batch, weights: Weights, save: bool, recompute: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, last state, and the values saved for the backward pass."""
    note(cell, backend)
    if backend == "torch":
        warn_of_slow_layers(batch.x.device.type)
    return get_backend(backend).forward(get_kernel(cell), batch, weights, save=save, recompute=recompute)


def _backward(
    backend: str, cell: str, batch: Batch, weights: Weights, results: Results, recompute: bool, need_x: bool
) -> Gradients:
    note(cell, backend)
    # A backward pass may run under autocast, though `Cell.scan` does not.
    device = batch.x.device.type
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
        gradients = get_backend(backend).backward(
            get_kernel(cell), batch, weights, results, recompute=recompute, need_x=need_x
        )
    if weights.weight_ih.dtype != batch.x.dtype:  # rounded
        own = {name: getattr(gradients, name).to(getattr(weights, name)) for name in ("weight_ih", "weight_hh")}
        gradients = gradients._replace(**own)
    return gradients


# The operators take the fields of `Batch`, `Weights` and `Results` one by one.
_INPUTS = (
    "Tensor x, Tensor state, Tensor? resets, Tensor? initial, Tensor? batch_sizes, "
    "Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh"
)
_RESULTS = "Tensor outputs, Tensor saved, Tensor? grad_outputs, Tensor? grad_last"
_GRADIENTS = ", ".join(["Tensor"] * len(Gradients._fields))
_ARGUMENTS = ("cell", *Batch._fields, *Weights._fields, "save", "recompute")
_BATCH = slice(0, len(Batch._fields))
_WEIGHTS = slice(_BATCH.stop, _BATCH.stop + len(Weights._fields))
_REST = slice(_WEIGHTS.stop, None)


@torch.library.custom_op(
    "bistable_rl::scan",
    mutates_args=(),
    schema=f"(str cell, {_INPUTS}, bool save, bool recompute) -> (Tensor, Tensor, Tensor)",
)
def _scan(cell: str, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, weights, (save, recompute) = _bundled(arguments)
    return _forward(_kernel_backend(cell, batch.x), cell, batch, weights, save, recompute)


@_scan.register_fake
def _(cell: str, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, weights, (save, recompute) = _bundled(arguments)
    x, H = batch.x, weights.weight_hh.shape[1]
    rows = x.shape[0] if batch.batch_sizes is not None else x.shape[0] * x.shape[1]
    n, kept, padded = get_kernel(cell).saved_shape(rows, H, recompute=recompute)
    return (
        x.new_empty(*x.shape[:-1], H),
        torch.empty_like(batch.state).contiguous(),
        x.new_empty(n, kept if save else 0, padded),
    )


@torch.library.custom_op(
    "bistable_rl::scan_backward",
    mutates_args=(),
    schema=f"(str cell, {_INPUTS}, {_RESULTS}, bool recompute, bool need_x) -> ({_GRADIENTS})",
)
def _scan_backward(cell: str, *arguments: Any) -> tuple[Tensor, ...]:
    batch, weights, (*results, recompute, need_x) = _bundled(arguments)
    backend = _kernel_backend(cell, batch.x)
    gradients = _backward(backend, cell, batch, weights, Results(*results), recompute, need_x)
    return tuple(batch.x.new_empty(0) if gradient is None else gradient for gradient in gradients)


@_scan_backward.register_fake
def _(cell: str, *arguments: Any) -> tuple[Tensor, ...]:
    batch, weights, (*_, need_x) = _bundled(arguments)
    given = {**batch._asdict(), **weights._asdict(), **({} if need_x else {"x": None})}
    return tuple(
        batch.x.new_empty(0) if given[name] is None else torch.empty_like(given[name]).contiguous()
        for name in Gradients._fields
    )


def _bundled(arguments: tuple[Any, ...]) -> tuple[Batch, Weights, tuple[Any, ...]]:
    """The arguments of an operator after its cell."""
    return Batch(*arguments[_BATCH]), Weights(*arguments[_WEIGHTS]), arguments[_REST]


def _kernel_backend(cell: str, x: Tensor) -> str:
    """The backend inside an operator, where the reference is no choice: torch cannot follow its operations there."""
    backend = choose(cell, x.device.type, x.dtype).backend
    return "torch" if backend == "reference" else backend


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep the tensors and options of the backward pass."""
    batch, weights, (save, recompute, *_) = _bundled(inputs[1:])
    outputs, _, saved = output
    ctx.set_materialize_grads(False)
    ctx.cell, ctx.save, ctx.recompute = inputs[0], save, recompute
    ctx.save_for_backward(*batch, *weights, outputs, saved)


def _differentiate(
    ctx: Any, grad_outputs: Tensor | None, grad_last: Tensor | None, *, traced: bool
) -> tuple[Tensor | None, ...]:
    """The gradients of the operator's arguments, in their order."""
    if not ctx.save:
        raise RuntimeError("nothing was kept for this backward pass: the scan was run without gradients")
    batch, weights, (outputs, saved) = _bundled(ctx.saved_tensors)
    results = Results(outputs, saved, grad_outputs, grad_last)
    needed = ctx.needs_input_grad[: len(_ARGUMENTS)]
    need_x = needed[_ARGUMENTS.index("x")]
    watched = traced and is_watched()
    backend = ""
    if not watched:
        device, dtype = batch.x.device.type, batch.x.dtype
        backend = choose(ctx.cell, device, dtype, only_reference=_only_reference(results)).backend
    if traced and backend != "reference":
        gradients = Gradients(
            *torch.ops.bistable_rl.scan_backward(ctx.cell, *batch, *weights, *results, ctx.recompute, need_x)
        )
    else:
        gradients = _backward(backend, ctx.cell, batch, weights, results, ctx.recompute, need_x)
    by_name = gradients._asdict()
    return tuple(by_name.get(name) if need else None for name, need in zip(_ARGUMENTS, needed, strict=True))


def _only_reference(results: Results) -> str | None:
    """Why only the reference can run this backward pass; None where a kernel can."""
    if torch.is_grad_enabled():
        return "only the reference has a second derivative"
    if any(g is not None and is_batched_gradient(g) for g in (results.grad_outputs, results.grad_last)):
        return "only the reference has batched gradients"
    return None


def _through_operator(ctx: Any, grad_outputs: Tensor | None, grad_last: Tensor | None, _: None) -> tuple[Any, ...]:
    return _differentiate(ctx, grad_outputs, grad_last, traced=True)


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError("torch.compile's gradients cannot be differentiated again; differentiate without torch.compile")


_scan.register_autograd(_through_operator, setup_context=_keep)
_scan_backward.register_autograd(_refuse)


class _Scan(torch.autograd.Function):
    """The operator without the dispatcher; one more argument names the backend that was chosen."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:  # no setup_context, which takes 30 µs more
        batch, weights, (save, recompute, backend) = _bundled(inputs[1:])
        output = _forward(backend, inputs[0], batch, weights, save, recompute)
        _keep(ctx, inputs, output)
        ctx.mark_non_differentiable(output[2])
        return output

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor | None, grad_last: Tensor | None, _: None) -> tuple[Any, ...]:
        return *_differentiate(ctx, grad_outputs, grad_last, traced=False), None
