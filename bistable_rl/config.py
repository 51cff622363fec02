"""One YAML file is one experiment: its typed form, and how a file and the command line become it.

Imports neither torch nor anything else of ours, so that `bistable-rl --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import json
import math
import os
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, PositiveInt, restricted_number_type

Positive = restricted_number_type("Positive", float, [(">", 0), ("<", math.inf)])
NonNegative = restricted_number_type("NonNegative", float, [(">=", 0), ("<", math.inf)])
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


class UserError(ValueError):
    """What a user did wrong; the message is one sentence: what, where, and what would be right."""


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
        net_arch: Units of the tanh layers between the memory and each of the two heads.
    """

    cell: str = "nbrc"
    hidden_size: PositiveInt = 64
    num_layers: PositiveInt = 1
    cell_kwargs: dict[str, Any] = field(default_factory=dict)
    critic: Literal["separate", "shared", "feedforward"] = "shared"
    net_arch: list[PositiveInt] = field(default_factory=list)


@dataclass
class AlgorithmConfig:
    """Recurrent PPO (Schulman et al. 2017), with Stable-Baselines3's names.

    Args:
        learning_rate: Adam's step size.
        n_steps: Steps of each copy between two updates; cue and answer must fit in for the memory to be learned.
        batch_size: Steps in a minibatch.
        n_epochs: Passes over the collected steps at each update.
        gamma: Discount factor.
        gae_lambda: λ of the generalised advantage estimate.
        clip_range: PPO's clipping of the probability ratio.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss.
        max_grad_norm: The gradient is scaled down to this norm.
        normalize_advantage: Standardise the advantages of each minibatch.
        target_kl: Stop an update early past 1.5 times this divergence (null: never).
    """

    learning_rate: Positive = 1e-3  # type: ignore[valid-type]
    n_steps: PositiveInt = 128
    batch_size: PositiveInt = 256
    n_epochs: PositiveInt = 4
    gamma: ClosedUnitInterval = 0.99
    gae_lambda: ClosedUnitInterval = 0.95
    clip_range: Positive = 0.2  # type: ignore[valid-type]
    ent_coef: NonNegative = 0.0  # type: ignore[valid-type]
    vf_coef: NonNegative = 0.5  # type: ignore[valid-type]
    max_grad_norm: Positive = 0.5  # type: ignore[valid-type]
    normalize_advantage: bool = True
    target_kl: Positive | None = None  # type: ignore[valid-type]


@dataclass
class EvaluationConfig:
    """Evaluation during training, on copies of the environment of its own, acting deterministically.

    Args:
        every: Environment steps between two evaluations; the last one is at the end of training.
        episodes: Episodes of each evaluation.
    """

    every: PositiveInt = 100_000
    episodes: PositiveInt = 100


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
class Experiment:
    """One training run.

    Args:
        name: Names the experiment's folder below the output folder.
        env: The environment.
        policy: The agent's network.
        algorithm: Recurrent PPO.
        total_steps: Environment steps to train for, all copies together; the last update is completed.
        evaluation: Evaluation during training.
        checkpoint: Checkpoints.
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
    seed: Seed = 0  # type: ignore[valid-type]
    device: str = "auto"


# --- choices -----------------------------------------------------------------------------------------------


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """Return the sentence for a name that is none of the choices, with the nearest one first."""
    options = sorted(choices)
    near = difflib.get_close_matches(str(name), options, n=1)
    hint = f"did you mean {near[0]!r}? The" if near else "the"
    return f"unknown {what} {name!r}; {hint} choices are {', '.join(options)}."


def one_sentence(error: Exception) -> str:
    """Return an error's text in one line, with its full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "?")) else text + "."


# --- YAML --------------------------------------------------------------------------------------------------


class _CheckingLoader(yaml.SafeLoader):
    """A SafeLoader for plain data: no tags, no aliases, no key twice, no dates; 1e-3 is a number, as in YAML 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own declaration
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, unless it is tagged or an alias: neither belongs in a config, and aliases can explode."""
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or tag is not None:
            what = "an alias" if tag is None else f"the tag {tag!r}"
            raise yaml.constructor.ConstructorError(None, None, f"{what} is not allowed", event.start_mark)
        return super().compose_node(parent, index)


