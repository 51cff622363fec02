"""A trained agent, loaded from its run folder."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.features import READERS, saved_kinds
from bistable_rl.agents.normalization import load_normalization
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.run_spaces import Spaces, read_spaces, spaces_of_env
from bistable_rl.agents.vec_envs import close, make_vec_env
from bistable_rl.errors import UserError, user_errors
from bistable_rl.runs import checkpoint
from bistable_rl.runs.devices import chosen_backend, resolve_device
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig, Experiment, PolicyConfig


class Agent:
    """A trained policy, as `load` returns it.

    Attributes:
        policy: The network, a torch module; it reads observations as the environment gives them.
        experiment: The configuration it was trained with.
        steps: Environment steps it was trained for.
        observation_space: The space of the observations as the environment gives them.
        masked: Whether its environment says which actions are allowed.
    """

    def __init__(
        self,
        policy: RecurrentPolicy,
        experiment: Experiment,
        steps: int,
        observation_space: gymnasium.Space,
        masked: bool = False,
    ) -> None:
        self.policy = policy
        self.experiment = experiment
        self.steps = steps
        self.observation_space = observation_space
        self.masked = masked

    def __repr__(self) -> str:
        policy = self.experiment.policy
        size = f"{policy.num_layers} x {policy.hidden_size}" if policy.num_layers > 1 else str(policy.hidden_size)
        return f"<Agent of {self.experiment.env.id}: {policy.cell}, {size} units, trained for {self.steps:,} steps>"

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:
        """Return actions, and the memory to pass to the next call.

        A loop that does not change the weights runs faster inside `with bistable_rl.fixed_weights(agent.policy):`,
        which packs them for the CPU once instead of at every call.

        Args:
            observation: One observation, or a batch of n, as the environment gives them: an array, a Dict or a Tuple.
            state: The memory that the last call returned; None starts with an empty one.
            episode_start: (n,) true where an episode has just begun; the memory is emptied there.
            deterministic: Take the most likely action instead of sampling one.
            action_masks: (A,) or (n, A), true where an action is allowed, as the environment's `action_masks()` or
                `info["action_mask"]` gives them; None allows all.
        """
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def predict_ahead(
        self,
        observations: np.ndarray,
        state: Any,
        episode_start: np.ndarray,
        steps: np.ndarray,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return the discrete actions (T, n) and the memory that T calls of `predict` would return; see `remember`.

        `action_masks` are (T, n, A) where there are any.
        """
        return self.policy.predict_ahead(observations, state, episode_start, steps, deterministic, action_masks)

    def remember(self, observations: np.ndarray, state: Any, episode_start: np.ndarray, steps: np.ndarray) -> Any:
        """Return the memory that `predict` would return after the first `steps` (n,) of T steps of observations.

        Args:
            observations: (T, n, ...), a batch of n for each step.
            state: The memory before the first of them; None for an empty one.
            episode_start: (n,) true where an episode begins with the first of them.
            steps: (n,) of int, from 0 to T.
        """
        return self.policy.remember(observations, state, episode_start, steps)

    def check_spaces(self, env: VecEnv) -> None:
        """Check that an environment has the spaces that this agent was trained on.

        Raises:
            UserError: If its spaces differ.
        """
        for kind in ("observation_space", "action_space"):
            trained, here = getattr(self.policy, kind), getattr(env, kind)
            if trained != here:
                raise UserError(f"env: its {kind.replace('_', ' ')} is {here}, but the agent was trained on {trained}.")


def load(run: Run | str | os.PathLike[str], device: str = "cpu", *, best: bool = False) -> Agent:
    """Load the agent of a run folder, without its environment; nothing in the folder is executed.

    Args:
        run: The run or its folder, finished or stopped.
        device: The device that the network goes to.
        best: Load the weights with the best evaluation instead of the latest ones.

    Raises:
        UserError: If there is no run, or its checkpoint is missing, broken or of another architecture.
    """
    run = Run.open(run)
    experiment = run.experiment()
    chosen = run.checkpoints.best() if best else run.checkpoints.latest()
    spaces = read_spaces(run) or _spaces_by_building(experiment.env)
    policy = make_policy(with_saved_kinds(experiment, chosen, spaces.observation), spaces, resolve_device(device))
    policy.nested_space = spaces.nested
    state = checkpoint.load_weights(chosen, policy)
    if experiment.env.normalize.obs:
        arrays, space = checkpoint.load_arrays(chosen), policy.observation_space
        policy.normalization = load_normalization(arrays, space, f"the checkpoint {chosen}").to(policy.device)
    policy.set_training_mode(False)
    if policy.use_sde:
        policy.reset_noise()  # with the deviations that were loaded
    return Agent(policy, experiment, state["steps"], spaces.given, spaces.masked)


def _spaces_by_building(config: EnvConfig) -> Spaces:
    """Return the spaces of a run whose folder does not hold them."""
    env = make_vec_env(config, 1, seed=0)
    try:
        return spaces_of_env(env)
    finally:
        close(env)


def with_saved_kinds(experiment: Experiment, saved: Path, space: gymnasium.Space) -> Experiment:
    """Return an experiment whose policy reads observations as the saved policy does, unless the experiment says how.

    Raises:
        UserError: If the checkpoint is broken.
    """
    if experiment.policy.features_extractor_class not in (None, *READERS):
        return experiment  # a class of the user's own reads them
    kinds = saved_kinds(checkpoint.weight_names(saved), space) | experiment.policy.observation_kinds
    return replace(experiment, policy=replace(experiment.policy, observation_kinds=kinds))


def make_policy(experiment: Experiment, spaces: Spaces, device: torch.device) -> RecurrentPolicy:
    """Build the untrained network of an experiment for the spaces of its environment.

    Raises:
        UserError: If the policy section does not fit, or `BISTABLE_RL_BACKEND` names a backend that cannot serve it.
    """
    with policy_errors():
        arguments = policy_kwargs(experiment.policy)
        use_sde = experiment.algorithm.use_sde
        policy = RecurrentPolicy(spaces.observation, spaces.action, _no_rate, use_sde, **arguments).to(device)
        chosen_backend(policy.memory.layers, device.type)
        return policy


def policy_errors() -> contextlib.AbstractContextManager[None]:
    """Turn the errors of building a policy in the block into a UserError about the policy section."""
    return user_errors("policy", ValueError, TypeError, NotImplementedError)


def _no_rate(_: float) -> float:
    """Return the learning rate of an optimizer that takes no step; the algorithm sets it before its first."""
    return 0.0


def policy_kwargs(policy: PolicyConfig) -> dict[str, Any]:
    """Return the policy section as the arguments of `RecurrentPolicy`."""
    return dict(vars(policy))
