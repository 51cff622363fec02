"""The callback of a training: logging, evaluation, checkpoints, progress, and stopping."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat
from stable_baselines3.common.vec_env import VecEnv
from torch.utils.tensorboard import SummaryWriter

from bistable_rl.agents.evaluation import Evaluation, check_finite, evaluate
from bistable_rl.agents.horizons import FIGURES, Horizons, Point, points
from bistable_rl.agents.loggers import open_loggers
from bistable_rl.agents.normalization import reading_unnormalized
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.state import TrainingState, capture, capture_normalization
from bistable_rl.errors import NonFiniteError
from bistable_rl.runs import checkpoint
from bistable_rl.runs.config import to_yaml
from bistable_rl.runs.files import non_finite
from bistable_rl.runs.metrics import MetricsWriter
from bistable_rl.runs.progress import Progress
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment
from bistable_rl.runs.seeds import EVALUATION, derived_seed

COLUMNS = (
    "time/total_timesteps",
    "time/time_elapsed",
    "time/fps",
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "rollout/success_rate",
    "eval/mean_reward",
    "eval/mean_ep_length",
    "eval/success_rate",
    "eval/mse",
    "train/loss",
    "train/policy_gradient_loss",
    "train/value_loss",
    "train/entropy_loss",
    "train/approx_kl",
    "train/clip_fraction",
    "train/explained_variance",
    "train/std",
    "train/clip_range",
    "train/learning_rate",
    "train/ent_coef",
    "train/continued_sequences",
    "train/state_staleness",
    "gradient/norm",
    "gradient/features",
    "gradient/memory",
    "gradient/critic_memory",
    "gradient/actor",
    "gradient/critic",
)

CERTIFIED_COLUMNS = ("train/certified_loss", "train/certified_share", "train/held_cues")
"""The additional columns of a training with a certified loss."""


class _CSV(KVWriter):
    """SB3's interface to metrics.csv."""

    def __init__(self, writer: MetricsWriter) -> None:
        self.writer = writer

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.writer.write(key_values)

    def close(self) -> None:
        self.writer.close()


