"""A run folder holds the spaces of its environment, so that its agent is loaded where the environment is missing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import SMALL
from gymnasium import spaces

import bistable_rl
from bistable_rl.agents.run_spaces import read_spaces
from bistable_rl.agents.spaces import from_json, to_json
from bistable_rl.agents.training import train
from bistable_rl.errors import UserError
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment, load_config

TUPLE = "spaces.Tuple([spaces.Discrete(3), spaces.Box(-2, 2, (2,))])"
IMAGE = "spaces.Dict({'image': spaces.Box(0, 255, (40, 36, 3), np.uint8), 'n': spaces.Discrete(4)})"


def trained_on(space: str, tmp_path: Path) -> Path:
    """Return a run on an environment of these observations, in a module of its own that is gone afterwards."""
    (tmp_path / "gone_env.py").write_text(
        "import gymnasium, numpy as np\nfrom gymnasium import spaces\nfrom noise_env import Noise\n"
        f"gymnasium.register('Gone-v0', entry_point=lambda: Noise({space}), max_episode_steps=4)\n"
    )
    config = {**SMALL, "env": {"id": "gone_env:Gone-v0", "num_envs": 2}, "total_steps": 80}
    (tmp_path / "gone.yaml").write_text(yaml.safe_dump({**config, "evaluation": {"episodes": 2}}))
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    subprocess.run(
        [sys.executable, "-m", "bistable_rl.cli", "train", "gone.yaml", "--out", "runs"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
    )
    (tmp_path / "gone_env.py").unlink()
    return tmp_path / "runs" / "small" / "nbrc-seed0"


@pytest.mark.parametrize("space", [TUPLE, IMAGE], ids=["tuple", "image"])
def test_an_agent_is_loaded_where_its_environment_is_missing(space: str, tmp_path: Path) -> None:
    agent = bistable_rl.load(trained_on(space, tmp_path))
    assert agent.observation_space == eval(space)
    agent.observation_space.seed(0)
    action, state = agent.predict(agent.observation_space.sample())
    assert action.shape == ()
    assert state[0].shape[1] == 1


def test_a_run_of_an_earlier_version_is_loaded_by_building_its_environment(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "spaces.json").unlink()
    assert bistable_rl.load(run).observation_space == bistable_rl.load(trained).observation_space
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "env": {**config["env"], "id": "gone_env:Gone-v0"}}))
    with pytest.raises(UserError, match="needs the package 'gone_env'"):
        bistable_rl.load(run)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda data: {}, "spaces.json is broken: KeyError: 'observation'."),
        (lambda data: {**data, "action": {"space": "Text"}}, "there is no space 'Text'."),
        (lambda data: {**data, "action": to_json(spaces.Box(-np.inf, np.inf, (1,)))}, "with finite bounds."),
        (lambda data: {**data, "given": to_json(spaces.Box(0, 1, (9,)))}, "do not become Box"),
        (lambda data: {**data, "given": {**data["given"], "shape": [10**6, 10**6]}}, "too large for an observation."),
    ],
)
def test_broken_spaces_are_one_sentence(
    broken: Callable[[dict[str, Any]], dict[str, Any]], sentence: str, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    data = json.loads((run / "spaces.json").read_text())
    (run / "spaces.json").write_text(json.dumps(broken(data)))
    with pytest.raises(UserError) as raised:
        bistable_rl.load(run)
    assert sentence in str(raised.value)
    assert str(run / "spaces.json") in str(raised.value)


def test_the_keys_of_a_saved_dict_keep_their_order() -> None:
    space = spaces.Dict([("b", spaces.Discrete(2)), ("a", spaces.Discrete(3))])
    assert list(from_json(json.loads(json.dumps(to_json(space))))) == ["b", "a"]  # type: ignore[call-overload]


def test_normalised_observations_have_the_spaces_of_the_environment(config: Path, tmp_path: Path) -> None:
    experiment = load_config(Experiment, config)
    experiment = replace(experiment, env=replace(experiment.env, normalize=replace(experiment.env.normalize, obs=True)))
    run = train(replace(experiment, total_steps=80), tmp_path)
    found = read_spaces(Run(run))
    assert found is not None
    assert found.observation == found.given == bistable_rl.load(run).observation_space
    assert isinstance(found.observation, spaces.Box)
    assert found.observation.high.max() == 1  # VecNormalize's are bounded by 10
