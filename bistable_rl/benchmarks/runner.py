"""Train a benchmark in its run folder, from the beginning or from its latest checkpoint."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_sequence, unpack_sequence

from bistable_rl.benchmarks.batches import Batches
from bistable_rl.benchmarks.network import Network
from bistable_rl.benchmarks.tasks import make_task
from bistable_rl.benchmarks.tasks.task import SyntheticTask, Task
from bistable_rl.benchmarks.trainer import Trainer
from bistable_rl.cells.footprint import layers_bytes
from bistable_rl.dynamics.warmup import warm_up
from bistable_rl.errors import user_errors
from bistable_rl.runs import checkpoint
from bistable_rl.runs.capacity import check_memory
from bistable_rl.runs.devices import (
    chosen_backend,
    hardware,
    peak_memory_mb,
    resolve_device,
    training_device,
    warn_of_missing_kernels,
)
from bistable_rl.runs.recording import recording
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark
from bistable_rl.runs.stopping import Stopper

WARM_UP_BATCHES = 10


def start(benchmark: Benchmark, out: Path, *, overwrite: bool = False, stop: threading.Event | None = None) -> Path:
    """Train in a new run folder, `out/<name>/<cell>-seed<k>`, and return it; `result.json` says how the run ended.

    Args:
        benchmark: What to train.
        out: The output folder.
        overwrite: Replace a run that is there already, instead of numbering the new one.
        stop: When another thread sets it, the training stops as after Ctrl-C: after the current update.

    Raises:
        UserError: If something in the benchmark is wrong (then nothing has been written), or the disk is full.
        RunFailedError: If a NaN stopped the training.
    """
    batches, network = _prepare(benchmark)
    with Run.create(benchmark, out, overwrite=overwrite) as run:
        _train(run, benchmark, batches, network, stop)
    return run.folder


def resume(run: Run | str | os.PathLike[str], *, stop: threading.Event | None = None) -> None:
    """Resume the training of a run from its latest checkpoint, or from the beginning if there is none.

    A finished run is left unchanged. An interrupted training ends with the same weights and metrics (except the
    seconds) as an uninterrupted one.

    Args:
        run: The run or its folder; a `config.yaml` in it is enough.
        stop: See `start`.

    Raises:
        UserError: If something in the benchmark or in the folder is wrong, another process trains in it, or the disk is
            full.
        RunFailedError: If a NaN stopped the training.
    """
    run = Run.open(run)
    benchmark = run.benchmark()
    if run.finished():
        return
    with run.locked():
        if not run.finished():  # another process may have finished it meanwhile
            _train(run, benchmark, *_prepare(benchmark), stop)


def _prepare(benchmark: Benchmark) -> tuple[Batches, Network]:
    """Make batches and network before anything is written, so that an invalid benchmark writes nothing."""
    device = training_device(benchmark.device)
    task = make_task(benchmark.task)
    network = make_network(benchmark, task, device)
    warn_of_missing_kernels(benchmark.cell, chosen_backend(network.rnn.layers, device.type))
    _check_training_memory(benchmark, task, network, device)
    batches = Batches(benchmark, task, device)
    batches.test_set()  # a missing or broken file is found now, not after hours of training
    return batches, network


def _check_training_memory(benchmark: Benchmark, task: Task, network: Network, device: torch.device) -> None:
    count, config = sum(p.numel() for p in network.parameters()), benchmark.network
    check_memory(f"the training of {count:,} parameters (gradient and Adam's moments)", 12 * count, device)
    batch = min(benchmark.training.batch_size, task.train_size) if isinstance(task, SyntheticTask) else 1
    check_memory(
        f"a batch of {batch} sequences of {task.steps:,} steps (task.kwargs) in {config.num_layers} x "
        f"{config.hidden_size} units",
        4 * batch * task.steps * (task.input_size + config.num_layers * config.hidden_size)
        + 4 * batch * config.num_layers * network.rnn.state_size,
        device,
    )


def _train(run: Run, benchmark: Benchmark, batches: Batches, network: Network, stop: threading.Event | None) -> None:
    """Train from the latest checkpoint, if there is one, and write result.json."""
    stopper = Stopper(stop)
    trainer = Trainer(run, benchmark, batches, network, stopper.event)
    evaluation: dict[str, float] | None = None
    warmup: list[dict[str, Any]] | None = None

    def report() -> dict[str, Any]:
        memory = round(peak_memory_mb(batches.device), 1)
        return {**trainer.report(), "peak_memory_mb": memory, "evaluation": evaluation, "warmup": warmup}

    machine = hardware(batches.device, network.rnn.layers)
    with recording(run, report, hardware=machine, stopper=stopper, unit="updates"):
        warmup = run.warmed_up(benchmark.warmup, lambda: _warm_up(benchmark, network, batches), stopper.event)
        with stopper.holding(trainer.say_stopping):
            trainer.train()
        if not stopper.event.is_set():
            evaluation = trainer.evaluate(*batches.test_set())


def _warm_up(benchmark: Benchmark, network: Network, batches: Batches) -> list[dict[str, Any]]:
    """Warm up the layers on the sequences of the first batches."""
    sequences: list[Tensor] = []
    for update in range(min(WARM_UP_BATCHES, batches.total_updates)):
        x, _ = batches.batch(update)
        sequences += unpack_sequence(x) if isinstance(x, PackedSequence) else x.unbind(1)
    with user_errors("warmup", ValueError):
        done = warm_up(
            network.rnn,
            pad_sequence(sequences),
            torch.tensor([len(sequence) for sequence in sequences]),
            steps=benchmark.warmup.steps,
            learning_rate=benchmark.warmup.learning_rate,
            truncate=True,
            seed=benchmark.seed,
        )
    return [done.summary()]


def load_network(run: Run | str | os.PathLike[str], device: str = "cpu") -> tuple[Network, Task]:
    """Return the network of a run with the weights of its latest checkpoint, and its task.

    Args:
        run: The run or its folder.
        device: The device that the network goes to.

    Raises:
        UserError: If there is no such run, or its checkpoint is missing, broken or of another architecture.
    """
    run = Run.open(run)
    benchmark = run.benchmark()
    latest = run.checkpoints.latest()
    task = make_task(benchmark.task)
    network = make_network(benchmark, task, resolve_device(device))
    checkpoint.load_weights(latest, network)
    return network.eval(), task


def make_network(benchmark: Benchmark, task: Task, device: torch.device) -> Network:
    """Return the untrained network of a benchmark, the same on every device.

    Raises:
        UserError: If the network section does not fit, or `BISTABLE_RL_BACKEND` names a backend that cannot serve it.
    """
    config = benchmark.network
    torch.manual_seed(benchmark.seed)
    with user_errors("network", ValueError, TypeError, NotImplementedError):
        check_memory(
            f"hidden_size {config.hidden_size} with num_layers {config.num_layers}",
            layers_bytes(config.cell, task.input_size, config.hidden_size, config.num_layers, config.cell_kwargs),
        )
        network = Network(config, task).to(device)
        chosen_backend(network.rnn.layers, device.type)
        return network
