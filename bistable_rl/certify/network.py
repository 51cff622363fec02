"""The network to certify, with its weights in double precision, which represents float32 exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import nn

from bistable_rl.agents.features import reads_numbers
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.cells import BRCCell, Cell, NBRCCell
from bistable_rl.errors import UserError

Array = npt.NDArray[np.float64]

OTHERWISE = "use `evaluate --adversary`, which searches for a sequence that makes it forget"
"""The end of every refusal."""


@dataclass(frozen=True)
class Layer:
    """A recurrent layer of H units with I inputs.

    Attributes:
        weight_ih: (3H, I), the rows of a, c and the candidate.
        bias: (3H,).
        own: (2, H), the weights of a unit's own state in its a and c.
        others: (2H, H), the weights of the other units' states, 0 on the diagonals; None for BRC.
        initial: (H,), the state before the first step.
    """

    weight_ih: Array
    bias: Array
    own: Array
    others: Array | None
    initial: Array

    @property
    def size(self) -> int:
        """H."""
        return len(self.initial)


@dataclass(frozen=True)
class Network:
    """Recurrent layers, tanh layers, and the logits of discrete actions.

    Attributes:
        layers: The recurrent layers, the first one first.
        hidden: Weight and bias of each tanh layer.
        weight: (n, W), of the logits.
        bias: (n,), of the logits.
    """

    layers: list[Layer]
    hidden: list[tuple[Array, Array]]
    weight: Array
    bias: Array


def read_network(policy: RecurrentPolicy) -> Network:
    """Read the network that chooses the actions.

    Raises:
        UserError: If it cannot be certified.
    """
    cells = policy.memory.layers
    if not all(type(cell) in (BRCCell, NBRCCell) for cell in cells):
        raise UserError(f"certify: only brc and nbrc can be certified, not {policy.memory.cell}; {OTHERWISE}.")
    if not isinstance(policy.action_space, spaces.Discrete):
        raise UserError(f"certify: only Discrete actions can be certified, not {policy.action_space}; {OTHERWISE}.")
    space = policy.observation_space
    if not isinstance(space, spaces.Box) or not reads_numbers(policy.features_extractor):
        raise UserError(f"certify: only observations of plain numbers can be certified, not {space}; {OTHERWISE}.")
    if not all(isinstance(layer, nn.Linear | nn.Tanh) for layer in policy.actor_mlp):
        raise UserError(f"certify: only tanh layers before the actions can be certified; {OTHERWISE}.")
    if policy.normalization is not None:
        raise UserError(f"certify: only observations as they are can be certified, not normalised; {OTHERWISE}.")
    if any(parameter.dtype != torch.float32 for parameter in policy.parameters()):
        raise UserError(f"certify: only networks in float32 can be certified; {OTHERWISE}.")
    if not all(parameter.isfinite().all() for parameter in policy.parameters()):
        raise UserError(
            "certify: a weight of the network is NaN or infinite, so nothing can be proved about its actions."
        )
    hidden = [_linear(layer) for layer in policy.actor_mlp if isinstance(layer, nn.Linear)]
    return Network([_layer(cell) for cell in cells], hidden, *_linear(policy.action_net))


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().cpu().double().numpy()
    return array


def _linear(layer: nn.Linear) -> tuple[Array, Array]:
    return _array(layer.weight), _array(layer.bias)


def _layer(cell: Cell) -> Layer:
    weight_ih, weight_hh, bias, _ = cell.kernel_weights()
    H = cell.hidden_size
    biases = np.zeros(3 * H)
    if bias is not None:
        biases[: len(bias)] = _array(bias)
    own, others = _array(weight_hh), None
    if isinstance(cell, NBRCCell):
        others = own.copy()
        own = np.stack([np.diag(gate) for gate in np.split(others, 2)])
        for gate in np.split(others, 2):
            np.fill_diagonal(gate, 0)
    return Layer(_array(weight_ih), biases, own, others, _array(cell.initial_state(1)[0]))
