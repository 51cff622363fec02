"""Recurrent PPO on whole sequences, packed; one kernel call per layer and minibatch."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import (
    FloatSchedule,
    LinearSchedule,
    explained_variance,
    get_system_info,
    obs_as_tensor,
)
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from bistable_rl.agents import certified_loss, footprint, gae, save_load, stored_states, threads
from bistable_rl.agents.archive import File
from bistable_rl.agents.arguments import PPOArguments, from_arguments, with_arguments_of
from bistable_rl.agents.buffer import RolloutBuffer
from bistable_rl.agents.certified_loss import CertifiedLoss, make_certified_loss
from bistable_rl.agents.distributions import check_sde
from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.evaluation import declared_horizon, success_of
from bistable_rl.agents.features import as_shown
from bistable_rl.agents.flat_gradient import Gradient
from bistable_rl.agents.import_sb3 import import_sb3
from bistable_rl.agents.non_finite import check_reward_scale, check_rollout, non_finite_error
from bistable_rl.agents.obs import stack_obs
from bistable_rl.agents.policy import RecurrentPolicy, check_policy_kwargs
from bistable_rl.agents.popart import PopArt
from bistable_rl.agents.progress_bar import NotebookBar
from bistable_rl.agents.sb3_views import RolloutArrays, StepLocals, lend
from bistable_rl.agents.sequences import Minibatch
from bistable_rl.agents.spaces import check_spaces
from bistable_rl.agents.vec_envs import AnyEnv, as_vec_env, nested_space_of
from bistable_rl.cells.base import fixed_weights
from bistable_rl.checks import check_int
from bistable_rl.envs.registry import find_spec
from bistable_rl.errors import NonFiniteError
from bistable_rl.kernels import memory
from bistable_rl.runs.devices import check_torch_device, chosen_backend, warn_of_missing_kernels
from bistable_rl.runs.progress import in_notebook

# Sequences whose values are computed at once after a rollout: enough for the kernels, few for the memory.
EVALUATED_STEPS = 4096

Truncated = tuple[int, np.ndarray, list[Any], Tensor]
"""Episodes that a time limit truncated in a step: the step, their copies, last observations and states after it."""

Self = TypeVar("Self", bound="RecurrentPPO")
P = ParamSpec("P")


def _with_arguments_of(
    kind: Callable[P, object],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, str | type[RecurrentPolicy], AnyEnv | str, P], None]]:
    """Return `with_arguments_of(kind)`, typed: a type checker sees the keys as arguments after policy and env."""
    return with_arguments_of(cast(type, kind))


def _schedule(value: float | tuple[float, float] | Schedule) -> float | Schedule:
    return LinearSchedule(*value, end_fraction=1.0) if isinstance(value, tuple) else value


def _made(env: AnyEnv | str | None, verbose: int) -> GymEnv:
    """Return an environment whose spaces the policies support; an id is made into an environment first."""
    if isinstance(env, str):
        find_spec(env)  # imports the package that registers it, so that our ids work like gymnasium's
    env = None if env is None else as_vec_env(maybe_make_env(env, verbose))  # type: ignore[arg-type]
    if env is None or isinstance(env, type) or not hasattr(env, "observation_space"):
        raise ValueError(f"env must be an environment or its id, got {env!r}")
    check_spaces(env.observation_space, env.action_space)
    return env


class RecurrentPPO(OnPolicyAlgorithm):
    """Proximal policy optimisation (Schulman et al. 2017) of an agent with a memory, with SB3's interface.

    A minibatch consists of whole sequences, the pieces of episodes in a rollout. They are packed by length, without
    padding, and no sequence is cut. Advantages are estimated by GAE (Schulman et al. 2016). Where a time limit
    truncates an episode, they are bootstrapped with the value of the last observation in the memory's last state.

    `help(RecurrentPPO)` shows the arguments under the constructor.

    Raises:
        TypeError: If `policy_kwargs` names an argument that the policy does not have.
        ValueError: If a number is out of range, or the policy is not a `RecurrentPolicy` or does not support the
            observations or the actions.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(
        ("RecurrentPolicy", "MlpRecurrentPolicy", "CnnRecurrentPolicy", "MultiInputRecurrentPolicy"), RecurrentPolicy
    )
    policy: RecurrentPolicy  # type: ignore[assignment]
    policy_class: type[RecurrentPolicy]

    @_with_arguments_of(PPOArguments)
    def __init__(
        self,
        policy: str | type[RecurrentPolicy],
        env: AnyEnv | str,
        learning_rate: Any = PPOArguments.learning_rate,
        **arguments: Any,
    ) -> None:
        """Check the arguments, and build the networks and the rollout buffer.

        Args:
            policy: `RecurrentPolicy`, a subclass, or its name.
            env: The environment, or its id: one of ours, any that gymnasium knows, or "package:id". SB3's VecEnv and
                gymnasium's vector environments in autoreset mode SAME_STEP are accepted too. Tuple and nested Dict
                observations are flattened.
            learning_rate: As below.
            **arguments: The keys of `PPOArguments`:
        """
        given = from_arguments(PPOArguments, {"learning_rate": learning_rate, **arguments})
        device = check_torch_device(given.device)
        check_int("stats_window_size", given.stats_window_size, 1)
        if isinstance(policy, str) and policy not in self.policy_aliases:
            theirs = re.fullmatch("(Mlp|Cnn|MultiInput)(Lstm)?Policy", policy)
            if theirs is not None:
                owner = "sb3-contrib" if theirs[2] else "Stable-Baselines3"
                raise ValueError(f"policy: {policy} is {owner}'s name; here it is {theirs[1]}RecurrentPolicy")
            raise ValueError(f"Policy {policy} unknown: choose from {', '.join(self.policy_aliases)}")
        if not isinstance(policy, str) and not (isinstance(policy, type) and issubclass(policy, RecurrentPolicy)):
            raise ValueError(f"policy must be RecurrentPolicy, a subclass or its name, got {policy!r}")
        check_policy_kwargs(self.policy_aliases[policy] if isinstance(policy, str) else policy, given.policy_kwargs)
        made = _made(env, given.verbose) if env is not None or given._init_setup_model else None
        if made is not None:
            check_sde(given.use_sde, made.action_space)
        super().__init__(
            policy,  # type: ignore[arg-type]
            made,
            learning_rate=_schedule(given.learning_rate),
            n_steps=given.n_steps,
            gamma=given.gamma,
            gae_lambda=given.gae_lambda,
            ent_coef=0.0,  # a schedule here, see below
            vf_coef=given.vf_coef,
            max_grad_norm=given.max_grad_norm,
            use_sde=given.use_sde,
            sde_sample_freq=given.sde_sample_freq,
            stats_window_size=given.stats_window_size,
            tensorboard_log=given.tensorboard_log,
            policy_kwargs=given.policy_kwargs,
            verbose=given.verbose,
            seed=given.seed,
            device=device,
            _init_setup_model=False,
        )
        self.batch_size = given.batch_size
        self.n_epochs = given.n_epochs
        self.clip_range = FloatSchedule(_schedule(given.clip_range))
        self.clip_range_vf = None if given.clip_range_vf is None else FloatSchedule(_schedule(given.clip_range_vf))
        self.entropy_schedule = FloatSchedule(_schedule(given.ent_coef))
        self.certified_schedule = FloatSchedule(_schedule(given.certified_coef))
        self.certified_loss: CertifiedLoss | None = None
        self._has_certified_loss = given.certified_coef != 0
        self.normalize_advantage = given.normalize_advantage
        self.popart = given.popart
        self.returns_spread = PopArt()
        self.target_kl = given.target_kl
        self.bptt_length = given.bptt_length
        self.burn_in = given.burn_in
        self.refresh_states = given.refresh_states
        self._warned_of_terminal_observation = False
        self._masks: EnvMasks | None = None  # of the last observations, once training has begun
        if given._init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if self.env is not None:
            self.observation_space = as_shown(self.observation_space, self.env)
        arguments = {**self.policy_kwargs, **({"use_sde": True} if self.use_sde else {})}
        with footprint.training(self.n_envs, self.device):
            policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **arguments)
        self.policy = policy.to(self.device)
        self.policy.nested_space = None if self.env is None else nested_space_of(self.env)
        memory = self.policy.memory
        if self.env is not None:  # without one it cannot train
            warn_of_missing_kernels(memory.cell, chosen_backend(memory.layers, self.device.type))
        self.rollout = RolloutBuffer(
            n_steps=self.n_steps,
            n_envs=self.n_envs,
            observation_space=self.observation_space,
            action_space=self.action_space,
            device=self.device,
            bptt_length=self.bptt_length,
            burn_in=self.burn_in,
            refresh=self.refresh_states,
        )
        if self.env is not None:
            self._make_certified_loss()
        self._warn_of_horizons_beyond(min(self.bptt_length or self.n_steps, self.n_steps))
        with torch.no_grad():
            self._last_state = self.policy.initial_state(self.n_envs)
        # its own generator, so that other random draws do not change the minibatches
        self.minibatch_generator = np.random.default_rng(self.seed)

    def _warn_of_horizons_beyond(self, reach: int) -> None:
        """Warn if cue and answer of an episode can lie further apart than the gradient reaches."""
        horizon = None if self.env is None else declared_horizon(self.env)
        if horizon is not None and horizon > reach:
            name = "n_steps" if reach == self.n_steps else "bptt_length"
            warnings.warn(
                f"an episode can take {horizon} steps, but the gradient reaches back at most {name} = {reach} steps, "
                "so the network does not learn to remember over more steps",
                stacklevel=4,
            )

    def set_env(self, env: AnyEnv, force_reset: bool = True) -> None:
        """Set the environment in which training continues; it takes the same forms as in the constructor."""
        super().set_env(_made(env, self.verbose), force_reset)

    def _make_certified_loss(self) -> None:
        if self._has_certified_loss and self.certified_loss is None:
            assert self.env is not None
            self.certified_loss = make_certified_loss(self.env, self.policy)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._make_certified_loss()  # of an environment that `set_env` gave
        self.started_at = time.monotonic()
        is_reset = reset_num_timesteps or self._last_obs is None  # in the next line
        made = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if is_reset or self._masks is None or self._masks.env is not self.env:
            self._masks = EnvMasks(self.env)
        return made

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the current logs; changes of the system clock affect neither seconds nor fps."""
        self.start_time = time.time_ns() - round(1e9 * (time.monotonic() - self.started_at))
        super().dump_logs(iteration)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "RecurrentPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> RecurrentPPO:
        """Train for a number of environment steps over all copies; the last update is completed.

        Raises:
            ValueError: If the model was loaded without a schedule that was a function.
        """
        save_load.check_trainable(self)
        super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)  # type: ignore[arg-type]
        return self

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        made = super()._init_callback(callback, progress_bar)
        if progress_bar and in_notebook():
            assert isinstance(made, CallbackList)
            made.callbacks[-1] = NotebookBar()  # in place of SB3's
            made.callbacks[-1].init_callback(self)
        return made

    # --- on the disk ---------------------------------------------------------------------------------------

    def save(  # type: ignore[override]
        self, path: File, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None
    ) -> None:
        """Write weights, moments, counters, settings and VecNormalize's statistics to one file, whole or not at all.

        The file is a zip of safetensors and JSON.

        Args:
            path: The file (`.zip` is added to a name without a suffix), or a file object such as `io.BytesIO()` or
                `open(path, "wb")`.
            exclude: SB3's argument: names of attributes to leave out. Only attributes that are never saved are allowed.
            include: SB3's argument: names of attributes to save. Only attributes that are always saved are allowed.

        Raises:
            ValueError: If an argument of the policy is not a plain value, or `exclude` or `include` names another
                attribute.
            UserError: If the file cannot be written.
        """
        save_load.save(self, path, exclude, include)

    def set_parameters(  # type: ignore[override]
        self,
        load_path_or_dict: File | Mapping[str, Mapping[str, Any]],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Load weights and Adam's moments in place, as SB3's method of the same name does.

        Args:
            load_path_or_dict: A file or file object that `save` wrote; nothing in it is executed. Or a dictionary as
                `get_parameters` returns it.
            exact_match: Whether all weights must be there. If false, the weights that the file and the policy share are
                loaded, and the moments do not change.
            device: Without effect, as in SB3: the networks stay on their device.

        Raises:
            UserError: If there is no such file, it is broken, or its weights belong to another architecture.
            ValueError: If a dictionary holds other networks.
        """
        if isinstance(load_path_or_dict, Mapping):
            super().set_parameters(dict(load_path_or_dict), exact_match, device)  # type: ignore[arg-type]
        else:
            save_load.set_parameters(self, load_path_or_dict, exact_match)

    @classmethod
    def load(  # type: ignore[override]
        cls: type[Self],
        path: File,
        env: AnyEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: Mapping[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **settings: Any,
    ) -> Self:
        """Read a file that `save` wrote; nothing in it is executed.

        Args:
            path: The file, or a file object such as `open(path, "rb")`.
            env: The environment in which training continues, with new episodes; its VecNormalize gets the saved
                statistics.
            device: The device of the networks.
            custom_objects: Settings in place of the saved ones, as SB3's `load` takes them; other names are ignored.
            print_system_info: Print the versions of this machine; a file does not hold those of its own machine.
            force_reset: Must be true: a file holds no episodes that could continue.
            **settings: Arguments of the constructor in place of the saved ones. Give `policy` if it is a subclass of
                `RecurrentPolicy`, `tensorboard_log` to log, and a schedule that is a function to train.

        Raises:
            TypeError: If a setting is not an argument of the constructor.
            ValueError: If a setting is out of range, or `force_reset` is not true.
            UserError: If there is no such file, it is broken or not of this kind, or it does not fit the environment.
        """
        if not force_reset:
            raise ValueError("force_reset must be True: a saved file holds no episodes, so training starts new ones")
        if print_system_info:
            print("== CURRENT SYSTEM INFO ==")
            get_system_info()
        return save_load.load(cls, path, env, device, {**settings, "custom_objects": custom_objects})

    def import_sb3(self, path: str | Path) -> None:
        """Load the weights of an archive that sb3-contrib's RecurrentPPO saved, and nothing else of it.

        The saved policy must have the architecture of this one. It may be our policy, or sb3-contrib's own with its
        LSTM; the default of the latter is
        `policy_kwargs={"cell": "lstm", "hidden_size": 256, "critic": "separate", "net_arch": [64, 64]}` here.

        Args:
            path: The file.

        Raises:
            UserError: If the file holds no such weights, or they belong to another architecture.
        """
        import_sb3(self, Path(path))

    # --- acting --------------------------------------------------------------------------------------------

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return actions and the next state; see `RecurrentPolicy.predict`."""
        given = {} if action_masks is None else {"action_masks": action_masks}
        return self.policy.predict(observation, state, episode_start, deterministic, **given)

    # --- collecting ----------------------------------------------------------------------------------------

    @property
    def rollout_buffer(self) -> RolloutArrays:  # type: ignore[override]
        """The rollout in the form that SB3's callbacks read; the tensors are in `rollout`."""
        return RolloutArrays(self.rollout)

    @torch.no_grad()
    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutArrays, n_rollout_steps: int
    ) -> bool:
        """Step all copies `n_rollout_steps` times and estimate the advantages; return False if the callback stops it.

        A stopped rollout is discarded, and the next one starts with new episodes. All steps of a rollout act with the
        weights that the policy has at its start. Callbacks read the same `locals` as in SB3's method.
        """
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        lend(callback, StepLocals(self._evaluate_step, callback.locals))
        if self.use_sde:  # after the callback, which saves the random generators for a resumed run
            self.policy.reset_noise(env.num_envs)
        with fixed_weights(self.policy):
            truncated = self._step_copies(env, callback, n_rollout_steps)
        if truncated is None:
            return False
        rollout, n_steps = self.rollout, n_rollout_steps
        for t, copies, last_obs, state in truncated:
            rollout.bootstraps[t, torch.from_numpy(copies)] = self.policy.values(
                stack_obs(last_obs, self.device), state
            )
        assert self._last_obs is not None
        assert self._last_episode_starts is not None
        check_rollout(rollout, ("observations", "rewards"), self.num_timesteps)
        next_obs = obs_as_tensor(self._last_obs, self.device)
        next_state = self.policy.restart(self._last_state, self._last_episode_starts)
        rollout.last_values[:] = self.policy.values(next_obs, next_state)
        self._evaluate_rollout()
        check_reward_scale(rollout, self.num_timesteps)
        check_rollout(rollout, ("values", "log_probs", "advantages"), self.num_timesteps)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _step_copies(self, env: VecEnv, callback: BaseCallback, n_rollout_steps: int) -> list[Truncated] | None:
        """Fill the buffer; return the episodes that time limits truncated, or None if the callback stops it.

        SB3's callbacks read the local variables by their names: `new_obs` is CleanRL's next_obs.
        """
        obs: Any = self._last_obs
        episode_starts, state = self._last_episode_starts, self._last_state
        masks = self._masks
        assert episode_starts is not None
        assert masks is not None
        self.rollout.begin(state, 0 if masks.now is None else masks.now.shape[1])
        small = threads.is_small(self.policy, env.num_envs)
        truncated: list[Truncated] = []
        for n_steps in range(n_rollout_steps):
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                self.policy.reset_noise(env.num_envs)
            obs_tensor = obs_as_tensor(obs, self.device)
            before = self.policy.restart(state, episode_starts)
            action_masks, given = masks.now, masks.tensors(self.device)
            with threads.one_if(small):
                action_tensor, state = self.policy.step(obs_tensor, before, **given)
            actions = clipped_actions = action_tensor.cpu().numpy()
            if isinstance(self.action_space, spaces.Box):
                clipped_actions = np.clip(actions, self.action_space.low, self.action_space.high)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                self._last_obs = None
                return None
            ended = np.flatnonzero(dones)
            if len(ended):
                for i in ended:
                    success_of(infos[i])  # refuses values that would make SB3's means NaN, or raise an error there
                self._update_info_buffer([infos[i] for i in ended], dones[ended])
                copies = self._truncated(ended, infos)
                if len(copies):
                    last_obs = [infos[i]["terminal_observation"] for i in copies]
                    truncated.append((n_steps, copies, last_obs, state[:, torch.from_numpy(copies)]))
            self.rollout.add(obs_tensor, episode_starts, before, action_tensor, rewards, dones, **given)
            obs, episode_starts = new_obs, dones
            masks.see(dones, infos)
        self.rollout.end(state)
        self._last_obs, self._last_episode_starts, self._last_state = obs, episode_starts, state
        return truncated

    def _evaluate_step(self, variables: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return values (n, 1) and log-probabilities (n,) of a step, from its local variables."""
        obs, actions, before = (variables[name] for name in ("obs_tensor", "action_tensor", "before"))
        given = variables["given"]
        values, log_probs, _ = self.policy.evaluate_packed(obs, actions, before, torch.tensor([len(actions)]), **given)
        return values.unsqueeze(1), log_probs

    def _truncated(self, ended: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """Return the ended copies whose episode a time limit truncated and whose last observation is known."""
        limited = [i for i in ended if infos[i].get("TimeLimit.truncated", False)]
        known = [i for i in limited if infos[i].get("terminal_observation") is not None]
        if len(known) < len(limited) and not self._warned_of_terminal_observation:
            self._warned_of_terminal_observation = True
            warnings.warn(
                "a time limit cuts episodes (info['TimeLimit.truncated']), but info['terminal_observation'] is "
                "missing, so they count as terminated",
                stacklevel=5,
            )
        return np.array(known, np.int64)

    def _evaluate_rollout(self) -> None:
        """Compute values and log-probabilities exactly as the update will, then advantages and returns."""
        buffer = self.rollout
        for minibatch in buffer.sequences.in_order(EVALUATED_STEPS):
            values, log_probs, _ = self._evaluate(minibatch)
            rows = torch.from_numpy(minibatch.rows).to(self.device)
            buffer.values.view(-1)[rows] = values
            buffer.log_probs.view(-1)[rows] = log_probs
        dones = torch.from_numpy(buffer.dones).to(self.device)
        next_values = torch.cat([buffer.values[1:], buffer.last_values.unsqueeze(0)])
        buffer.advantages = gae.advantages(
            buffer.rewards,
            buffer.values,
            torch.where(dones, buffer.bootstraps, next_values),
            dones,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )
        buffer.returns = buffer.advantages + buffer.values

    # --- updating ------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Update the policy from the rollout."""
        with memory.reused(), threads.one_if(threads.is_small(self.policy, self.batch_size)):
            self._update()

    def _update(self) -> None:
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        gradient = Gradient(self.policy.parts())
        metrics: dict[str, list[Tensor]] = {}
        if self.certified_loss is not None:
            self.certified_loss.see(self.rollout)
        if self.popart:
            self.returns_spread.update(self.rollout.returns)
        stop = False
        for epoch in range(self.n_epochs):
            if epoch and self.refresh_states:
                self._refresh()
            metrics.pop("train/approx_kl", None)  # of the last epoch, as in SB3
            minibatches = self.rollout.sequences.minibatches(self.batch_size, self.minibatch_generator)
            for k, minibatch in enumerate(minibatches):
                loss, measured = self.loss(minibatch)
                if self.certified_loss is not None and k % certified_loss.EVERY == 0:
                    certified, more = self.certified_loss(self.policy)
                    loss = loss + self.certified_schedule(self._current_progress_remaining) * certified
                    measured |= more
                for name, value in measured.items():
                    metrics.setdefault(name, []).append(value)
                if self.target_kl is not None and measured["train/approx_kl"] > 1.5 * self.target_kl:
                    stop = True
                    break
                for name, norm in self._descend(loss, gradient).items():
                    metrics.setdefault(f"gradient/{name}", []).append(norm)
            self._n_updates += 1
            if stop:
                break
        if not bool(torch.isfinite(torch.stack([p.detach().sum() for p in self.policy.parameters()])).all()):
            raise self._non_finite("", lambda parameter: parameter)
        if self.refresh_states:
            self._refresh()
        self._log_update({name: float(torch.stack(values).mean()) for name, values in metrics.items()})

    def _descend(self, loss: Tensor, gradient: Gradient) -> dict[str, Tensor]:
        """Take one step of the optimizer; return the norm of the gradient and of its parts, before clipping."""
        gradient.clear()
        loss.backward()
        with self.returns_spread.normalised(self.policy.value_net) if self.popart else nullcontext():
            norms = gradient.norms()
            if not bool(torch.isfinite(norms["norm"])):
                raise self._non_finite("the gradient of ", lambda parameter: parameter.grad)
            gradient.clip(norms["norm"], self.max_grad_norm)
            self.policy.optimizer.step()
        return norms

    def loss(self, minibatch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return PPO's loss of a minibatch, and the metrics to log."""
        buffer, progress = self.rollout, self._current_progress_remaining
        clip_range, ent_coef = self.clip_range(progress), self.entropy_schedule(progress)
        values, log_probs, entropy = self._evaluate(minibatch)
        advantages = buffer.rows(buffer.advantages, minibatch)
        if self.normalize_advantage and len(advantages) > 1:  # one alone has no spread
            std, mean = torch.std_mean(advantages)
            advantages = (advantages - mean) / (std + 1e-8)

        # clipped surrogate (Schulman et al. 2017, eq. 7)
        log_ratio = log_probs - buffer.rows(buffer.log_probs, minibatch)
        ratio = log_ratio.exp()
        clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
        policy_loss = -torch.min(advantages * ratio, advantages * clipped_ratio).mean()

        if self.clip_range_vf is not None:
            old_values, clip_range_vf = buffer.rows(buffer.values, minibatch), self.clip_range_vf(progress)
            values = old_values + (values - old_values).clamp(-clip_range_vf, clip_range_vf)
        value_loss = torch.nn.functional.mse_loss(values, buffer.rows(buffer.returns, minibatch))
        if self.popart:
            value_loss = value_loss / self.returns_spread.scale**2

        entropy_loss = -entropy.mean()
        loss = policy_loss + self.vf_coef * value_loss
        if ent_coef:  # otherwise its gradient would be computed and multiplied by 0
            loss = loss + ent_coef * entropy_loss
        with torch.no_grad():
            metrics = {
                "train/loss": loss.detach(),
                "train/policy_gradient_loss": policy_loss.detach(),
                "train/value_loss": value_loss.detach(),
                "train/entropy_loss": entropy_loss.detach(),
                "train/approx_kl": (ratio - 1 - log_ratio).mean(),  # Schulman's estimator
                "train/clip_fraction": ((ratio - 1).abs() > clip_range).float().mean(),
            }
        return loss, metrics

    def _evaluate(self, minibatch: Minibatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropies (N,) of a minibatch, with the current weights."""
        buffer, masks = self.rollout, self.rollout.action_masks
        return self.policy.evaluate_packed(
            buffer.obs_rows(minibatch),
            buffer.rows(buffer.actions, minibatch),
            stored_states.start_states(self.policy, buffer, minibatch),
            torch.from_numpy(minibatch.batch_sizes),
            **({} if masks is None else {"action_masks": buffer.rows(masks, minibatch)}),
        )

    def _refresh(self) -> None:
        self._last_state, staleness = stored_states.refresh(self.policy, self.rollout, self._last_state)
        self.logger.record_mean("train/state_staleness", staleness)

    def _non_finite(self, what: str, tensor_of: Callable[[torch.nn.Parameter], Tensor | None]) -> NonFiniteError:
        largest_reward = float(self.rollout.rewards.abs().max())
        return non_finite_error(self.policy, what, tensor_of, self.num_timesteps, largest_reward)

    def _log_update(self, metrics: dict[str, float]) -> None:
        buffer = self.rollout
        values, returns = (tensor.flatten().cpu().numpy() for tensor in (buffer.values, buffer.returns))
        metrics["train/continued_sequences"] = float(1 - buffer.sequences.fresh.mean())
        metrics["train/explained_variance"] = float(explained_variance(values, returns))
        if isinstance(self.action_space, spaces.Box) and not self.policy.state_dependent_std:
            log_std = self.policy.clamp_log_std(self.policy.log_std.detach())
            metrics["train/std"] = float(log_std.exp().mean())
        if self.popart:
            metrics["train/popart_scale"] = self.returns_spread.scale
        metrics["train/clip_range"] = self.clip_range(self._current_progress_remaining)
        metrics["train/ent_coef"] = self.entropy_schedule(self._current_progress_remaining)
        for name, value in metrics.items():
            self.logger.record(name, value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
