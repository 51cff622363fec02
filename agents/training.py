"""Train an agent from an experiment into a run folder."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from bistable_rl.agents.agent import make_policy, policy_kwargs, with_saved_kinds
from bistable_rl.agents.callbacks import RunCallback, open_outputs
from bistable_rl.agents.horizons import Horizons
from bistable_rl.agents.make_env import (
    EVALUATION,
    TRAINING,
    WARM_UP,
    close,
    derived_seed,
    make_evaluation_env,
    make_vec_env,
)
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.record import random_actions, record
from bistable_rl.agents.state import Snapshot, restore
from bistable_rl.cells import cell_options
from bistable_rl.dynamics.warmup import warm_up_run
from bistable_rl.errors import RunFailedError, UserError, one_sentence
from bistable_rl.runs import checkpoint
from bistable_rl.runs import run as runs
from bistable_rl.runs.capacity import check_layers
from bistable_rl.runs.config import to_yaml
from bistable_rl.runs.devices import hardware, peak_memory_mb, resolve_device
from bistable_rl.runs.schema import AlgorithmConfig, Experiment
from bistable_rl.runs.stopping import Stopper

WARM_UP_EPISODES, WARM_UP_STEPS = 64, 1000  # as many, cut after as many steps


def train(experiment: Experiment, out: Path, *, overwrite: bool = False, stop: threading.Event | None = None) -> Path:
    """Train in a new run folder and return it; `result.json` in it says how the run ended.

    Args:
        experiment: What to train.
        out: The output folder; the run goes to `out/<name>/<cell>-seed<k>`.
        overwrite: Replace a run that is there already, instead of numbering the new one.
        stop: Set by another thread, it stops the training as Ctrl-C does: at the next step, with a checkpoint.

    Raises:
        UserError: Something in the experiment is wrong (nothing has been written then), or the disk is full.
        RunFailedError: A NaN, or an error of the environment, stopped the training.
    """
    experiment = without_gate_options(experiment)
    parts = _prepare(experiment)
    with runs.created(experiment, out, overwrite=overwrite) as run:
        _train(experiment, run, parts, stop)
    return run


def resume(run: Path, *, total_steps: int | None = None, stop: threading.Event | None = None) -> None:
    """Train in a run folder, from its last checkpoint on, or from the beginning where there is none.

    On an environment of ours the weights and the metrics, time and memory aside, become those of a run that was never
    stopped; any other environment starts new episodes. A finished run stays as it is.

    Args:
        run: The run folder; a `config.yaml` in it is enough.
        total_steps: Environment steps to train for, in place of those of the experiment.
        stop: As of `train`.

    Raises:
        UserError: Something in the folder is wrong, another process trains in it, or the disk is full.
        RunFailedError: A NaN, or an error of the environment, stopped the training.
    """
    if _to_do(run, total_steps) is None:
        return
    with runs.locked(run):
        experiment = _to_do(run, total_steps)
        if experiment is not None:  # else another process has ended it meanwhile
            experiment = without_gate_options(experiment)
            _train(experiment, run, _prepare(experiment, checkpoint.folders(run)), stop)


def _to_do(run: Path, total_steps: int | None) -> Experiment | None:
    """Return the experiment of a run folder, None if it has finished."""
    experiment = runs.read_experiment(run)
    if total_steps is not None:
        experiment = replace(experiment, total_steps=total_steps)
    return None if runs.is_finished(run, experiment.total_steps) else experiment


@dataclass(frozen=True)
class _Parts:
    """What a training is made of; made before anything is written, so that what cannot work is refused first."""

    model: RecurrentPPO
    env: VecEnv
    eval_env: VecEnv
    horizons: Horizons

    def close(self) -> None:
        """Close the environments; one that fails at it, when all is done, is only named."""
        close(self.env)
        close(self.eval_env)
        self.horizons.close()


def _prepare(experiment: Experiment, saved: Sequence[Path] = ()) -> _Parts:
    """Make what trains, or goes on from the last of the saved checkpoints."""
    try:
        return _parts(experiment, saved)
    except SystemExit as error:
        raise UserError(f"env: {_exited(experiment, error)} when it was tried.") from None


def _exited(experiment: Experiment, error: SystemExit) -> str:
    return f"the environment {experiment.env.id} called sys.exit({'' if error.code is None else repr(error.code)})"


def _parts(experiment: Experiment, saved: Sequence[Path]) -> _Parts:
    device = resolve_device(experiment.device)
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # networks of this size run no faster on more
    env = make_vec_env(experiment.env, experiment.env.num_envs, derived_seed(experiment.seed, TRAINING))
    seed, evaluation = derived_seed(experiment.seed, EVALUATION), experiment.evaluation
    eval_env = make_evaluation_env(experiment.env, evaluation.episodes, seed)
    as_saved = with_saved_kinds(experiment, saved[-1], env) if saved else experiment
    model = _make_model(as_saved, env, device)
    return _Parts(model, env, eval_env, Horizons(experiment.env, evaluation.horizons, evaluation.episodes, seed))


def _train(experiment: Experiment, run: Path, parts: _Parts, stop: threading.Event | None) -> None:
    """Train from the last checkpoint of a run on, if there is one, and write result.json."""
    model = parts.model
    saved = checkpoint.folders(run)
    start = _load(saved[-1], model) if saved else None
    model.set_logger(Logger(str(run), []))
    stopper = Stopper(stop)
    try:
        seed = derived_seed(experiment.seed, EVALUATION)
        callback = RunCallback(experiment, run, parts.eval_env, seed, parts.horizons, start, stopper.event)
        if start is not None:
            parts.env.seed(derived_seed(experiment.seed, TRAINING, start.steps))  # for one that starts new episodes
            restore(model, start)
    except Exception as error:  # whatever a file from somebody else makes it stumble over
        if start is None:
            raise
        raise UserError(
            f"the checkpoint {saved[-1]} does not fit {run / runs.CONFIG} ({type(error).__name__}: {error})."
        ) from None
    with stopper.listening():
        try:
            # what cannot go on has been refused by now; from here on the folder changes, and a result must follow
            with stopper.holding(callback.say_stopping):
                model.logger.output_formats += open_outputs(run, experiment, start.steps if start else 0)
                runs.clean(run)
                runs.write_text(run / runs.CONFIG, to_yaml(experiment))
                runs.write_environment(run, hardware(model.device, experiment.cell, experiment.policy.hidden_size))
                runs.remove_file(run / runs.RESULT)
                if start is not None:
                    checkpoint.forget_best(run, start.steps)
            _train_and_finish(experiment, run, parts, callback, stopper, start)
        finally:
            parts.close()


def _train_and_finish(
    experiment: Experiment,
    run: Path,
    parts: _Parts,
    callback: RunCallback,
    stopper: Stopper,
    start: Snapshot | None,
) -> None:
    model = parts.model
    status, warmup = "failed", None
    failure: BaseException | None = None
    try:
        warmup = None if stopper.event.is_set() else warm_up_memory(experiment, model.policy, run)
        steps = experiment.total_steps - model.num_timesteps
        with stopper.holding(callback.say_stopping):
            model.learn(steps, callback, log_interval=None, reset_num_timesteps=start is None)
        status = "interrupted" if stopper.event.is_set() else "finished"
    except KeyboardInterrupt:
        status = "interrupted"
    except SystemExit as error:
        failure = RunFailedError(_exited(experiment, error))
        failure.__cause__ = error
    except BaseException as error:  # whatever an environment does: the run folder must say how it ended
        failure = error
    with stopper.holding(lambda: None):  # it ends now in any case
        callback.close()
        with contextlib.suppress(OSError):  # a full disk, which something has met before
            model.logger.close()
        saved = checkpoint.folders(run)
        last = str(saved[-1].relative_to(run)) if saved else None
        result: dict[str, Any] = {
            "status": status,
            "signal": stopper.signal,
            "steps": callback.steps,
            "seconds": round(callback.seconds, 1),
            "steps_per_second": round(callback.steps / callback.seconds, 1),
            "peak_memory_mb": round(peak_memory_mb(model.device), 1),
            "checkpoint": last,
            "evaluation": callback.last_evaluation.summary() if callback.last_evaluation else None,
            "horizons": callback.last_horizons,
            "warmup": warmup,
        }
        runs.finish(run, result, failure, f"{model.num_timesteps} steps")


def _load(folder: Path, model: RecurrentPPO) -> Snapshot:
    """Load a checkpoint's weights and moments, and return the rest."""
    state = checkpoint.load_weights(folder, model.policy)
    checkpoint.load_optimizer(folder, model.policy.optimizer)
    return Snapshot(state.pop("steps"), checkpoint.load_arrays(folder), state)


