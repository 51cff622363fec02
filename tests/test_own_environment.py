"""What a user's own environment is given: horizons, wrappers, callbacks and loggers by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_env import Shift

from bistable_rl.agents.agent import load
from bistable_rl.agents.check_experiment import ExperimentCheck
from bistable_rl.agents.horizons import Horizons, horizon_argument
from bistable_rl.agents.training import train
from bistable_rl.cli import main
from bistable_rl.compare.jobs import hashed_keys
from bistable_rl.envs import make_env
from bistable_rl.errors import UserError
from bistable_rl.runs.config import shipped_configs
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig, Experiment, load_config

OWN: dict[str, Any] = {
    "name": "own",
    "env": {"id": "own_env:Recall-v0", "horizon_kwarg": "delay", "num_envs": 4},
    "policy": {"cell": "gru", "hidden_size": 8},
    "algorithm": {"n_steps": 20, "batch_size": 40, "n_epochs": 1},
    "total_steps": 160,
    "evaluation": {"every": 160, "episodes": 4, "horizons": [2, 6]},
    "device": "cpu",
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a config of an environment that is not ours."""
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(OWN))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run, which tests must not change."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.yaml").write_text(yaml.safe_dump(OWN))
    return train(load_config(Experiment, folder / "own.yaml"), folder / "runs")


# --- horizons ----------------------------------------------------------------------------------------------


