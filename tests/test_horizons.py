"""Evaluation at horizons that an agent was not trained for."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from bistable_rl.agents.horizons import Horizons, horizon_argument, interval
from bistable_rl.agents.training import train
from bistable_rl.cli import main
from bistable_rl.envs import ENVIRONMENTS, make_batched_env
from bistable_rl.errors import UserError
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig, Experiment

COPY_FIRST = EnvConfig("bistable_rl/CopyFirst-v0", {"num_symbols": 4})


class Remembers:
    """Names the first symbol for some steps of an episode, then symbol 0; sampling, it guesses.

    Its state is the symbol and the number of steps, (n, 2).
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        now = np.stack([observation[:, :-2].argmax(1), np.zeros(len(observation), int)], 1)
        state = now if state is None else np.where(episode_start[:, None], now, state + np.array([0, 1]))
        if not deterministic:
            return torch.randint(4, (len(observation),)).numpy(), state
        return np.where(state[:, 1] < self.steps, state[:, 0], 0), state


def test_an_agent_that_forgets_fails_beyond_its_memory_and_only_there() -> None:
    rows = Horizons(COPY_FIRST, [10, 11, 40], 200, seed=0).evaluate(Remembers(steps=10))
    assert [row["horizon"] for row in rows] == [10, 11, 40]
    assert [row["length"] for row in rows] == [10, 11, 40]
    assert rows[0]["success"] == 1.0
    assert all(abs(row["success"] - 0.25) < 0.1 for row in rows[1:])
    assert all(abs(row["sampled"]["success"] - 0.25) < 0.1 for row in rows)
    for row in rows:
        assert row["return"] == pytest.approx(2 * row["success"] - 1)
        assert row["normalized_score"] == pytest.approx((row["success"] - 0.25) / 0.75)


def test_an_evaluation_repeats_itself_and_leaves_torchs_generator_alone() -> None:
    horizons = Horizons(COPY_FIRST, [5], 50, seed=3)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = horizons.evaluate(Remembers(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert horizons.evaluate(Remembers(3)) == first


def test_an_evaluation_that_is_stopped_reports_whole_horizons_only() -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 30

    rows = Horizons(COPY_FIRST, [5, 50], 8, seed=0).evaluate(Remembers(3), stop)
    assert [row["horizon"] for row in rows] == [5]


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_every_environment_of_ours_has_a_horizon_with_a_value(env_id: str) -> None:
    name, value = horizon_argument(EnvConfig(env_id))
    if env_id != "bistable_rl/LineDigits-v0":  # needs its images
        default, given = (
            make_batched_env(env_id, num_envs=1, kwargs=kwargs).horizon  # type: ignore[attr-defined]
            for kwargs in ({}, {name: value})
        )
        assert default == given
    assert horizon_argument(EnvConfig(env_id, {name: 77})) == (name, 77)


def test_an_interval_of_a_mean_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = interval(values) or (0.0, 0.0)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.02)


def test_an_interval_of_equal_values_is_a_point_and_one_value_has_none() -> None:
    assert interval(np.ones(20)) == [1.0, 1.0]
    assert interval(np.ones(1)) is None


def test_a_horizon_that_the_environment_refuses_is_found_before_any_is_played() -> None:
    with pytest.raises(UserError, match="length must be an integer of at least 2"):
        Horizons(COPY_FIRST, [50, 1], 5, seed=0)


def test_evaluating_at_horizons_does_not_change_the_training(experiment: Experiment, tmp_path: Path) -> None:
    plain = train(experiment, tmp_path / "plain")
    experiment.evaluation.horizons = [9, 30]
    asked = train(experiment, tmp_path / "asked")
    weights = [
        safetensors.torch.load_file(Run(run).checkpoints.latest() / "weights.safetensors") for run in (plain, asked)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    rows = json.loads((asked / "result.json").read_text())["horizons"]
    assert [(row["horizon"], row["length"], row["episodes"]) for row in rows] == [(9, 9, 5), (30, 30, 5)]
    assert json.loads((plain / "result.json").read_text())["horizons"] == []
    with (asked / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert [bool(row["horizon_30/sampled_success"]) for row in metrics] == [False, True, False, True, True]
    assert float(metrics[-1]["horizon_9/return"]) == pytest.approx(rows[0]["return"])

    experiment.evaluation.horizons_every = 300
    seldom = train(experiment, tmp_path / "seldom")
    with (seldom / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert [bool(row["eval/mean_reward"]) for row in metrics] == [False, True, False, True, True]
    assert [bool(row["horizon_30/success"]) for row in metrics] == [False, False, False, True, True]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(asked))
    events.Reload()
    assert {"horizon_9/success", "horizon_30/sampled_normalized_score"} <= set(events.Tags()["scalars"])


def test_the_command_writes_a_table_a_json_file_and_a_figure(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    file, figure = tmp_path / "horizons.json", tmp_path / "horizons.png"
    options = ["--episodes", "8", "--json", str(file), "--figure", str(figure)]
    assert main(["evaluate", str(trained), "--horizons", "5,50,500", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "at length 5" in lines[0]
    assert [line.split()[0] for line in lines[3:]] == ["5", "sampled", "50", "sampled", "500", "sampled"]
    assert all(len(line) <= 80 for line in lines[1:])
    result = json.loads(file.read_text())
    assert (result["argument"], result["trained"], result["steps"]) == ("length", 5, 400)
    assert [row["horizon"] for row in result["horizons"]] == [5, 50, 500]
    assert set(result["horizons"][0]["sampled"]) == set(result["horizons"][0]) - {"horizon", "sampled"}
    with Image.open(figure) as image:
        assert image.size[0] > 500


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--horizons", "0"], "'0' is not a list of integers above 0"),
        (["--horizons", "many"], "'many' is not a list of integers above 0"),
        (["--horizons", "5,"], "'5,' is not a list of integers above 0"),
        (["--horizons"], "expected one argument"),
        (["--horizons", "1"], "length must be an integer of at least 2"),
        (["--horizons", "5", "--env.kwargs.length", "3"], "--horizons sets env.kwargs.length already"),
        (
            ["--horizons", "5", "--env.id", "CartPole-v1", "--env.kwargs", "{}"],
            "our environments only, not for CartPole-v1",
        ),
        (["--horizons", "5", "--env.kwargs.num_symbols", "3"], "the agent was trained on"),
        (["--horizons", "5", "--figure", "no/such/folder.png"], "there is no folder"),
        (["--horizons", "5", "--figure", "horizons.jpg"], "its name must end in .png, .pdf or .svg, not horizons.jpg"),
        (["--horizons", "5", "--dpi", "300"], "evaluate: --dpi needs --figure."),
        (["--horizons", "5", "--figure", "x.png", "--dpi", "9"], "'9' is not an integer from 10 to 1200"),
        (["--figure", "x.png"], "--figure needs --horizons"),
    ],
)
def test_a_wrong_horizon_is_one_sentence(
    options: list[str], expected: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained), *options]) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.count("\n") == 1
    assert out == ""


def test_horizons_of_an_environment_without_one_are_refused_before_a_training(
    experiment: Experiment, tmp_path: Path
) -> None:
    experiment.env = EnvConfig("CartPole-v1")
    experiment.evaluation.horizons = [500]
    experiment.policy.cell_kwargs = {}
    with pytest.raises(UserError, match="for our environments only, not for CartPole-v1"):
        train(experiment, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
