"""Compare an exported file with `predict`: both play 200 steps of random observations, with resets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from bistable_rl.agents.action_masks import Masks, choices
from bistable_rl.agents.agent import Agent
from bistable_rl.agents.export_formats import Run
from bistable_rl.agents.exported_step import ExportedStep
from bistable_rl.agents.normalization import Normalization
from bistable_rl.agents.spaces import ONLY
from bistable_rl.errors import UserError

STEPS, COPIES, RESETS = 200, (1, 5), 0.05
"""The number of steps, the numbers of copies, and the share of the steps at which an episode starts."""

TOLERANCE = 1e-3
"""The largest difference of a number x from `predict`'s that counts as rounding, relative to 1 + |x|."""

FAR = 1e4
"""The largest absolute value of a drawn number: a Box without real bounds may hold larger ones."""

Moments = tuple[np.ndarray, np.ndarray]


class Compared(NamedTuple):
    """The comparison of a file with `predict`.

    Attributes:
        difference: The largest difference of a step's actions and states, relative to `1 + |x|`.
        parted: The steps after which the file, running on its own states, had left the trajectory of `predict`, because
            the network amplifies rounding; None if that never happened.
    """

    difference: float
    parted: int | None


def compare(agent: Agent, step: ExportedStep, run: Run) -> Compared:
    """Compare a file with `predict` over 200 steps, at 1 and at 5 copies.

    Args:
        agent: The agent.
        step: The exported step.
        run: The opened file. It continues from its own states, or from those of `predict` once they have parted.

    Raises:
        UserError: If a step from the same state differs by more than rounding.
    """
    moments = _moments(agent.policy.normalization)
    initial = step.initial_state.numpy()
    worst, parted = 0.0, None
    for copies in COPIES:
        rng = np.random.default_rng(copies)
        remembered, state, begun = None, np.repeat(initial, copies, 1), 0
        for t in range(STEPS):
            observation = observations(step.space, copies, rng, moments)
            starts = (rng.random(copies) < RESETS) | (t == 0)
            masks = masks_of(agent.policy.action_space, copies, rng) if agent.masked else None
            mask = () if masks is None else (masks,)
            same = state if remembered is None else remembered[0][: len(state)].copy()
            action, remembered = agent.predict(observation, remembered, starts, action_masks=masks)
            state[:, starts] = same[:, starts] = initial
            off, after = _difference(agent, run(observation, state, *mask), action, remembered[0])
            if not off <= TOLERANCE:
                off, after = _difference(agent, run(observation, same, *mask), action, remembered[0])
                parted = t + 1 - begun if parted is None else min(parted, t + 1 - begun)
                begun = t
            if not off <= TOLERANCE:
                raise UserError(
                    f"the exported file was not written: it differs from predict by {off:.2g} at step {t} of {copies} "
                    f"copies, which is more than rounding ({TOLERANCE:g})."
                )
            worst, state = max(worst, off), after
    return Compared(worst, parted)


def _difference(
    agent: Agent, outputs: Sequence[np.ndarray], action: np.ndarray, state: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the largest difference of a step's outputs from those of `predict`, and the file's next state."""
    found, after, *parameters = outputs
    expected = state[: len(after)]
    wrong = _shortfall(agent.policy.action_space, action, found, parameters[0])
    return max(wrong, float(np.max(np.abs(after - expected) / (1 + np.abs(expected))))), after


def observations(space: spaces.Space, n: int, rng: np.random.Generator, moments: Mapping[str, Moments]) -> Any:
    """Return n random observations.

    Args:
        space: Their space.
        n: How many.
        rng: Draws them.
        moments: Mean and standard deviation, by key, of those that are normalised.
    """
    if isinstance(space, spaces.Dict):
        inner = {key: {ONLY: moments[key]} if key in moments else {} for key in space.spaces}
        return {key: observations(part, n, rng, inner[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(observations(part, n, rng, {}) for part in space.spaces)
    if ONLY in moments:
        mean, std = moments[ONLY]
        return (mean + std * rng.normal(size=(n, *mean.shape))).astype(space.dtype)
    space.seed(int(rng.integers(2**31)))
    drawn = np.stack([np.asarray(space.sample()) for _ in range(n)])
    if not isinstance(space, spaces.Box) or not np.issubdtype(drawn.dtype, np.floating):
        return drawn
    near = np.clip(rng.normal(size=drawn.shape), space.low, space.high)
    return np.where(np.abs(drawn) > FAR, near, drawn).astype(drawn.dtype)


def masks_of(space: spaces.Space, n: int, rng: np.random.Generator) -> Masks:
    """Return n random action masks: half of the values are allowed, and at least one of each action."""
    parts = [rng.random((n, size)) < 0.5 for size in choices(space)]
    for part in parts:
        part[np.arange(n), rng.integers(part.shape[1], size=n)] = True
    return np.concatenate(parts, 1)


def _moments(normalization: Normalization | None) -> dict[str, Moments]:
    if normalization is None:
        return {}
    buffers = dict(normalization.named_buffers())
    return {
        key: (buffers[f"mean_{i}"].numpy(), buffers[f"std_{i}"].numpy()) for i, key in enumerate(normalization.keys)
    }


def _shortfall(space: spaces.Space, action: np.ndarray, found: np.ndarray, parameters: np.ndarray) -> float:
    """Return how far the actions of the file are from those of `predict`; for discrete actions, in logits.

    If two actions are equally likely up to rounding, either is right.
    """
    if found.shape != action.shape:
        return float("inf")
    if isinstance(space, spaces.Box):
        return float(np.max(np.abs(found - action) / (1 + np.abs(action))))
    if isinstance(space, spaces.MultiBinary):
        return float(np.max(np.abs(parameters) * (found != action)))
    sizes = space.nvec.tolist() if isinstance(space, spaces.MultiDiscrete) else [space.n]  # type: ignore[attr-defined]
    logits = np.split(parameters, np.cumsum(sizes)[:-1], -1)
    rows = np.arange(len(found))
    pairs = zip(logits, action.reshape(len(found), -1).T, found.reshape(len(found), -1).T, strict=True)
    return max(float(np.max(part[rows, mine] - part[rows, taken])) for part, taken, mine in pairs)
