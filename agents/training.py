"""Train an agent from an experiment into a run folder."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from bistable_rl.agents import state as training_state
from bistable_rl.agents.agent import policy_errors, policy_kwargs, with_saved_kinds
from bistable_rl.agents.callbacks import RunCallback, open_outputs
from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.exits import exited
from bistable_rl.agents.horizons import Horizons
from bistable_rl.agents.loggers import check_loggers
from bistable_rl.agents.named import make_callbacks, with_names
from bistable_rl.agents.normalization import normalized
from bistable_rl.agents.play import random_actions, record
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.run_spaces import spaces_of_env, write_spaces
from bistable_rl.agents.state import restore
from bistable_rl.agents.vec_envs import close, make_evaluation_env, make_vec_env
from bistable_rl.cells import cell_options, check_options
from bistable_rl.dynamics.warmup import warm_up
from bistable_rl.errors import RunFailedError, UserError, one_sentence, user_errors
from bistable_rl.runs.devices import hardware, peak_memory_mb, training_device
from bistable_rl.runs.folder import CONFIG
from bistable_rl.runs.recording import recording
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment
from bistable_rl.runs.seeds import EVALUATION, TRAINING, WARM_UP, derived_seed
from bistable_rl.runs.stopping import Stopper

WARM_UP_EPISODES = 64
WARM_UP_STEPS = 1000
"""The number of steps after which an episode of the warm-up is cut."""


def train(
    experiment: Experiment,
    out: Path,
    *,
    overwrite: bool = False,
    stop: threading.Event | None = None,
    progress_bar: bool = True,
) -> Path:
    """Train in a new run folder and return it; `result.json` in it says how the run ended.

    Args:
        experiment: The experiment.
        out: The output folder; the run goes to `out/<name>/<cell>-seed<k>`.
        overwrite: Replace an existing run instead of numbering the new one.
        stop: An event. When another thread sets it, the training stops as with Ctrl-C: at the next step, with a
            checkpoint.
        progress_bar: Whether to show the progress on stderr.

    Raises:
        UserError: If something in the experiment is wrong (then nothing has been written), or the disk is full.
        RunFailedError: If a NaN, or an error of the environment, stopped the training.
    """
    experiment = without_gate_options(with_names(experiment))
    parts = _make_parts(experiment)
    with Run.create(experiment, out, overwrite=overwrite) as run:
        _train(run, experiment, parts, stop, progress_bar)
    return run.folder


def resume(
    run: Run | str | os.PathLike[str],
    *,
    total_steps: int | None = None,
    stop: threading.Event | None = None,
    progress_bar: bool = True,
) -> None:
    """Resume a run from its latest checkpoint, or from the beginning if there is none.

    In one of our environments the weights and the metrics, except time and memory, become those of a run that was never
    stopped; any other environment starts new episodes. A finished run does not change.

    Args:
        run: The run or its folder; a `config.yaml` in it is enough.
        total_steps: Environment steps to train for, in place of the number in the experiment.
        stop: As of `train`.
        progress_bar: As of `train`.

    Raises:
        UserError: If something in the folder is wrong, another process trains in it, or the disk is full.
        RunFailedError: If a NaN, or an error of the environment, stopped the training.
    """
    run = Run.open(run)
    if run.finished(_experiment(run, total_steps).total_steps):
        return
    with run.locked():
        experiment = _experiment(run, total_steps)
        if not run.finished(experiment.total_steps):  # another process may have finished it meanwhile
            experiment = without_gate_options(experiment)
            saved = run.checkpoints.all()
            _train(run, experiment, _make_parts(experiment, saved[-1] if saved else None), stop, progress_bar)


def _experiment(run: Run, total_steps: int | None) -> Experiment:
    experiment = run.experiment()
    return experiment if total_steps is None else replace(experiment, total_steps=total_steps)


@dataclass(frozen=True)
class _Parts:
    """The algorithm and its environments, made before anything is written: a wrong experiment writes nothing."""

    model: RecurrentPPO
    env: VecEnv
    eval_env: VecEnv
    horizons: Horizons
    callbacks: list[BaseCallback]
    masked: bool

    def close(self) -> None:
        """Close the environments; warn of one that fails to close."""
        close(self.env)
        close(self.eval_env)
        self.horizons.close()


def _make_parts(experiment: Experiment, saved: Path | None = None) -> _Parts:
    """Make the algorithm, for a new run or from a checkpoint."""
    device = training_device(experiment.device)
    check_loggers(experiment)
    callbacks = make_callbacks(experiment)
    try:
        env = make_vec_env(experiment.env, experiment.env.num_envs, derived_seed(experiment.seed, TRAINING))
        seed, evaluation = derived_seed(experiment.seed, EVALUATION), experiment.evaluation
        eval_env = make_evaluation_env(experiment.env, evaluation.episodes, seed)
        as_saved = experiment if saved is None else with_saved_kinds(experiment, saved, env.observation_space)
        env = normalized(env, experiment)
        model, masked = _make_model(as_saved, env, device)
        horizons = Horizons(
            experiment.env,
            evaluation.horizons,
            evaluation.episodes,
            seed,
            evaluation.streams,
            evaluation.max_episode_steps,
        )
        horizons.check_spaces(eval_env)
        return _Parts(model, env, eval_env, horizons, callbacks, masked)
    except SystemExit as error:
        raise UserError(f"env: {exited(experiment, error)} when it was tried.") from None


@contextlib.contextmanager
def _errors_of_users(experiment: Experiment) -> Iterator[None]:
    """Turn errors that only an environment or another part of the user can raise into the error of a failed run."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise RunFailedError(exited(experiment, error)) from error
    except BaseException as error:
        raise RunFailedError(f"the environment {experiment.env.id} raised {error!r}") from error


