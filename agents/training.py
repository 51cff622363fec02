"""Train an agent from an experiment into a run folder."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sb3_contrib import RecurrentPPO

from bistable_rl import runs
from bistable_rl.agents import checkpoint
from bistable_rl.agents.agent import make_policy, policy_kwargs, resolve_device
from bistable_rl.agents.callbacks import NonFiniteError, RunCallback, make_logger
from bistable_rl.agents.make_env import derived_seed, make_vec_env
from bistable_rl.agents.policies import RecurrentPolicy
from bistable_rl.cells import cell_options
from bistable_rl.config import Experiment, UserError, one_sentence

EVALUATION_COPIES = 16


def train(experiment: Experiment, out: Path, *, overwrite: bool = False) -> Path:
    """Train and return the run folder; `result.json` in it says how the run ended.

    Args:
        experiment: What to train.
        out: The output folder; the run goes to `out/<name>/<cell>-seed<k>`.
        overwrite: Replace a run that is there already, instead of numbering the new one.

    Raises:
        UserError: Something in the experiment is wrong (nothing has been written then), or the disk is full.
        RunFailedError: A NaN stopped the training.
    """
    experiment = without_gate_options(experiment)
    device = resolve_device(experiment.device)
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # networks of this size run no faster on more
    env = make_vec_env(experiment.env, experiment.env.num_envs, experiment.seed)
    eval_seed = derived_seed(experiment.seed, 1)
    copies = min(EVALUATION_COPIES, experiment.evaluation.episodes)
    eval_env = make_vec_env(experiment.env, copies, eval_seed)
    make_policy(experiment, env, device)  # refuses a wrong policy before anything is written
    algorithm = vars(experiment.algorithm)
    kwargs = policy_kwargs(experiment.policy)
    model = RecurrentPPO(RecurrentPolicy, env, **algorithm, policy_kwargs=kwargs, seed=experiment.seed, device=device)
    run = runs.create(experiment, out, overwrite=overwrite)
    model.set_logger(make_logger(run, experiment))
    callback = RunCallback(experiment, run, eval_env, eval_seed)
    started = time.monotonic()
    status, problem = "failed", None
    try:
        model.learn(experiment.total_steps, callback, log_interval=None)
        status = "interrupted" if callback.interrupted else "finished"
    except KeyboardInterrupt:
        status = "interrupted"
    except NonFiniteError as error:
        problem = str(error)
    finally:
        callback.close()
        model.logger.close()
        env.close()
        eval_env.close()
    seconds = time.monotonic() - started
    saved = checkpoint.folders(run)
    result: dict[str, Any] = {
        "status": status,
        "steps": model.num_timesteps,
        "seconds": round(seconds, 1),
        "steps_per_second": round(model.num_timesteps / seconds, 1),
        "checkpoint": str(saved[-1].relative_to(run)) if saved else None,
        "evaluation": callback.last_evaluation.summary() if callback.last_evaluation else None,
    }
    if problem is not None:
        result["problem"] = problem
    runs.write_json(run / runs.RESULT, result)
    if problem is not None:
        raise runs.RunFailedError(
            f"{run}: {problem}; the last good checkpoint is {result['checkpoint']}. "
            "A smaller algorithm.learning_rate or algorithm.max_grad_norm usually cures this."
        )
    return run


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
