"""Our network in RLlib, on its new API stack: one training on a whole Ray cluster; needs the extra `rllib`.

    algorithm = ppo_config("rl/copy_first", env_runners=2).build_algo()
    for _ in range(94):
        algorithm.train()
    save(algorithm, "agent.zip")  # RecurrentPPO.load opens it

RLlib collects rollouts, updates the network and writes checkpoints. Its checkpoints are pickles; this package never
opens them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from gymnasium import Env, spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bistable_rl.agents.agent import make_policy, policy_kwargs
from bistable_rl.agents.api import Source, read_experiment
from bistable_rl.agents.archive import File
from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.exported_step import read_as
from bistable_rl.agents.named import with_names
from bistable_rl.agents.obs import map_obs, obs_parts
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.run_spaces import SPACE_NAMES, Spaces, spaces_of_env
from bistable_rl.agents.spaces import from_json, to_json
from bistable_rl.agents.training import without_gate_options
from bistable_rl.agents.vec_envs import close, make_vec_env
from bistable_rl.checks import check_int
from bistable_rl.envs import ENVIRONMENTS
from bistable_rl.envs.registry import find_spec, make_batched_env, make_env
from bistable_rl.errors import UserError, shown
from bistable_rl.runs import user_modules
from bistable_rl.runs.config import build
from bistable_rl.runs.schema import Experiment

try:
    from ray.rllib.algorithms import Algorithm
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.distribution.torch.torch_distribution import TorchMultiCategorical
    from ray.rllib.core.rl_module.apis import ValueFunctionAPI
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.core.rl_module.torch import TorchRLModule
    from ray.tune.registry import register_env
except ImportError:
    raise ImportError("bistable_rl.rllib needs RLlib: install it with pip install 'bistable-rl[rllib]'.") from None

ENVIRONMENT = "bistable_rl"
"""The name under which RLlib makes the environment of an experiment."""

MEMORY, STARTED = "memory", "started"
"""The parts of a module's state: (K, S), the states of all recurrent layers; (1,), 0 for the initial state, else 1."""

ONLY: dict[str, Any] = {
    "env.normalize.obs": False, "env.normalize.reward": False, "policy.optimizer_class": None,
    "policy.optimizer_kwargs": {}, "algorithm.clip_range_vf": None, "algorithm.normalize_advantage": True,
    "algorithm.popart": False, "algorithm.target_kl": None, "algorithm.burn_in": 0, "algorithm.refresh_states": False,
    "algorithm.use_sde": False, "algorithm.certified_coef": 0.0, "warmup.steps": 0, "callbacks": [], "loggers": [],
}  # fmt: skip
"""Keys of an experiment for which RLlib's PPO supports only one value, with that value."""