def _train(run: Run, experiment: Experiment, parts: _Parts, stop: threading.Event | None, progress_bar: bool) -> None:
    """Train from the latest checkpoint of a run, if there is one, and write result.json."""
    model, stopper = parts.model, Stopper(stop)
    warmup: list[dict[str, Any]] | None = None

    def report() -> dict[str, Any]:
        return {**callback.report(), "peak_memory_mb": round(peak_memory_mb(model.device), 1), "warmup": warmup}

    with contextlib.closing(parts):
        callback = _load(run, experiment, parts, stopper.event, progress_bar)
        run.metrics.cut("time/total_timesteps", callback.steps - 1)
        machine = hardware(model.device, model.policy.memory.layers)
        with (
            recording(run, report, hardware=machine, stopper=stopper, unit="steps"),
            _errors_of_users(experiment),
        ):
            try:
                with stopper.holding(callback.say_stopping):
                    run.write_config(experiment)
                    write_spaces(run, spaces_of_env(parts.eval_env, parts.masked))
                    run.checkpoints.forget_best(callback.steps)
                    for output in open_outputs(run, experiment, callback.steps):
                        model.logger.output_formats.append(output)
                warmup = run.warmed_up(experiment.warmup, lambda: _warm_up(experiment, model.policy), stopper.event)
                with stopper.holding(callback.say_stopping):
                    steps = experiment.total_steps - model.num_timesteps
                    together: list[BaseCallback] = [callback, *parts.callbacks]
                    model.learn(steps, together, log_interval=None, reset_num_timesteps=not callback.is_resumed)
            finally:
                with stopper.holding(), contextlib.suppress(OSError):  # a full disk, which made the run fail before
                    callback.close()
                    model.logger.close()