def _mapping(loader: _CheckingLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            line = key_node.start_mark.line + 1
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} in line {line} is not text", key_node.start_mark
            )
        if key in seen:
            line = key_node.start_mark.line + 1
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given a second time in line {line}", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_CheckingLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_CheckingLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; nothing in the file is executed.

    Raises:
        UserError: The file cannot be read, is empty or broken, holds a tag, a key twice, or no mapping.
    """
    try:
        data = _read_data(path.read_bytes().decode("utf-8"), str(path))
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give a YAML file.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a YAML file.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file; give a YAML file.") from None
    if data is None:
        raise UserError(f"{path} is empty; `bistable-rl list configs` names working ones.")
    if not isinstance(data, dict):
        raise UserError(f"{path} holds {_shown(data)}; it must hold keys such as name, env and policy.")
    return data


def _read_data(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _CheckingLoader)  # a SafeLoader
    except RecursionError:
        raise UserError(f"{source} is nested too deeply for a configuration.") from None
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise UserError(f"{source}{where} is not valid YAML here: {problem}.") from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise UserError(f"{source}: {one_sentence(error)}") from None


def shipped_configs() -> dict[str, Path]:
    """Return the configurations that come with the package, by name (`rl/t_maze`)."""
    root = Path(str(importlib.resources.files("bistable_rl.configs").joinpath("rl"))).parent
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in sorted(root.glob("**/*.yaml"))}


def find_config(name: str) -> Path:
    """Return the file behind a path or a shipped name.

    Raises:
        UserError: There is neither.
    """
    if os.path.exists(name):
        return Path(name)
    shipped = shipped_configs()
    for key in (name, name.removesuffix(".yaml"), name.removesuffix(".yaml").removeprefix("configs/")):
        if key in shipped:
            return shipped[key]
    raise UserError(
        f"there is no file {name!r} and no shipped config of that name: " + unknown("config", name, shipped)
    )


# --- from data to an Experiment ----------------------------------------------------------------------------


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file and lay command-line overrides (`--seed`, `1`) over it.

    Raises:
        UserError: The first thing that is wrong, in one sentence that names the file and the key.
    """
    data = read_yaml(path)
    _check_keys(data, Experiment, str(path))
    return _build(data, str(path), overrides)


def _build(data: dict[str, Any], source: str, overrides: Sequence[str]) -> Experiment:
    """Lay the overrides over the data and make an experiment of it."""
    given = dict(_flags(overrides))
    for key, text in given.items():
        _lay(data, key, text)
    if given:
        _check_keys(data, Experiment, "command line")
    parser = experiment_parser()
    free = _take_free(data)
    try:
        namespace = parser.parse_object(data)
    except Exception as error:  # argparse.ArgumentError, or what its type conversion raised
        found = re.search(r'key "([^"]+)"', str(error))
        if found is None:
            raise UserError(f"{source}: {one_sentence(error)}") from None
        key = found.group(1)
        where, value = ("command line", given[key]) if key in given else (source, _value(data, key))
        raise UserError(f"{where}: {key} must be {_expected(key)}, not {_shown(value)}.") from None
    experiment = _plain(parser.instantiate(namespace))
    for (section, key), value in free.items():
        setattr(getattr(experiment, section), key, value)
    _check_values(experiment, f"{source} with the command line" if given else source)
    return experiment


def _lay(data: dict[str, Any], key: str, text: str) -> None:
    """Set `key`, such as env.kwargs.length, to what `text` says; what lies beside it stays."""
    kind: Any = Experiment
    *parents, last = key.split(".")
    for part in parents:
        kind = typing.get_type_hints(kind)[part] if dataclasses.is_dataclass(kind) else Any
        below = data.setdefault(part, {})
        if not isinstance(below, dict):
            raise UserError(f"command line: --{key} has {_shown(below)} above it, which holds no keys.")
        data = below
    kind = typing.get_type_hints(kind)[last] if dataclasses.is_dataclass(kind) else Any
    data[last] = text if kind is str else _read_data(text, f"command line: --{key}")


