"""What a user's own environment is given: horizons, wrappers, callbacks and loggers by name."""

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from own_env import Count, Lines, Shift

from bistable_rl.agents.agent import load
from bistable_rl.agents.check_experiment import ExperimentCheck
from bistable_rl.agents.horizons import Horizons, horizon_argument
from bistable_rl.agents.training import resume, train
from bistable_rl.cli import main
from bistable_rl.compare.jobs import hashed_keys
from bistable_rl.envs import make_env
from bistable_rl.errors import RunFailedError, UserError
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
        (
            ["--env.horizon_kwarg", "dely"],
            2,
            "env.horizon_kwarg: unknown argument of own_env:Recall-v0 'dely'; did you mean 'delay'?",
        ),
        (["--env.horizon_kwarg", "null"], 2, "Set env.horizon_kwarg to its name, such as length"),
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


@pytest.mark.parametrize("horizons", [[], [5]])
def test_a_wrong_keyword_is_refused_before_a_training(horizons: list[int], own: Path, tmp_path: Path) -> None:
    changes = ["--env.horizon_kwarg", "dely", "--evaluation.horizons", str(horizons)]
    experiment = load_config(Experiment, own, changes)
    for refuse in (lambda: train(experiment, tmp_path / "runs"), lambda: ExperimentCheck()(experiment)):
        with pytest.raises(
            UserError, match=r"^env.horizon_kwarg: unknown argument of own_env:Recall-v0 'dely'; did you"
        ):
            refuse()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "env_id", ["Recall-v0", "RecallAny-v0", "RecallLambda-v0", "RecallShifted-v0", "RecallLimited-v0"]
)
def test_a_keyword_that_is_taken_is_never_refused(env_id: str) -> None:
    """By a constructor, by one that takes any argument, by a lambda, by a wrapper as environment, and by gymnasium."""
    names = ["delay"] if env_id != "RecallLimited-v0" else ["delay", "max_episode_steps"]
    for name in names:
        horizons = Horizons(EnvConfig(f"own_env:{env_id}", horizon_kwarg=name), [2], episodes=1, seed=0)
        assert [point.horizon for point in horizons.envs] == [2]
        horizons.close()


def test_ours_have_their_own_keyword() -> None:
    with pytest.raises(UserError, match="set by length, not by delay"):
        Horizons(EnvConfig("bistable_rl/TMaze-v0", horizon_kwarg="delay"), [], episodes=1, seed=0)
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
        (
            {"name": "own_env:Shift", "kwargs": {"bye": 3}},
            "env.wrappers[0]: unknown argument of wrapper 'own_env:Shift' 'bye'",
        ),
        (
            {"name": "own_env:Shift", "kwargs": {"env": 3}},
            "unknown argument of wrapper 'own_env:Shift' 'env'; the choices are by.",
        ),
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
    assert make_env("own_env:Recall-v0", wrappers=["own_env:Shift"]).observation_space.shape == (2,)
    assert load(run).policy.observation_space.shape == (2,)
    assert main(["evaluate", str(run), "--episodes", "2", "--horizons", "4"]) == 0


def test_a_class_in_a_function_cannot_be_kept(own: Path, tmp_path: Path) -> None:
    class Local(Shift):
        pass

    experiment = load_config(Experiment, own)
    experiment.env.wrappers = [{"name": Local}]
    with pytest.raises(UserError, match=r"^env.wrappers: Local is defined in a function"):
        train(experiment, tmp_path / "runs")


def test_an_environment_without_pictures_is_analysed_and_is_not_filmed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(run), "--episodes", "2", "--out", str(tmp_path / "looked")]) == 0
    assert not list((tmp_path / "looked").rglob("*.gif"))
    capsys.readouterr()
    assert main(["play", "--run", str(run), "--save", str(tmp_path / "film.gif")]) == 2
    assert "Recall-v0 has no pictures to save" in capsys.readouterr().err


# --- callbacks and loggers ---------------------------------------------------------------------------------

LOGGED = {
    "evaluation": {"every": 160, "episodes": 2},
    "checkpoint": {"every": 80, "keep": 2},
    "callbacks": ["own_env:Count"],
    "loggers": ["csv", "json", {"name": "own_env:Lines", "kwargs": {"name": "mine.txt"}}],
}


def configured(path: Path, **changes: Any) -> Experiment:
    path.write_text(yaml.safe_dump(OWN | changes))
    return load_config(Experiment, path)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def steps_of(run: Path) -> list[list[int]]:
    """Return the steps in progress.csv, progress.json and mine.txt."""
    rows, lines = table(run / "progress.csv"), (run / "progress.json").read_text().splitlines()
    return [
        [int(row["time/total_timesteps"]) for row in rows],
        [json.loads(line)["time/total_timesteps"] for line in lines],
        [int(line.split()[0]) for line in (run / "mine.txt").read_text().splitlines()],
    ]


