"""Evaluation by kind of stream of distractors: at the command line, during training, and in comparisons."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import (
    NormalizeObservation,
    RescaleObservation,
    ReshapeObservation,
    TimeAwareObservation,
    TimeLimit,
)

from bistable_rl.agents.agent import load
from bistable_rl.agents.check_experiment import ExperimentCheck
from bistable_rl.agents.horizons import Horizons
from bistable_rl.agents.training import train
from bistable_rl.cli import main
from bistable_rl.compare import ledger
from bistable_rl.compare.comparison import Comparison
from bistable_rl.compare.jobs import Job, config_hash, hashed_keys
from bistable_rl.compare.ledger import Row
from bistable_rl.compare.report import write_report
from bistable_rl.envs import make_env
from bistable_rl.envs.streams import KINDS
from bistable_rl.errors import UserError
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig, Experiment

COPY_FIRST = EnvConfig("bistable_rl/CopyFirst-v0", {"length": [5, 30], "num_symbols": 4})
SINGLE = [kind for kind in KINDS if kind != "mixture"]


class Wearies:
    """Names the first symbol, unless it has seen the same one eight times in a row: then symbol 0.

    Its state is the first symbol, the last one, and for how long that has been shown, (n, 3).
    """

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        symbol, one = observation[:, :-2].argmax(1), np.ones(len(observation), int)
        first = np.stack([symbol, symbol, one], 1)
        if state is None:
            return symbol, first
        run = np.where(state[:, 2] >= 8, state[:, 2], np.where(symbol == state[:, 1], state[:, 2] + 1, 1))
        state = np.where(episode_start[:, None], first, np.stack([state[:, 0], symbol, run], 1))
        return np.where(state[:, 2] < 8, state[:, 0], 0), state


def test_an_agent_that_fails_on_one_kind_of_stream_fails_there_and_only_there() -> None:
    rows = Horizons(COPY_FIRST, [20, 40], 200, seed=0, streams=["uniform", "constant"]).evaluate(Wearies())
    where = [(20, "uniform"), (20, "constant"), (40, "uniform"), (40, "constant")]
    assert [(row["horizon"], row["stream"]) for row in rows] == where
    assert [row["length"] for row in rows] == [20, 20, 40, 40]
    assert [row["success"] > 0.97 for row in rows] == [True, False, True, False]
    assert all(abs(row["success"] - 0.25) < 0.1 for row in rows[1::2])
    assert all("stream" not in row["sampled"] for row in rows)


def test_without_horizons_the_longest_of_the_training_is_played() -> None:
    assert [point.horizon for point in Horizons(COPY_FIRST, [], 2, seed=0, streams=["sticky"]).envs] == [30]
    assert not Horizons(COPY_FIRST, [], 2, seed=0).envs


def test_a_kind_that_is_named_twice_is_played_once() -> None:
    assert len(Horizons(COPY_FIRST, [5, 5], 2, seed=0, streams=["sticky", "sticky"]).envs) == 1


@pytest.mark.parametrize("name", ["CopyFirstContinuous", "Denoising", "DenoisingDiscrete", "MemoryLength", "TMaze"])
def test_every_environment_with_distractors_can_be_asked_with_every_kind(name: str) -> None:
    config = EnvConfig(f"bistable_rl/{name}-v0", {"distractors": "uniform"})
    shown = {point.stream: env for point, env in Horizons(config, [12], 2, seed=0, streams=list(KINDS)).envs.items()}
    assert {kind: env.get_attr("stream")[0].kind for kind, env in shown.items()} == {kind: kind for kind in KINDS}


def test_the_command_names_the_worst_kind(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    file, figure = tmp_path / "streams.json", tmp_path / "streams.png"
    options = ["--episodes", "8", "--json", str(file), "--figure", str(figure)]
    assert main(["evaluate", str(trained), "--streams", "all", "--horizons", "5,5000", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[1:])
    rows = json.loads(file.read_text())["horizons"]
    assert [(row["horizon"], row["stream"]) for row in rows] == [(h, kind) for h in (5, 5000) for kind in SINGLE]
    for k, horizon in enumerate(("5", "5,000")):
        table = [line.split() for line in lines[3 + 14 * k : 17 + 14 * k]]
        assert table[0][:3] == [horizon, "uniform", "likely"]
        at = rows[5 * k : 5 * k + 5]
        assert table[10][:3] == ["mean", "likely", f"{np.mean([row['success'] for row in at]):.3f}"]
        for line, actions, ways in ((12, "likely", at), (13, "sampled", [row["sampled"] for row in at])):
            success = [way["success"] for way in ways]
            which = "all equal" if len(set(success)) == 1 else SINGLE[int(np.argmin(success))]
            assert " ".join(table[line]).startswith(f"worst: {which} {actions} {min(success):.3f} ")
    with Image.open(figure) as image:
        assert image.size[0] > 900


def test_one_kind_has_neither_mean_nor_worst(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--streams", "mixture", "--episodes", "2"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:3] for line in out.splitlines()[3:4]] == [["5", "mixture", "likely"]]
    assert "worst" not in out


def test_the_help_says_what_each_kind_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"{kind:<9} {text}" in out for kind, text in KINDS.items())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--streams", "constent"], "unknown kind of stream 'constent'; did you mean 'constant'?"),
        (["--streams", "constant,"], "unknown kind of stream ''"),
        (["--streams"], "expected one argument"),
        (["--streams", "all", "--env.kwargs.distractors", "sticky"], "--streams sets env.kwargs.distractors already"),
        (["--streams", "all", "--horizons", "5", "--env.kwargs.length", "5"], "--horizons sets env.kwargs.length"),
        (["--streams", "all", "--max-episode-steps", "5"], "leave out --max-episode-steps with --streams"),
        (["--streams", "all", "--env.id", "CartPole-v1", "--env.kwargs", "{}"], "CartPole-v1 has no argument distract"),
        (
            ["--streams", "all", "--env.id", "bistable_rl/RepeatPrevious-v0", "--env.kwargs", "{}"],
            "streams: bistable_rl/RepeatPrevious-v0 has no argument distractors; the environments that have it are",
        ),
        (
            ["--streams", "all", "--env.id", "bistable_rl/TMaze-v0", "--env.kwargs", "{}"],
            "here it is null; train an agent with distractors first.",
        ),
    ],
)
def test_a_wrong_stream_is_one_sentence(
    options: list[str], expected: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained), *options]) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.count("\n") == 1
    assert out == ""


WRAPPED: dict[str, tuple[Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]], tuple[int, ...]]] = {
    "Reshape": (lambda env: ReshapeObservation(env, (2, 2)), (2, 2)),
    "Rescale": (lambda env: RescaleObservation(env, np.float32(-3), np.float32(3)), (4,)),
    "Normalize": (NormalizeObservation, (4,)),
    "TimeAware": (lambda env: TimeAwareObservation(TimeLimit(env, 9)), (5,)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_an_agent_in_a_wrapper_of_gymnasium_plays_but_is_not_asked_with_streams(
    name: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wrapper may show what it likes, so neither a kind of stream nor an adversary says what the agent sees."""
    wrap, shape = WRAPPED[name]
    inner = {"length": 5, "num_symbols": 2, "distractors": "sticky"}
    spec = EnvSpec(f"{name}-v0", lambda **_: wrap(make_env("bistable_rl/CopyFirst-v0", kwargs=inner)))
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    options = ["--env.id", f"{name}-v0", "--env.kwargs", "{}", "--total_steps", "80"]
    assert main(["train", str(config), "--out", str(config.parent), *options]) == 0
    run = config.parent / "small" / "nbrc-seed0"
    assert load(run).policy.observation_space.shape == shape
    assert main(["evaluate", str(run), "--episodes", "3"]) == 0
    assert "length 5.0, over 3 episodes" in capsys.readouterr().out
    for option, expected in (
        (["--streams", "all"], f"streams: {name}-v0 has no argument distractors; the environments that have it are"),
        (
            ["--horizons", "5,9"],
            "horizons: which argument sets the horizon is known for our environments only, not for ",
        ),
        (["--adversary"], f"adversary: {name}-v0 does not declare which observations it can show; those that do are"),
    ):
        assert main(["evaluate", str(run), *option]) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"bistable-rl: {expected}")
        assert (err.count("\n"), out) == (1, "")