def _take_free(data: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Take out what holds arbitrary values, which the parser would convert: "1" is not 1 for an environment."""
    taken: dict[tuple[str, str], Any] = {}
    for section, key in (("env", "kwargs"), ("env", "wrappers"), ("policy", "cell_kwargs")):
        if key in data.get(section, {}):
            data[section] = dict(data[section])
            taken[section, key] = data[section].pop(key)
    return taken


def experiment_parser() -> ArgumentParser:
    """Return the parser of an experiment's keys; it raises instead of leaving the program."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment)
    return parser


def env_config(env_id: str, overrides: Sequence[str]) -> EnvConfig:
    """Return the `env` section for an id, with overrides such as `--env.kwargs.length`, `10`.

    Raises:
        UserError: An override is wrong.
    """
    return _build({"name": "play", "env": {"id": env_id}}, "command line", overrides).env


def experiment_help() -> str:
    """Return every key of an experiment with its meaning, type and default."""
    text = experiment_parser().format_help().partition("One training run:\n")[2]
    return re.sub(r"  --\w+ CONFIG +Path to a configuration file\.\n", "", text)


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as plain JSON values, every default spelled out."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(experiment)))
    return plain


def to_yaml(experiment: Experiment) -> str:
    """Return the experiment as YAML, every default spelled out."""
    return yaml.safe_dump(to_dict(experiment), sort_keys=False, allow_unicode=True)


def _plain(namespace: Namespace) -> Experiment:
    return Experiment(**{f.name: namespace[f.name] for f in dataclasses.fields(Experiment)})


def _flags(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Return (key, value) of `--key value` and `--key=value` tokens."""
    pairs: list[tuple[str, str]] = []
    tokens = iter(overrides)
    for token in tokens:
        if not token.startswith("--"):
            raise UserError(f"command line: {token!r} belongs to no option; options look like --policy.cell gru.")
        key, equals, value = token[2:].partition("=")
        if not equals:
            try:
                value = next(tokens)
            except StopIteration:
                _check_flags([key])
                raise UserError(f"command line: --{key} needs a value.") from None
        _check_flags([key])
        pairs.append((key, value))
    return pairs


def _check_flags(keys: Iterable[str]) -> None:
    for key in keys:
        kind: Any = Experiment
        done: list[str] = []
        for part in key.split("."):
            if not dataclasses.is_dataclass(kind):
                if typing.get_origin(kind) is dict:
                    break  # the keys below belong to the environment or the cell
                raise UserError(f"command line: --{'.'.join(done)} has no keys below it.")
            hints = typing.get_type_hints(kind)
            if part not in hints:
                full = [".".join([*done, name]) for name in hints]
                raise UserError("command line: " + unknown("option", f"--{key}", [f"--{name}" for name in full]))
            done.append(part)
            kind = hints[part]
        if dataclasses.is_dataclass(kind):
            names = ", ".join(f"--{key}.{f.name}" for f in dataclasses.fields(kind))
            raise UserError(f"command line: --{key} is a section; set its keys: {names}.")


def _check_keys(data: Mapping[str, Any], kind: Any, source: str, prefix: str = "") -> None:
    hints = typing.get_type_hints(kind)
    for key, value in data.items():
        if key not in hints:
            raise UserError(f"{source}: " + unknown("key", prefix + key, [prefix + name for name in hints]))
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {prefix}{key} must be {_phrase(hints[key])}, not {_shown(value)}.")
            _check_keys(value, hints[key], source, f"{prefix}{key}.")
        elif not _is_possible(value, hints[key]):
            raise UserError(f"{source}: {prefix}{key} must be {_phrase(hints[key])}, not {_shown(value)}.")
    for spec in dataclasses.fields(kind):
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and data.get(spec.name) is None:
            raise UserError(f"{source}: the key {prefix}{spec.name} is missing.")


def _is_possible(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind that the parser need not guess: it would read the text "8" as a number."""
    origin = typing.get_origin(kind)
    if value is None:
        return type(None) in typing.get_args(kind)
    if origin is dict:
        return isinstance(value, dict)
    if origin is list:
        wanted = dict if typing.get_origin(typing.get_args(kind)[0]) is dict else int
        return isinstance(value, list) and all(isinstance(item, wanted) for item in value)
    return not isinstance(value, str) or kind is str or origin is Literal


def _value(given: Mapping[str, Any], key: str) -> Any:
    value: Any = given
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _expected(key: str) -> str:
    kind: Any = Experiment
    for part in key.split("."):
        kind = typing.get_type_hints(kind)[part]
    return _phrase(kind)


def _phrase(kind: Any) -> str:
    phrases = {
        PositiveInt: "an integer above 0",
        Seed: "an integer from 0 to 4294967295",
        Positive: "a finite number above 0",
        NonNegative: "a finite number of at least 0",
        ClosedUnitInterval: "a number from 0 to 1",
        bool: "true or false",
        str: "text",
    }
    if kind in phrases:
        return phrases[kind]
    if dataclasses.is_dataclass(kind):
        return "a mapping of " + ", ".join(f.name for f in dataclasses.fields(kind))
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is list:
        return f"a list of {'mappings' if typing.get_origin(args[0]) is dict else 'integers above 0'}"
    if origin is dict:
        return "a mapping"
    return " or ".join("null" if a is type(None) else _phrase(a) for a in args)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_values(experiment: Experiment, source: str) -> None:
    """Check what a type alone cannot: values that are wrong together."""
    if not re.fullmatch(r"[\w.+-]+", experiment.name) or experiment.name in (".", ".."):
        raise UserError(
            f"{source}: name must be made of letters, digits and ._+- since it names a folder, "
            f"not {_shown(experiment.name)}."
        )
    for i, wrapper in enumerate(experiment.env.wrappers):
        extra = sorted(set(wrapper) - {"name", "kwargs"})
        if "name" not in wrapper or extra or not isinstance(wrapper.get("kwargs", {}), dict):
            raise UserError(
                f"{source}: env.wrappers[{i}] must look like {{name: ..., kwargs: {{...}}}}, not {_shown(wrapper)}."
            )
    algorithm, rollout = experiment.algorithm, experiment.algorithm.n_steps * experiment.env.num_envs
    if algorithm.batch_size > rollout:
        raise UserError(
            f"{source}: algorithm.batch_size {algorithm.batch_size} is more than the {rollout} steps of an update "
            f"(algorithm.n_steps {algorithm.n_steps} x env.num_envs {experiment.env.num_envs})."
        )
    if algorithm.normalize_advantage and 1 in (algorithm.batch_size, rollout % algorithm.batch_size):
        raise UserError(
            f"{source}: algorithm.batch_size {algorithm.batch_size} leaves a minibatch of one step out of {rollout}, "
            f"whose advantage cannot be normalised; choose a divisor of {rollout} above 1."
        )
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d{0,2}))?", experiment.device):
        raise UserError(f"{source}: device must be auto, cpu, cuda or cuda:N, not {_shown(experiment.device)}.")
