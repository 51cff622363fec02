"""The keys of a config file: an agent's training (`Experiment`) or a supervised one (`Benchmark`).

Imports no torch. The constructors of `RecurrentPPO` and `RecurrentPolicy` take the keys of `AlgorithmConfig` and
`PolicyConfig` as arguments.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from bistable_rl.errors import UserError, shown
from bistable_rl.runs.config import NAME_BYTES, Overrides, build, read_yaml
from bistable_rl.runs.keys import (
    Device,
    Finite,
    Fraction,
    Interval,
    NamedPart,
    NameOrClass,
    NonNegative,
    NonNegativeInt,
    NonNegativeSchedule,
    Positive,
    PositiveInt,
    PositiveSchedule,
    Section,
    Seed,
    StreamName,
    convert,
    meaning,
    setting,
)

# --- an agent's training -----------------------------------------------------------------------------------


@dataclass
class NormalizeConfig(Section):
    """Normalisation by running statistics, as in SB3's VecNormalize; evaluations use the latest statistics."""

    obs: bool = setting(False, "Whether observations are normalised to mean 0 and variance 1.")
    reward: bool = setting(
        False, "Whether rewards are divided by the standard deviation of the return; evaluations report raw rewards."
    )


@dataclass
class EnvConfig(Section):
    """The environment."""

    id: str = field(metadata=meaning("Ours (see `bistable-rl list envs`) or any id that gymnasium knows."))
    kwargs: dict[str, Any] = setting(dict, "Arguments of the environment, e.g. `{length: 50}`.")
    wrappers: list[NamedPart] = setting(
        list, "Wrappers, innermost first, each a name or `{name: ..., kwargs: {...}}`; one of your own: `package:Name`."
    )
    num_envs: PositiveInt = setting(8, "Copies that are stepped together in training.")
    horizon_kwarg: str | None = setting(
        None,
        "The keyword of kwargs that sets its horizon, e.g. `length`, for evaluation.horizons (null: known for ours).",
    )
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)

    def check(self, prefix: str = "") -> None:
        """Write a wrapper that is only a name as `{name: ...}`: the stored form, which hashes of experiments read."""
        self.wrappers = [wrapper if isinstance(wrapper, dict) else {"name": wrapper} for wrapper in self.wrappers]


@dataclass
class PolicyConfig(Section):
    """The agent's network: features, recurrent layers, heads."""

    cell: NameOrClass = setting("mixed", "The recurrent cell (see `bistable-rl list cells`) or `package:Name`.")
    hidden_size: PositiveInt = setting(64, "Units of each recurrent layer.")
    num_layers: PositiveInt = setting(1, "Recurrent layers.")
    cell_kwargs: dict[str, Any] = setting(dict, "Options of the cell, e.g. `{c_bias: chrono, t_max: 60}`.")
    critic: Literal["separate", "shared", "feedforward"] = setting(
        "separate",
        "What the value head reads: a `separate` memory, the actor's `shared` one, or the observation (`feedforward`).",
    )
    critic_gradient: bool = setting(True, "With a shared critic, whether the value loss trains the memory too.")
    net_arch: list[PositiveInt] | dict[str, Any] = setting(
        lambda: [64],
        "Units of the layers between the memory and each head; `{pi: [64], vf: [64]}` gives each head its own.",
    )
    ortho_init: bool = setting(True, "Initialise features and heads orthogonally, as SB3 does; else as torch does.")
    action_bias: list[Finite] = setting(list, "For discrete actions, their initial logits, e.g. `[1, 0, 0]`.")
    log_std_init: Finite = setting(0.0, "For continuous actions, the initial logarithm of their standard deviation.")
    log_std_min: Finite | None = setting(None, "For continuous actions, its lower bound (null: none).")
    state_dependent_std: bool = setting(False, "For continuous actions, whether their deviation depends on the memory.")
    observation_kinds: dict[str, Any] = setting(
        dict, "`categories`, `pixels` or `numbers` by key, where the space does not say so, e.g. `{image: pixels}`."
    )

    features_extractor_class: NameOrClass | None = setting(
        None,
        "The features extractor: `flat`, `nature_cnn`, `impala`, `minigrid` or `package:Name` (null: by the space).",
    )
    features_extractor_kwargs: dict[str, Any] = setting(dict, "Its arguments, e.g. `{features_dim: 128}`.")
    normalize_images: bool | None = setting(
        None, "For a `package:Name`, whether images come scaled to 0 to 1 (null: pixels do, categories do not)."
    )
    activation_fn: NameOrClass | None = setting(
        None, "Between the layers of net_arch: `relu`, `elu`, ... or `package:Name` (null: tanh)."
    )
    optimizer_class: NameOrClass | None = setting(
        None, "The optimizer: `adamw`, `rmsprop`, ... or `package:Name` (null: Adam)."
    )
    optimizer_kwargs: dict[str, Any] = setting(dict, "Its arguments besides the learning rate, e.g. `{eps: 1e-8}`.")

    @property
    def head_widths(self) -> tuple[list[int], list[int]]:
        """Units of the layers before the action head, and before the value head."""
        arch = self.net_arch
        return (arch.get("pi", []), arch.get("vf", [])) if isinstance(arch, dict) else (arch, arch)

    def check(self, prefix: str = "") -> None:
        """Check the layers of each head, and that the initial standard deviation is not below its bound."""
        if isinstance(self.net_arch, dict):
            try:
                if not self.net_arch.keys() <= {"pi", "vf"}:
                    raise ValueError
                self.net_arch = {head: convert(units, list[PositiveInt]) for head, units in self.net_arch.items()}
            except ValueError:
                form = "a list of integers above 0, or such lists as {pi: [64], vf: [64]}"
                raise ValueError(f"{prefix}net_arch must be {form}, not {shown(self.net_arch)}.") from None
        low, start = self.log_std_min, self.log_std_init
        if low is not None and low > start:
            raise ValueError(f"{prefix}log_std_min {low:g} is above {prefix}log_std_init {start:g}.")