def test_callbacks_log_and_every_logger_writes_what_is_logged(own: Path, tmp_path: Path) -> None:
    run = train(configured(own, **LOGGED), tmp_path / "runs")
    assert steps_of(run) == [[80, 160]] * 3
    rows = table(run / "progress.csv")
    assert [row["own/calls"] for row in rows] == ["20", "40"]
    assert rows[1]["own/text"] == "a, b"
    assert [bool(row["eval/mean_reward"]) for row in rows] == [False, True]
    assert "own/calls" not in Run(run).metrics.last()
    resume(run, total_steps=320)
    assert steps_of(run)[:2] == [[80, 160, 240, 320]] * 2
    assert [row["own/calls"] for row in table(run / "progress.csv")][2:] == ["20", "40"]  # a callback begins anew


def test_a_resumed_run_writes_no_row_twice(own: Path, tmp_path: Path) -> None:
    run = train(configured(own, **LOGGED | {"checkpoint": {"every": 10**6, "keep": 1}}), tmp_path / "runs")
    for folder in Run(run).checkpoints.all():
        shutil.rmtree(folder)  # as if it had been killed before the first
    (run / "result.json").unlink()
    with (run / "progress.json").open("a") as file:
        file.write('{"time/total_ti')
    resume(run)
    assert steps_of(run)[:2] == [[80, 160]] * 2


def test_a_broken_progress_is_one_sentence_and_is_kept(own: Path, tmp_path: Path) -> None:
    run = train(configured(own, **LOGGED), tmp_path / "runs")
    (run / "progress.json").write_bytes(b"\xff\n" + (run / "progress.json").read_bytes())
    resume(run, total_steps=240)
    assert steps_of(run)[1] == [80, 160, 240]
    (run / "progress.csv").write_bytes(b"\xff,a\n1,2\n")
    with pytest.raises(UserError, match=r"progress\.csv is broken: it has no column .*; move it away"):
        resume(run, total_steps=320)
    assert (run / "progress.csv").read_bytes() == b"\xff,a\n1,2\n"