def _make_model(experiment: Experiment, env: VecEnv, device: torch.device) -> RecurrentPPO:
    """Build the algorithm, and try it for a step, so that what cannot work is refused before anything is written.

    Raises:
        UserError: The policy section, the environment or both together do not work.
    """
    policy = experiment.policy
    sizes = policy.cell, policy.hidden_size, policy.num_layers, policy.cell_kwargs
    check_layers("policy: ", *sizes, env.num_envs, device)
    make_policy(experiment, env, device)
    try:
        model = RecurrentPPO(
            RecurrentPolicy,
            env,
            **algorithm_kwargs(experiment.algorithm),
            policy_kwargs=policy_kwargs(experiment.policy),
            seed=experiment.seed,
            device=device,
        )
        env.reset()
        env.action_space.seed(0)
        env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))
    except UserError:
        raise
    except MemoryError:
        raise UserError("the experiment needs more memory than there is; fewer copies or steps would do.") from None
    except Exception as error:
        raise UserError(f"env: it fails at its first step: {type(error).__name__}: {one_sentence(error)}") from None
    env.seed(derived_seed(experiment.seed, TRAINING))  # the algorithm has seeded it otherwise
    return model


def warm_up_memory(experiment: Experiment, policy: RecurrentPolicy, run: Path) -> list[dict[str, Any]] | None:
    """Warm up the recurrent layers of a run at its start, on whole episodes of random actions.

    Returns:
        What it did to the memory, and to that of a separate critic; None without a warm-up.
    """

    def sequences() -> tuple[Tensor, Tensor]:
        seed = derived_seed(experiment.seed, WARM_UP)
        env = make_vec_env(experiment.env, WARM_UP_EPISODES, seed)
        try:
            episodes = record(env, policy, random_actions(env, seed), WARM_UP_STEPS)
        finally:
            close(env)
        return episodes.features, episodes.lengths

    return warm_up_run(
        run,
        experiment.warmup,
        [memory.rnn for memory in (policy.lstm_actor, policy.lstm_critic) if memory is not None],
        sequences,
        truncate=False,
        seed=experiment.seed,
    )