class RecurrentRLModule(TorchRLModule, ValueFunctionAPI):
    """`RecurrentPolicy` as a stateful module of RLlib: the same features, recurrent layers and heads.

    RLlib's connectors give the observations (B, T, ...) of B copies or sequences, padded at the end, and their lengths
    (B,). The network skips the padding. `model_config` comes from `ppo_config`.

    Attributes:
        experiment: The experiment.
        spaces: The spaces of its environment.
        policy: The network, as `RecurrentPPO` trains it.
    """

    def setup(self) -> None:
        """Build the network."""
        user_modules.search(map(Path, self.model_config["folders"]))
        self.experiment = build(Experiment, self.model_config["experiment"], "the experiment")
        observation, action, given = (from_json(self.model_config["spaces"][name]) for name in SPACE_NAMES)
        self.spaces = Spaces(observation, action, given)
        self.policy = make_policy(self.experiment, self.spaces, torch.device("cpu"))
        space = self.spaces.action
        if isinstance(space, spaces.MultiDiscrete):
            self.action_dist_cls = TorchMultiCategorical.get_partial_dist_cls(input_lens=space.nvec.tolist())

    def get_initial_state(self) -> dict[str, Tensor]:
        """Return a placeholder for a copy's initial state; `_run` replaces it by the initial state of `policy`."""
        return {MEMORY: torch.zeros_like(self.policy.initial_state(1)[:, 0]), STARTED: torch.zeros(1)}

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output, _, state = self._run(batch)
        return {Columns.ACTION_DIST_INPUTS: self._distribution(output), Columns.STATE_OUT: state}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output, values, state = self._run(batch)
        inputs = self._distribution(output)
        return {Columns.ACTION_DIST_INPUTS: inputs, Columns.STATE_OUT: state, Columns.EMBEDDINGS: values}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Return the values (B, T); `embeddings` are the values if a training pass has already computed them."""
        return self._run(batch)[1] if embeddings is None else embeddings

    def _run(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the input of the actor's head (B, T, H), the values (B, T), and the states after the last steps."""
        policy, obs, before = self.policy, batch[Columns.OBS], batch[Columns.STATE_IN]
        B, T = obs_parts(obs)[0].shape[:2]
        flat = map_obs(lambda part: part.flatten(0, 1), obs)
        features = policy.extract_features(read_as(policy.observation_space, self.observation_space, flat))
        memory = torch.where(before[STARTED] != 0, before[MEMORY].movedim(0, 1), policy.initial_state(B))
        steps: Any = features.reshape(B, T, -1).movedim(0, 1)
        padded = Columns.SEQ_LENS in batch
        if padded:
            steps = pack_padded_sequence(steps, batch[Columns.SEQ_LENS].cpu(), enforce_sorted=False)
        *outputs, memory = policy._advance(steps, memory)
        if padded:
            outputs = [pad_packed_sequence(output, total_length=T)[0] for output in outputs]
        output, critic_output = (output.movedim(0, 1) for output in outputs)
        values = policy._values(features, critic_output.flatten(0, 1)).reshape(B, T)
        return output, values, {MEMORY: memory.movedim(0, 1), STARTED: torch.ones_like(before[STARTED])}

    def _distribution(self, output: Tensor) -> Tensor:
        """Return the parameters of the action distribution, (B, T, ...), in the form of RLlib's distributions."""
        policy, latent = self.policy, self.policy.actor_mlp(output)
        parameters: Tensor = policy.action_net(latent)
        if not isinstance(policy.action_space, spaces.Box):
            return parameters
        log_std = policy.clamp_log_std(policy.log_std_net(latent) if policy.state_dependent_std else policy.log_std)
        return torch.cat([parameters, log_std.expand_as(parameters)], -1)


def ppo_config(experiment: Source, overrides: Mapping[str, Any] | None = None, *, env_runners: int = 0) -> PPOConfig:
    """Return a PPO config of RLlib for an experiment; RLlib's own settings can be added to it.

    `total_steps` affects only schedules; `evaluation`, `checkpoint` and `device` are not read.

    Args:
        experiment: As in `bistable_rl.train`.
        overrides: As in `bistable_rl.train`.
        env_runners: The number of processes, on any nodes, that collect rollouts and share the `env.num_envs` copies;
            with 0 the algorithm collects rollouts in its own process.

    Raises:
        UserError: If something in the experiment is wrong, or RLlib's PPO does not support it.
    """
    read = without_gate_options(with_names(read_experiment(experiment, overrides)))
    check_int("env_runners", env_runners, 0)
    copies, rest = divmod(read.env.num_envs, env_runners or 1)
    if rest:
        raise UserError(f"env.num_envs {read.env.num_envs} must be a multiple of env_runners, {env_runners}.")
    for key, only in ONLY.items():
        if (value := attrgetter(key)(read)) != only:
            raise UserError(f"{key} must be {shown(only)}, not {shown(value)}: RLlib's PPO supports nothing else.")
    algorithm = read.algorithm
    if not isinstance(algorithm.clip_range, float):
        raise UserError(f"algorithm.clip_range must be one number for RLlib, not {shown(algorithm.clip_range)}.")
    found = _spaces(read)
    make_policy(read, found, torch.device("cpu"))
    # a rollout's steps, and one more that RLlib adds for the bootstrap value
    longest = algorithm.bptt_length or algorithm.n_steps + 1
    rollout, minibatch = algorithm.n_steps * read.env.num_envs, max(algorithm.batch_size, longest + 1)
    model_config = {
        "experiment": dataclasses.asdict(read),
        "spaces": {name: to_json(getattr(found, name)) for name in SPACE_NAMES},
        "folders": list(map(str, user_modules.folders())),
        "max_seq_len": longest,
    }
    is_batched = find_spec(read.env.id).id in ENVIRONMENTS and not read.env.wrappers
    register_env(ENVIRONMENT, _make_env)
    vectorize_mode = "vector_entry_point" if is_batched else "sync"
    config = PPOConfig().environment(ENVIRONMENT, env_config=model_config, normalize_actions=False, clip_actions=True)
    config = config.rl_module(rl_module_spec=RLModuleSpec(module_class=RecurrentRLModule, model_config=model_config))
    config = config.env_runners(num_env_runners=env_runners, num_envs_per_env_runner=copies)
    config = config.env_runners(gym_env_vectorize_mode=vectorize_mode).debugging(seed=read.seed)
    return config.training(
        train_batch_size_per_learner=rollout,
        minibatch_size=minibatch if minibatch <= rollout else None,  # a smaller rollout would hold no sequence
        num_epochs=algorithm.n_epochs, gamma=algorithm.gamma, lambda_=algorithm.gae_lambda,
        lr=_schedule(algorithm.learning_rate, read.total_steps),
        entropy_coeff=_schedule(algorithm.ent_coef, read.total_steps),
        clip_param=algorithm.clip_range, use_kl_loss=False, vf_loss_coeff=algorithm.vf_coef, vf_clip_param=float("inf"),
        grad_clip=algorithm.max_grad_norm, grad_clip_by="global_norm",
    )  # fmt: skip


