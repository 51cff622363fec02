"""`bistable_rl.train`, `resume` and `evaluate` do what the commands do, and raise what they say."""

import json
import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from own_env import Count, Shift
from stable_baselines3.common.callbacks import BaseCallback

import bistable_rl
from bistable_rl.cli import main
from bistable_rl.errors import RunFailedError, UserError
from bistable_rl.runs.config import read_yaml
from bistable_rl.runs.schema import Experiment

CHANGES = {"seed": 3, "policy.cell": "gru", "env.kwargs.length": 6, "algorithm.learning_rate": [1e-3, 0.0]}
TOKENS = ["--seed", "3", "--policy.cell", "gru", "--env.kwargs.length", "6", "--algorithm.learning_rate", "[1e-3, 0.0]"]


def test_every_form_of_an_experiment_gives_the_commands_run(
    config: Path, experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config), "--out", str(tmp_path / "command"), *TOKENS]) == 0
    expected = tmp_path / "command" / "small" / "gru-seed3"
    weights = bistable_rl.load(expected).policy.state_dict()
    capsys.readouterr()
    data = read_yaml(config)
    forms: list[Any] = [config, str(config), data, experiment]
    for i, form in enumerate(forms):
        run = bistable_rl.train(form, CHANGES, out=tmp_path / str(i))
        assert isinstance(run, bistable_rl.Run)
        assert run.folder == tmp_path / str(i) / "small" / "gru-seed3"
        assert (run.folder / "config.yaml").read_bytes() == (expected / "config.yaml").read_bytes()
        assert run.result is not None
        assert run.result["evaluation"] == json.loads((expected / "result.json").read_text())["evaluation"]
        policy = bistable_rl.load(run).policy
        assert all(np.array_equal(value, weights[name]) for name, value in policy.state_dict().items())
    assert data == read_yaml(config)
    assert (experiment.seed, experiment.policy.cell) == (0, "nbrc")
    assert capsys.readouterr() == ("", "")


def test_a_name_of_a_shipped_config_and_overwrite_are_the_commands(tmp_path: Path) -> None:
    small: dict[str, Any] = {"env.num_envs": 2, "algorithm.n_steps": 16, "algorithm.batch_size": 16, "total_steps": 32}
    small |= {"evaluation.episodes": 1, "evaluation.horizons": []}
    runs = [
        bistable_rl.train("rl/t_maze", small, out=tmp_path, overwrite=overwrite).folder.name
        for overwrite in (False, False, True)
    ]
    assert runs == ["nbrc-seed0", "nbrc-seed0-2", "nbrc-seed0"]


