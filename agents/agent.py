"""A trained agent, reopened from its run folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl import kernels
from bistable_rl.agents.features import as_shown, saved_kinds
from bistable_rl.agents.make_env import close, make_vec_env
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.cells import get_cell
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs import checkpoint
from bistable_rl.runs import run as runs
from bistable_rl.runs.devices import resolve_device
from bistable_rl.runs.schema import Experiment, PolicyConfig


class Agent:
    """A policy with its weights; what `load` returns.

    Attributes:
        policy: The network, a torch module.
        experiment: The configuration it was trained with.
        steps: Environment steps it was trained for.
    """

    def __init__(self, policy: RecurrentPolicy, experiment: Experiment, steps: int) -> None:
        self.policy = policy
        self.experiment = experiment
        self.steps = steps

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Return actions, and the memory to hand back at the next call.

        It acts with the weights as they are. In a loop that does not change them it acts faster inside
        `with bistable_rl.fixed_weights(agent.policy):`, which packs them for the CPU once instead of at every call.

        Args:
            observation: One observation, or a batch of n.
            state: What the last call returned; None starts with an empty memory.
            episode_start: (n,) true where an episode has just begun, which empties that memory.
            deterministic: Take the most likely action instead of sampling one.
        """
        return self.policy.predict(observation, state, episode_start, deterministic)

    def check_spaces(self, env: VecEnv) -> None:
        """Check that an environment shows and takes what this agent was trained on.

        Raises:
            UserError: Its spaces differ.
        """
        for kind in ("observation_space", "action_space"):
            trained, here = getattr(self.policy, kind), getattr(env, kind)
            if trained != here:
                raise UserError(f"env: its {kind.replace('_', ' ')} is {here}, the agent was trained on {trained}.")


def load(run: str | os.PathLike[str], device: str = "cpu", *, best: bool = False) -> Agent:
    """Reopen a run folder without executing anything in it.

    Args:
        run: The run folder, of a finished run or of one that was stopped.
        device: Where the network goes.
        best: Take the weights that did best when they were evaluated, not the last ones.

    Raises:
        UserError: There is no run there, or its checkpoint is missing, broken or of another architecture.
    """
    folder = Path(run)
    experiment = runs.read_experiment(folder)
    chosen = checkpoint.best(folder) if best else checkpoint.latest(folder)
    env = make_vec_env(experiment.env, 1, seed=0)
    try:
        policy = make_policy(with_saved_kinds(experiment, chosen, env), env, resolve_device(device))
    finally:
        close(env)
    state = checkpoint.load_weights(chosen, policy)
    policy.set_training_mode(False)
    return Agent(policy, experiment, state["steps"])


def with_saved_kinds(experiment: Experiment, saved: Path, env: VecEnv) -> Experiment:
    """Return an experiment whose policy reads its observations as a saved one does, where the experiment leaves it out.

    Raises:
        UserError: The checkpoint is broken.
    """
    kinds = saved_kinds(checkpoint.weight_names(saved), env.observation_space) | experiment.policy.observation_kinds
    return replace(experiment, policy=replace(experiment.policy, observation_kinds=kinds))


def make_policy(experiment: Experiment, env: VecEnv, device: torch.device) -> RecurrentPolicy:
    """Build the network of an experiment for the spaces of its environment, untrained.

    Raises:
        UserError: The policy section does not fit, or `BISTABLE_RL_BACKEND` names a backend that cannot serve it.
    """
    policy = experiment.policy
    try:
        kernels.choose(get_cell(policy.cell).kernel, device.type, torch.float32, policy.hidden_size)
        space = as_shown(env.observation_space, env)
        return RecurrentPolicy(space, env.action_space, _no_rate, **policy_kwargs(policy)).to(device)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"policy: {one_sentence(error)}") from None


def _no_rate(_: float) -> float:
    """Return the step size of an optimizer that takes no step: the algorithm sets it before its first."""
    return 0.0


def policy_kwargs(policy: PolicyConfig) -> dict[str, Any]:
    """Return the policy section as the arguments of `RecurrentPolicy`."""
    return dict(vars(policy))
