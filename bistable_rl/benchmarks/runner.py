"""Train a benchmark in its run folder, from the beginning or from where it was stopped."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_sequence, unpack_sequence

from bistable_rl import kernels
from bistable_rl.benchmarks import make_task
from bistable_rl.benchmarks.batches import Feed
from bistable_rl.benchmarks.network import Network
from bistable_rl.benchmarks.tasks.task import DrawnTask, Task
from bistable_rl.benchmarks.trainer import Trainer
from bistable_rl.cells import get_cell
from bistable_rl.dynamics.warmup import warm_up_run
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs import checkpoint
from bistable_rl.runs import run as runs
from bistable_rl.runs.capacity import check_memory, layers_bytes
from bistable_rl.runs.devices import hardware, peak_memory_mb, resolve_device, warn_of_missing_kernels
from bistable_rl.runs.schema import Benchmark
from bistable_rl.runs.stopping import Stopper

WARM_UP_BATCHES = 10


def start(benchmark: Benchmark, out: Path, *, overwrite: bool = False, stop: threading.Event | None = None) -> Path:
    """Train in a new run folder, `out/<name>/<cell>-seed<k>`, and return it; `result.json` says how the run ended.

    Args:
        benchmark: What to train.
        out: The output folder.
        overwrite: Replace a run that is there already, instead of numbering the new one.
        stop: Set by another thread, it stops the training as Ctrl-C does: after the update that is being computed.

    Raises:
        UserError: Something in the benchmark is wrong (nothing has been written then), or the disk is full.
        RunFailedError: A NaN stopped the training.
    """
    parts = _prepare(benchmark)
    with runs.created(benchmark, out, overwrite=overwrite) as run:
        _train(benchmark, run, *parts, stop)
    return run


def resume(run: Path, *, stop: threading.Event | None = None) -> None:
    """Train the benchmark of a run folder, from its last checkpoint on, or from the beginning where there is none.

    A finished run stays as it is. However often a training is stopped, its weights and metrics (the seconds aside) are
    those of one that was not.

    Args:
        run: The run folder; a `config.yaml` in it is enough.
        stop: As of `start`.

    Raises:
        UserError: Something in the benchmark or in the folder is wrong, another process trains in it, or the disk is
            full.
        RunFailedError: A NaN stopped the training.
    """
    benchmark = runs.read_benchmark(run)
    if runs.is_finished(run):
        return
    with runs.locked(run):
        if not runs.is_finished(run):  # another process has ended it meanwhile
            _train(benchmark, run, *_prepare(benchmark), stop)


def _prepare(benchmark: Benchmark) -> tuple[Feed, Network]:
    """Return batches and network, so that what cannot work is refused before anything is written."""
    device = resolve_device(benchmark.device)
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # so that the numbers do not depend on the machine's cores
    task = make_task(benchmark.task)
    network = make_network(benchmark, task, device)
    warn_of_missing_kernels(benchmark.cell, device.type, benchmark.network.hidden_size)
    count, config = sum(p.numel() for p in network.parameters()), benchmark.network
    check_memory(f"the training of {count:,} parameters (gradient and Adam's moments)", 12 * count, device)
    batch = min(benchmark.training.batch_size, task.train_size) if isinstance(task, DrawnTask) else 1
    check_memory(
        f"a batch of {batch} sequences of {task.steps:,} steps (task.kwargs) in {config.num_layers} x "
        f"{config.hidden_size} units",
        4 * batch * task.steps * (task.input_size + config.num_layers * config.hidden_size)
        + 4 * batch * config.num_layers * network.rnn.state_size,
        device,
    )
    feed = Feed(benchmark, task, device)
    feed.test_set()  # only to see that it can be made: a missing or broken file is not found out after hours
    return feed, network


def _train(benchmark: Benchmark, run: Path, feed: Feed, network: Network, stop: threading.Event | None) -> None:
    """Train and write result.json."""
    stopper = Stopper(stop)
    trainer = Trainer(benchmark, run, feed, network, stopper.event)
    with stopper.listening():
        with stopper.holding(lambda: None):  # from here on the folder changes, and a result must follow
            runs.clean(run)
            runs.write_environment(run, hardware(feed.device, benchmark.cell, benchmark.network.hidden_size))
            runs.remove_file(run / runs.RESULT)
        _train_and_finish(benchmark, run, trainer, stopper)


def _train_and_finish(benchmark: Benchmark, run: Path, trainer: Trainer, stopper: Stopper) -> None:
    feed = trainer.feed
    status, failure, evaluation, warmup = "failed", None, None, None
    try:
        if not stopper.event.is_set():
            warmup = warm_up_run(
                run,
                benchmark.warmup,
                [trainer.network.rnn],
                lambda: _warm_up_sequences(feed),
                truncate=True,
                seed=benchmark.seed,
            )
        with stopper.holding(trainer.say_stopping):
            trainer.train()
        status = "interrupted" if stopper.event.is_set() else "finished"
        if status == "finished":
            evaluation = trainer.evaluate(*feed.test_set())
    except KeyboardInterrupt:
        status = "interrupted"
    except Exception as error:  # whatever it is: the run folder must say how it ended
        failure = error
    with stopper.holding(lambda: None):  # it ends now in any case
        saved = checkpoint.folders(run)
        last = str(saved[-1].relative_to(run)) if saved else None
        state = trainer.state
        result: dict[str, Any] = {
            "status": status,
            "signal": stopper.signal,
            "steps": state.updates,
            "epochs": round(state.updates / feed.epoch_updates, 4),
            "seconds": round(state.seconds, 1),
            "peak_memory_mb": round(peak_memory_mb(feed.device), 1),
            "checkpoint": last,
            "evaluation": evaluation,
            "warmup": warmup,
        }
        runs.finish(run, result, failure, f"{state.updates} updates")


def _warm_up_sequences(feed: Feed) -> tuple[Tensor, Tensor]:
    """Return what the network sees first: the inputs (T, N, I) of some batches, and their lengths."""
    sequences: list[Tensor] = []
    for update in range(min(WARM_UP_BATCHES, feed.total_updates)):
        x, _ = feed.batch(update)
        sequences += unpack_sequence(x) if isinstance(x, PackedSequence) else x.unbind(1)
    return pad_sequence(sequences), torch.tensor([len(sequence) for sequence in sequences])


def load_network(run: Path, device: str = "cpu") -> tuple[Network, Task]:
    """Return the network of a run folder with the weights of its last checkpoint, and its task.

    Raises:
        UserError: There is no such run, or its checkpoint is missing, broken or of another architecture.
    """
    benchmark = runs.read_benchmark(run)
    newest = checkpoint.latest(run)
    task = make_task(benchmark.task)
    network = make_network(benchmark, task, resolve_device(device))
    checkpoint.load_weights(newest, network)
    return network.eval(), task


def make_network(benchmark: Benchmark, task: Task, device: torch.device) -> Network:
    """Return the network of a benchmark, untrained: the same on every device.

    Raises:
        UserError: The network section does not fit, or `BISTABLE_RL_BACKEND` names a backend that cannot serve it.
    """
    config = benchmark.network
    torch.manual_seed(benchmark.seed)
    try:
        kernels.choose(get_cell(config.cell).kernel, device.type, torch.float32, config.hidden_size)
        sizes = f"hidden_size {config.hidden_size} with num_layers {config.num_layers}"
        check_memory(
            sizes, layers_bytes(config.cell, task.input_size, config.hidden_size, config.num_layers, config.cell_kwargs)
        )
        return Network(config, task).to(device)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"network: {one_sentence(error)}") from None