def test_the_progress_is_shown_where_it_is_asked_for(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bistable_rl.train(config, out=tmp_path, progress_bar=True)
    assert "400 steps, evaluation: return" in capsys.readouterr().err
    bistable_rl.resume(run, total_steps=480, progress_bar=True)
    assert "480 steps, evaluation: return" in capsys.readouterr().err
    bistable_rl.resume(run, total_steps=560)
    assert capsys.readouterr() == ("", "")
    assert run.result is not None
    assert run.result["steps"] == 560


def test_evaluate_returns_what_the_command_writes(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    for tokens, changes, asked in (
        (["--env.kwargs.length", "9"], {"env.kwargs.length": 9}, {}),
        (["--horizons", "4,9"], {}, {"horizons": [4, 9]}),
        (["--streams", "constant", "--best"], {}, {"streams": ["constant"], "best": True}),
    ):
        assert main(["evaluate", str(trained), "--episodes", "6", "--json", str(file), *tokens]) == 0
        found = bistable_rl.evaluate(trained, changes, episodes=6, **asked)
        assert found == json.loads(file.read_text())


def test_classes_stand_where_names_do(tmp_path: Path) -> None:
    run = bistable_rl.train(
        {
            "name": "classes",
            "env": {"id": "own_env:Recall-v0", "wrappers": [{"name": Shift}], "num_envs": 4},
            "policy": {"cell": "gru", "hidden_size": 4, "activation_fn": "relu"},
            "algorithm": {"n_steps": 20, "batch_size": 40},
            "callbacks": [Count],
            "total_steps": 80,
            "evaluation": {"episodes": 1},
        },
        out=tmp_path,
    )
    assert run.experiment().callbacks == [{"name": "own_env:Count", "kwargs": {}}]


class Interrupt(BaseCallback):
    """Sends this process the signal of Ctrl-C in the second rollout."""

    def _on_step(self) -> bool:
        if self.n_calls == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return True


def test_ctrl_c_is_raised_after_the_checkpoint_and_resume_goes_on(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        bistable_rl.train(replace(experiment, callbacks=[Interrupt]), out=tmp_path)
    folder = tmp_path / "small" / "nbrc-seed0"
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    stop = threading.Event()
    stop.set()
    result = bistable_rl.train(experiment, out=tmp_path, stop=stop).result
    assert result is not None
    assert result["status"] == "interrupted"


@pytest.mark.parametrize(
    ("form", "changes", "expected"),
    [
        ("rl/no_such", {}, "there is no file 'rl/no_such' and no shipped config of that name"),
        ({"name": "a"}, {}, "experiment: the key env is missing"),
        (
            {"name": "a", "env": {"id": "CartPole-v1"}, "sed": 1},
            {},
            "experiment: unknown key 'sed'; did you mean 'seed'",
        ),
        (None, {"policy.cel": "gru"}, "overrides: unknown key 'policy.cel'; did you mean 'policy.cell'"),
        (None, {"seed": "one"}, "overrides: seed must be an integer from 0"),
        (None, {"algorithm.batch_size": 999}, "with the overrides: algorithm.batch_size 999 is more than the 80"),
        (
            None,
            {"algorithm.learning_rate": lambda p: p},
            "algorithm.learning_rate: a run folder cannot hold a function; give",
        ),
    ],
)
def test_a_mistake_is_the_commands_sentence(
    form: Any, changes: dict[str, Any], expected: str, config: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        bistable_rl.train(form or config, changes, out=tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_mistakes_in_evaluate_and_resume(trained: Path, tmp_path: Path) -> None:
    for changes, expected in (
        ({"policy.cell": "gru"}, "overrides: policy.cell cannot be changed; keys of the environment"),
        ({"env.num_envs": 3}, "overrides: env.num_envs cannot be changed"),
        ({"env.kwargs.lenght": 3}, "unknown argument of bistable_rl/CopyFirst-v0 'lenght'"),
    ):
        with pytest.raises(UserError, match=re.escape(expected)):
            bistable_rl.evaluate(trained, changes)
    with pytest.raises(UserError, match=r"sets env\.kwargs\.length already"):
        bistable_rl.evaluate(trained, {"env.kwargs.length": 5}, horizons=[5])
    with pytest.raises(UserError, match="CartPole-v1 has no argument distractors"):
        bistable_rl.evaluate(trained, {"env.id": "CartPole-v1", "env.kwargs": {}}, streams=["constant"])
    with pytest.raises(UserError, match="total_steps must be an integer above 0"):
        bistable_rl.resume(trained, total_steps=0)
    with pytest.raises(UserError, match="there is no folder"):
        bistable_rl.resume(tmp_path / "none")


def test_a_training_that_fails_raises(tmp_path: Path) -> None:
    form = {"name": "fails", "env": {"id": "own_env:Recall-v0", "num_envs": 4}, "callbacks": ["own_env:Fails"]}
    with pytest.raises(RunFailedError, match="ZeroDivisionError: as it is written"):
        bistable_rl.train(form, {"algorithm.n_steps": 20, "algorithm.batch_size": 40}, out=tmp_path)


def test_a_run_and_an_agent_say_what_they_are(trained: Path) -> None:
    agent = bistable_rl.load(trained)
    assert repr(agent) == "<Agent of bistable_rl/CopyFirst-v0: nbrc, 8 units, trained for 400 steps>"
    agent.experiment.policy.num_layers = 2
    assert ": nbrc, 2 x 8 units, " in repr(agent)
    assert repr(bistable_rl.Run("runs/a")) == "Run('runs/a')"


def page(kind: str, after: str) -> str:
    section = (Path(__file__).parents[1] / "agents/README.md").read_text().partition(after)[2]
    found = re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_pages_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(page("python", "`bistable_rl.train` takes"), scope)
    assert [row["length"] for row in scope["rows"]] == [10, 100]
    assert scope["run"].result["steps"] == 6400
    assert scope["agent"].steps == 3200
    assert scope["run"].folder == Path("runs/mine/nbrc-seed1")


def test_the_pages_callbacks_and_loggers_are_those_of_a_run(config: Path, tmp_path: Path) -> None:
    run = bistable_rl.train(
        read_yaml(config) | yaml.safe_load(page("yaml", "## Callbacks and loggers")),
        {"total_steps": 2400},
        out=tmp_path,
    )
    assert run.result is not None
    assert run.result["status"] == "finished"
    assert run.result["steps"] == 1920  # the last update before 100 episodes of 5 steps in each of 4 copies
    assert {"progress.csv", "progress.json"} <= {path.name for path in run.folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"episodes": 0}, "evaluate: episodes must be an integer above 0, got 0"),
        ({"episodes": 2.5}, "evaluate: episodes must be an integer above 0, got 2.5"),
        ({"max_episode_steps": 0}, "evaluate: max_episode_steps must be an integer above 0, got 0"),
    ],
)
def test_numbers_of_an_evaluation_are_checked(options: dict[str, Any], expected: str, trained: Path) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        bistable_rl.evaluate(trained, **options)


def test_what_predict_is_given_is_what_it_returned(trained: Path) -> None:
    agent = bistable_rl.load(trained)
    seen = np.zeros((3, 4), np.float32)
    _, state = agent.predict(seen)
    assert agent.predict(seen, (state[0].astype(np.float64),))[1][0].dtype == np.float32
    for wrong, expected in (
        (state[0], "a tuple of one array (1, 3, 8), not an array (1, 3, 8)"),
        ((state[0], state[0]), "not a tuple"),
        ((None,), "not a tuple"),
        ((state[0][:, :, :5],), "not an array (1, 3, 5)"),
        ((state[0][:, :2],), "the state is of 2 copies, but the observation is of 3"),
    ):
        with pytest.raises(ValueError, match=re.escape(expected)):
            agent.predict(seen, wrong)
    with pytest.raises(ValueError, match="episode_start is for 2 copies, but the observation is of 3"):
        agent.predict(seen, state, np.array([True, False]))
