"""Recurrent PPO: whole sequences, packed; states at sequence starts only; one kernel call per layer and minibatch."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance, obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from bistable_rl.agents import gae, save_load
from bistable_rl.agents.buffer import Rollout
from bistable_rl.agents.checks import check_number, check_positive, check_schedule, check_whole
from bistable_rl.agents.evaluation import declared_horizon, success_of
from bistable_rl.agents.features import as_shown
from bistable_rl.agents.flat_gradient import Gradient
from bistable_rl.agents.policy import RecurrentPolicy, check_policy_kwargs
from bistable_rl.agents.sequences import Packed
from bistable_rl.agents.spaces import check_spaces
from bistable_rl.cells.base import fixed_weights
from bistable_rl.envs.registry import find_spec
from bistable_rl.errors import NonFiniteError
from bistable_rl.runs.capacity import check_layers, check_memory
from bistable_rl.runs.devices import check_torch_device, warn_of_missing_kernels

# Sequences whose values are asked for at once after a rollout: enough for the kernels, little for the memory.
EVALUATED_STEPS = 4096

Self = TypeVar("Self", bound="RecurrentPPO")


class RecurrentPPO(OnPolicyAlgorithm):
    """Proximal policy optimisation (Schulman et al. 2017) of an agent with a memory, with SB3's interface.

    A minibatch is made of whole sequences, the pieces of episodes that a rollout holds, packed by length: no padding,
    and no piece is cut in two. Advantages are estimated by GAE (Schulman et al. 2016), bootstrapped where a time
    limit cuts an episode with the value in the state that the memory was in.

    Args:
        policy: `RecurrentPolicy`, a subclass, or its name.
        env: The environment, or its id: ours, any that gymnasium knows, or "package:id".
        learning_rate: Adam's step size; like the other schedules a number, or a function of the remaining progress
            (1 at first, 0 at the end).
        n_steps: T, steps of each copy between two updates. No gradient reaches further back than the rollout's start.
        batch_size: About how many steps a minibatch has; its sequences are whole.
        n_epochs: Passes over the rollout at each update.
        gamma: Discount factor.
        gae_lambda: λ of GAE.
        clip_range: PPO's clipping of the probability ratio; number or schedule.
        clip_range_vf: Clipping of the value's change; number, schedule, or None for none.
        normalize_advantage: Standardise the advantages of each minibatch that has more than one step.
        ent_coef: Weight of the entropy bonus; number or schedule.
        vf_coef: Weight of the value loss.
        max_grad_norm: The gradient is scaled down to this norm.
        target_kl: Stop an update early past 1.5 times this divergence, or None.
        bptt_length: The longest sequence, in steps: longer pieces are cut, and no gradient crosses a cut. None: no cut.
        burn_in: Steps before a sequence that begins within an episode which are run again, without gradient, with the
            present weights; at most `bptt_length` or `n_steps`.
        refresh_states: Before every epoch but the first, and after the last, compute the states from which sequences
            begin anew with the present weights, from the rollout before this one on.
        stats_window_size: Episodes in the logged means.
        tensorboard_log: Folder for TensorBoard, or None.
        policy_kwargs: Arguments of the policy.
        verbose: 0 or 1.
        seed: Seeds everything.
        device: Where the networks and the rollout live.

    Raises:
        TypeError: The policy has no argument of a name in `policy_kwargs`.
        ValueError: A number is out of range, the policy is none of ours, or it cannot read the observations or give
            the actions.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(
        ("RecurrentPolicy", "MlpRecurrentPolicy", "CnnRecurrentPolicy", "MultiInputRecurrentPolicy"), RecurrentPolicy
    )
    policy: RecurrentPolicy
    policy_class: type[RecurrentPolicy]

    def __init__(
        self,
        policy: str | type[RecurrentPolicy],
        env: GymEnv | str,
        *,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 128,
        batch_size: int = 256,
        n_epochs: int = 4,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float | Schedule = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        bptt_length: int | None = None,
        burn_in: int = 0,
        refresh_states: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        device = check_torch_device(device)
        check_whole("n_steps", n_steps, 1)
        check_whole("batch_size", batch_size, 1)
        check_whole("n_epochs", n_epochs, 1)
        check_whole("stats_window_size", stats_window_size, 1)
        if bptt_length is not None:
            check_whole("bptt_length", bptt_length, 1, why=", or None for no limit")
        check_whole("burn_in", burn_in, 0, min(bptt_length or n_steps, n_steps), ", the longest sequence")
        check_number("gamma", gamma, most=1)
        check_number("gae_lambda", gae_lambda, most=1)
        check_number("vf_coef", vf_coef)
        check_positive("max_grad_norm", max_grad_norm)
        if target_kl is not None:
            check_positive("target_kl", target_kl)
        check_schedule("learning_rate", learning_rate, positive=True)
        if isinstance(policy, str) and policy not in self.policy_aliases:
            raise ValueError(f"Policy {policy} unknown: choose from {', '.join(self.policy_aliases)}")
        if not isinstance(policy, str) and not (isinstance(policy, type) and issubclass(policy, RecurrentPolicy)):
            raise ValueError(f"policy must be RecurrentPolicy, a subclass or its name, got {policy!r}")
        check_policy_kwargs(self.policy_aliases[policy] if isinstance(policy, str) else policy, policy_kwargs)
        if env is None and _init_setup_model:
            raise ValueError("env must be an environment or its id, got None")
        if env is not None:
            if isinstance(env, str):
                find_spec(env)  # imports what registers it: ours are no less known than gymnasium's
            if isinstance(env, VectorEnv):
                raise ValueError(
                    "env is a gymnasium VectorEnv, and SB3 steps a VecEnv of its own; give "
                    "bistable_rl.agents.vec_envs.BatchedVecEnv(env), for which its autoreset_mode must be SAME_STEP"
                )
            env = maybe_make_env(env, verbose)
            if isinstance(env, type) or not hasattr(env, "observation_space"):
                raise ValueError(f"env must be an environment or its id, got {env!r}")
            check_spaces(env.observation_space, env.action_space)
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=0.0,  # a schedule here, see below
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.clip_range = check_schedule("clip_range", clip_range, positive=True)
        self.clip_range_vf = None
        if clip_range_vf is not None:
            self.clip_range_vf = check_schedule("clip_range_vf", clip_range_vf, positive=True)
        self.entropy_schedule = check_schedule("ent_coef", ent_coef, positive=False)
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.bptt_length = bptt_length
        self.burn_in = burn_in
        self.refresh_states = refresh_states
        self._warned_of_terminal_observation = False
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if self.env is not None:
            self.observation_space = as_shown(self.observation_space, self.env)
            defaults = inspect.signature(RecurrentPolicy).parameters
            sizes = {
                name: self.policy_kwargs.get(name, defaults[name].default)
                for name in ("cell", "hidden_size", "num_layers", "cell_kwargs")
            }
            check_layers("", **sizes, copies=self.n_envs, device=self.device)
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)
        count = sum(parameter.numel() for parameter in self.policy.parameters())
        layers = self.policy.lstm_actor.rnn
        if self.env is not None:  # without one it cannot train
            warn_of_missing_kernels(self.policy.constructor_args["cell"], self.device.type, layers.hidden_size)
        state = sum(memory.hidden_size for memory in self.policy._memories())
        check_memory(
            f"the state of {self.n_envs} copies, {state:,} numbers each,", 8 * self.n_envs * state, self.device
        )
        check_memory(f"the training of {count:,} parameters (gradient and Adam's moments)", 12 * count, self.device)
        self.rollout_buffer: Rollout = Rollout(  # type: ignore[assignment]
            n_steps=self.n_steps,
            n_envs=self.n_envs,
            observation_space=self.observation_space,
            action_space=self.action_space,
            device=self.device,
            bptt_length=self.bptt_length,
            burn_in=self.burn_in,
            refresh=self.refresh_states,
        )
        self._warn_of_horizons_beyond(min(self.bptt_length or self.n_steps, self.n_steps))
        with torch.no_grad():
            self._last_state = self.policy.initial_state(self.n_envs)
        # deals out minibatches, so that nothing else that draws numbers changes them
        self.minibatch_generator = np.random.default_rng(self.seed)

    def _warn_of_horizons_beyond(self, reach: int) -> None:
        """Warn if cue and answer of an episode can lie further apart than gradient reaches."""
        horizon = None if self.env is None else declared_horizon(self.env)
        if horizon is not None and horizon > reach:
            name = "n_steps" if reach == self.n_steps else "bptt_length"
            warnings.warn(
                f"an episode can take {horizon} steps, but gradient reaches back {name} = {reach} steps at most: "
                "what is seen longer before it is needed is not learned to be kept",
                stacklevel=4,
            )

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self.started_at = time.monotonic()
        return super()._setup_learn(*args, **kwargs)

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the current logs; a clock that is set while training changes neither seconds nor fps."""
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
        """Train for a number of environment steps, all copies together; the last update is completed.

        Raises:
            ValueError: It was loaded without a schedule that is a function.
        """
        save_load.check_trainable(self)
        super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)  # type: ignore[arg-type]
        return self

    # --- on the disk ---------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:  # type: ignore[override]
        """Write weights, moments, counters, settings and VecNormalize's statistics to one file, whole or not at all.

        The file is a zip of safetensors and JSON.

        Args:
            path: The file; without a suffix it gets `.zip`.

        Raises:
            ValueError: An argument of the policy is no plain value.
            UserError: The file cannot be written.
        """
        save_load.save(self, Path(path))

    @classmethod
    def load(  # type: ignore[override]
        cls: type[Self],
        path: str | Path,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        **settings: Any,
    ) -> Self:
        """Read what `save` wrote; nothing in the file is executed.

        Args:
            path: The file.
            env: The environment to go on training in, with new episodes; VecNormalize in it gets its statistics back.
            device: Where the networks go.
            **settings: Arguments of the constructor in place of the saved ones. `policy` must be given where it is a
                subclass of `RecurrentPolicy`, `tensorboard_log` to log, and a schedule that is a function to train.

        Raises:
            TypeError: A setting is no argument of the constructor.
            ValueError: A setting is out of range.
            UserError: There is no such file, it is broken or not of this kind, or it does not fit the environment.
        """
        return save_load.load(cls, Path(path), env, device, settings)

    def import_sb3(self, path: str | Path) -> None:
        """Take the weights of an archive that sb3-contrib's RecurrentPPO saved, and nothing else of it.

        Its policy must have the architecture of this one: ours, or sb3-contrib's own with its LSTM, which is
        `policy_kwargs={"cell": "lstm", "hidden_size": 256, "critic": "separate", "net_arch": [64, 64]}` by default.

        Args:
            path: The file.

        Raises:
            UserError: There are no such weights in it, or they belong to another architecture.
        """
        save_load.import_sb3(self, Path(path))

    # --- living through a rollout --------------------------------------------------------------------------

    @torch.no_grad()
    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: Rollout, n_rollout_steps: int
    ) -> bool:
        """Step all copies `n_rollout_steps` times and find the advantages; return False if the callback stops it.

        A rollout that was stopped is thrown away, and the next one starts with new episodes. All its steps act with the
        weights that the policy had after `on_rollout_start`: what a callback edits meanwhile shows after the last.
        """
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        with fixed_weights(self.policy):
            cut = self._step_copies(env, callback, rollout_buffer, n_rollout_steps)
        if cut is None:
            return False
        for t, limited, last, states in cut:
            rollout_buffer.bootstraps[t, torch.from_numpy(limited)] = self.policy.values(self._stacked(last), states)
        assert self._last_obs is not None
        assert self._last_episode_starts is not None
        self._check_finite("observations", "rewards")
        seen = obs_as_tensor(self._last_obs, self.device)
        rollout_buffer.last_values[:] = self.policy.values(
            seen, self._restart(self._last_state, self._last_episode_starts)
        )
        self._evaluate_rollout()
        self._check_scale_of_rewards()
        self._check_finite("values", "log_probs", "advantages")
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _step_copies(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: Rollout, n_rollout_steps: int
    ) -> list[tuple[int, np.ndarray, list[Any], Tensor]] | None:
        """Fill the rollout; return what time limits have cut, or None if the callback stops it."""
        rollout, state = rollout_buffer, self._last_state
        rollout.begin(state)
        observation: Any = self._last_obs
        starts = self._last_episode_starts
        assert starts is not None
        cut: list[tuple[int, np.ndarray, list[Any], Tensor]] = []  # what time limits have cut
        low, high = getattr(self.action_space, "low", None), getattr(self.action_space, "high", None)
        for t in range(n_rollout_steps):
            seen = obs_as_tensor(observation, self.device)
            before = self._restart(state, starts)
            actions, state = self.policy.step(seen, before)
            taken = actions.cpu().numpy()
            if isinstance(self.action_space, spaces.Box):
                taken = np.clip(taken, low, high)
            new_obs, rewards, dones, infos = env.step(taken)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                self._last_obs = None
                return None
            ended = np.flatnonzero(dones)
            if len(ended):
                for i in ended:
                    success_of(infos[i])  # else SB3's means would be NaN, or fail
                self._update_info_buffer([infos[i] for i in ended], dones[ended])
                limited = self._limited(ended, infos)
                if len(limited):
                    last = [infos[i]["terminal_observation"] for i in limited]
                    cut.append((t, limited, last, state[:, torch.from_numpy(limited)]))
            rollout.add(seen, starts, before, actions, rewards, dones)
            observation, starts = new_obs, dones
        rollout.end(state)
        self._last_obs, self._last_episode_starts, self._last_state = observation, starts, state
        return cut

    def _limited(self, ended: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """Return which of the copies whose episode has ended were cut by a time limit, and show what they saw last."""
        limited = [i for i in ended if infos[i].get("TimeLimit.truncated", False)]
        shown = [i for i in limited if infos[i].get("terminal_observation") is not None]
        if len(shown) < len(limited) and not self._warned_of_terminal_observation:
            self._warned_of_terminal_observation = True
            warnings.warn(
                "a time limit cuts episodes (info['TimeLimit.truncated']), but info['terminal_observation'] is "
                "missing: they count as ended, with nothing to come",
                stacklevel=5,
            )
        return np.array(shown, np.int64)

    def _restart(self, state: Tensor, starts: np.ndarray) -> Tensor:
        """Return the state with the initial state where an episode starts."""
        if not starts.any():
            return state
        begins = torch.from_numpy(starts).to(state.device).reshape(1, -1, 1)
        return torch.where(begins, self.policy.initial_state(1), state)

    def _stacked(self, observations: list[Any]) -> Tensor | dict[str, Tensor]:
        """Return single observations as one batch."""
        first = observations[0]
        if isinstance(first, dict):
            return obs_as_tensor({key: np.stack([o[key] for o in observations]) for key in first}, self.device)
        return obs_as_tensor(np.stack(observations), self.device)

    def _evaluate_rollout(self) -> None:
        """Fill in values, log-probabilities, advantages and returns, as the coming update will see them."""
        rollout = self.rollout_buffer
        for packed in rollout.sequences.in_order(EVALUATED_STEPS):
            values, log_probs, _ = self._evaluate(packed)
            rows = torch.from_numpy(packed.rows).to(self.device)
            rollout.values.view(-1)[rows] = values
            rollout.log_probs.view(-1)[rows] = log_probs
        ends = torch.from_numpy(rollout.episode_ends).to(self.device)
        following = torch.cat([rollout.values[1:], rollout.last_values.unsqueeze(0)])
        rollout.advantages = gae.advantages(
            rollout.rewards,
            rollout.values,
            torch.where(ends, rollout.bootstraps, following),
            ends,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )
        rollout.returns = rollout.advantages + rollout.values

    def _check_finite(self, *names: str) -> None:
        """Refuse what is NaN or infinite in the rollout, before it is blamed on the gradient.

        Raises:
            NonFiniteError: Something is; names the step and the copy.
        """
        rollout = self.rollout_buffer
        for name in names:
            tensors = rollout.observed_parts() if name == "observations" else [getattr(rollout, name)]
            for tensor in tensors:
                if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
                    continue
                step, copy = torch.argwhere(~torch.isfinite(tensor))[0][:2].tolist()
                value = float(tensor[step, copy].sum())
                raise NonFiniteError(
                    f"{name} became {value} in step {step} of environment copy {copy}, in the update after "
                    f"{self.num_timesteps - rollout.rewards.numel()} environment steps"
                )

    def _check_scale_of_rewards(self) -> None:
        """Refuse finite rewards so large that their returns' squares, the value loss, are not."""
        rollout = self.rollout_buffer
        largest = rollout.rewards.abs().max()
        given = torch.isfinite(largest) & torch.isfinite(rollout.values).all()  # else something else is wrong
        if bool(given & ~torch.isfinite(rollout.returns.square().sum())):
            raise NonFiniteError(
                f"rewards of up to {float(largest):g} are too large for float32: the value loss squares returns, and "
                f"became infinite in the rollout that ends at {self.num_timesteps} steps; scale rewards to about 1, "
                "for example by stable_baselines3's VecNormalize or gymnasium's TransformReward"
            )

    # --- learning from it ----------------------------------------------------------------------------------

    def train(self) -> None:
        """Update the policy from the rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        gradient = Gradient(self.policy.parts())
        statistics: dict[str, list[Tensor]] = {}
        stop = False
        for epoch in range(self.n_epochs):
            if epoch and self.refresh_states:
                self._refresh()
            statistics.pop("train/approx_kl", None)  # of the last epoch, as SB3 has it
            for packed in self.rollout_buffer.sequences.minibatches(self.batch_size, self.minibatch_generator):
                loss, measured = self.loss(packed)
                for name, value in measured.items():
                    statistics.setdefault(name, []).append(value)
                if self.target_kl is not None and measured["train/approx_kl"] > 1.5 * self.target_kl:
                    stop = True
                    break
                gradient.clear()
                loss.backward()
                norms = gradient.norms()
                for name, norm in norms.items():
                    statistics.setdefault(f"gradient/{name}", []).append(norm)
                if not bool(torch.isfinite(norms["norm"])):
                    self._raise_non_finite("the gradient of ", lambda parameter: parameter.grad)
                gradient.clip(norms["norm"], self.max_grad_norm)
                self.policy.optimizer.step()
            self._n_updates += 1
            if stop:
                break
        if not bool(torch.isfinite(torch.stack([p.detach().sum() for p in self.policy.parameters()])).all()):
            self._raise_non_finite("", lambda parameter: parameter)
        if self.refresh_states:
            self._refresh()
        for name, values in statistics.items():
            self.logger.record(name, float(torch.stack(values).mean()))
        rollout = self.rollout_buffer
        self.logger.record("train/continued_sequences", float(1 - rollout.sequences.fresh.mean()))
        explained = explained_variance(rollout.values.flatten().cpu().numpy(), rollout.returns.flatten().cpu().numpy())
        self.logger.record("train/explained_variance", explained)
        if isinstance(self.action_space, spaces.Box) and not self.policy.state_dependent_std:
            self.logger.record("train/std", float(self.policy.floored(self.policy.log_std.detach()).exp().mean()))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", self.clip_range(self._current_progress_remaining))
        self.logger.record("train/ent_coef", self.entropy_schedule(self._current_progress_remaining))

    def loss(self, packed: Packed) -> tuple[Tensor, dict[str, Tensor]]:
        """Return PPO's loss of a minibatch, and what is worth logging of it."""
        rollout = self.rollout_buffer
        clip_range = self.clip_range(self._current_progress_remaining)
        values, log_probs, entropy = self._evaluate(packed)
        advantages = rollout.rows(rollout.advantages, packed)
        if self.normalize_advantage and len(advantages) > 1:  # one alone has no spread
            spread, mean = torch.std_mean(advantages)
            advantages = (advantages - mean) / (spread + 1e-8)
        log_ratio = log_probs - rollout.rows(rollout.log_probs, packed)
        ratio = log_ratio.exp()
        # Schulman et al. (2017), eq. 7: min(A·r, A·clamp(r, 1 - ε, 1 + ε)) = min(A·r, A + ε·|A|)
        policy_loss = -torch.min(advantages * ratio, advantages + clip_range * advantages.abs()).mean()
        targets = rollout.rows(rollout.returns, packed)
        if self.clip_range_vf is not None:
            reach = self.clip_range_vf(self._current_progress_remaining)
            old = rollout.rows(rollout.values, packed)
            values = old + (values - old).clamp(-reach, reach)
        value_loss = torch.nn.functional.mse_loss(values, targets)
        entropy_loss = -entropy.mean()
        weight = self.entropy_schedule(self._current_progress_remaining)
        loss = policy_loss + self.vf_coef * value_loss
        if weight:  # else its gradient would be computed to be multiplied by 0
            loss = loss + weight * entropy_loss
        with torch.no_grad():
            measured = {
                "train/loss": loss.detach(),
                "train/policy_gradient_loss": policy_loss.detach(),
                "train/value_loss": value_loss.detach(),
                "train/entropy_loss": entropy_loss.detach(),
                "train/approx_kl": (ratio - 1 - log_ratio).mean(),  # Schulman's estimator
                "train/clip_fraction": ((ratio - 1).abs() > clip_range).float().mean(),
            }
        return loss, measured

    def _evaluate(self, packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropies (N,) of packed sequences, with the present weights."""
        rollout = self.rollout_buffer
        return self.policy.evaluate_packed(
            rollout.observed(packed),
            rollout.rows(rollout.actions, packed),
            rollout.start_states(self.policy, packed),
            torch.from_numpy(packed.batch_sizes),
        )

    def _raise_non_finite(self, what: str, tensor_of: Callable[[torch.nn.Parameter], Tensor | None]) -> None:
        for name, parameter in self.policy.named_parameters():
            tensor = tensor_of(parameter)
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise NonFiniteError(
                    f"{what}{name} became NaN or infinite in the update at {self.num_timesteps} steps; "
                    "a smaller learning_rate or max_grad_norm usually cures this"
                )
        raise NonFiniteError(
            f"{what}the network as a whole overflowed in the update at {self.num_timesteps} steps: rewards reach "
            f"{float(self.rollout_buffer.rewards.abs().max()):g}; smaller rewards or a smaller learning_rate cure this"
        )

    def _refresh(self) -> None:
        self._last_state, staleness = self.rollout_buffer.refresh(self.policy, self._last_state)
        self.logger.record_mean("train/state_staleness", staleness)
