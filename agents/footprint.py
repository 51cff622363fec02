"""The memory that a policy needs, computed before its layers are built."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from bistable_rl.cells import get_cell
from bistable_rl.cells.footprint import layers_bytes
from bistable_rl.runs.capacity import check_memory
from bistable_rl.runs.schema import PolicyConfig

_training: ContextVar[tuple[int, torch.device] | None] = ContextVar("training", default=None)


@contextmanager
def training(copies: int, device: torch.device) -> Iterator[None]:
    """Count the policies built in the block as trained on this device, on this many copies of the environment.

    Only the algorithm knows device and copies, and only the policy's constructor knows the policy's sizes.
    """
    token = _training.set((copies, device))
    try:
        yield
    finally:
        _training.reset(token)


def check_policy_memory(config: PolicyConfig, features: BaseFeaturesExtractor) -> None:
    """Check that there is memory for a policy on these features and, inside `training`, to train it.

    Raises:
        UserError: If there is too little memory; the message names the sizes.
        ValueError: If there is no such cell, the cell has no such option, or an option is out of range.
        TypeError: If a switch of the cell is neither True nor False.
    """
    width, hidden_size, num_layers = features.features_dim, config.hidden_size, config.num_layers
    memories = 2 if config.critic == "separate" else 1
    layers = memories * layers_bytes(config.cell, width, hidden_size, num_layers, config.cell_kwargs)
    dense = sum(a * b for head in config.head_widths for a, b in pairwise([hidden_size, *head]))
    network = layers + 4 * dense + 4 * sum(parameter.numel() for parameter in features.parameters())
    sizes = f"num_layers {num_layers:,} of hidden_size {hidden_size:,}"
    for name, value in (("cell_kwargs", config.cell_kwargs), ("net_arch", config.net_arch)):
        sizes += f", {name} {value}" if value else ""

    if trained := _training.get():
        copies, device = trained
        check_memory(f"the training of {sizes} (weights, gradients and Adam's moments)", 4 * network, device)
        cell = get_cell(config.cell)(width, hidden_size, device="meta", **config.cell_kwargs)
        state = memories * num_layers * cell.state_size
        check_memory(f"the state of {copies:,} copies ({state:,} numbers each)", 8 * copies * state, device)
    unused_lstm = 16 * hidden_size * (width + hidden_size)  # of `RecurrentPolicy._make_memories`
    check_memory(f"a network of {sizes}", network + unused_lstm)
