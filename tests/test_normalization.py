"""Normalised trainings: VecNormalize in training, its last statistics in everything that plays the agent."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from gymnasium import spaces
from noise_env import noise
from stable_baselines3.common.vec_env import VecNormalize

from bistable_rl.agents.adversary import attack
from bistable_rl.agents.agent import load
from bistable_rl.agents.evaluate_run import evaluate_run
from bistable_rl.agents.evaluation import evaluate
from bistable_rl.agents.horizons import Horizons
from bistable_rl.agents.normalization import Normalization, load_normalization, reading_unnormalized
from bistable_rl.agents.play import watch
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.state import capture_normalization
from bistable_rl.agents.training import train
from bistable_rl.agents.vec_envs import make_evaluation_env, make_vec_env
from bistable_rl.certify import certify
from bistable_rl.cli import main
from bistable_rl.compare.jobs import hashed_keys
from bistable_rl.envs import make_batched_env
from bistable_rl.errors import UserError
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import EnvConfig, Experiment, NormalizeConfig, load_config
from bistable_rl.runs.seeds import EVALUATION, derived_seed

BOTH = NormalizeConfig(obs=True, reward=True)


@pytest.fixture
def normal(experiment: Experiment) -> Experiment:
    """Return the small experiment, normalised, with distractors and a further horizon."""
    kwargs = {**experiment.env.kwargs, "distractors": "uniform"}
    experiment = replace(experiment, env=replace(experiment.env, kwargs=kwargs, normalize=BOTH))
    experiment.evaluation.horizons = [9]
    return experiment


@pytest.fixture
def run(normal: Experiment, tmp_path: Path) -> Path:
    return train(normal, tmp_path)


def statistics(run: Path, *, best: bool = False) -> dict[str, np.ndarray]:
    checkpoints = Run(run).checkpoints
    file = (checkpoints.best() if best else checkpoints.latest()) / "training.safetensors"
    return {key: a for key, a in safetensors.numpy.load(file.read_bytes()).items() if key.startswith("normalize/")}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (3,), np.float32),
        spaces.Box(-5, 5, (2, 4, 3), np.float64),
        spaces.Dict({"b": spaces.Box(-1, 1, (2,)), "a": spaces.Box(-9, 9, (1,))}),
    ],
)
def test_a_policy_normalises_to_the_bits_of_vec_normalize(space: spaces.Space[Any]) -> None:
    env = VecNormalize(noise(space))
    model = RecurrentPPO("RecurrentPolicy", env, n_steps=16, batch_size=32, seed=0, device="cpu")
    model.learn(64)
    seen = env.venv.reset()
    as_dict: dict[str, Any] = seen if isinstance(seen, dict) else {"": seen}
    for part in as_dict.values():
        part[0] *= 1e6  # beyond the clip
    expected = env.normalize_obs(seen)  # type: ignore[arg-type]
    with reading_unnormalized(model):
        read = model.policy.normalization
        assert read is not None
        obs, _ = model.policy.obs_to_tensor(seen)  # type: ignore[arg-type]
        found = read(obs)
        action, _ = model.policy.predict(seen, deterministic=True)
    assert model.policy.normalization is None
    saved = load_normalization(capture_normalization(model), space, "it")(obs)
    for key, part in (expected if isinstance(expected, dict) else {"": expected}).items():
        for tensor in (found, saved):
            numbers = (tensor[key] if isinstance(tensor, dict) else tensor).numpy()
            np.testing.assert_array_equal(numbers, part)
            assert numbers.dtype == np.float32
        assert np.abs(part).max() == 10
    np.testing.assert_array_equal(
        action, model.policy.predict(expected, episode_start=np.ones(4), deterministic=True)[0]
    )


def test_the_statistics_count_the_observations_and_rewards_of_the_training_alone(run: Path) -> None:
    found = statistics(run)
    steps = json.loads((run / "result.json").read_text())["steps"]
    assert found["normalize/observation/count"] == pytest.approx(steps + 4)
    assert found["normalize/reward/count"] == pytest.approx(steps)
    assert found["normalize/observation/mean"].shape == (4,)
    best = int(Run(run).checkpoints.best().name.removeprefix("best-"))
    assert statistics(run, best=True)["normalize/observation/count"] == pytest.approx(best + 4)


def test_a_loaded_agent_plays_as_the_training_evaluated_it_with_rewards_as_they_are(
    run: Path, normal: Experiment
) -> None:
    result = json.loads((run / "result.json").read_text())
    seed = derived_seed(normal.seed, EVALUATION)
    agent = load(run)
    played = evaluate(agent, make_evaluation_env(normal.env, 5, seed), 5)
    assert played.summary() == result["evaluation"]
    assert Horizons(normal.env, [9], 5, seed).evaluate(agent) == result["horizons"]
    assert set(played.returns) <= {0.0, 1.0, -1.0}


def test_without_its_statistics_the_agent_is_another(run: Path, normal: Experiment) -> None:
    agent = load(run)
    env = make_vec_env(normal.env, 20, seed=1)
    seen = env.reset()
    with torch.no_grad():
        read = agent.policy.extract_features(agent.policy.obs_to_tensor(seen)[0])  # type: ignore[arg-type]
        agent.policy.normalization = None
        bare = agent.policy.extract_features(agent.policy.obs_to_tensor(seen)[0])  # type: ignore[arg-type]
    mean, var = (statistics(run)[f"normalize/observation/{part}"] for part in ("mean", "var"))
    np.testing.assert_allclose(read.numpy(), (bare.numpy() - mean) / np.sqrt(var), rtol=1e-5, atol=1e-5)
    assert not torch.equal(read, bare)


def test_whatever_plays_a_run_takes_its_statistics(run: Path, normal: Experiment, tmp_path: Path) -> None:
    assert evaluate_run(run, episodes=3, best=True)["episodes"] == 3
    assert len(watch(run, delay=0, show=lambda _: None)) == 1
    for command in (["evaluate", "--horizons", "5,9", "--episodes", "3"], ["evaluate", "--adversary", "--steps", "20"]):
        assert main([command[0], str(run), *command[1:]]) == 0
    assert main(["analyze", str(run), "--out", str(tmp_path / "analysis")]) == 0
    env = make_batched_env("bistable_rl/CopyFirst-v0", num_envs=1, kwargs=normal.env.kwargs).unwrapped
    found = attack(load(run).policy, env, 20, 3)  # type: ignore[arg-type]
    assert len(found.worst) == 2


def test_a_certificate_is_refused_where_observations_are_normalised(
    run: Path, normal: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    env = make_batched_env("bistable_rl/CopyFirst-v0", num_envs=1, kwargs=normal.env.kwargs)
    with pytest.raises(UserError, match="only observations as they are can be certified, not normalised"):
        certify(load(run).policy, env.unwrapped)  # type: ignore[arg-type]
    assert main(["certify", str(run)]) == 2
    assert "not normalised" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["obs", "reward"])
def test_the_certified_loss_is_refused_with_normalisation(normal: Experiment, tmp_path: Path, what: str) -> None:
    normal.algorithm.certified_coef = 1.0
    normal.env.normalize = NormalizeConfig(**{what: True})
    with pytest.raises(UserError, match=r"certified_coef .* env.normalize must be false for both"):
        train(normal, tmp_path)


def test_rewards_alone_need_no_statistics_to_act(normal: Experiment, tmp_path: Path) -> None:
    normal.env.normalize = NormalizeConfig(reward=True)
    run = train(normal, tmp_path)
    assert load(run).policy.normalization is None
    assert {key.split("/")[1] for key in statistics(run)} == {"returns", "reward"}


def test_the_discount_of_normalised_rewards_is_the_algorithms(
    normal: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float] = []
    start = VecNormalize.__init__

    def keep(self: VecNormalize, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        made.append(self.gamma)

    monkeypatch.setattr(VecNormalize, "__init__", keep)
    normal.algorithm.gamma = 0.5
    train(normal, tmp_path)
    assert made == [0.5]


def test_a_warm_up_sees_normalised_observations(normal: Experiment, tmp_path: Path) -> None:
    normal.warmup.steps = 2
    assert json.loads((train(normal, tmp_path) / "result.json").read_text())["warmup"]


@pytest.mark.parametrize(
    ("env_id", "named"),
    [("FrozenLake-v1", r"not Discrete\(16\)"), ("bistable_rl/MiniGridMemory-v0", "for '(direction|image)'")],
)
def test_only_floating_point_numbers_are_normalised(
    env_id: str, named: str, normal: Experiment, tmp_path: Path
) -> None:
    normal.env = EnvConfig(env_id, num_envs=4, normalize=BOTH)
    normal.evaluation.horizons = []
    with pytest.raises(UserError, match=f"^env: .*{named}"):
        train(normal, tmp_path)
    assert not list(tmp_path.glob("small"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda arrays: arrays.pop("normalize/observation/var"), "incomplete: normalize/observation/var is missing"),
        (lambda arrays: arrays.update({"normalize/observation/mean": np.zeros(2)}), "must have shape"),
        (lambda arrays: arrays["normalize/observation/var"].fill(-1), "a negative variance"),
        (lambda arrays: arrays["normalize/observation/mean"].fill(np.nan), "NaN, infinity"),
    ],
)
def test_broken_statistics_are_one_sentence(change: Any, expected: str, run: Path) -> None:
    file = Run(run).checkpoints.latest() / "training.safetensors"
    arrays = {key: a.copy() for key, a in safetensors.numpy.load(file.read_bytes()).items()}
    change(arrays)
    file.write_bytes(safetensors.numpy.save(arrays))
    with pytest.raises(UserError, match=rf"^the checkpoint .*{expected}"):
        load(run)


def test_the_keys_are_options_and_change_a_hash_only_where_they_are_on(config: Path) -> None:
    plain = load_config(Experiment, config)
    assert plain.env.normalize == NormalizeConfig()
    assert not [key for key in hashed_keys(plain) if "normalize" in key and key.startswith("env")]
    given = load_config(Experiment, config, ["--env.normalize.reward", "true"])
    assert given.env.normalize == NormalizeConfig(reward=True)
    assert hashed_keys(given).keys() - hashed_keys(plain).keys() == {"env.normalize.reward"}
    with pytest.raises(UserError, match=r"did you mean '--env.normalize.reward'"):
        load_config(Experiment, config, ["--env.normalize.rewards", "true"])


def test_statistics_move_with_the_policy() -> None:
    read = Normalization({"observation": (np.zeros(3), np.ones(3))})
    assert not read.state_dict()
    assert len(list(read.buffers())) == 2
