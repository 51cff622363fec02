"""What untrained units say about the present and the past: the table of starts in bistable_rl/cells/README.md.

`python tests/starts.py` measures it in seconds and writes bistable_rl/results/starts.json.
"""

from functools import cache
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import Tensor

from bistable_rl.rnn import RNN, make_rnn
from bistable_rl.runs.environment import collect_environment
from bistable_rl.runs.files import write_json

RESULT = Path(__file__).parents[1] / "bistable_rl" / "results" / "starts.json"
SEEDS, UNITS, PENALTY = (0, 1), 64, 0.01
CUES, AFTER = 8, (10, 50, 200)
STARTS: dict[str, tuple[str, dict[str, object]]] = {
    "brc": ("brc", {}),
    "brc halves": ("brc", {"start": "halves"}),
    "nbrc": ("nbrc", {}),
    "nbrc halves": ("nbrc", {"start": "halves"}),
    "gru": ("gru", {}),
    "lstm": ("lstm", {}),
    "mixed paper": ("mixed", {"start": "paper"}),
    "mixed": ("mixed", {}),
}
COLUMNS = ("position", "angle", "velocity", "angular velocity", *(f"cue after {steps}" for steps in AFTER))


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
    """The numbers of a start, in the order of `COLUMNS`: the mean over the seeds."""
    cell, options = STARTS[start]
    rows = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        watcher, keeper = (make_rnn(cell, size, UNITS, cell_kwargs=options) for size in (4, CUES + 1))
        rows.append([*explained(watcher), *(kept(keeper, steps) for steps in AFTER)])
    return np.mean(rows, 0)


def main() -> None:
    """Measure every start, and write the numbers with the hardware, the date and the command."""
    measured = [{"start": start, **dict(zip(COLUMNS, row(start).round(4).tolist(), strict=True))} for start in STARTS]
    write_json(RESULT, {"environment": collect_environment(), "measured": measured})


if __name__ == "__main__":
    main()