@dataclass
class AlgorithmConfig(Section):
    """Recurrent PPO (Schulman et al. 2017), with Stable-Baselines3's names.

    A schedule `[1e-3, 0]` goes linearly from the first number to the last, which may be 0, over the training; in Python
    it may also be a function of the remaining progress.
    """

    learning_rate: PositiveSchedule = setting(1e-3, "Adam's step size.")
    _: KW_ONLY  # as in SB3, the first argument after policy and env may be positional
    n_steps: PositiveInt = setting(128, "Steps of each copy between two updates; no gradient reaches back beyond them.")
    batch_size: PositiveInt = setting(256, "Approximate steps of a minibatch, which is made of whole sequences.")
    n_epochs: PositiveInt = setting(10, "Passes over the rollout at each update.")
    gamma: Fraction = setting(0.99, "Discount factor.")
    gae_lambda: Fraction = setting(0.98, "λ of the generalised advantage estimate.")
    clip_range: PositiveSchedule = setting(0.2, "PPO's clipping of the probability ratio.")
    clip_range_vf: PositiveSchedule | None = setting(None, "Clipping of the value's change (null: none).")
    ent_coef: NonNegativeSchedule = setting(0.01, "Weight of the entropy bonus.")
    vf_coef: NonNegative = setting(0.5, "Weight of the value loss.")
    max_grad_norm: Positive = setting(0.5, "Norm to which the gradient is clipped.")
    normalize_advantage: bool = setting(True, "Standardise the advantages of each minibatch of more than one step.")
    popart: bool = setting(
        True, "PopArt (van Hasselt et al. 2016): the critic learns values in units of the spread of the returns."
    )
    target_kl: Positive | None = setting(None, "End an update early beyond 1.5 times this divergence (null: never).")
    bptt_length: PositiveInt | None = setting(
        None, "Longest sequence, in steps; no gradient crosses a cut (null: no cut)."
    )
    burn_in: NonNegativeInt = setting(0, "Steps before a sequence to rerun without gradient, for its first state.")
    refresh_states: bool = setting(
        False, "Recompute the first states of sequences before each epoch but the first, and after the last."
    )
    use_sde: bool = setting(
        False, "For continuous actions, generalised state-dependent exploration (Raffin et al. 2021): smooth noise."
    )
    sde_sample_freq: Interval = setting(
        0, "With use_sde, steps between two draws of the noise's matrix (0 or -1: one for each rollout)."
    )
    certified_coef: NonNegativeSchedule = setting(
        0.0, "Weight of the certified loss, which asks that no distractors change the answer (BRC and nBRC; 0: off)."
    )

    def check(self, prefix: str = "") -> None:
        """Check that the burn-in is no longer than a sequence."""
        longest = min(self.bptt_length or self.n_steps, self.n_steps)
        if self.burn_in > longest:
            raise ValueError(f"{prefix}burn_in {self.burn_in} is more than the longest sequence, {longest} steps.")


