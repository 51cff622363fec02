"""Exports of a `RecurrentPPO` and of the file that its `save` wrote, compared with the algorithm's own `predict`."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from masked_env import Info, Method
from noise_env import NUMBERS, TWO, Noise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

import bistable_rl
from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.export_formats import FORMATS
from bistable_rl.cli import main
from bistable_rl.errors import UserError

IMAGE = spaces.Box(0, 255, (40, 36, 3), np.uint8)
BOX = spaces.Box(-1, 1, (2,), np.float32)
SIZES: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "seed": 0, "device": "cpu"}


def copies(observation: spaces.Space[Any] = NUMBERS, action: spaces.Space[Any] = TWO) -> VecEnv:
    return DummyVecEnv([lambda: Noise(observation, action)] * 2)


def learned(env: Any, **settings: Any) -> RecurrentPPO:
    model = RecurrentPPO("RecurrentPolicy", env, policy_kwargs={"hidden_size": 8}, **SIZES, **settings)
    with torch.no_grad():
        model.policy.action_net.weight.normal_()
    return model.learn(16)


def inputs(exported: Any) -> list[str]:
    return [one["name"] for one in exported.about["inputs"]]


def opened(path: Path) -> Any:
    return FORMATS["pt2"].open(path.read_bytes())


def test_a_file_and_its_algorithm_do_what_predict_does(tmp_path: Path) -> None:
    """Also with the statistics of VecNormalize: the exported file is given what the environment gives."""
    env = VecNormalize(copies(spaces.Box(90, 100, (3,), np.float32)))
    model = learned(env)
    model.save(tmp_path / "x.zip")
    of_file = bistable_rl.export(tmp_path / "x.zip", format="pt2")
    of_model = bistable_rl.export(model, tmp_path / "agent.pt2", format="pt2")
    assert (of_file.path, of_file.about["name"], of_file.about["env"]) == (tmp_path / "x.pt2", "x", None)
    assert (of_model.about["name"], of_model.about["steps"]) == ("agent", 16)
    rng = np.random.default_rng(0)
    files = [opened(of_file.path), opened(of_model.path)]
    state: Any = None
    states = [np.zeros((1, 1, 8), np.float32)] * 2
    for _ in range(20):
        seen = rng.uniform(90, 100, (1, 3)).astype(np.float32)
        action, state = model.predict(env.normalize_obs(seen), state, np.array([state is None]), deterministic=True)
        for i, file in enumerate(files):
            found, states[i], _ = file(seen, states[i])
            assert found == action
            np.testing.assert_allclose(states[i], state[0][:1], atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"use_sde": True}])
def test_an_export_does_not_change_the_training(settings: dict[str, Any], tmp_path: Path) -> None:
    weights = []
    for exports in (False, True):
        model = learned(VecNormalize(copies(action=BOX)), **settings)
        if exports:
            bistable_rl.export(model, tmp_path / "agent.pt2", format="pt2")
        model.learn(16, reset_num_timesteps=False)
        weights.append([p.detach().clone() for p in model.policy.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_images_are_read_as_the_environment_gives_them_or_as_the_file_says(tmp_path: Path) -> None:
    model = learned(copies(IMAGE))
    model.save(tmp_path / "x.zip")
    found = [
        bistable_rl.export(model, tmp_path / "a.pt2", format="pt2"),
        bistable_rl.export(tmp_path / "x.zip", format="pt2"),
    ]
    assert [one.about["inputs"][0]["shape"] for one in found] == [["n", 40, 36, 3], ["n", 3, 40, 36]]


@pytest.mark.parametrize("kind", [Method, Info])
def test_masks_are_known_where_the_environment_is(kind: Any, tmp_path: Path) -> None:
    trained = learned(DummyVecEnv([kind] * 2))
    trained.save(tmp_path / "x.zip")
    loaded = RecurrentPPO.load(tmp_path / "x.zip", env=DummyVecEnv([kind] * 2))
    for model in (trained, loaded):
        assert inputs(bistable_rl.export(model, tmp_path / "a.pt2", format="pt2"))[-1] == "action_mask"
    assert inputs(bistable_rl.export(tmp_path / "x.zip", format="pt2")) == ["observation", "state"]


def test_the_command_takes_a_saved_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learned(gymnasium.make("CartPole-v1")).save(tmp_path / "x.zip")
    assert main(["export", str(tmp_path / "x.zip"), "--format", "pt2"]) == 0
    assert f"{tmp_path / 'x.pt2'}: mixed, trained for 16 steps" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "x.zip"), "--best", "--format", "pt2"]) == 2
    assert "bistable-rl: export: best is for a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"clip_obs": 5.0}, "VecNormalize must have clip_obs 10 and epsilon 1e-08, SB3's defaults, .* not 5 and 1e-08"),
        ({"norm_obs_keys": ["a"]}, "VecNormalize must normalise all observations .*, also 'b'"),
    ],
)
def test_a_normalisation_that_cannot_be_kept_is_refused(
    arguments: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    parts: Any = {"a": NUMBERS, "b": NUMBERS} if "norm_obs_keys" in arguments else None
    env = copies(NUMBERS if parts is None else spaces.Dict(parts))
    model = learned(VecNormalize(env, **arguments))
    with pytest.raises(UserError, match=expected):
        bistable_rl.export(model, tmp_path / "a.pt2", format="pt2")


def test_what_cannot_be_exported_is_one_sentence(tmp_path: Path) -> None:
    model = learned(copies())
    with pytest.raises(
        UserError, match=r"a RecurrentPPO has no run folder; name the file to write, such as agent.pt2\.$"
    ):
        bistable_rl.export(model, format="pt2")
    with pytest.raises(UserError, match=r"^there is no file .*nothing\.zip\.$"):
        bistable_rl.export(tmp_path / "nothing.zip", format="pt2")
    with pytest.raises(UserError, match="not as int"):
        bistable_rl.export(3, format="pt2")  # type: ignore[arg-type]
