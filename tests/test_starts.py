"""What untrained units say: the README's table of starts (`pytest -s tests/test_starts.py` prints it)."""

from functools import cache

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from bistable_rl.rnn import RNN, make_rnn

SEEDS, UNITS, PENALTY = (0, 1), 64, 0.01
CUES, AFTER = 8, (10, 50, 200)
STARTS: dict[str, tuple[str, dict[str, object]]] = {
    "nbrc": ("nbrc", {}),
    "nbrc halves": ("nbrc", {"start": "halves"}),
    "brc": ("brc", {}),
    "brc halves": ("brc", {"start": "halves"}),
    "gru": ("gru", {}),
    "lstm": ("lstm", {}),
    "mixed paper": ("mixed", {"start": "paper"}),
    "mixed": ("mixed", {}),
}


@cache
def cartpole() -> tuple[Tensor, Tensor]:
    """Observations (T, n, 4) of CartPole-v1 under a poor controller, and where episodes start (T, n)."""
    env, rng = gymnasium.make_vec("CartPole-v1", 64, vectorization_mode="vector_entry_point"), np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    fresh, over = np.ones(64, np.bool_), np.zeros(64, np.bool_)
    seen, starts = [], []
    for _ in range(160):
        seen.append(obs)
        starts.append(fresh)
        push = obs @ np.array([0.1, 0.3, 3.0, 1.0]) + 0.5 * rng.standard_normal(64) > 0
        obs, _, terminated, truncated, _ = env.step(push.astype(np.int64))
        fresh, over = over, terminated | truncated  # a step after its end, a copy starts again
    return torch.from_numpy(np.stack(seen)), torch.from_numpy(np.stack(starts))


def read(outputs: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a linear reading to the first half of the rows (N, H) -> (N, K); return the second half's and its answers."""
    outputs, n = torch.cat([outputs, torch.ones(len(outputs), 1)], 1), len(outputs) // 2
    first, penalty = outputs[:n], PENALTY * n * torch.eye(outputs.shape[1])
    weights = torch.linalg.solve(first.T @ first + penalty, first.T @ answers[:n])
    return outputs[n:] @ weights, answers[n:]


def explained(rnn: RNN) -> list[float]:
    """The shares of the variance of position, angle and their velocities that the outputs explain."""
    obs, starts = cartpole()
    outputs, _ = rnn(obs, None, starts)
    found, true = read(outputs[20:].flatten(0, 1), (obs / obs.std((0, 1)))[20:].flatten(0, 1)[:, [0, 2, 1, 3]])
    return (1 - (true - found).square().mean(0) / true.var(0)).tolist()


def kept(rnn: RNN, steps: int) -> float:
    """The share of first symbols that the last outputs still tell, after random symbols."""
    symbols = torch.randint(CUES, (steps, 1500))
    x = torch.nn.functional.one_hot(symbols, CUES + 1).float()
    x[0, :, -1] = 1
    outputs, _ = rnn(x)
    found, true = read(outputs[-1], torch.nn.functional.one_hot(symbols[0], CUES).float())
    return float((found.argmax(1) == true.argmax(1)).float().mean())


@torch.no_grad()
@cache
def row(start: str) -> np.ndarray:
    """The table's numbers for a start: four shares, and one for each silence."""
    cell, options = STARTS[start]
    rows = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        watcher, keeper = (make_rnn(cell, size, UNITS, cell_kwargs=options) for size in (4, CUES + 1))
        rows.append([*explained(watcher), *(kept(keeper, steps) for steps in AFTER)])
    print(f"\n{start:13}", *(f"{number:5.2f}" for number in np.mean(rows, 0)), end="")
    return np.mean(rows, 0)


@pytest.mark.parametrize("cell", ["brc", "nbrc"])
def test_halves_show_the_present_and_keep_the_past_better(cell: str) -> None:
    paper, halves = row(cell), row(f"{cell} halves")
    assert (halves[:4] > paper[:4]).all()
    assert (halves[1:4] > paper[1:4] + 0.1).all()
    assert halves[6] > 2 * paper[6]


def test_halves_show_about_what_a_gru_shows_and_keep_what_it_does_not() -> None:
    halves, mixed, gru, lstm = row("nbrc halves"), row("mixed"), row("gru"), row("lstm")
    assert row("mixed paper")[4] > 2 * gru[4]
    for ours in (halves, mixed):
        assert (ours[:4] > gru[:4] - 0.15).all()
        assert (ours[:4] > lstm[:4]).all()
        assert (ours[4:] > 0.4).all()
        assert (gru[4:] < 0.25).all()