@dataclass
class EvaluationConfig(Section):
    """Evaluation during training, on its own copies of the environment, with deterministic actions."""

    every: PositiveInt = setting(100_000, "Environment steps between two evaluations; the last is at the end.")
    episodes: PositiveInt = setting(100, "Episodes of each evaluation.")
    horizons: list[PositiveInt] = setting(
        list, "Further values of the horizon argument to evaluate at, also with sampled actions, e.g. `[500, 5000]`."
    )
    streams: list[StreamName] = setting(
        list, "Kinds of streams of distractors to evaluate with, at each of the horizons, e.g. `[uniform, constant]`."
    )
    horizons_every: PositiveInt | None = setting(
        None, "Environment steps between evaluations at the horizons and with the streams (null: `every`)."
    )
    max_episode_steps: PositiveInt | None = setting(
        None, "Steps within which an episode must end (null: 100,000, or the horizon of our environment if longer)."
    )


@dataclass
class CheckpointConfig(Section):
    """Checkpoints; the first is at step 0, the last at the end of training."""

    every: PositiveInt = setting(100_000, "Environment steps between two checkpoints.")
    keep: PositiveInt = setting(3, "How many of the latest are kept.")


@dataclass
class WarmupConfig(Section):
    """Warm-up of the recurrent layers before training (Lambrechts et al. 2023), for many reachable attractors."""

    steps: NonNegativeInt = setting(0, "Gradient steps; 0 leaves the layers as they are initialised.")
    learning_rate: Positive = setting(1e-2, "Adam's step size.")


NAME = meaning("Name of the folder of its runs, in the output folder.")
SEED = "Seeds every source of randomness."
DEVICE = "Device of the network."


@dataclass
class Experiment(Section):
    """One training of an agent."""

    name: str = field(metadata=NAME)
    env: EnvConfig
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    total_steps: PositiveInt = setting(1_000_000, "Environment steps of all copies; the last update is completed.")
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    seed: Seed = setting(0, SEED)
    device: Device = setting("auto", DEVICE)
    callbacks: list[NamedPart] = setting(
        list, "Callbacks of Stable-Baselines3's kind, each `package:Name` or `{name: ..., kwargs: {...}}`."
    )
    loggers: list[NamedPart] = setting(
        list,
        "Loggers beside metrics.csv and TensorBoard: `csv`, `json`, `wandb` or `package:Name`, given as callbacks are.",
    )

    COMMAND: ClassVar[str] = "train"

    @property
    def cell(self) -> str:
        """The recurrent cell."""
        cell = self.policy.cell
        return cell if isinstance(cell, str) else cell.__name__

    def check(self, prefix: str = "") -> None:
        """Check that the name can name a folder, and that a minibatch is no larger than a rollout."""
        check_folder_name(f"{prefix}name", self.name)
        batch_size, n_steps, num_envs = self.algorithm.batch_size, self.algorithm.n_steps, self.env.num_envs
        if batch_size > n_steps * num_envs:
            raise ValueError(
                f"{prefix}algorithm.batch_size {batch_size} is more than the {n_steps * num_envs} steps of an update "
                f"({prefix}algorithm.n_steps {n_steps} x {prefix}env.num_envs {num_envs})."
            )


# --- a supervised training ---------------------------------------------------------------------------------


@dataclass
class TaskConfig(Section):
    """The task."""

    name: str = field(metadata=meaning("A task (see `bistable-rl list tasks`)."))
    kwargs: dict[str, Any] = setting(dict, "Its arguments, e.g. `{length: 300}`.")


@dataclass
class NetworkConfig(Section):
    """The network: recurrent layers and a linear head on the last of them."""

    cell: str = setting("nbrc", "The recurrent cell (see `bistable-rl list cells`) or `package:Name`.")
    hidden_size: PositiveInt = setting(128, "Units of each recurrent layer.")
    num_layers: PositiveInt = setting(2, "Recurrent layers.")
    cell_kwargs: dict[str, Any] = setting(dict, "Options of the cell, e.g. `{init: keras}`.")


