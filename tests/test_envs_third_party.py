"""Environments of other packages train from a config as ours do, and ours run in SB3's processes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from bistable_rl.agents.training import train
from bistable_rl.envs import make_env
from bistable_rl.runs.schema import Experiment, load_config


def run(tmp_path: Path, env: dict[str, Any]) -> dict[str, Any]:
    """Train a small agent for a few hundred steps and return its result."""
    config = {
        "name": "third_party",
        "env": {**env, "num_envs": 2},
        "policy": {"cell": "nbrc", "hidden_size": 8},
        "algorithm": {"n_steps": 64, "batch_size": 64, "n_epochs": 1},
        "total_steps": 384,
        "evaluation": {"every": 384, "episodes": 2},
        "device": "cpu",
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    result: dict[str, Any] = json.loads(
        (train(load_config(Experiment, path), tmp_path / "runs") / "result.json").read_text()
    )
    return result


def test_a_popgym_environment_trains(tmp_path: Path) -> None:
    pytest.importorskip("popgym")
    result = run(tmp_path, {"id": "popgym-RepeatFirstEasy-v0"})
    assert (result["status"], result["steps"]) == ("finished", 384)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_classic_control_without_velocities_trains(tmp_path: Path, env_id: str) -> None:
    wrappers = [{"name": "mask_velocity"}, {"name": "previous_action_reward"}]
    result = run(tmp_path, {"id": env_id, "wrappers": wrappers})
    assert (result["status"], result["steps"]) == ("finished", 384)


@pytest.mark.parametrize(
    "env",
    [
        {
            "id": "MiniGrid-RedBlueDoors-6x6-v0",
            "kwargs": {"agent_view_size": 5, "max_steps": 60},
            "wrappers": [
                {
                    "name": "minigrid",
                    "kwargs": {"encoding": "one_hot", "actions": ["left", "right", "forward", "toggle"]},
                },
                {"name": "previous_action_reward"},
            ],
        },
        {"id": "bistable_rl/MiniGridMemory-v0", "kwargs": {"num_actions": 3}},
        {"id": "bistable_rl/MiniGridMemory-v0", "kwargs": {"agent_view_size": 7, "encoding": "one_hot"}},
        {"id": "bistable_rl/Denoising-v0", "kwargs": {"length": 20, "window": 10}},
    ],
)
def test_minigrid_and_continuous_answers_train(tmp_path: Path, env: dict[str, Any]) -> None:
    assert run(tmp_path, env)["status"] == "finished"


@pytest.mark.slow
def test_ours_run_in_sb3s_spawned_processes() -> None:
    makes: list[Callable[[], Any]] = [partial(monitored, length) for length in (3, 4)]
    theirs, ours = SubprocVecEnv(makes, start_method="spawn"), DummyVecEnv(makes)
    try:
        theirs.seed(3)
        ours.seed(3)
        np.testing.assert_array_equal(theirs.reset(), ours.reset())
        rng = np.random.default_rng(0)
        for _ in range(30):
            actions = rng.integers(8, size=2)
            for a, b in zip(theirs.step(actions)[:3], ours.step(actions)[:3], strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        theirs.close()


def monitored(length: int) -> Any:
    """One environment, as a process builds it."""
    return Monitor(make_env("bistable_rl/CopyFirst-v0", kwargs={"length": length}))