@pytest.mark.parametrize(("calls", "steps"), [(30, 80), (20, 0), (5, 0), (40, 80)])
def test_a_callback_that_ends_the_training_leaves_a_finished_run_of_the_last_update(
    calls: int, steps: int, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = LOGGED | {"callbacks": [{"name": "own_env:Count", "kwargs": {"most": calls}}], "loggers": []}
    run = Run(train(configured(own, **changes), tmp_path / "runs"))
    result = run.result
    assert result is not None
    assert (result["status"], result["steps"]) == ("finished", steps)
    assert (result["evaluation"] is not None) == (steps > 0)
    assert run.checkpoints.latest().name == f"{steps:012d}"
    assert f"a callback has ended the training after {4 * calls} steps" in capsys.readouterr().err
    trained = load(run).policy.state_dict()
    whole = train(configured(own, total_steps=max(steps, 1), evaluation=LOGGED["evaluation"]), tmp_path / "whole")
    if steps:
        assert all(torch.equal(value, trained[name]) for name, value in load(whole).policy.state_dict().items())
    resume(run)  # goes on, until the callback ends it again
    again = run.result
    assert again is not None
    assert again["steps"] == (160 if steps and calls > 20 else steps)


def test_callbacks_of_sb3_are_named_as_ones_own(own: Path, tmp_path: Path) -> None:
    name = "stable_baselines3.common.callbacks:StopTrainingOnMaxEpisodes"
    run = train(configured(own, callbacks=[{"name": name, "kwargs": {"max_episodes": 1}}]), tmp_path / "runs")
    assert (Run(run).result or {})["steps"] == 0


def test_a_callback_that_fails_fails_the_run(own: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="stopped after 0 steps; ZeroDivisionError: as it is written"):
        train(configured(own, callbacks=["own_env:Fails"]), tmp_path / "runs")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"callbacks": ["own_env:Exits"]}, r"the callback own_env:Exits called sys.exit\(4\)\."),
        ({"loggers": ["own_env:ExitsLogger"]}, r"the logger own_env:ExitsLogger called sys.exit\(\)\."),
        (
            {"policy": {"features_extractor_class": "own_env:ExitsNetwork"}},
            r"the network own_env:ExitsNetwork called sys.exit\('enough'\)\.",
        ),
        (
            {"callbacks": [{"name": "own_env:Exits", "kwargs": {"when": "in the environment"}}]},
            r"the environment own_env:Recall-v0 called sys.exit\(5\)\.",
        ),
    ],
)
def test_whoever_calls_sys_exit_is_named(changes: dict[str, Any], expected: str, own: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=rf"stopped after \d+ steps; {expected}"):
        train(configured(own, **changes), tmp_path / "runs")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"callbacks": [{"name": "own_env:Exits", "kwargs": {"when": "made"}}]},
            "callbacks: callback Exits cannot be built with {'when': 'made'}: SystemExit: 4.",
        ),
        ({"callbacks": ["own_env:Shift"]}, "callbacks: callback must be a subclass of stable_baselines3"),
        ({"callbacks": ["Count"]}, "callbacks: callback: unknown name 'Count'"),
        ({"callbacks": ["own_env:Count", {"name": "own_env:Count", "kwargs": {"mots": 3}}]}, "Count cannot be built"),
        ({"callbacks": ["own_env:Cuont"]}, "callback own_env:Cuont: there is no Cuont in own_env"),
        ({"callbacks": [{"nam": "a"}]}, 'callbacks[0] must be a name or {name: ..., kwargs: {...}}, not {"nam": "a"}'),
        ({"callbacks": "own_env:Count"}, "callbacks must be a list of names, or of {name: ..., kwargs: {...}}"),
        ({"loggers": [{"name": "csv", "kwargs": {"file": "x"}}]}, "loggers: csv takes no arguments, got file"),
        ({"loggers": ["wadb"]}, "loggers: logger: unknown name 'wadb'; did you mean 'wandb'?"),
        ({"loggers": ["own_env:Count"]}, "loggers: logger must be a subclass of stable_baselines3"),
        ({"loggers": ["wandb"]}, "loggers: wandb is not installed; install it with pip install 'bistable-rl[wandb]'."),
    ],
)
def test_what_is_no_callback_and_no_logger_is_one_sentence_before_a_training(
    changes: dict[str, Any],
    expected: str,
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    own.write_text(yaml.safe_dump(OWN | changes))
    assert main(["train", str(own), "--out", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    if "name: ..." not in expected:
        with pytest.raises(UserError) as caught:
            ExperimentCheck()(load_config(Experiment, own))
        assert expected in str(caught.value)


class StubRun:
    """A run of W&B's."""

    def __init__(self) -> None:
        self.id, self.rows, self.finished = "abc", [], False  # type: ignore[var-annotated]

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        self.finished = True


def test_wandb_gets_every_row_and_a_resumed_run_goes_on_under_its_id(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[dict[str, Any], StubRun]] = []

    def init(**arguments: Any) -> StubRun:
        begun.append((arguments, StubRun()))
        return begun[-1][1]

    stub = ModuleType("wandb")
    stub.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stub)
    loggers = [{"name": "wandb", "kwargs": {"project": "memory", "tags": ["x"]}}]
    run = train(configured(own, **LOGGED | {"loggers": loggers}), tmp_path / "runs")
    resume(run, total_steps=240)
    (first, logged), (second, later) = begun
    assert (first["project"], first["tags"], first["name"]) == ("memory", ["x"], "own/gru-seed0")
    assert (first["id"], second["id"], first["resume"]) == (None, "abc", "allow")
    assert first["config"]["policy"]["cell"] == "gru"
    assert [step for step, _ in logged.rows] == [80, 160]
    assert [step for step, _ in later.rows] == [160, 240]  # the row of a checkpoint is made again
    assert logged.rows[1][1]["own/calls"] == 40
    assert "eval/mean_reward" in logged.rows[1][1]
    assert logged.finished
    assert later.finished
    json.dumps(logged.rows)  # plain numbers and texts

    def refuse(**_: Any) -> None:
        raise RuntimeError("api_key not configured")

    stub.init = refuse  # type: ignore[attr-defined]
    kept = run / "wandb.json"
    kept.write_text("{}")
    with pytest.raises(UserError, match=r"wandb\.json is broken: it has no id; move it away"):
        resume(run, total_steps=10**4)
    with pytest.raises(UserError, match="loggers: wandb cannot start: RuntimeError: api_key not configured"):
        train(configured(own, loggers=["wandb"]), tmp_path / "refused")


def test_classes_are_kept_by_name(own: Path, tmp_path: Path) -> None:
    experiment = configured(own, evaluation=LOGGED["evaluation"])
    experiment.callbacks = [Count, {"name": Count, "kwargs": {"most": 50}}]
    experiment.loggers = [Lines]
    held = Run.open(train(experiment, tmp_path / "runs")).experiment()
    name = "own_env:Count"
    assert held.callbacks == [{"name": name, "kwargs": {}}, {"name": name, "kwargs": {"most": 50}}]
    assert held.loggers == [{"name": "own_env:Lines", "kwargs": {}}]


NEW = {"env.horizon_kwarg", "callbacks", "loggers"}


def test_the_new_keys_are_hashed_only_where_they_are_set(own: Path) -> None:
    for name, path in shipped_configs().items():
        if name.startswith("rl/"):
            assert not NEW & hashed_keys(load_config(Experiment, path)).keys()
    assert NEW & hashed_keys(load_config(Experiment, own)).keys() == {"env.horizon_kwarg"}
    assert NEW & hashed_keys(configured(own, **LOGGED)).keys() == {"env.horizon_kwarg", "callbacks"}
