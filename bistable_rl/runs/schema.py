"""What a config file can hold: an agent's training (`Experiment`) or a supervised one (`Benchmark`).

Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from jsonargparse.typing import ClosedUnitInterval

from bistable_rl.errors import UserError, shown
from bistable_rl.runs.config import (
    NAME_BYTES,
    Finite,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Seed,
    build,
    read_yaml,
)

MAX_CUDA = 127
"""The highest index of a CUDA device: torch keeps 8 bits of it, and would take cuda:256 for cuda:0."""


@dataclass
class EnvConfig:
    """The environment and how many copies of it are stepped at once.

    Args:
        id: An environment id: ours (see `bistable-rl list envs`) or any that gymnasium knows.
        kwargs: Arguments of the environment, e.g. `{length: 50}`.
        wrappers: Wrappers, the innermost first, each `{name: ..., kwargs: {...}}`.
        num_envs: Copies stepped together while training.
    """

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: list[dict[str, Any]] = field(default_factory=list)
    num_envs: PositiveInt = 8


@dataclass
class PolicyConfig:
    """The agent's network: features, recurrent layers, heads.

    Args:
        cell: The recurrent cell (see `bistable-rl list cells`).
        hidden_size: Units of each recurrent layer.
        num_layers: Recurrent layers.
        cell_kwargs: Options of the cell, e.g. `{c_bias: chrono, t_max: 60}`.
        critic: `shared`: the value head reads the actor's memory and trains it too; `separate`: the critic
            has recurrent layers of its own; `feedforward`: it sees the present observation only.
        critic_gradient: With a shared critic, whether the value loss trains the memory.
        net_arch: Units of the tanh layers between the memory and each of the two heads.
        ortho_init: Start features and heads orthogonally, the action head small; else as torch does.
        action_bias: For discrete actions, their logits at first, e.g. `[1, 0, 0, 0]` to lean towards the first.
        log_std_init: For continuous actions, the logarithm of their standard deviation at first.
        log_std_min: For continuous actions, its lower bound (null: none).
        state_dependent_std: For continuous actions, whether their standard deviation depends on the memory.
        observation_kinds: How an observation is read where its space does not say it, by its key (`observation` where
            there is no Dict), e.g. `{image: categories}`; or `pixels` (a CNN), or `numbers` (flat).
    """

    cell: str = "nbrc"
    hidden_size: PositiveInt = 64
    num_layers: PositiveInt = 1
    cell_kwargs: dict[str, Any] = field(default_factory=dict)
    critic: Literal["separate", "shared", "feedforward"] = "shared"
    critic_gradient: bool = True
    net_arch: list[PositiveInt] = field(default_factory=list)
    ortho_init: bool = True
    action_bias: list[Finite] = field(default_factory=list)
    log_std_init: Finite = 0.0
    log_std_min: Finite | None = None
    state_dependent_std: bool = False
    observation_kinds: dict[str, Any] = field(default_factory=dict)


@dataclass
class AlgorithmConfig:
    """Recurrent PPO (Schulman et al. 2017), with Stable-Baselines3's names.

    Three of the numbers may be schedules: `[1e-3, 1e-4]` goes from the first to the last in a straight line over the
    training.

    Args:
        learning_rate: Adam's step size; number or schedule.
        n_steps: Steps of each copy between two updates; cue and answer must fit in for the memory to be learned.
        batch_size: About how many steps a minibatch has; it is made of whole sequences.
        n_epochs: Passes over the collected steps at each update.
        gamma: Discount factor.
        gae_lambda: λ of the generalised advantage estimate.
        clip_range: PPO's clipping of the probability ratio; number or schedule.
        clip_range_vf: Clipping of the value's change (null: none).
        ent_coef: Weight of the entropy bonus; number or schedule.
        vf_coef: Weight of the value loss.
        max_grad_norm: The gradient is scaled down to this norm.
        normalize_advantage: Standardise the advantages of each minibatch.
        target_kl: Stop an update early past 1.5 times this divergence (null: never).
        bptt_length: The longest sequence, in steps; longer ones are cut, and no gradient crosses a cut (null: no cut).
        burn_in: Steps before a sequence that begins within an episode that are run again, without gradient.
        refresh_states: Compute the states from which sequences begin anew before every epoch but the first.
    """

    learning_rate: Positive | tuple[Positive, Positive] = 1e-3
    n_steps: PositiveInt = 128
    batch_size: PositiveInt = 256
    n_epochs: PositiveInt = 4
    gamma: ClosedUnitInterval = 0.99
    gae_lambda: ClosedUnitInterval = 0.95
    clip_range: Positive | tuple[Positive, Positive] = 0.2
    clip_range_vf: Positive | None = None
    ent_coef: NonNegative | tuple[NonNegative, NonNegative] = 0.0
    vf_coef: NonNegative = 0.5
    max_grad_norm: Positive = 0.5
    normalize_advantage: bool = True
    target_kl: Positive | None = None
    bptt_length: PositiveInt | None = None
    burn_in: NonNegativeInt = 0
    refresh_states: bool = False


@dataclass
class EvaluationConfig:
    """Evaluation during training, on copies of the environment of its own, acting deterministically.

    Args:
        every: Environment steps between two evaluations; the last one is at the end of training.
        episodes: Episodes of each evaluation.
        horizons: Values of the environment's horizon argument to be evaluated at too, e.g. `[500, 5000]`; there, as
            many episodes again are played with sampled actions.
        horizons_every: Environment steps between two evaluations at the horizons, which may take long; the last one is
            at the end of training. Left out: at every evaluation.
        max_episode_steps: Steps in which an episode must end, or the evaluation fails: the wrapper `time_limit` is for
            environments without an end. Left out: 100,000, or the horizon of an environment of ours if it is more.
    """

    every: PositiveInt = 100_000
    episodes: PositiveInt = 100
    horizons: list[PositiveInt] = field(default_factory=list)
    horizons_every: PositiveInt | None = None
    max_episode_steps: PositiveInt | None = None


@dataclass
class CheckpointConfig:
    """Checkpoints; the first is at step 0, the last at the end of training.

    Args:
        every: Environment steps between two checkpoints.
        keep: How many of the latest are kept.
    """

    every: PositiveInt = 100_000
    keep: PositiveInt = 3


@dataclass
class WarmupConfig:
    """Warm-up of the recurrent layers before the training (Lambrechts et al. 2023): many reachable attractors.

    Args:
        steps: Gradient steps; 0 leaves the layers as they start.
        learning_rate: Adam's step size.
    """

    steps: NonNegativeInt = 0
    learning_rate: Positive = 1e-2


@dataclass
class Experiment:
    """One training of an agent.

    Args:
        name: Names the experiment's folder below the output folder.
        env: The environment.
        policy: The agent's network.
        algorithm: Recurrent PPO.
        total_steps: Environment steps to train for, all copies together; the last update is completed.
        evaluation: Evaluation during training.
        checkpoint: Checkpoints.
        warmup: Warm-up of the recurrent layers.
        seed: Seeds every source of randomness.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    name: str
    env: EnvConfig
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    total_steps: PositiveInt = 1_000_000
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    seed: Seed = 0
    device: str = "auto"

    COMMAND: ClassVar[str] = "train"

    @property
    def cell(self) -> str:
        """The recurrent cell."""
        return self.policy.cell

    def check(self, source: str) -> None:
        """Check values that are wrong together.

        Raises:
            UserError: What is wrong.
        """
        check_name(self.name, source)
        for i, wrapper in enumerate(self.env.wrappers):
            extra = sorted(set(wrapper) - {"name", "kwargs"})
            if "name" not in wrapper or extra or not isinstance(wrapper.get("kwargs", {}), dict):
                raise UserError(
                    f"{source}: env.wrappers[{i}] must look like {{name: ..., kwargs: {{...}}}}, not {shown(wrapper)}."
                )
        algorithm, rollout = self.algorithm, self.algorithm.n_steps * self.env.num_envs
        if algorithm.batch_size > rollout:
            raise UserError(
                f"{source}: algorithm.batch_size {algorithm.batch_size} is more than the {rollout} steps of an update "
                f"(algorithm.n_steps {algorithm.n_steps} x env.num_envs {self.env.num_envs})."
            )
        longest = min(algorithm.bptt_length or algorithm.n_steps, algorithm.n_steps)
        if algorithm.burn_in > longest:
            raise UserError(
                f"{source}: algorithm.burn_in {algorithm.burn_in} is more than the longest sequence, {longest} steps."
            )
        if self.policy.log_std_min is not None and self.policy.log_std_min > self.policy.log_std_init:
            raise UserError(
                f"{source}: policy.log_std_min {self.policy.log_std_min:g} is above policy.log_std_init "
                f"{self.policy.log_std_init:g}."
            )
        check_device(self.device, f"{source}: ")


