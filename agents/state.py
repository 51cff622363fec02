"""The complete training state besides weights and optimizer: a training resumes from it bit for bit.

    capture(model) -> TrainingState -> pack -> the files of a checkpoint -> load -> TrainingState -> restore(model, ...)

The state is captured between two updates. It includes the current episodes if the environment is ours; any other
environment starts new episodes.
"""

from __future__ import annotations

import random
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from bistable_rl.agents.action_masks import checked
from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.normalization import PREFIX, read_moments
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.runs import checkpoint

if TYPE_CHECKING:
    from bistable_rl.agents.ppo import RecurrentPPO

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TrainingState:
    """The state of a training between two updates.

    Attributes:
        steps: Environment steps so far.
        values: Plain JSON values, by name.
        arrays: Arrays by name, such as `env/cue`.
    """

    steps: int
    values: dict[str, Any]
    arrays: dict[str, np.ndarray]


def pack(model: RecurrentPPO, state: TrainingState) -> dict[str, bytes]:
    """Return the files of a checkpoint: weights, Adam's moments and a state.

    Raises:
        UserError: If the weights hold NaN or infinity.
        TypeError, ValueError: If a value is not a plain JSON value.
    """
    values = {"steps": state.steps, **state.values}
    return checkpoint.pack(model.policy, values, optimizer=model.policy.optimizer, arrays=state.arrays)


def load(folder: checkpoint.Folder, model: RecurrentPPO) -> TrainingState:
    """Load the weights and moments of a checkpoint, and return its state, for `restore`.

    Raises:
        UserError: If a file is missing, truncated or broken, or the weights belong to another architecture.
    """
    values = checkpoint.load_weights(folder, model.policy)
    checkpoint.load_optimizer(folder, model.policy.optimizer)
    return TrainingState(values.pop("steps"), values, checkpoint.load_arrays(folder))


def capture(model: RecurrentPPO) -> TrainingState:
    """Return the state of a training; it does not change when the training continues."""
    state = capture_counters(model)
    arrays, values = state.arrays, state.values
    arrays |= {f"rollout/{name}": array for name, array in model.rollout.get_state().items()}
    arrays |= {f"generator/{name}": array for name, array in _generators(model).items()}
    logged = {name: value for name, value in model.logger.name_to_value.items() if isinstance(value, Real)}
    arrays |= {f"log/{name}": np.array(float(value)) for name, value in logged.items()}
    values["log_excluded"] = {name: model.logger.name_to_excluded[name] for name in logged}
    values["episodes"] = [{name: record[name] for name in ("r", "l", "t")} for record in model.ep_info_buffer or ()]
    values["successes"] = [float(success) for success in model.ep_success_buffer or ()]
    if isinstance(model._last_obs, dict):
        arrays |= {f"observation/{key}": value for key, value in model._last_obs.items()}
    else:
        arrays["observation"] = np.asarray(model._last_obs)
    arrays["episode_starts"] = np.asarray(model._last_episode_starts)
    if model._masks is not None and model._masks.now is not None:
        arrays["action_masks"] = model._masks.now
    arrays["memory"] = model._last_state.detach().cpu().numpy()
    env = _resumable(model)
    if env is not None:
        arrays |= {f"env/{name}": array for name, array in env.get_state().items()}
    return state


def capture_counters(model: RecurrentPPO) -> TrainingState:
    """Return the part of the state without the environment: counters, minibatches, VecNormalize's statistics."""
    generator = model.minibatch_generator.bit_generator.state
    values = {"updates": model._n_updates, "minibatch_generator": generator}
    if model.popart:
        values["popart"] = model.returns_spread.get_state()
    return TrainingState(model.num_timesteps, values, capture_normalization(model))


def capture_normalization(model: RecurrentPPO) -> dict[str, np.ndarray]:
    """Return VecNormalize's statistics; empty if the environment is not normalised."""
    normalize = model.get_vec_normalize_env()
    if normalize is None:
        return {}
    arrays = {f"{PREFIX}returns": normalize.returns.copy()}
    for name, moments in _moments(normalize).items():
        for part in ("mean", "var", "count"):
            arrays[f"{PREFIX}{name}/{part}"] = np.array(getattr(moments, part))
    return arrays