class _TensorBoard(TensorBoardOutputFormat):
    """SB3's writer; `purge_step` hides the values written after the checkpoint from which a run resumes."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=purge_step)
        self._is_closed = False


def open_outputs(run: Run, experiment: Experiment, first_step: int) -> Iterator[KVWriter]:
    """Open the outputs of SB3's logger: metrics.csv, TensorBoard with the config as text, and the experiment's loggers.

    Args:
        run: The run; its metrics from `first_step` on have been removed.
        experiment: The experiment.
        first_step: The step that the training starts at.

    Raises:
        OSError: If the disk is full.
        UserError: If a logger cannot be built.
    """
    tensorboard = _TensorBoard(run.folder, first_step or None)
    tensorboard.writer.add_text("config", "```yaml\n" + to_yaml(experiment) + "```", first_step)
    tensorboard.writer.flush()
    evaluation = experiment.evaluation
    asked = points(experiment.env, evaluation.horizons, evaluation.streams)
    more = CERTIFIED_COLUMNS if experiment.algorithm.certified_coef != 0 else ()
    columns = [*COLUMNS, *more, *(tag for point in asked for tag in point_tags(point))]
    yield _CSV(run.metrics.writer(columns))
    yield tensorboard
    yield from open_loggers(run, experiment, first_step)


def point_tags(point: Point) -> list[str]:
    """Return the names under which an evaluation at a horizon and with a kind of stream is logged."""
    return [f"{point.tag}/{way}{name}" for way in ("", "sampled_") for name in FIGURES]


class RunCallback(BaseCallback):
    """Writes to the run folder: one row of metrics per update, and evaluations and checkpoints when they are due.

    Everything happens between two updates, when weights and counters belong together. A checkpoint is written before
    the evaluation and the row of its update, so a run that resumes from it makes both again. A stopped training ends at
    the next environment step and leaves a checkpoint of the last update. If a callback of the user ends the training
    within a rollout, the weights are still those of the last update, and they are evaluated as at any other end.

    Args:
        experiment: The experiment.
        run: Its run.
        eval_env: The copies for evaluation. They are seeded again for each evaluation, so that all play the same
            episodes.
        horizons: The further horizons and kinds of streams at which the agent is evaluated.
        start: The checkpoint that the run resumes from, or None.
        stop: Stops the training once it is set.
        progress_bar: Whether to show the progress.

    Raises:
        KeyError, TypeError, ValueError: If that checkpoint is broken.
    """

    def __init__(
        self,
        experiment: Experiment,
        run: Run,
        eval_env: VecEnv,
        horizons: Horizons,
        start: TrainingState | None,
        stop: threading.Event,
        progress_bar: bool = True,
    ) -> None:
        super().__init__()
        self.experiment = experiment
        self.run = run
        self.eval_env = eval_env
        self.horizons = horizons
        self.stop = stop
        self.is_resumed = start is not None
        self.last_evaluation: Evaluation | None = None
        self.last_horizons: list[dict[str, Any]] = []
        before: dict[str, Any] = {"evaluated_at": 0, "best": None, "seconds": 0.0}
        before |= {} if start is None else {name: start.values[name] for name in before}
        self._evaluated_at = int(before["evaluated_at"])
        self._best = None if before["best"] is None else [float(value) for value in before["best"]]
        self._seconds_before = float(before["seconds"])
        if not 0 <= self._seconds_before < math.inf:
            raise ValueError(f"seconds must be a number of seconds, not {self._seconds_before}")
        self._started = time.monotonic()
        self._snapshot = start
        self._within_rollout = False
        self._saved_at = None if start is None else start.steps
        self._progress = Progress(experiment.total_steps, str(run), start=self._saved_at or 0, shown=progress_bar)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, in all parts of a run that was stopped and resumed."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def steps(self) -> int:
        """Environment steps up to the last update; they are kept if the training stops here."""
        return self.num_timesteps if self._snapshot is None else self._snapshot.steps

    def _on_training_start(self) -> None:
        assert isinstance(self.model, RecurrentPPO)
        self.model.started_at -= self._seconds_before
        self.model._num_timesteps_at_start = 0

    def _on_rollout_start(self) -> None:
        self._between_updates()
        self._within_rollout = True

    def _on_rollout_end(self) -> None:
        self._within_rollout = False

    def _on_step(self) -> bool:
        check_finite(self.locals["new_obs"], "observation", lambda _: f"after {self.num_timesteps} steps")
        self._progress.update(self.num_timesteps, self._facts)
        return not self.stop.is_set()

    def _facts(self) -> dict[str, str]:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        facts = {"return": f"{np.mean(returns):.3f}"} if returns else {}
        if self.model.ep_success_buffer:
            facts["success"] = f"{np.mean(self.model.ep_success_buffer):.2f}"
        return facts

    def _on_training_end(self) -> None:
        if not self.stop.is_set():
            if self._within_rollout:
                self._progress.say(f"a callback has ended the training after {self.num_timesteps:,} steps")
            self._between_updates(last=True)
        elif self._saved_at != self.steps:
            self._save()  # stopped within a rollout: these are the weights of the last update

    def report(self) -> dict[str, Any]:
        """Return this callback's part of result.json."""
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "steps_per_second": round(self.steps / self.seconds, 1),
            "evaluation": None if self.last_evaluation is None else self.last_evaluation.summary(),
            "horizons": self.last_horizons,
        }

    def close(self) -> None:
        """Close the progress bar; its last state stays visible."""
        self._progress.close()

    def say_stopping(self) -> None:
        """Tell the user that the training is stopping."""
        self._progress.say("stopping at the next step; press Ctrl-C again to stop at once")

    def _between_updates(self, last: bool = False) -> None:
        assert isinstance(self.model, RecurrentPPO)
        if self._snapshot is None or not self._within_rollout:
            self._snapshot = capture(self.model)
        self._snapshot.values.update(evaluated_at=self._evaluated_at, best=self._best, seconds=self.seconds)
        due = last or self._saved_at is None or self.steps - self._saved_at >= self.experiment.checkpoint.every
        if due and self._saved_at != self.steps:
            self._save()  # before the evaluation, which may take long or be stopped
        if self.steps == 0:
            return  # nothing has been learned yet
        if last or self.steps - self._evaluated_at >= self.experiment.evaluation.every:
            every = self.experiment.evaluation.horizons_every or 1
            at_horizons = last or self.steps // every > self._evaluated_at // every
            self._evaluated_at = self.steps
            with reading_unnormalized(self.model):
                self._evaluate(at_horizons)
        self.model.dump_logs()

    def _evaluate(self, at_horizons: bool) -> None:
        self.eval_env.seed(derived_seed(self.experiment.seed, EVALUATION))
        episodes = self.experiment.evaluation.episodes
        result = evaluate(
            self.model.policy,
            self.eval_env,
            episodes,
            stop=self.stop.is_set,
            max_episode_steps=self.experiment.evaluation.max_episode_steps,
        )
        if self.stop.is_set():
            return
        summary = result.summary()
        for key, value in non_finite(summary).items():
            raise NonFiniteError(f"{key} became {value} in the evaluation after {self.num_timesteps} environment steps")
        self.last_evaluation = result
        self._keep_best(summary)
        self.logger.record("eval/mean_reward", float(result.returns.mean()))
        self.logger.record("eval/mean_ep_length", float(result.lengths.mean()))
        text = f"evaluation: return {result.returns.mean():.3f}"
        if result.successes is not None:
            self.logger.record("eval/success_rate", float(result.successes.mean()))
            text += f", success {result.successes.mean():.3f}"
        if result.errors is not None:
            self.logger.record("eval/mse", float(result.errors.mean()))
            text += f", mean squared error {result.errors.mean():.4f}"
        self._progress.say(f"{self.num_timesteps:,} steps, {text} over {len(result.returns)} episodes")
        if at_horizons:
            self._evaluate_horizons()

    def _evaluate_horizons(self) -> None:
        rows = self.horizons.evaluate(self.model.policy, stop=self.stop.is_set)
        for row in rows:
            values = [way[name] for way in (row, row["sampled"]) for name in FIGURES]
            point = Point(row["horizon"], row.get("stream"))
            for tag, value in zip(point_tags(point), values, strict=True):
                if value is not None:
                    self.logger.record(tag, value)
            shown = ", ".join(f"{name} {row[name]:.3f}" for name in ("return", "success") if row[name] is not None)
            stream = f", {point.stream} stream" if point.stream else ""
            self._progress.say(f"at horizon {point.horizon:,}{stream}: {shown}")
        self.last_horizons = rows

    def _keep_best(self, summary: dict[str, Any]) -> None:
        merit = [float(summary["success_rate"] or 0.0), float(summary["return_mean"])]
        if self._best is None or merit >= self._best:
            self._best = merit
            assert isinstance(self.model, RecurrentPPO)
            values, arrays = {"steps": self.steps, "evaluation": summary}, capture_normalization(self.model)
            files = checkpoint.pack(self.model.policy, values, arrays=arrays or None)
            self.run.checkpoints.add_best(self.steps, files)

    def _save(self) -> None:
        assert self._snapshot is not None
        self._saved_at = steps = self._snapshot.steps
        files = checkpoint.pack(
            self.model.policy,
            {"steps": steps, **self._snapshot.values},
            optimizer=self.model.policy.optimizer,
            arrays=self._snapshot.arrays,
        )
        self.run.checkpoints.add(steps, files, keep=self.experiment.checkpoint.keep)