def _load(run: Run, experiment: Experiment, parts: _Parts, stop: threading.Event, progress_bar: bool) -> RunCallback:
    """Load the latest checkpoint into the model, if there is one, and return the callback that continues from there.

    Raises:
        UserError: If the checkpoint is broken or does not fit.
    """
    model, saved = parts.model, run.checkpoints.all()
    model.set_logger(Logger(str(run), []))
    start = training_state.load(saved[-1], model) if saved else None
    try:
        callback = RunCallback(experiment, run, parts.eval_env, parts.horizons, start, stop, progress_bar)
        if start is not None:
            parts.env.seed(derived_seed(experiment.seed, TRAINING, start.steps))  # for one with new episodes
            restore(model, start)
    except Exception as error:  # any error: the file may come from anybody
        if start is None:
            raise
        raise UserError(
            f"the checkpoint {saved[-1]} does not fit {run.folder / CONFIG} ({type(error).__name__}: {error})."
        ) from None
    return callback


def _make_model(experiment: Experiment, env: VecEnv, device: torch.device) -> tuple[RecurrentPPO, bool]:
    """Build the algorithm and try the environment for a step; return also whether the environment has action masks.

    Raises:
        UserError: If the policy section, the environment or both together do not work.
    """
    try:
        model = RecurrentPPO(
            RecurrentPolicy,
            env,
            **vars(experiment.algorithm),
            policy_kwargs=policy_kwargs(experiment.policy),
            seed=experiment.seed,
            device=device,
            _init_setup_model=False,
        )
        with policy_errors():
            model._setup_model()
        masked = _try(env)
    except UserError:
        raise
    except RunFailedError as error:  # from its action masks
        raise UserError(str(error)) from None
    except MemoryError:
        raise UserError("the experiment needs more memory than there is; use fewer copies or steps.") from None
    except Exception as error:
        raise UserError(f"env: it fails at its first step: {type(error).__name__}: {one_sentence(error)}") from None
    env.seed(derived_seed(experiment.seed, TRAINING))  # the algorithm has seeded it with the experiment's seed
    return model, masked


def _try(env: VecEnv) -> bool:
    """Step the copies once, and return whether they have action masks; VecNormalize's statistics stay empty."""
    statistics = unwrap_vec_normalize(env)
    if statistics is not None:
        statistics.training = False
    env.reset()
    masks = EnvMasks(env)
    env.action_space.seed(0)
    _, _, dones, infos = env.step(masks.sample(env.action_space))
    masks.see(dones, infos)
    if statistics is not None:
        statistics.training = True
    return masks.now is not None


def _warm_up(experiment: Experiment, policy: RecurrentPolicy) -> list[dict[str, Any]]:
    """Warm up the memory, and that of a separate critic, on whole episodes of random actions."""
    seed = derived_seed(experiment.seed, WARM_UP)
    env = normalized(make_vec_env(experiment.env, WARM_UP_EPISODES, seed), experiment)
    try:
        episodes = record(env, policy, random_actions(env, seed), WARM_UP_STEPS)
    finally:
        close(env)
    with user_errors("warmup", ValueError):
        return [
            warm_up(
                memory,
                episodes.features,
                episodes.lengths,
                steps=experiment.warmup.steps,
                learning_rate=experiment.warmup.learning_rate,
                truncate=False,
                seed=experiment.seed,
            ).summary()
            for memory in policy.memories
        ]


def without_gate_options(experiment: Experiment) -> Experiment:
    """Leave out `c_bias` and `t_max` for a cell that has no slow gate, and say so.

    So a config that sets them for the gated cells can be trained with every cell.

    Raises:
        UserError: If there is no such cell, or it has no such option.
    """
    policy = experiment.policy
    with user_errors("policy.cell", ValueError):
        known = cell_options(policy.cell)
    idle = [name for name in ("c_bias", "t_max") if name in policy.cell_kwargs and name not in known]
    with user_errors("policy.cell_kwargs", ValueError, TypeError):
        check_options(policy.cell, {name: value for name, value in policy.cell_kwargs.items() if name not in idle})
    if not idle:
        return experiment
    print(f"{policy.cell} has no slow gate, so policy.cell_kwargs {' and '.join(idle)} are left out", file=sys.stderr)
    kept = {name: value for name, value in policy.cell_kwargs.items() if name not in idle}
    return replace(experiment, policy=replace(policy, cell_kwargs=kept))
