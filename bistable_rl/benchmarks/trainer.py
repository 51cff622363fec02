"""A supervised training: its updates, its checkpoints, and its rows of metrics."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from bistable_rl.benchmarks.batches import Batches
from bistable_rl.benchmarks.network import Network
from bistable_rl.benchmarks.tasks.task import Batch, Samples, task_loss, task_metrics
from bistable_rl.errors import NonFiniteError, UserError
from bistable_rl.runs import checkpoint
from bistable_rl.runs.config import to_yaml
from bistable_rl.runs.progress import Progress
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, TrainingConfig

COLUMNS = (
    "time/updates",
    "time/seconds",
    "time/epochs",
    "train/loss",
    "train/learning_rate",
    "eval/mse",
    "eval/loss",
    "eval/accuracy",
    "eval/f1",
)
ROW_EVERY = 50  # updates
EVALUATION_BATCH = 500  # samples
TORCH_EPSILON = 1e-8
"""Adam's epsilon, torch's default."""


@dataclass
class State:
    """The state of a training that a checkpoint holds beside weights and moments.

    Attributes:
        updates: Updates done.
        seconds: Seconds of training, summed over all parts of a resumed run.
        loss_sum: Sum of the losses since the last row of metrics.
        losses: The number of these losses.
        best: The smallest validation loss.
        worse_epochs: Epochs since that loss.
        over: Whether the training has ended early, by `patience` or `target_loss`.
    """

    updates: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    losses: int = 0
    best: float | None = None
    worse_epochs: int = 0
    over: bool = False


def learning_rate(training: TrainingConfig, update: int, total: int) -> float:
    """Return the learning rate of an update, counted from 0, of a total: warm-up, then the schedule."""
    if update < training.warmup_steps:
        return training.learning_rate * (update + 1) / training.warmup_steps
    done = (update - training.warmup_steps) / max(1, total - training.warmup_steps)
    falls = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 + 0.5 * math.cos(math.pi * done)}
    return training.learning_rate * falls[training.schedule]


def make_optimizer(network: Network, training: TrainingConfig) -> torch.optim.Adam:
    """Return the optimiser of a training."""
    epsilon = TORCH_EPSILON if training.adam_epsilon is None else training.adam_epsilon
    return torch.optim.Adam(network.parameters(), lr=training.learning_rate, eps=epsilon)


def update_weights(
    network: Network, optimizer: torch.optim.Adam, batch: Batch, training: TrainingConfig, *, classification: bool
) -> float:
    """Update a network once, and return the loss.

    Args:
        network: The network.
        optimizer: Its optimiser.
        batch: Inputs and targets.
        training: The clipping of the gradient and the precision.
        classification: Whether the targets are classes.

    Raises:
        NonFiniteError: If the loss or its gradient is NaN or infinite; the weights are then unchanged.
    """
    x, target = batch
    optimizer.zero_grad()
    with autocast(target.device, training):
        output = network(x)
    loss = task_loss(output, target, classification=classification)
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    value = float(loss.detach())
    if not math.isfinite(value) or not math.isfinite(float(norm)):
        what = "the gradient of the loss" if math.isfinite(value) else "the loss"
        raise NonFiniteError(f"{what} became NaN or infinite")
    if training.max_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(network.parameters(), training.max_grad_norm, norm)
    optimizer.step()
    return value


def autocast(device: torch.device, training: TrainingConfig) -> torch.autocast:
    """Return the context of a network's computation: bfloat16 if the training asks for it and it is safe."""
    return torch.autocast(device.type, torch.bfloat16, enabled=training.mixed_precision)