def restore(model: RecurrentPPO, state: TrainingState) -> None:
    """Set the state of a model that was made for the same experiment; `load` has set its weights and optimizer.

    An environment that is not ours starts new episodes; the caller has seeded it. The process's random generators are
    set, so call this last before `learn(..., reset_num_timesteps=False)`.

    Raises:
        ValueError, KeyError, TypeError, IndexError, RuntimeError: If the state belongs to another experiment.
    """
    arrays, values = state.arrays, state.values
    restore_counters(model, state)
    model.ep_info_buffer = deque(map(dict, values["episodes"]), maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(values["successes"], maxlen=model._stats_window_size)
    for name, value in _below(arrays, "log").items():
        model.logger.record(name, float(value), exclude=tuple(values["log_excluded"][name]))
    env = _resumable(model)
    if env is not None:
        env.set_state(_below(arrays, "env"))
        model._last_obs = _below(arrays, "observation") or arrays["observation"]
        starts = arrays["episode_starts"]
        if starts.shape != (model.n_envs,):
            raise ValueError(f"episode_starts must have shape {(model.n_envs,)}, not {starts.shape}")
        model._last_episode_starts = starts
        model._masks = EnvMasks(model.get_env())
        if model._masks.now is not None and "action_masks" in arrays:
            model._masks.now = checked(arrays["action_masks"], model.action_space, model.n_envs)
        model._last_state = _like(model._last_state, arrays["memory"])
        model.rollout.set_state(_below(arrays, "rollout"))
    _set_generators(model, _below(arrays, "generator"))


def restore_counters(model: RecurrentPPO, state: TrainingState) -> None:
    """Set the part of the state that `capture_counters` returns."""
    model.num_timesteps = state.steps
    model._n_updates = int(state.values["updates"])
    model.minibatch_generator.bit_generator.state = state.values["minibatch_generator"]
    if model.popart and "popart" in state.values:  # otherwise it starts afresh
        model.returns_spread.set_state(state.values["popart"])
    statistics = _below(state.arrays, PREFIX[:-1])
    normalize = model.get_vec_normalize_env()
    here = {} if normalize is None else _moments(normalize)
    if model.get_env() is not None:
        saved = {name.rsplit("/", 1)[0] for name in statistics if "/" in name}
        for name in sorted(saved ^ here.keys()):
            lacking = "the environment does not normalise it" if name in saved else "they start empty"
            verb = "are left out" if name in saved else "are not in what was saved"
            warnings.warn(f"VecNormalize's statistics of the {name} {verb}: {lacking}", stacklevel=4)
    if normalize is not None and "returns" in statistics:
        normalize.returns = statistics["returns"]
    for name, moments in here.items():
        if f"{name}/mean" in statistics:
            moments.mean, moments.var = read_moments(state.arrays, name, moments.mean.shape)
            moments.count = float(statistics[f"{name}/count"])


def _resumable(model: RecurrentPPO) -> BatchedVecEnv | None:
    """Return the environment if its current episodes can be resumed."""
    env = model.get_env()
    inner = None if env is None else env.unwrapped
    return inner if isinstance(inner, BatchedVecEnv) and hasattr(inner.env, "get_state") else None


def _moments(normalize: VecNormalize) -> dict[str, RunningMeanStd]:
    """Return the running means and variances of rewards and observations, by name."""
    observed = getattr(normalize, "obs_rms", None) or {}  # absent where observations are not normalised
    by_key = {f"observation/{key}": m for key, m in observed.items()} if isinstance(observed, dict) else None
    return {"reward": normalize.ret_rms, **({"observation": observed} if by_key is None else by_key)}


def _generators(model: RecurrentPPO) -> dict[str, np.ndarray]:
    """Return the states of the process's random generators: Python's, numpy's, torch's, the device's."""
    _, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - an environment may use it
    assert isinstance(legacy, dict)
    arrays = {
        "python": np.array(words, np.int64),
        "python_gauss": np.array([] if gauss is None else [gauss]),
        "numpy": legacy["state"]["key"],
        "numpy_position": np.array(legacy["state"]["pos"]),
        "numpy_gauss": np.array([legacy["has_gauss"], legacy["gauss"]]),
        "torch": torch.random.get_rng_state().numpy(),
    }
    if model.device.type == "cuda":
        arrays["cuda"] = torch.cuda.get_rng_state(model.device).numpy()
    return arrays


def _set_generators(model: RecurrentPPO, arrays: Arrays) -> None:
    gauss = arrays["python_gauss"].tolist()
    random.setstate((random.getstate()[0], tuple(arrays["python"].tolist()), gauss[0] if gauss else None))
    has_gauss, value = arrays["numpy_gauss"].tolist()
    twister = ("MT19937", arrays["numpy"], int(arrays["numpy_position"]), int(has_gauss), value)
    np.random.set_state(twister)  # noqa: NPY002
    torch.random.set_rng_state(torch.from_numpy(arrays["torch"].copy()))
    if model.device.type == "cuda" and "cuda" in arrays:
        torch.cuda.set_rng_state(torch.from_numpy(arrays["cuda"].copy()), model.device)


def _below(arrays: Arrays, name: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names start with `name/`, by the rest of their names."""
    return {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{name}/")}


def _like(tensor: Tensor, array: np.ndarray) -> Tensor:
    if tuple(tensor.shape) != array.shape:
        raise ValueError(f"the memory must have shape {tuple(tensor.shape)}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the memory holds NaN or infinity")
    return torch.from_numpy(array.copy()).to(tensor)
