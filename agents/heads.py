"""The two linear heads on one memory, as one product: with few columns its cost is that of reading the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bistable_rl.kernels import memory
from bistable_rl.kernels.torch_state import is_batched_gradient, is_traced, transform


def both_heads(latent: Tensor, action_net: nn.Module, value_net: nn.Module) -> tuple[Tensor, Tensor]:
    """Return `action_net(latent)` (N, A) and `value_net(latent)` (N,) for a latent (N, H).

    They are computed as one product if both are plain linear layers and nothing watches torch's operations.
    """
    followed = is_traced(latent) or transform() or torch.is_autocast_enabled(latent.device.type)
    if followed or not (is_plain(action_net) and is_plain(value_net)):
        return action_net(latent), value_net(latent).flatten()
    action_output, values = _Heads.apply(latent, action_net.weight, value_net.weight, action_net.bias, value_net.bias)
    return action_output, values


def is_plain(net: nn.Module) -> bool:
    """Return whether a call of a module only adds a bias to a product, without any hooks."""
    hooked = net._forward_pre_hooks or net._forward_hooks or net._backward_pre_hooks or net._backward_hooks
    return type(net) is nn.Linear and net.bias is not None and not hooked and "forward" not in vars(net)


class _Heads(torch.autograd.Function):
    """Two linear layers, the second with one output."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = torch.cat(parameters[:2]), torch.cat(parameters[2:])
        ctx.save_for_backward(latent, *parameters[:2])
        outputs = torch.addmm(bias, latent, weight.t())
        return outputs[:, :-1], outputs[:, -1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        latent, *weights = ctx.saved_tensors
        grad, weight = torch.cat([gradients[0], gradients[1].unsqueeze(1)], 1), torch.cat(weights)
        grad_weight, grad_bias = grad.t() @ latent, grad.sum(0)
        if not ctx.needs_input_grad[0]:
            grad_latent = None
        elif torch.is_grad_enabled() or is_batched_gradient(grad):  # torch records each operation
            grad_latent = grad @ weight
        else:
            grad_latent = torch.mm(grad, weight, out=memory.empty(tuple(latent.shape), latent))
        return grad_latent, grad_weight[:-1], grad_weight[-1:], grad_bias[:-1], grad_bias[-1:]