def algorithm_kwargs(algorithm: AlgorithmConfig) -> dict[str, Any]:
    """Return the algorithm section as the arguments of `RecurrentPPO`, its schedules as functions."""
    kwargs = dict(vars(algorithm))
    for name, value in kwargs.items():
        if isinstance(value, list | tuple):
            first, last = value
            kwargs[name] = LinearSchedule(first, last, end_fraction=1.0)
    return kwargs


def without_gate_options(experiment: Experiment) -> Experiment:
    """Leave `c_bias` and `t_max` out for a cell that has no slow gate, and say so.

    A config that sets them for the gated cells can so be trained with every cell.

    Raises:
        UserError: There is no such cell.
    """
    policy = experiment.policy
    try:
        known = cell_options(policy.cell)
    except ValueError as error:
        raise UserError(f"policy: {one_sentence(error)}") from None
    idle = [name for name in ("c_bias", "t_max") if name in policy.cell_kwargs and name not in known]
    if not idle:
        return experiment
    print(f"{policy.cell} has no slow gate, so policy.cell_kwargs {' and '.join(idle)} are left out", file=sys.stderr)
    kept = {name: value for name, value in policy.cell_kwargs.items() if name not in idle}
    return replace(experiment, policy=replace(policy, cell_kwargs=kept))