@dataclass
class TrainingConfig(Section):
    """Training with Adam."""

    learning_rate: Positive = setting(1e-3, "Adam's step size.")
    adam_epsilon: Positive | None = setting(
        None, "Adam's ε, added to the root of the mean squared gradient (null: torch's 1e-8)."
    )
    batch_size: PositiveInt = setting(100, "Samples per update.")
    epochs: PositiveInt = setting(50, "Passes over the training set.")
    max_grad_norm: Positive | None = setting(None, "Norm to which the gradient is clipped (null: no clipping).")
    warmup_steps: NonNegativeInt = setting(0, "Updates over which the step size grows linearly to `learning_rate`.")
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "constant", "The step size after the warm-up: `linear` and `cosine` fall to 0 along a line or half a cosine."
    )
    mixed_precision: bool = setting(False, "Compute in bfloat16 where it is safe; the weights stay float32.")
    validation_size: NonNegativeInt = setting(0, "Samples held out of the training set, evaluated after every epoch.")
    patience: PositiveInt | None = setting(
        None, "Epochs without a smaller validation loss before a stop (null: never)."
    )
    target_loss: Positive | None = setting(None, "Stop after the first update with a loss below this (null: never).")


@dataclass
class BenchmarkCheckpointConfig(Section):
    """Checkpoints; the last is at the end of training."""

    every: PositiveInt = setting(500, "Updates between two checkpoints.")
    keep: PositiveInt = setting(2, "How many of the latest are kept.")


@dataclass
class Benchmark(Section):
    """One supervised training."""

    name: str = field(metadata=NAME)
    task: TaskConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: Literal["fixed", "fresh"] = setting("fixed", "`fixed`: one training set; `fresh`: new samples every epoch.")
    protocol: Literal["paper", "authors_code"] = setting(
        "paper", "Whose data and order: those of the paper's text or of its authors' code."
    )
    checkpoint: BenchmarkCheckpointConfig = field(default_factory=BenchmarkCheckpointConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    seed: Seed = setting(0, SEED)
    device: Device = setting("auto", DEVICE)

    COMMAND: ClassVar[str] = "benchmark"

    @property
    def cell(self) -> str:
        """The recurrent cell."""
        return self.network.cell

    def check(self, prefix: str = "") -> None:
        """Check that the name can name a folder, and that a validation set fits patience and data."""
        check_folder_name(f"{prefix}name", self.name)
        held_out = f"{prefix}training.validation_size"
        if self.training.patience is not None and not self.training.validation_size:
            raise ValueError(f"{prefix}training.patience needs {held_out} above 0, to know when to stop.")
        if self.training.validation_size and self.data == "fresh":
            raise ValueError(f"{held_out} must be 0 with fresh data: every batch is new to the network.")


def check_folder_name(what: str, name: str) -> None:
    """Check that a name can be a folder name.

    Raises:
        ValueError: If it cannot; the message starts with `what`.
    """
    if not re.fullmatch(r"[\w.+-]+", name) or name in (".", ".."):
        raise ValueError(f"{what} must be made of letters, digits and ._+- since it names a folder, not {shown(name)}.")
    size = len(name.encode())
    if size > NAME_BYTES:
        raise ValueError(f"{what} must have at most {NAME_BYTES} bytes since it names a folder, not {size}.")


# --- reading -----------------------------------------------------------------------------------------------

CONFIG_KINDS: dict[str, type[Experiment] | type[Benchmark]] = {"env": Experiment, "task": Benchmark}
"""The kind of training, by the section that only its config file has."""

COMPARE, TUNE = "compare", "tune"

T = TypeVar("T", Experiment, Benchmark)


def load_config(kind: type[T], path: Path, overrides: Overrides = ()) -> T:
    """Read a training from a YAML file, with overrides such as `--seed`, `1`.

    Raises:
        UserError: If anything is wrong; one sentence names the file and the first wrong key.
    """
    data = read_yaml(path)
    check_command(data, path, kind.COMMAND)
    return build(kind, data, str(path), overrides)


def kind_of(data: dict[str, Any], source: str, prefix: str = "") -> type[Experiment] | type[Benchmark]:
    """Return the kind of training that a config describes.

    Raises:
        UserError: If it describes neither kind or both; the message starts with `source`.
    """
    found = [kind for section, kind in CONFIG_KINDS.items() if section in data]
    if len(found) != 1:
        sections = f"either {prefix}env, for an agent's training, or {prefix}task, for a supervised one"
        raise UserError(f"{source} must hold {sections}; it holds {'both' if found else 'neither'}.")
    return found[0]


def check_command(data: dict[str, Any], path: Path, command: str) -> None:
    """Check that a file's keys are not those of another command's config.

    Raises:
        UserError: If they are; the message names that command.
    """
    owners = [kind.COMMAND for section, kind in CONFIG_KINDS.items() if section in data]
    owners += [TUNE if "space" in data else COMPARE] * ("base" in data)
    if len(owners) == 1 and owners[0] != command:
        raise UserError(f"{path} is not a config for `bistable-rl {command}`; run `bistable-rl {owners[0]}` on it.")
