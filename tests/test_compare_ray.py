"""The same grid on a Ray cluster of two nodes, on this machine."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_run
import pytest

from bistable_rl.compare.engine import run_grid
from bistable_rl.compare.jobs import Job
from bistable_rl.compare.launchers.local import LocalLauncher
from bistable_rl.compare.launchers.ray import RayLauncher
from bistable_rl.compare.ledger import Row
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import Benchmark, Experiment, NetworkConfig, TaskConfig, TrainingConfig

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Give the address of a cluster of two nodes with a core each."""
    from ray.cluster_utils import Cluster

    here = Path(__file__).resolve().parent
    os.environ["PYTHONPATH"] = f"{here}:{here.parent}:{os.environ.get('PYTHONPATH', '')}"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(autouse=True)
def disconnect() -> Iterator[None]:
    yield
    ray.shutdown()


def jobs(out: Path) -> list[Job]:
    """Return supervised trainings of a second."""
    config = Benchmark(
        name="small",
        task=TaskConfig("copy_first", {"length": 5, "train_size": 400, "test_size": 100}),
        network=NetworkConfig(hidden_size=8, num_layers=1),
        training=TrainingConfig(epochs=1),
    )
    return [
        Job(cell, replace(config, seed=seed, network=replace(config.network, cell=cell)), out / cell / f"seed{seed}")
        for cell in ("nbrc", "gru")
        for seed in (0, 1)
    ]


def numbers(row: Row) -> Any:
    return row.label, row.seed, row.final, [(point["steps"], point["train_loss"]) for point in row.curve]


def test_two_nodes_give_the_numbers_of_the_local_launcher(address: str, tmp_path: Path) -> None:
    launcher = RayLauncher(address=address)
    assert (launcher.slots, launcher.threads) == (2, 1)
    there = run_grid(jobs(tmp_path / "there"), tmp_path / "there", launcher)
    here = run_grid(jobs(tmp_path / "here"), tmp_path / "here", LocalLauncher(2))
    assert there.failed == here.failed == {}
    assert [numbers(row) for row in there.rows] == [numbers(row) for row in here.rows]
    assert len(there.rows) == 4


def test_a_failed_task_is_named(address: str, experiment: Experiment, tmp_path: Path) -> None:
    launcher = RayLauncher(address=address, command=fake_run.command)
    policy = replace(experiment.policy, cell="goru")
    failing = Job("goru", replace(experiment, policy=policy), tmp_path / "goru" / "seed0")
    outcome = run_grid([failing], tmp_path, launcher)
    assert outcome.failed == {"goru, seed 0": "the gradient became NaN."}


def test_a_wrong_address_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"--address 127.0.0.1:1: no Ray cluster answers there"):
        RayLauncher(address="127.0.0.1:1")