class Trainer:
    """Trains the network of a run, from its latest checkpoint if there is one.

    Args:
        run: The run.
        benchmark: The benchmark that it trains.
        batches: Its batches.
        network: Its network, on its device.
        stop: Once it is set, the training ends after the current update.

    Raises:
        UserError: If a checkpoint or metrics.csv is broken, or the disk is full.
    """

    def __init__(
        self, run: Run, benchmark: Benchmark, batches: Batches, network: Network, stop: threading.Event
    ) -> None:
        self.run = run
        self.benchmark = benchmark
        self.batches = batches
        self.network = network
        self.optimizer = make_optimizer(network, benchmark.training)
        self.state = State()
        self.stop = stop
        saved = run.checkpoints.all()
        if saved:
            loaded = checkpoint.load_weights(saved[-1], network)
            checkpoint.load_optimizer(saved[-1], self.optimizer)
            self.state = _state(loaded, saved[-1])
        run.metrics.cut("time/updates", self.state.updates)
        self._saved_at = self.state.updates if saved else None
        self._before = self.state.seconds

    def train(self) -> None:
        """Train until the end, or until `stop` is set."""
        state, total = self.state, self.batches.total_updates
        began = time.monotonic()
        self._progress = Progress(total, str(self.run), start=state.updates, unit="updates")
        self._metrics = self.run.metrics.writer(COLUMNS)
        self._tensorboard = SummaryWriter(str(self.run), purge_step=state.updates + 1)
        self._tensorboard.add_text("config", "```yaml\n" + to_yaml(self.benchmark) + "```", 0)
        try:
            while state.updates < total and not state.over and not self.stop.is_set():
                self._update()
                state.seconds = self._before + time.monotonic() - began
                ends_epoch = state.updates % self.batches.epoch_updates == 0
                if ends_epoch or state.over or state.updates % ROW_EVERY == 0:
                    self._write_row(ends_epoch)
                if state.updates % self.benchmark.checkpoint.every == 0:
                    self._save()
                self._progress.update(state.updates, self._facts)
            if self._saved_at != state.updates:
                self._save()
        finally:
            self._progress.close()
            self._metrics.close()
            self._tensorboard.close()

    @torch.no_grad()
    def evaluate(self, samples: Samples, index: torch.Tensor) -> dict[str, float]:
        """Return the errors of the network on some samples."""
        outputs, targets = [], []
        for part in index.split(EVALUATION_BATCH):
            x, target = samples.batch(part)
            with autocast(self.batches.device, self.benchmark.training):
                outputs.append(self.network(x).float())
            targets.append(target)
        return task_metrics(
            torch.cat(outputs, 1), torch.cat(targets, 1), classification=self.batches.task.classification
        )

    def _update(self) -> None:
        state, training = self.state, self.benchmark.training
        rate = learning_rate(training, state.updates, self.batches.total_updates)
        self.optimizer.param_groups[0]["lr"] = rate
        batch, classification = self.batches.batch(state.updates), self.batches.task.classification
        try:
            value = update_weights(self.network, self.optimizer, batch, training, classification=classification)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"{error} in update {state.updates + 1}; "
                "a smaller training.learning_rate or training.max_grad_norm usually cures this"
            ) from None
        state.updates += 1
        state.loss_sum += value
        state.losses += 1
        state.over = training.target_loss is not None and value < training.target_loss

    def _write_row(self, ends_epoch: bool) -> None:
        state = self.state
        row: dict[str, Any] = {
            "time/updates": state.updates,
            "time/epochs": state.updates / self.batches.epoch_updates,
            "time/seconds": state.seconds,
            "train/loss": state.loss_sum / state.losses,
            "train/learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        state.loss_sum, state.losses = 0.0, 0
        self._loss = row["train/loss"]
        if ends_epoch and self.benchmark.training.validation_size:
            found = self.evaluate(*self.batches.validation_set())
            row |= {f"eval/{name}": value for name, value in found.items()}
            self._judge_progress(found["loss" if self.batches.task.classification else "mse"])
        self._metrics.write(row)
        for name in COLUMNS[1:]:
            if name in row:
                self._tensorboard.add_scalar(name, row[name], state.updates)
        self._tensorboard.flush()

    def _judge_progress(self, loss: float) -> None:
        state, patience = self.state, self.benchmark.training.patience
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the error on the validation set became {loss} after {state.updates} updates; "
                "a smaller training.learning_rate usually cures this"
            )
        if state.best is None or loss < state.best:
            state.best, state.worse_epochs = loss, 0
        else:
            state.worse_epochs += 1
        state.over = state.over or (patience is not None and state.worse_epochs >= patience)

    def _save(self) -> None:
        values = asdict(self.state)
        values["steps"] = self._saved_at = values.pop("updates")
        files = checkpoint.pack(self.network, values, optimizer=self.optimizer)
        self.run.checkpoints.add(self._saved_at, files, keep=self.benchmark.checkpoint.keep)

    def _facts(self) -> dict[str, str]:
        state = self.state
        return {"loss": f"{state.loss_sum / state.losses:.4f}"} if state.losses else {"loss": f"{self._loss:.4f}"}

    def report(self) -> dict[str, Any]:
        """Return the part of result.json that this trainer knows."""
        state = self.state
        return {
            "steps": state.updates,
            "epochs": round(state.updates / self.batches.epoch_updates, 4),
            "seconds": round(state.seconds, 1),
        }

    def say_stopping(self) -> None:
        """Tell the user that the training is stopping."""
        self._progress.say("stopping after this update; press Ctrl-C again to stop at once")


def _state(loaded: Mapping[str, Any], folder: Path) -> State:
    values: dict[str, Any] = {name: loaded.get(name) for name in State.__dataclass_fields__ if name != "updates"}
    numbers = [values[name] for name in ("seconds", "loss_sum", "losses", "worse_epochs")]
    numbers += [] if values["best"] is None else [values["best"]]
    if not all(type(n) in (int, float) and 0 <= n < math.inf for n in numbers) or not isinstance(values["over"], bool):
        raise UserError(f"the checkpoint {folder / 'state.json'} is truncated or broken.")
    return State(updates=loaded["steps"], **values)