def save(algorithm: Algorithm, path: File) -> None:
    """Write an algorithm of `ppo_config` to an archive of safetensors and JSON, which `RecurrentPPO.load` opens.

    The archive holds weights, spaces, settings and the number of steps; the moments of the optimizer are empty.

    Args:
        algorithm: RLlib's algorithm.
        path: As in `RecurrentPPO.save`.

    Raises:
        UserError: If the algorithm's module is not `RecurrentRLModule`, or the file cannot be written.
    """
    module = algorithm.get_module()
    if not isinstance(module, RecurrentRLModule):
        raise UserError(
            f"only algorithms of ppo_config can be saved; the module of this one is a {type(module).__name__}."
        )
    experiment = module.experiment
    settings = {**vars(experiment.algorithm), "policy_kwargs": policy_kwargs(experiment.policy), "device": "cpu"}
    model = RecurrentPPO("RecurrentPolicy", None, **settings, _init_setup_model=False)  # type: ignore[arg-type]
    model.observation_space, model.action_space, model.n_envs = *module.spaces[:2], experiment.env.num_envs
    model._setup_model()  # without a seed, which would restart RLlib's random numbers
    model.seed = experiment.seed
    model.policy.nested_space = module.spaces.nested
    model.policy.load_state_dict(module.policy.state_dict())
    model.num_timesteps = int(algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0))
    model.save(path)


def _schedule(value: Any, total_steps: int) -> Any:
    """Return a constant or a linear schedule in RLlib's form."""
    return [[0, value[0]], [total_steps, value[1]]] if isinstance(value, tuple | list) else value


def _make_env(context: Mapping[str, Any]) -> Env[Any, Any] | VectorEnv[Any, Any, Any]:
    """Make an environment on the node that steps it: one copy, or a batch of as many copies as RLlib requests."""
    user_modules.search(map(Path, context["folders"]))
    env = build(Experiment, dict(context["experiment"]), "the experiment").env
    if "num_envs" in context:
        mode = AutoresetMode.NEXT_STEP
        return make_batched_env(env.id, num_envs=context["num_envs"], kwargs=env.kwargs, autoreset_mode=mode)
    return make_env(env.id, kwargs=env.kwargs, wrappers=env.wrappers)


def _spaces(experiment: Experiment) -> Spaces:
    """Return the spaces of an environment; refuse an environment that RLlib does not support."""
    env = make_vec_env(experiment.env, 1, seed=0)
    try:
        env.reset()
        found, masks = spaces_of_env(env), EnvMasks(env).now
    finally:
        close(env)
    space = found.action
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.Box) or len(space.shape or ()) > 1:
        raise UserError(
            f"env: its action space is {space}; RLlib takes Discrete, MultiDiscrete and one-dimensional Box."
        )
    if masks is not None:
        raise UserError("env: it has action masks, which RLlib does not take.")
    return found