def test_streams_in_a_config_change_nothing_but_what_is_reported(experiment: Experiment, tmp_path: Path) -> None:
    plain = train(experiment, tmp_path / "plain")
    experiment.evaluation.streams = ["uniform", "constant"]
    asked = train(experiment, tmp_path / "asked")
    weights = [
        safetensors.torch.load_file(Run(run).checkpoints.latest() / "weights.safetensors") for run in (plain, asked)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    rows = json.loads((asked / "result.json").read_text())["horizons"]
    assert [(row["horizon"], row["stream"]) for row in rows] == [(5, "uniform"), (5, "constant")]
    with (asked / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert float(metrics[-1]["horizon_5_constant/success"]) == pytest.approx(rows[1]["success"])
    assert metrics[-1]["horizon_5_uniform/sampled_normalized_score"]

    row = ledger.row_of_job(Job("small", experiment, asked))
    assert row is not None
    assert row.final["success@5/constant"] == rows[1]["success"]
    assert not any(name.endswith("@5") for name in row.final)
    ledger.write(tmp_path, [row])
    (again,) = ledger.read(tmp_path)
    assert again.final == {name: pytest.approx(value, rel=1e-5) for name, value in row.final.items()}


def test_the_hash_of_a_config_without_streams_is_what_it_was(experiment: Experiment) -> None:
    assert "evaluation.streams" not in hashed_keys(experiment)
    asked = replace(experiment, evaluation=replace(experiment.evaluation, streams=["constant"]))
    assert config_hash(asked) != config_hash(experiment)


@pytest.mark.parametrize(
    ("env", "streams", "expected"),
    [
        (EnvConfig("CartPole-v1"), ["constant"], "CartPole-v1 has no argument distractors"),
        (EnvConfig("bistable_rl/MemoryLength-v0"), ["constant"], "env.kwargs.distractors is a kind of stream"),
        (COPY_FIRST, ["noise"], "unknown kind of stream 'noise'"),
    ],
)
def test_streams_that_cannot_be_asked_are_refused_before_a_training(
    env: EnvConfig, streams: list[str], expected: str, experiment: Experiment, tmp_path: Path
) -> None:
    experiment.env = env
    experiment.evaluation.streams = streams
    with pytest.raises(UserError, match=expected):
        ExperimentCheck()(experiment)
    with pytest.raises(UserError, match=expected):
        train(experiment, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def row(cell: str, seed: int, successes: dict[str, float]) -> Row:
    facts = {"date": "2026-01-02T00:00:00", "commit": "0123", "hardware": "P", "threads": "1", "cell": cell}
    facts |= {"steps": "100", "seconds": "1", "memory_mb": "1"}
    curve = ({"steps": 100.0, "seconds": 1.0, "success_rate": 1.0},)
    return Row(cell, seed, f"{cell}{seed}", facts, {"policy.cell": cell}, {"success_rate": 1.0, **successes}, curve)


def test_a_report_shows_every_kind_and_names_the_worst(tmp_path: Path) -> None:
    rows = []
    for seed in range(3):
        for cell, worst in (("brc", 0.9), ("gru", 0.1 * seed)):
            names = [f"success@{horizon}/{kind}" for horizon in (50, 5000) for kind in SINGLE]
            rows.append(row(cell, seed, {name: worst if name == "success@5000/blocks" else 1.0 for name in names}))
    comparison = Comparison("streams", [0, 1, 2])
    report, figures = write_report(tmp_path, comparison, rows, {}, unit="environment steps", command="a command")
    text = report.read_text()
    assert "## By kind of stream and horizon, without retraining" in text
    assert "At other horizons" not in text
    lines = {
        tuple(cells[:2]): cells[2:]
        for line in text.splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")[1:-1]]) == 10
    }
    assert lines["variant", "horizon"][:6] == [*SINGLE, "mean"]
    assert lines["brc", "50"] == ["1", "1", "1", "1", "1", "1", "uniform 1", "1, 1, 1"]
    assert lines["brc", "5,000"] == ["1", "1", "0.9", "1", "1", "0.98", "blocks 0.9", "0.9, 0.9, 0.9"]
    assert lines["gru", "5,000"] == ["1", "1", "0.1", "1", "1", "0.82", "blocks 0.1", "0, 0.1, 0.2"]
    assert "blocks 0.9" in (tmp_path / "report.html").read_text()
    assert "horizons.png" in {figure.name for figure in figures}


@pytest.mark.parametrize("where", ["50/", "/constant", "50/Con stant", "x/constant"])
def test_a_row_of_a_stream_that_cannot_be_is_refused(where: str, tmp_path: Path) -> None:
    ledger.write(tmp_path, [row("brc", 0, {f"success@{where}": 1.0})])
    with pytest.raises(UserError, match="does not name a horizon"):
        ledger.read(tmp_path)