class Recalls:
    """Remembers the first observation for ever."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        now = observation[:, :1] > 0
        state = now if state is None else (now & episode_start[:, None]) | (state & ~episode_start[:, None])
        return state[:, 0].astype(int), state


def test_a_training_evaluates_ones_own_environment_at_its_horizons(run: Path) -> None:
    rows = json.loads((run / "result.json").read_text())["horizons"]
    assert [(row["horizon"], row["length"], row["episodes"]) for row in rows] == [(2, 2, 4), (6, 6, 4)]
    assert all(row["success"] == row["return"] and row["normalized_score"] is None for row in rows)
    metrics = Run(run).metrics.last()
    assert float(metrics["horizon_6/success"]) == pytest.approx(rows[1]["success"])


def test_an_agent_that_remembers_is_right_at_every_horizon() -> None:
    config = EnvConfig("own_env:Recall-v0", horizon_kwarg="delay")
    rows = Horizons(config, [1, 50], 20, seed=0).evaluate(Recalls())
    assert [(row["length"], row["success"]) for row in rows] == [(1, 1.0), (50, 1.0)]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (EnvConfig("own_env:Recall-v0", horizon_kwarg="delay"), ("delay", 3)),
        (EnvConfig("own_env:Recall5-v0", horizon_kwarg="delay"), ("delay", 5)),
        (EnvConfig("own_env:Recall-v0", {"delay": 9}, horizon_kwarg="delay"), ("delay", 9)),
        (EnvConfig("own_env:Recall-v0", horizon_kwarg="no_such"), ("no_such", None)),
        (EnvConfig("own_env:Recall-v0", horizon_kwarg="tall"), ("tall", None)),
        (EnvConfig("CartPole-v1", horizon_kwarg="max_episode_steps"), ("max_episode_steps", 500)),
        (EnvConfig("bistable_rl/CopyFirst-v0", horizon_kwarg="length"), ("length", 50)),
    ],
)
def test_the_trained_horizon_is_what_is_given_or_the_default_or_unknown(env: EnvConfig, expected: Any) -> None:
    assert horizon_argument(env) == expected


def test_the_command_evaluates_at_horizons_and_draws_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, figure = tmp_path / "horizons.json", tmp_path / "horizons.png"
    options = ["--episodes", "4", "--json", str(file), "--figure", str(figure)]
    assert main(["evaluate", str(run), "--horizons", "2,40", *options]) == 0
    assert "at delay 3\n" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert (result["argument"], result["trained"]) == ("delay", 3)
    assert [row["length"] for row in result["horizons"]] == [2, 40]
    assert figure.stat().st_size > 1000
    # an environment that gymnasium cuts, and whose keyword an older run's config does not name
    other = ["--env.id", "own_env:Recall5-v0", "--env.kwargs", "{endless: true}"]
    options = ["--env.horizon_kwarg", "max_episode_steps", "--horizons", "7", "--episodes", "2"]
    assert main(["evaluate", str(run), *other, *options]) == 0
    assert "trained for 160 steps\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--env.horizon_kwarg", "dely"], 2, "unknown argument of own_env:Recall-v0 'dely'; did you mean 'delay'?"),
        (["--env.horizon_kwarg", "null"], 2, "For another, env.horizon_kwarg names it: length, say"),
        (["--env.kwargs.delay", "3"], 2, "--horizons sets env.kwargs.delay already"),
        (["--env.kwargs.tall", "true"], 2, "the agent was trained on"),
        (["--env.kwargs.endless", "true", "--max-episode-steps", "30"], 1, "has not ended after 30 steps"),
    ],
)
def test_a_wrong_keyword_is_one_sentence(
    options: list[str], code: int, expected: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--horizons", "5", "--episodes", "2", *options]) == code
    out, err = capsys.readouterr()
    assert expected in err
    assert (out, err.count("\n")) == ("", 1)


def test_ours_have_their_own_keyword() -> None:
    with pytest.raises(UserError, match="the horizon of bistable_rl/TMaze-v0 is set by length, not by delay"):
        horizon_argument(EnvConfig("bistable_rl/TMaze-v0", horizon_kwarg="delay"))


def test_horizons_with_other_spaces_are_refused_before_a_training(own: Path, tmp_path: Path) -> None:
    experiment = load_config(Experiment, own, ["--env.kwargs", "{tall: true}"])
    for refuse in (lambda: train(experiment, tmp_path / "runs"), lambda: ExperimentCheck()(experiment)):
        with pytest.raises(UserError, match=r"horizons: at delay 2 the observation space is .*\(2,\).* in training"):
            refuse()
    assert not (tmp_path / "runs").exists()
    assert ExperimentCheck()(replace(experiment, env=replace(experiment.env, kwargs={}))) >= {"success_rate"}


# --- wrappers ----------------------------------------------------------------------------------------------


def test_wrappers_of_ones_own_and_of_libraries_are_applied_from_the_inside_out() -> None:
    shift = {"name": "own_env:Shift", "kwargs": {"by": 3}}
    stack = {"name": "gymnasium.wrappers:FrameStackObservation", "kwargs": {"stack_size": 2}}
    env = make_env("own_env:Recall-v0", wrappers=[shift, stack])
    seen, _ = env.reset(seed=0)
    assert seen.shape == (2, 2)
    assert seen[1].tolist() in ([4, 3], [2, 3])
    other_way = make_env("own_env:Recall-v0", wrappers=[stack, {"name": Shift}])
    assert other_way.observation_space.shape == (2,)


@pytest.mark.parametrize(
    ("wrapper", "expected"),
    [
        ({"name": "own_env:Shfit"}, "wrapper own_env:Shfit: there is no Shfit in own_env"),
        (
            {"name": "own_env:Recall"},
            "wrapper must be a subclass of gymnasium.core.Wrapper, got <class 'own_env.Recall",
        ),
        ({"name": "subprocess:Popen", "kwargs": {"args": ["touch", "x"]}}, "wrapper must be a subclass of gymnasium"),
        ({"name": "no_such_module:Wrap"}, "needs the package 'no_such_module', which is neither installed nor in"),
        ({"name": "own_env:Shift", "kwargs": {"bye": 3}}, "unknown argument of wrapper 'own_env:Shift' 'bye'"),
        ({"name": "own_env:Shift", "kwargs": {"env": 3}}, "cannot be built with env=3"),
        ({"name": "gymnasium.wrappers:RescaleAction"}, "wrapper 'gymnasium.wrappers:RescaleAction' cannot be built"),
    ],
)
def test_what_is_no_wrapper_is_one_sentence(wrapper: dict[str, Any], expected: str, own: Path, tmp_path: Path) -> None:
    experiment = load_config(Experiment, own)
    experiment.env.wrappers = [wrapper]
    with pytest.raises(UserError) as caught:
        train(experiment, tmp_path / "runs")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_run_keeps_the_name_of_a_wrapper_and_is_loaded_with_it(own: Path, tmp_path: Path) -> None:
    experiment = load_config(Experiment, own)
    experiment.env.wrappers = [{"name": Shift, "kwargs": {"by": 2}}]
    run = train(experiment, tmp_path / "runs")
    assert Run.open(run).experiment().env.wrappers == [{"name": "own_env:Shift", "kwargs": {"by": 2}}]
    assert load(run).policy.observation_space.shape == (2,)
    assert main(["evaluate", str(run), "--episodes", "2", "--horizons", "4"]) == 0


def test_a_class_in_a_function_cannot_be_kept(own: Path, tmp_path: Path) -> None:
    class Local(Shift):
        pass

    experiment = load_config(Experiment, own)
    experiment.env.wrappers = [{"name": Local}]
    with pytest.raises(UserError, match=r"^env: wrapper: Local is defined in a function"):
        train(experiment, tmp_path / "runs")


NEW = {"env.horizon_kwarg"}


def test_the_new_keys_are_hashed_only_where_they_are_set(own: Path) -> None:
    for name, path in shipped_configs().items():
        if name.startswith("rl/"):
            assert not NEW & hashed_keys(load_config(Experiment, path)).keys()
    assert NEW & hashed_keys(load_config(Experiment, own)).keys() == {"env.horizon_kwarg"}