# --- supervised benchmarks ---------------------------------------------------------------------------------


@dataclass
class TaskConfig:
    """The task.

    Args:
        name: A task (see `bistable-rl list tasks`).
        kwargs: Its arguments, e.g. `{length: 300}`.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class NetworkConfig:
    """The network: recurrent layers and a linear head on the last of them.

    Args:
        cell: The recurrent cell (see `bistable-rl list cells`).
        hidden_size: Units of each layer.
        num_layers: Recurrent layers.
        cell_kwargs: Options of the cell, e.g. `{init: keras}`.
    """

    cell: str = "nbrc"
    hidden_size: PositiveInt = 128
    num_layers: PositiveInt = 2
    cell_kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainingConfig:
    """Training with Adam.

    Args:
        learning_rate: Adam's step size.
        batch_size: Samples of an update.
        epochs: Passes over the training set.
        max_grad_norm: The gradient is scaled down to this norm (null: never).
        warmup_steps: Updates over which the step size grows linearly to `learning_rate`.
        schedule: The step size after the warm-up: `constant`, or falling to 0 along a line or half a cosine.
        mixed_precision: Compute in bfloat16 where it is safe (torch.autocast); the weights stay float32.
        validation_size: Samples held out of the training set, evaluated after every epoch.
        patience: Stop after this many epochs without a smaller validation loss (null: never).
        target_loss: Stop after the first update whose loss is below (null: never).
    """

    learning_rate: Positive = 1e-3
    batch_size: PositiveInt = 100
    epochs: PositiveInt = 50
    max_grad_norm: Positive | None = None
    warmup_steps: NonNegativeInt = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    mixed_precision: bool = False
    validation_size: NonNegativeInt = 0
    patience: PositiveInt | None = None
    target_loss: Positive | None = None


@dataclass
class BenchmarkCheckpointConfig:
    """Checkpoints; the last is at the end of training.

    Args:
        every: Updates between two checkpoints.
        keep: How many of the latest are kept.
    """

    every: PositiveInt = 500
    keep: PositiveInt = 2


@dataclass
class Benchmark:
    """One supervised training.

    Args:
        name: Names the benchmark's folder below the output folder.
        task: The task.
        network: The network.
        training: The training.
        data: `fixed`: one training set; `fresh`: an epoch draws as many samples, each of them once.
        protocol: `paper`: data and order of the paper's text; `authors_code`: those of the code its authors published.
        checkpoint: Checkpoints.
        warmup: Warm-up of the recurrent layers.
        seed: Seeds every source of randomness.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    name: str
    task: TaskConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: Literal["fixed", "fresh"] = "fixed"
    protocol: Literal["paper", "authors_code"] = "paper"
    checkpoint: BenchmarkCheckpointConfig = field(default_factory=BenchmarkCheckpointConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    seed: Seed = 0
    device: str = "auto"

    COMMAND: ClassVar[str] = "benchmark"

    @property
    def cell(self) -> str:
        """The recurrent cell."""
        return self.network.cell

    def check(self, source: str) -> None:
        """Check values that are wrong together.

        Raises:
            UserError: What is wrong.
        """
        check_name(self.name, source)
        if self.training.patience is not None and not self.training.validation_size:
            raise UserError(
                f"{source}: training.patience needs training.validation_size above 0, to know when to stop."
            )
        if self.training.validation_size and self.data == "fresh":
            raise UserError(
                f"{source}: training.validation_size must be 0 with fresh data: every batch is new to the network."
            )
        check_device(self.device, f"{source}: ")


# --- reading -----------------------------------------------------------------------------------------------

KINDS: dict[str, type[Experiment] | type[Benchmark]] = {"env": Experiment, "task": Benchmark}
"""What a config file is, by the section that only it has."""

COMPARE = "compare"


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an agent's training from a YAML file, with command-line overrides (`--seed`, `1`) laid over it.

    Raises:
        UserError: The first thing that is wrong, in one sentence that names the file and the key.
    """
    data = read_yaml(path)
    check_command(data, path, Experiment.COMMAND)
    return build(Experiment, data, str(path), overrides)


def load_benchmark(path: Path, overrides: Sequence[str] = ()) -> Benchmark:
    """Read a supervised training from a YAML file, with command-line overrides (`--seed`, `1`) laid over it.

    Raises:
        UserError: The first thing that is wrong, in one sentence that names the file and the key.
    """
    data = read_yaml(path)
    check_command(data, path, Benchmark.COMMAND)
    return build(Benchmark, data, str(path), overrides)


def load_either(path: Path) -> Experiment | Benchmark:
    """Read a YAML file that holds either.

    Raises:
        UserError: The first thing that is wrong, in one sentence that names the file and the key.
    """
    data = read_yaml(path)
    kind = kind_of(data)
    if kind is None:
        raise UserError(f"{path}: a section is missing: env, for an agent's training, or task, for a supervised one.")
    return build(kind, data, str(path))


def kind_of(data: dict[str, Any]) -> type[Experiment] | type[Benchmark] | None:
    """Return what a file's keys belong to, None if they belong to neither or to both."""
    found = [kind for section, kind in KINDS.items() if section in data]
    return found[0] if len(found) == 1 else None


def check_command(data: dict[str, Any], path: Path, command: str) -> None:
    """Check that a file's keys are not those of another command's config.

    Raises:
        UserError: They are; the sentence names that command.
    """
    owners = [kind.COMMAND for section, kind in KINDS.items() if section in data] + [COMPARE] * ("base" in data)
    if len(owners) == 1 and owners[0] != command:
        raise UserError(f"{path} is no config for `bistable-rl {command}`; run `bistable-rl {owners[0]}` on it.")


def env_config(env_id: str, overrides: Sequence[str]) -> EnvConfig:
    """Return the `env` section for an id, with overrides such as `--env.kwargs.length`, `10`.

    Raises:
        UserError: An override is wrong.
    """
    return build(Experiment, {"name": "play", "env": {"id": env_id}}, "command line", overrides).env


def check_name(name: str, source: str) -> None:
    """Check what is to name a folder.

    Raises:
        UserError: It cannot.
    """
    if not re.fullmatch(r"[\w.+-]+", name) or name in (".", ".."):
        raise UserError(
            f"{source}: name must be made of letters, digits and ._+- since it names a folder, not {shown(name)}."
        )
    if len(name.encode("utf-8")) > NAME_BYTES:
        raise UserError(
            f"{source}: name must have at most {NAME_BYTES} bytes since it names a folder, not "
            f"{len(name.encode('utf-8'))}."
        )


def check_device(device: str, where: str = "") -> None:
    """Check the name of a device; whether it is here is seen when it is used.

    Raises:
        UserError: It is none of `auto`, `cpu`, `cuda`, `cuda:N`; the sentence starts with `where`.
    """
    number = re.fullmatch(r"(?:auto|cpu|cuda(?::(0|[1-9][0-9]*))?)", device)
    if number is None:
        raise UserError(f"{where}device must be auto, cpu, cuda or cuda:N, not {shown(device)}.")
    if len(number[1] or "") > 3 or int(number[1] or 0) > MAX_CUDA:
        raise UserError(f"{where}device must be cuda:N with N from 0 to {MAX_CUDA}, not {shown(device)}.")
