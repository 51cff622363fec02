"""Every way a configuration can be wrong ends in one sentence that names the file and the key."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from new_run import new_run

from bistable_rl.errors import UserError
from bistable_rl.runs.config import find_config, shipped_configs, to_yaml
from bistable_rl.runs.devices import check_torch_device, resolve_device
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment, load_config

MINIMAL = "name: x\nenv: {id: bistable_rl/TMaze-v0}\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "experiment.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(Experiment, path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("name: [", "line 1"),
        ("- a\n- b", "must hold keys"),
        (b"\x00\x01\x02", "not valid YAML"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"name: x\nseed: 1 # \xe9\n", "not a text file in UTF-8 (byte 0xe9 in line 2)"),
        ("name: x\nenv: {id: a\0}\n", "line 2 is not valid YAML here: the character U+0000 is not allowed"),
        ("name: x\r\n\r\ndevice: \x07\r\n", "line 3 is not valid YAML here: the character U+0007"),
        ("name: x\nenv:\n\tid: y\n", "line 3"),
        ("# " + "x" * 2**20, "is larger than 1,048,576 bytes"),
        (MINIMAL.replace("name: x", "name: " + "é" * 128), "name must have at most 255 bytes since it names a folder"),
        (MINIMAL + "device: cuda:128", "device must be cuda:N with N from 0 to 127"),
        (MINIMAL + "device: cuda:256", "device must be cuda:N with N from 0 to 127"),
        (MINIMAL + "device: cuda:" + "9" * 5000, "device must be cuda:N with N from 0 to 127"),
        (MINIMAL + "device: cuda:01", "device must be auto, cpu, cuda or cuda:N"),
        (MINIMAL + "device: CUDA", "device must be auto, cpu, cuda or cuda:N"),
        ("name: x\nname: y\n", "second time in line 2"),
        ("1: 2", "not text"),
        ("name: !!python/object/apply:os.system ['true']", "tag"),
        ("name: !thing x", "tag"),
        ("name: !!str x", "tag"),
        ("name: !!int abc", "tag"),
        ("name: &a x\nenv: {id: *a}", "alias is not allowed"),
        ("name: x\nenv: &a [*a]", "alias is not allowed"),
        ("name: [" + "[" * 5000, "nested too deeply"),
        ("name: " + "9" * 5000, "digits"),
        (MINIMAL + "seed: '3'", "seed must be an integer from 0"),
        (MINIMAL + "policy: {net_arch: ['64']}", "a list of integers above 0"),
        ("env: {id: x}", "key name is missing"),
        ("name: x", "key env is missing"),
        ("name: x\nenv: {}", "key env.id is missing"),
        ("name: x\nenv: CopyFirst", "env must be a mapping of id"),
        ("name: x\nenv: {id: 3}", "env.id must be text, not 3"),
        (MINIMAL + "polcy: {}", "unknown key 'polcy'; did you mean 'policy'?"),
        (MINIMAL + "COMMAND: x", "unknown key 'COMMAND'; the choices are algorithm, "),
        (MINIMAL + "policy: {sell: gru}", "did you mean 'policy.cell'?"),
        (MINIMAL + "policy: {hidden_size: 0}", "policy.hidden_size must be an integer above 0, not 0"),
        (MINIMAL + "policy: {hidden_size: -4}", "above 0, not -4"),
        (MINIMAL + "policy: {hidden_size: 6.5}", "an integer above 0, not 6.5"),
        (MINIMAL + "policy: {hidden_size: many}", 'not "many"'),
        (MINIMAL + "policy: {critic: both}", "one of separate, shared, feedforward"),
        (MINIMAL + "policy: {net_arch: 64}", "a list of integers above 0"),
        (MINIMAL + "policy: {net_arch: [64, 0]}", "a list of integers above 0"),
        (MINIMAL + "policy: {cell_kwargs: 3}", "policy.cell_kwargs must be a mapping"),
        (MINIMAL + "algorithm: {learning_rate: .nan}", "algorithm.learning_rate must be a finite number above 0"),
        (MINIMAL + "algorithm: {learning_rate: .inf}", "algorithm.learning_rate must be a finite number above 0"),
        (MINIMAL + "algorithm: {learning_rate: 0}", "learning_rate must be a finite number above 0 or a schedule"),
        (MINIMAL + "algorithm: {learning_rate: [1e-3]}", "two such numbers, of which the last may be 0, not [0.001]"),
        (MINIMAL + "algorithm: {learning_rate: [0, 1e-3]}", "of which the last may be 0, not [0, 0.001]"),
        (MINIMAL + "algorithm: {clip_range: [0.2, -0.1]}", "of which the last may be 0, not [0.2, -0.1]"),
        (MINIMAL + "algorithm: {clip_range: 0}", "clip_range must be a finite number above 0 or a schedule"),
        (MINIMAL + "algorithm: {ent_coef: [0.1]}", "a schedule [first, last] of two such numbers, not [0.1]"),
        (MINIMAL + "algorithm: {gamma: 1.01}", "algorithm.gamma must be a number from 0 to 1"),
        (MINIMAL + "algorithm: {target_kl: -1}", "a finite number above 0 or null"),
        (MINIMAL + "algorithm: {normalize_advantage: maybe}", "true or false"),
        (MINIMAL + "algorithm: {batch_size: 100000}", "more than the 1024 steps of an update"),
        (MINIMAL + "algorithm: {burn_in: 9, bptt_length: 8}", "burn_in 9 is more than the longest sequence, 8 steps"),
        (MINIMAL + "policy: {log_std_min: 0.5}", "policy.log_std_min 0.5 is above policy.log_std_init 0"),
        (MINIMAL + "algorithm:", "algorithm must be a mapping"),
        (MINIMAL + "total_steps: 0", "total_steps must be an integer above 0"),
        (MINIMAL + "seed: -1", "seed must be an integer from 0 to 4294967295, not -1"),
        (MINIMAL + "seed: null", "seed must be an integer from 0 to 4294967295, not null"),
        (MINIMAL + "device: tpu", "device must be auto, cpu, cuda or cuda:N"),
        (MINIMAL + "evaluation: {episodes: 0}", "evaluation.episodes must be an integer above 0"),
        (MINIMAL + "checkpoint: {keep: 0}", "checkpoint.keep must be an integer above 0"),
        (MINIMAL.replace("name: x", "name: ../x"), "since it names a folder"),
        (
            MINIMAL.replace("v0}", "v0, wrappers: [{nme: a}]}"),
            "env.wrappers[0] must be a name or {name: ..., kwargs: {...}}, not",
        ),
        (
            MINIMAL.replace("v0}", "v0, wrappers: [a, {nme: b}]}"),
            "env.wrappers[1] must be a name or {name: ..., kwargs: ",
        ),
        (
            MINIMAL.replace("v0}", "v0, wrappers: [a, 3]}"),
            "env.wrappers[1] must be a name or {name: ..., kwargs: {...}}, not 3",
        ),
        (
            MINIMAL.replace("v0}", "v0, wrappers: a}"),
            "env.wrappers must be a list of names, or of {name: ..., kwargs: ",
        ),
        (MINIMAL + "evaluation: {horizons: [5, 0]}", "evaluation.horizons[1] must be an integer above 0, not 0"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = write(tmp_path, text)
    message = refusal(path)
    assert expected in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--policy.sell", "gru"], "unknown option '--policy.sell'; did you mean '--policy.cell'?"),
        (["--sed", "1"], "did you mean '--seed'?"),
        (["--seed"], "--seed needs a value"),
        (["--seed", "one"], 'command line: seed must be an integer from 0 to 4294967295, not "one"'),
        (["--seed=-1"], "from 0 to 4294967295"),
        (["--seed=4294967296"], "from 0 to 4294967295"),
        (["--env.kwargs", "{length: 5, length: 6}"], "second time"),
        (["--env.kwargs.a", "!!binary aGk="], "tag"),
        (["--device", "cuda:00"], "device must be"),
        (["--policy.cell_kwargs", "{a: [1"], "command line: --policy.cell_kwargs, line 1, column 7 is not valid YAML"),
        (["--env.kwargs.length", "%"], "command line: --env.kwargs.length, line 1, column 2 is not valid YAML"),
        (["--env.kwargs.length", "\x00"], "command line: --env.kwargs.length, line 1 is not valid YAML"),
        (["--seed.x", "1"], "--seed has no keys below it"),
        (["--policy", "{cell: gru}"], "--policy is a section"),
        (["--algorithm.gamma", "2"], "a number from 0 to 1"),
        (["--env.kwargs", "3"], "env.kwargs must be a mapping"),
        (["gru"], "belongs to no option"),
    ],
)
def test_a_wrong_override_is_refused_in_one_sentence(tmp_path: Path, overrides: list[str], expected: str) -> None:
    message = refusal(write(tmp_path, MINIMAL), *overrides)
    assert expected in message
    assert "command line" in message


def test_a_file_that_is_not_there_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'rl/t_maze'") as caught:
        find_config("rl/tmaze")
    assert "rl/t_maze_50" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("nothere.yaml", "'nothere.yaml'; `bistable-rl list configs` names the shipped ones."),
        ("no\0thing/x.yml", "names the shipped ones."),
        ("recal.yaml", "'recal.yaml'; did you mean recall.yaml?"),
        ("sub/recall.yml", "'sub/recall.yml'; did you mean sub/recall.yaml?"),
        ("tmaze.yaml", "'tmaze.yaml'; did you mean rl/t_maze?"),
    ],
)
def test_a_path_that_is_not_there_names_near_files_only(
    name: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for file in ("recall.yaml", "sub/recall.yaml"):
        (tmp_path / file).write_text(MINIMAL)
    with pytest.raises(UserError) as caught:
        find_config(name)
    assert str(caught.value).startswith("there is no file ")
    assert str(caught.value).endswith(ending)


def test_a_wrapper_that_is_only_a_name_is_stored_as_a_mapping(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace("v0}", "v0, wrappers: [a, {name: b}, {name: 'c:D', kwargs: {n: 1}}]}"))
    stored = [{"name": "a"}, {"name": "b"}, {"name": "c:D", "kwargs": {"n": 1}}]
    assert load_config(Experiment, path).env.wrappers == stored
    assert load_config(Experiment, path, ["--env.wrappers", "['c:D']"]).env.wrappers == [{"name": "c:D"}]


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_overrides_win_and_reach_into_mappings(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace("v0}", "v0, kwargs: {length: 5, stochasticity: 0.1}}"))
    experiment = load_config(
        Experiment, path, ["--env.kwargs.length", "7", "--seed=3", "--algorithm.learning_rate", "1e-4"]
    )
    assert experiment.env.kwargs == {"length": 7, "stochasticity": 0.1}
    assert (experiment.seed, experiment.algorithm.learning_rate) == (3, 1e-4)


def test_overrides_are_laid_in_their_order(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    given = ["--env.kwargs.a", "1", "--env.kwargs", "{b: 2}", "--env.kwargs.a", "3", "--seed", "1", "--seed", "2"]
    experiment = load_config(Experiment, path, given)
    assert experiment.env.kwargs == {"b": 2, "a": 3}
    assert experiment.seed == 2


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_config(Experiment, path).name == "x"


def test_a_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(MINIMAL,))
    writer.start()
    assert load_config(Experiment, path).name == "x"
    writer.join()


def test_a_comparison_is_sent_to_its_command(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nbase: rl/t_maze\nseeds: [0]\n")
    assert "run `bistable-rl compare` on it" in refusal(path)


def test_a_device_that_torch_would_take_for_another_is_refused() -> None:
    for name in ("cuda:256", "cuda:999", "cuda:01", "CUDA", "cuda:-1", "mps", "meta"):
        with pytest.raises(UserError, match="device must be"):
            resolve_device(name)
    for name in ("cuda:256", "cuda:01", "CUDA"):
        with pytest.raises(UserError, match="device must be"):
            check_torch_device(name)
    with pytest.raises(ValueError, match="meta holds no numbers"):
        check_torch_device("meta")
    for name in ("xpu", "mps:7", "banana", *([] if torch.backends.mps.is_available() else ["mps"])):
        with pytest.raises(UserError, match=f"^device: {name} is not available .*; choose cpu or auto"):
            check_torch_device(name)
    assert check_torch_device("cpu") == "cpu"
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda is not available"):
            check_torch_device("cuda")


def test_what_an_environment_is_given_keeps_its_type(tmp_path: Path) -> None:
    values = '{a: "1", b: "no", c: 1, d: 2001-01-01, e: {f: "[1]", g: 2}}'
    path = write(tmp_path, MINIMAL.replace("v0}", f"v0, kwargs: {values}}}"))
    expected = {"a": "1", "b": "no", "c": 1, "d": "2001-01-01", "e": {"f": "[1]", "g": 2}}
    assert load_config(Experiment, path).env.kwargs == expected
    deeper = load_config(Experiment, path, ["--env.kwargs.e.g", "3", "--env.kwargs.e.h", "true"]).env.kwargs
    assert deeper == {**expected, "e": {"f": "[1]", "g": 3, "h": True}}


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    path = write(tmp_path, MINIMAL)
    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read everything
    assert "cannot be read (Permission denied)" in refusal(path)


def test_a_name_too_long_for_a_file_is_one_sentence() -> None:
    with pytest.raises(UserError, match="no file"):
        find_config("x" * 5000)


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "algorithm: {learning_rate: 2e-3, vf_coef: 1.5E0}\n")
    algorithm = load_config(Experiment, path).algorithm
    assert (algorithm.learning_rate, algorithm.vf_coef) == (2e-3, 1.5)


def test_the_resolved_config_is_complete_and_reads_back_the_same(tmp_path: Path) -> None:
    experiment = load_config(Experiment, write(tmp_path, MINIMAL))
    text = to_yaml(experiment)
    assert "clip_range: 0.2" in text
    assert load_config(Experiment, write(tmp_path, text)) == experiment


@pytest.mark.parametrize("name", [name for name in shipped_configs() if not name.startswith(("compare/", "tune/"))])
def test_every_shipped_config_is_valid_and_says_what_it_is(name: str) -> None:
    path = find_config(name)
    if name.startswith("supervised/"):
        load_config(Benchmark, path)
    else:
        load_config(Experiment, path)
    assert path.read_text().startswith("# "), "the first line tells `bistable-rl list configs` what it is"
    assert yaml.safe_load(path.read_text())["name"]


BENCHMARK = "name: x\ntask: {name: copy_first, kwargs: {length: 5}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x", "the key task is missing"),
        (BENCHMARK + "env: {id: x}", "unknown key 'env'"),
        (BENCHMARK + "network: {sell: gru}", "did you mean 'network.cell'?"),
        (BENCHMARK + "network: {hidden_size: 0}", "network.hidden_size must be an integer above 0, not 0"),
        (BENCHMARK + "training: {warmup_steps: -1}", "training.warmup_steps must be an integer of at least 0, not -1"),
        (BENCHMARK + "training: {schedule: step}", "one of constant, linear, cosine"),
        (BENCHMARK + "training: {patience: 3}", "training.patience needs training.validation_size"),
        (BENCHMARK + "training: {validation_size: 5}\ndata: fresh", "training.validation_size must be 0 with fresh"),
        (BENCHMARK + "data: stale", "one of fixed, fresh"),
        (BENCHMARK.replace("name: x", "name: a b"), "since it names a folder"),
        (MINIMAL, "is not a config for `bistable-rl benchmark`; run `bistable-rl train` on it"),
    ],
)
def test_a_wrong_benchmark_is_refused_in_one_sentence(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(Benchmark, path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_benchmark_given_to_train_is_sent_to_its_command(tmp_path: Path) -> None:
    assert "run `bistable-rl benchmark` on it" in refusal(write(tmp_path, BENCHMARK))


def test_a_run_of_neither_kind_is_refused_in_one_sentence(tmp_path: Path) -> None:
    run = new_run(load_config(Experiment, write(tmp_path, MINIMAL)), tmp_path / "runs")
    for text, found in (("name: x", "neither"), (MINIMAL + "task: {}", "both")):
        (run / "config.yaml").write_text(text)
        expected = f"config.yaml must hold either env, .* training, or task, for a supervised one; it holds {found}.$"
        with pytest.raises(UserError, match=expected):
            _ = Run.open(run).config


@pytest.mark.parametrize(("text", "kind", "cell"), [(MINIMAL, Experiment, "mixed"), (BENCHMARK, Benchmark, "nbrc")])
def test_a_run_folder_tells_which_kind_it_is(tmp_path: Path, text: str, kind: Any, cell: str) -> None:
    config: Any = load_config(kind, write(tmp_path, text))
    run = new_run(config, tmp_path / "runs")
    assert run == tmp_path / "runs" / "x" / f"{cell}-seed0"
    assert type(Run.open(run).config) is type(config)
    assert Run.open(run).config == config
