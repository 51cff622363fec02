"""Shared by all tests: one thread, as in training, and a small experiment that trains in a second."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bistable_rl.runs.schema import Experiment, load_config

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores SIGINT in background jobs

SMALL = {
    "name": "small",
    "env": {"id": "bistable_rl/CopyFirst-v0", "kwargs": {"length": 5, "num_symbols": 2}, "num_envs": 4},
    "policy": {"cell": "nbrc", "hidden_size": 8, "critic": "shared", "net_arch": []},
    "algorithm": {"n_steps": 20, "batch_size": 40, "n_epochs": 2},
    "total_steps": 400,
    "evaluation": {"every": 160, "episodes": 5},
    "checkpoint": {"every": 80, "keep": 2},
    "device": "cpu",
}


def idx(array: np.ndarray) -> bytes:
    """Return the bytes of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the config of the small experiment."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run, which tests must not change."""
    from bistable_rl.agents.training import train

    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return train(load_config(Experiment, folder / "small.yaml"), folder / "runs")


@pytest.fixture
def experiment(config: Path) -> Experiment:
    """Return the small experiment."""
    return load_config(Experiment, config)
