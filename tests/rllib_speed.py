"""Environment steps a second of RLlib's PPO with our network and of `bistable_rl.train`, in turns, for CLUSTER.md.

`python tests/rllib_speed.py` writes bistable_rl/results/speed_rllib.json.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from two_nodes import two_nodes

import bistable_rl
from bistable_rl.compare.ledger import RESULTS
from bistable_rl.rllib import ppo_config
from bistable_rl.runs.environment import collect_environment
from bistable_rl.runs.files import write_json

STEPS = ("env_runners", "num_env_steps_sampled_lifetime")
SHORT = {"total_steps": 64_000, "evaluation.every": 64_000, "evaluation.episodes": 1, "checkpoint.every": 64_000}
SLOW = {"env.wrappers": [{"name": "rllib_env:Slow"}], "env.num_envs": 8, "algorithm.batch_size": 50}
TASKS: dict[str, dict[str, Any]] = {
    "copy-first, batched": SHORT,
    "8 copies, 5 ms a step": {**SHORT, **SLOW, "total_steps": 1200},
}
ROUNDS = 3


def speed(name: str, env_runners: int | None, overrides: dict[str, Any], out: Path) -> float:
    """Return environment steps a second: of RLlib after its first iteration, or of `bistable_rl.train`."""
    if env_runners is None:
        result = bistable_rl.train(name, overrides, out=out, overwrite=True).result
        assert result is not None
        return float(result["steps"] / result["seconds"])
    algorithm = ppo_config(name, overrides, env_runners=env_runners).build_algo()
    try:
        algorithm.train()
        before, begun = algorithm.metrics.peek(STEPS), time.perf_counter()
        for _ in range(3):
            algorithm.train()
        return float((algorithm.metrics.peek(STEPS) - before) / (time.perf_counter() - begun))
    finally:
        algorithm.stop()


def main() -> None:
    """Measure in turns, print the medians, and write them with every round."""
    measured = []
    with two_nodes() as address, tempfile.TemporaryDirectory() as out:
        ray.init(address, log_to_driver=False)
        for task, overrides in TASKS.items():
            found: dict[int | None, list[float]] = {None: [], 0: [], 1: [], 2: []}
            for _ in range(ROUNDS):
                for env_runners, rates in found.items():
                    rates.append(speed("rl/copy_first", env_runners, overrides, Path(out)))
            for env_runners, rates in found.items():
                median = float(np.median(rates))
                measured.append({"task": task, "env_runners": env_runners, "steps_per_second": median, "rounds": rates})
                print(f"{task}: {env_runners} environment runners: {median:,.0f} steps/s")
    write_json(RESULTS / "speed_rllib.json", {"environment": collect_environment(), "measured": measured})


if __name__ == "__main__":
    main()
