"""Warm-up: make recurrent layers multistable before they are trained.

Lambrechts et al. 2023 (see `dynamics.attractors`): gradient steps on VAA*, so that the states the task's own sequences
lead to settle at different attractors. It gives a GRU or an LSTM the long memory that a bistable cell has by its
equation, at the price of weights that were moved away from their initialisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bistable_rl.dynamics.attractors import (
    Attractors,
    attractors,
    check_sequences,
    constant,
    cut,
    end_states,
    one_way,
    settle,
    vaa_star,
)
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.rnn import RNN
from bistable_rl.runs import checkpoint
from bistable_rl.runs import run as runs
from bistable_rl.runs.schema import WarmupConfig

TARGET = 0.95
"""The VAA* that is aimed at; 1 would push states apart for ever."""
GROWTH, LONGEST = 10, 200
"""The settling time is at most 1 + GROWTH · step, and never above LONGEST."""


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up did.

    Attributes:
        before: Attractors reached before it.
        after: Attractors reached after it, from the same cuts and under the same inputs.
        loss: (steps,) mean over layers of (VAA* - 0.95)².
    """

    before: Attractors
    after: Attractors
    loss: np.ndarray

    def summary(self) -> dict[str, int | float | list[float]]:
        """Return plain numbers; each pair is before and after."""
        return {
            "steps": len(self.loss),
            "vaa_star": [float(self.before.vaa_star.mean()), float(self.after.vaa_star.mean())],
            "attractors": [self.before.count, self.after.count],
            "of": self.before.starts,
        }


def warm_up(
    rnn: RNN,
    sequences: Tensor,
    lengths: Tensor | None = None,
    *,
    steps: int = 100,
    learning_rate: float = 1e-2,
    batch_size: int = 32,
    truncate: bool = True,
    seed: int = 0,
) -> WarmUp:
    """Move the weights of a network, in place, towards as many reachable attractors as sequences.

    Step k brings a batch of sequences to its states, lets each layer on its own settle for a random 1 to
    min(1 + 10k, 200) steps under one constant N(0, 1) input, and takes an Adam step on the mean over layers of
    (VAA* - 0.95)². Meant for GRU, LSTM, BRC and nBRC, and works with any cell.

    Args:
        rnn: The layers, in one direction.
        sequences: (T, N, I) inputs as the network will see them, time first, at least 2.
        lengths: (N,) how many steps of each count; None is all.
        steps: Gradient steps.
        learning_rate: Adam's.
        batch_size: Sequences a step, drawn without replacement; at most N are there to draw.
        truncate: Cut each sequence at a random step, as the paper does in supervised learning; it takes whole
            episodes in reinforcement learning.
        seed: Of batches, cuts, settling times and inputs. No other random generator is used or moved.

    Raises:
        ValueError: An argument is out of range or does not fit, or the loss became NaN.
    """
    cells = one_way(rnn)
    check_sequences(rnn, sequences, lengths)
    if steps < 1 or batch_size < 2:
        raise ValueError(f"steps must be at least 1 and batch_size at least 2, got {steps} and {batch_size}")
    generator = torch.Generator().manual_seed(seed)
    N = sequences.shape[1]
    sample = torch.randperm(N, generator=generator)[:batch_size]
    sampled = sequences[:, sample], None if lengths is None else lengths[sample]
    training = rnn.training
    rnn.eval()  # no dropout: which attractors there are is asked of the whole network
    before = attractors(rnn, *sampled, seed=seed)
    optimizer = torch.optim.Adam(rnn.parameters(), lr=learning_rate)
    losses = []
    for k in range(steps):
        batch = torch.randperm(N, generator=generator)[:batch_size]
        x, ends = sequences[:, batch], None if lengths is None else lengths[batch]
        states = end_states(rnn, x, cut(x, ends, generator) if truncate else ends)
        settling = int(torch.randint(1, min(1 + GROWTH * k, LONGEST) + 1, (), generator=generator))
        diversity = torch.stack(
            [
                vaa_star(settle([cell], states[i : i + 1], constant(1, cell.input_size, generator, x), settling)[0])
                for i, cell in enumerate(cells)
            ]
        )
        loss = (diversity - TARGET).square().mean()
        if not bool(torch.isfinite(loss)):
            raise ValueError(f"the warm-up's loss became {loss.item()} at step {k}; a smaller learning_rate may help")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    optimizer.zero_grad()
    after = attractors(rnn, *sampled, seed=seed)
    rnn.train(training)
    return WarmUp(before, after, np.array(losses))


def warm_up_run(
    run: Path,
    config: WarmupConfig,
    networks: Sequence[RNN],
    sequences: Callable[[], tuple[Tensor, Tensor | None]],
    *,
    truncate: bool,
    seed: int,
) -> list[dict[str, Any]] | None:
    """Warm up the networks of a run that is at its very start; of one that goes on, tell what its warm-up did.

    Args:
        run: The run folder; what was done is kept in its warmup.json.
        config: How.
        networks: The recurrent layers of the run.
        sequences: Makes `warm_up`'s sequences and lengths.
        truncate: As in `warm_up`.
        seed: The run's.

    Returns:
        A summary for each network, None without a warm-up.

    Raises:
        UserError: The warm-up does not work, or warmup.json cannot be written or read.
    """
    if not config.steps:
        return None
    file = runs.inside(run, runs.WARMUP)
    if checkpoint.folders(run):
        try:
            kept: list[dict[str, Any]] = runs.read_json(file)["warmup"]
        except (OSError, UserError, KeyError):
            raise UserError(f"{file} is missing or broken, though the run began with a warm-up.") from None
        return kept
    x, lengths = sequences()
    summaries = []
    for rnn in networks:
        try:
            done = warm_up(
                rnn,
                x,
                lengths,
                steps=config.steps,
                learning_rate=config.learning_rate,
                truncate=truncate,
                seed=seed,
            )
        except ValueError as error:
            raise UserError(f"warmup: {one_sentence(error)}") from None
        summaries.append(done.summary())
    runs.write_json(file, {"warmup": summaries})
    return summaries
