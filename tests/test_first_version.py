"""Files that version 0.1 wrote: archives and run folders open, act and go on training as they did there.

`first_version/` holds archives of small agents, a run folder in a zip, and in expected.json an observation for each and
the states of the memory in the first three steps that show it.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

import bistable_rl
from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.training import resume
from bistable_rl.envs import make_env
from bistable_rl.runs import checkpoint

FILES = Path(__file__).parent / "first_version"
EXPECTED = json.loads((FILES / "expected.json").read_text())


def check_states(agent: Any, name: str) -> None:
    observation, state = np.array(EXPECTED[name]["observation"], np.float32), None
    for expected in EXPECTED[name]["states"]:
        _, state = agent.predict(observation, state, deterministic=True)
        assert state is not None
        np.testing.assert_allclose(state[0].ravel(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["nbrc", "lstm", "separate", "feedforward", "box"])
def test_an_archive_opens_and_acts_as_it_did(name: str) -> None:
    model = RecurrentPPO.load(FILES / f"{name}.zip", device="cpu")
    check_states(model, name)
    moments = model.policy.optimizer.state_dict()["state"]
    for index, parameter in enumerate(model.policy.parameters()):
        assert moments[index]["exp_avg"].shape == parameter.shape


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with zipfile.ZipFile(FILES / "run.zip") as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_folder_opens_and_acts_as_it_did(run: Path) -> None:
    check_states(bistable_rl.load(run), "run")
    check_states(bistable_rl.load(run, best=True), "run")


def test_a_run_goes_on_as_it_did(run: Path) -> None:
    resume(run, total_steps=240)
    check_states(bistable_rl.load(run), "resumed")


def test_the_features_that_version_0_1_kept_three_times_are_read_once() -> None:
    """Too large for a file here: the embeddings of MiniGrid's view."""
    env = DummyVecEnv([lambda: make_env("MiniGrid-MemoryS7-v0", kwargs={"agent_view_size": 3})])
    policy = RecurrentPPO("RecurrentPolicy", env, policy_kwargs={"hidden_size": 4, "critic": "shared"}, device="cpu").policy
    weights = {name: torch.randn_like(tensor) for name, tensor in policy.state_dict().items()}
    features = {name: tensor for name, tensor in weights.items() if name.startswith("features_extractor.")}
    assert len(features) == 5
    copies = {f"{head}_{name}": tensor for head in ("pi", "vf") for name, tensor in features.items()}
    others = {name.replace("memory.", "lstm_actor.rnn."): tensor for name, tensor in weights.items()}
    checkpoint.fill(policy, {**others, **copies}, "version 0.1")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in policy.state_dict().items())
