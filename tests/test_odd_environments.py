"""What environments of others do: pictures of any size, attributes of any kind, episodes without an end, sizes."""

import importlib.util
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import DtypeObservation, FlattenObservation, FrameStackObservation, TimeLimit
from minigrid.wrappers import FlatObsWrapper, FullyObsWrapper, ImgObsWrapper, RGBImgPartialObsWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecMonitor, VecNormalize

from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.agent import load
from bistable_rl.agents.evaluation import evaluate, playing
from bistable_rl.agents.features import Image, Scaled, SymbolicView
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.cli import main
from bistable_rl.envs import make_batched_env, make_env
from bistable_rl.envs.wrappers import Categories
from bistable_rl.errors import NonFiniteError, RunFailedError, UserError
from bistable_rl.kernels import dispatch
from bistable_rl.runs import capacity, devices

BYTES = spaces.Box(0, 255, (32, 32, 3), np.uint8)
SMALL: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "device": "cpu", "seed": 0}


class Odd(gymnasium.Env[Any, Any]):
    """Ends after `length` steps, if ever, with what it is told to give."""

    def __init__(
        self,
        space: spaces.Space[Any] | None = None,
        *,
        length: float = 3,
        reward: Any = 1.0,
        info: dict[str, Any] | None = None,
        fails: bool = False,
        nan: bool = False,
        **attributes: Any,
    ) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32) if space is None else space
        self.action_space = spaces.Discrete(2)
        self.length, self.reward, self.info, self.fails, self.nan = length, reward, info or {}, fails, nan
        vars(self).update(attributes)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.fails:
            raise OSError("no connection")
        self.t += 1
        over = self.t >= self.length
        observation = np.full(2, np.nan, np.float32) if self.nan else self.observation_space.sample()
        return observation, self.reward, over, False, self.info if over else {}


class Raising(Odd):
    """Has properties that raise."""

    error: BaseException = ValueError("not today")

    @property
    def horizon(self) -> int:
        raise self.error

    reward_threshold = horizon


gymnasium.register("Odd-v0", entry_point=Odd)


def copies(n: int = 2, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: Odd(**kwargs)] * n)


SMALL_NETWORK = {"cell": "nbrc", "hidden_size": 4, "critic": "shared", "net_arch": []}


def model(env: Any, policy: dict[str, Any] | None = None, **kwargs: Any) -> RecurrentPPO:
    return RecurrentPPO("RecurrentPolicy", env, policy_kwargs=SMALL_NETWORK | (policy or {}), **SMALL | kwargs)


def modules(agent: RecurrentPPO) -> list[type]:
    extractor: Any = agent.policy.features_extractor
    return [type(part) for part in extractor.parts]


# --- what bytes mean ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [BYTES, spaces.Dict({"image": BYTES}), spaces.Box(0, 255, (3, 7, 7), np.uint8)])
def test_bytes_that_may_be_a_picture_or_categories_are_refused_until_it_is_said(space: spaces.Space[Any]) -> None:
    key = "image" if isinstance(space, spaces.Dict) else "observation"
    with pytest.raises(ValueError, match=f"{key}': 'categories'.*{key}': 'numbers'.*36 pixels"):
        model(Odd(space))
    assert modules(model(Odd(space), {"observation_kinds": {key: "numbers"}}).learn(8)) == [Scaled]
    assert modules(model(Odd(space), {"observation_kinds": {key: "categories"}}).learn(8)) == [SymbolicView]


def test_a_small_picture_is_read_as_brightness_from_0_to_1() -> None:
    agent = model(Odd(BYTES), {"observation_kinds": {"observation": "numbers"}})
    features = agent.policy.extract_features(torch.full((1, 3, 32, 32), 51, dtype=torch.uint8))
    torch.testing.assert_close(features, torch.full((1, 3 * 32 * 32), 0.2))


@pytest.mark.parametrize("view", [3, 7])
def test_minigrids_view_is_categories_with_and_without_our_wrapper(view: int) -> None:
    kwargs = {"agent_view_size": view}
    ours = BatchedVecEnv(make_batched_env("bistable_rl/MiniGridMemory-v0", num_envs=2, kwargs=kwargs))
    for env in (
        ours,
        make_env("MiniGrid-MemoryS7-v0", kwargs=kwargs),
        make_env("MiniGrid-MemoryS7-v0", kwargs=kwargs, wrappers=[{"name": "minigrid"}]),
        ImgObsWrapper(gymnasium.make("MiniGrid-MemoryS7-v0", **kwargs)),  # type: ignore[arg-type]
    ):
        assert SymbolicView in modules(model(env))


def test_minigrids_tiles_in_colour_are_no_categories_whatever_lies_below_them() -> None:
    for inner in (
        gymnasium.make("MiniGrid-MemoryS7-v0"),
        make_env("MiniGrid-MemoryS7-v0", wrappers=[{"name": "minigrid"}]),
    ):
        env = ImgObsWrapper(RGBImgPartialObsWrapper(inner, tile_size=4))  # 28 x 28 pixels
        with pytest.raises(ValueError, match="may be a small picture or a grid of categories"):
            model(env)


def test_minigrids_whole_grid_is_categories_however_large() -> None:
    for size in (5, 40):
        env = ImgObsWrapper(FullyObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0", size=size)))
        assert modules(model(env)) == [SymbolicView]


def test_a_grid_whose_cells_cannot_be_told_from_its_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="the first or the last axis may be the 3 categories of a cell"):
        model(copies(space=Categories(0, 255, (7, 3, 3), np.uint8)))


@pytest.mark.parametrize("shape", [(84, 84), (4, 7, 7, 3), (4, 84, 84, 1), (2, 2, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("space", [spaces.Box, Categories])
def test_bytes_in_two_or_four_dimensions_are_refused_until_it_is_said(
    space: type[spaces.Box], shape: tuple[int, ...]
) -> None:
    env = Odd(spaces.Dict({"seen": space(0, 255, shape, np.uint8), "more": spaces.Discrete(2)}))
    with pytest.raises(ValueError, match=r"'seen' of .* bytes may be .*observation_kinds={'seen': 'numbers'}"):
        model(env)
    agent = model(env, {"observation_kinds": {"seen": "numbers"}}).learn(8)
    extractor: Any = agent.policy.features_extractor
    part = extractor.parts[extractor.keys.index("seen")]
    torch.testing.assert_close(part(torch.full((1, *shape), 51.0)), torch.full((1, int(np.prod(shape))), 51.0))


def test_a_vector_of_bytes_is_read_unscaled_and_a_board_of_few_values_as_it_is() -> None:
    for space in (spaces.Box(0, 255, (128,), np.uint8), spaces.Box(0, 2, (3, 3), np.uint8)):
        agent = model(Odd(space)).learn(8)
        ones = torch.full((1, *space.shape), 2, dtype=torch.uint8)
        assert (agent.policy.extract_features(ones.float()) == 2).all()


def grid() -> Odd:
    return Odd(Categories(0, 255, (7, 7, 3), np.uint8))


def minigrid() -> gymnasium.Env[Any, Any]:
    return ImgObsWrapper(gymnasium.make("MiniGrid-MemoryS7-v0", agent_view_size=7))


CHANGED: dict[str, Any] = {
    "flattened": lambda: FlattenObservation(grid()),
    "flattened below others": lambda: TimeLimit(FlattenObservation(TimeLimit(grid(), 9)), 8),
    "minigrid flattened": lambda: FlattenObservation(minigrid()),
    "minigrid with its words": lambda: FlatObsWrapper(gymnasium.make("MiniGrid-MemoryS7-v0")),
    "stacked": lambda: FrameStackObservation(grid(), 4),
    "stacked and flattened": lambda: FlattenObservation(FrameStackObservation(minigrid(), 4)),
    "as floats": lambda: DtypeObservation(grid(), np.float32),
    "normalised by SB3": lambda: VecNormalize(DummyVecEnv([grid])),
    "minigrid normalised by SB3": lambda: VecNormalize(DummyVecEnv([minigrid])),
    "ours normalised by SB3": lambda: VecNormalize(
        BatchedVecEnv(make_batched_env("bistable_rl/MiniGridMemory-v0", num_envs=2)), norm_obs_keys=["image"]
    ),
    "a Dict normalised by SB3": lambda: VecNormalize(
        DummyVecEnv([lambda: make_env("MiniGrid-MemoryS7-v0")]), norm_obs_keys=["image"]
    ),
    "stacked by SB3": lambda: VecFrameStack(DummyVecEnv([grid]), 4),
    "a small view stacked by SB3": lambda: VecFrameStack(
        DummyVecEnv([lambda: Odd(Categories(0, 255, (3, 3, 3), np.uint8))]), 4
    ),
    "a large view stacked by SB3": lambda: VecFrameStack(
        DummyVecEnv([lambda: Odd(Categories(0, 255, (40, 40, 3), np.uint8))]), 4
    ),
}


@pytest.mark.filterwarnings("ignore:Treating image space:UserWarning")
@pytest.mark.parametrize("name", CHANGED)
def test_categories_that_a_wrapper_changed_are_refused_until_it_is_said(name: str, tmp_path: Path) -> None:
    env = CHANGED[name]()
    key = "image" if isinstance(env.observation_space, spaces.Dict) else "observation"
    with pytest.raises(ValueError, match=f"observation '{key}' of .*observation_kinds={{'{key}': 'numbers'}}"):
        model(env)
    agent = model(env, {"observation_kinds": {key: "numbers"}}).learn(8)
    assert SymbolicView not in modules(agent)
    assert Image not in modules(agent)
    agent.save(tmp_path / "new.zip")
    without_kinds(tmp_path)
    for reopened in (RecurrentPPO.load(tmp_path / "old.zip"), RecurrentPPO.load(tmp_path / "old.zip", env=env)):
        assert modules(reopened) == modules(agent)
    reopened.learn(8)


def test_what_changes_no_categories_leaves_them_what_they_are() -> None:
    for env in (
        TimeLimit(grid(), 9),
        VecNormalize(DummyVecEnv([grid]), norm_obs=False),
        VecMonitor(DummyVecEnv([lambda: Monitor(grid())])),
    ):
        assert modules(model(env)) == [SymbolicView]
    tall = gymnasium.make("MiniGrid-MemoryS7-v0", agent_view_size=9)
    pixels = ImgObsWrapper(RGBImgPartialObsWrapper(tall, tile_size=4))  # 36 x 36
    assert modules(model(pixels)) == [Image]


def without_kinds(folder: Path) -> None:
    """Write old.zip, which is new.zip without what was said."""
    with zipfile.ZipFile(folder / "new.zip") as new, zipfile.ZipFile(folder / "old.zip", "w") as old:
        for name in new.namelist():
            data = new.read(name)
            if name == "model.json":
                about = json.loads(data)
                del about["settings"]["policy_kwargs"]["observation_kinds"]
                data = json.dumps(about).encode()
            old.writestr(zipfile.ZipInfo(name), data)


def test_an_archive_from_before_it_could_be_said_is_read_as_it_was(tmp_path: Path) -> None:
    env = Odd(BYTES)
    agent = model(env, {"observation_kinds": {"observation": "categories"}})
    agent.save(tmp_path / "new.zip")
    without_kinds(tmp_path)
    for reopened in (RecurrentPPO.load(tmp_path / "old.zip"), RecurrentPPO.load(tmp_path / "old.zip", env=env)):
        assert modules(reopened) == [SymbolicView]
        torch.testing.assert_close(dict(reopened.policy.named_parameters()), dict(agent.policy.named_parameters()))


def config(folder: Path, **env: Any) -> Path:
    file = folder / "odd.yaml"
    facts = {
        "name": "odd",
        "env": {"id": "Odd-v0", "num_envs": 2, "kwargs": env},
        "policy": {"hidden_size": 4},
        "algorithm": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
        "total_steps": 32,
        "evaluation": {"every": 16, "episodes": 2, "max_episode_steps": 50},
        "device": "cpu",
    }
    file.write_text(json.dumps(facts))
    return file


def test_a_run_from_before_it_could_be_said_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "__init__", _with_bytes(Odd.__init__))
    file, out = config(tmp_path), tmp_path / "runs"
    options = ["--policy.observation_kinds", "{observation: categories}"]
    assert main(["train", str(file), "--out", str(out), *options]) == 0
    run = out / "odd" / "mixed-seed0"
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("  observation_kinds:\n    observation: categories\n", ""))
    assert text != (run / "config.yaml").read_text()
    extractor: Any = load(run).policy.features_extractor
    assert isinstance(extractor.parts[0], SymbolicView)
    assert main(["train", "--resume", str(run), "--total_steps", "64"]) == 0


def _with_bytes(init: Any) -> Any:
    return lambda self, **kwargs: init(self, BYTES, **kwargs)


def test_categories_are_equal_to_the_plain_space_of_archives() -> None:
    assert Categories(0, 255, (7, 7, 3), np.uint8) == spaces.Box(0, 255, (7, 7, 3), np.uint8)


# --- what an environment declares --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "abc", [1], print, float("nan"), -3, 0, True, 50.5], ids=str)
@pytest.mark.parametrize("name", ["horizon", "reward_threshold", "spec"])
def test_what_is_declared_and_is_no_number_is_ignored(name: str, value: Any) -> None:
    env = copies(**{name: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = model(env)
    played = evaluate(agent.policy, env, 2)
    if name != "reward_threshold" or not isinstance(value, float | int) or value is True or value != value:
        assert played.successes is None


@pytest.mark.parametrize("error", [ValueError("not today"), SystemExit(3)], ids=repr)
def test_properties_that_raise_are_ignored(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raising, "error", error)
    env = DummyVecEnv([Raising])
    assert evaluate(model(env).policy, env, 2).successes is None


@pytest.mark.parametrize("value", [True, np.bool_(True), 1, 1.0, np.array([True])], ids=repr)
def test_a_success_may_be_told_by_any_true(value: Any) -> None:
    env = copies(info={"is_success": value})
    played = evaluate(model(env).learn(16).policy, env, 2)
    assert played.successes is not None
    assert played.successes.all()


@pytest.mark.parametrize(
    "info",
    [{"is_success": float("nan")}, {"is_success": "yes"}, {"is_success": [1, 0]}, {"mse": float("inf")}],
    ids=str,
)
def test_a_success_or_error_that_is_none_is_one_sentence(info: dict[str, Any]) -> None:
    env = copies(info=info)
    agent = model(copies())
    with pytest.raises(RunFailedError, match=f"info..{next(iter(info))}.. must be"):
        evaluate(agent.policy, env, 2)
    if "is_success" in info:
        with pytest.raises(RunFailedError, match="must be true or false"):
            model(env).learn(16)


# --- evaluation --------------------------------------------------------------------------------------------


def test_episodes_that_never_end_end_an_evaluation_in_a_sentence() -> None:
    agent = model(copies())
    with pytest.raises(RunFailedError, match=r"not ended after 20 steps.*time_limit.*max_episode_steps"):
        evaluate(agent.policy, copies(length=float("inf")), 2, max_episode_steps=20)
    assert evaluate(agent.policy, copies(length=20), 2, max_episode_steps=20).lengths.tolist() == [20, 20]


def test_an_endless_copy_whose_share_is_played_stops_nothing() -> None:
    env = DummyVecEnv([lambda: Odd(length=2), lambda: Odd(length=30)])
    played = evaluate(model(copies()).policy, env, 2, max_episode_steps=30)
    assert sorted(played.lengths.tolist()) == [2, 30]


@pytest.mark.parametrize("kwargs", [{"reward": float("nan")}, {"reward": float("inf")}, {"nan": True}], ids=str)
def test_what_is_no_number_in_an_evaluation_is_one_sentence(kwargs: dict[str, Any]) -> None:
    agent = model(copies())
    with pytest.raises(NonFiniteError, match="of environment copy 0 became NaN or infinite in step 1 of an episode"):
        evaluate(agent.policy, copies(**kwargs), 2)


def test_an_environment_that_raises_while_it_is_played_is_one_sentence() -> None:
    agent = model(copies())
    with pytest.raises(RunFailedError, match=r"env: it fails during an episode: OSError: no connection\."), playing():
        evaluate(agent.policy, copies(fails=True), 2)


@pytest.mark.parametrize("command", [["evaluate"], ["play", "--run"], ["analyze"]], ids=str)
@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"fails": True}, "OSError: no connection"),
        ({"nan": True}, "NaN"),
        ({"info": {"is_success": "x"}}, "is_success"),
    ],
)
def test_the_commands_say_it_in_one_sentence_and_exit_1(
    command: list[str],
    kwargs: dict[str, Any],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = config(tmp_path), tmp_path / "runs"
    assert main(["train", str(file), "--out", str(out)]) == 0
    init = Odd.__init__
    monkeypatch.setattr(Odd, "__init__", lambda self, **_: init(self, **kwargs))
    capsys.readouterr()
    assert main([*command, str(out / "odd" / "mixed-seed0")]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "WARN" not in line]
    assert len(said) == 1
    assert expected in said[0]


def test_a_training_whose_evaluation_never_ends_fails_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = config(tmp_path, length=10**9), tmp_path / "runs"
    assert main(["train", str(file), "--out", str(out)]) == 1
    assert (
        "an episode has not ended after 50 steps; cut episodes with the wrapper time_limit" in capsys.readouterr().err
    )
    assert json.loads((out / "odd" / "mixed-seed0" / "result.json").read_text())["status"] == "failed"


@pytest.mark.filterwarnings("error:predict was called")
def test_episodes_of_one_step_are_not_taken_for_a_forgotten_memory() -> None:
    agent, env = model(copies()), copies(length=1)
    for _ in range(3):
        evaluate(agent.policy, env, 2)
        agent.predict(env.reset(), None, np.ones(2, bool))


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"reward": float("nan")}, "rewards became nan in step 0 of environment copy 0"),
        ({"reward": float("inf")}, "rewards became inf in step 0 of environment copy 0"),
        ({"nan": True}, "observations became nan in step 1 of environment copy 0"),
    ],
)
def test_an_environment_that_gives_no_number_is_blamed_and_not_the_learning_rate(
    kwargs: dict[str, Any], expected: str
) -> None:
    with pytest.raises(NonFiniteError, match=expected):
        model(copies(**kwargs)).learn(16)


def test_rewards_too_large_for_the_loss_are_named() -> None:
    with pytest.raises(NonFiniteError, match=r"rewards of up to 1e\+30 are too large.*VecNormalize"):
        model(copies(reward=1e30)).learn(16)
    model(copies(reward=1e15)).learn(16)


def test_a_time_limit_without_the_last_observation_ends_the_episode_and_is_warned_of_once() -> None:
    class Silent(DummyVecEnv):
        def step_wait(self) -> Any:
            observations, rewards, dones, infos = super().step_wait()
            for info in infos:
                info.pop("terminal_observation", None)
                info["TimeLimit.truncated"] = True
            return observations, rewards, dones, infos

    with pytest.warns(UserWarning, match="terminal_observation") as warned:
        agent = model(Silent([Odd] * 2)).learn(64)
    assert sum("terminal_observation" in str(w.message) for w in warned) == 1
    assert not agent.rollout.bootstraps.any()


# --- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"hidden_size": 10**6}, "hidden_size 1,000,000"),
        ({"hidden_size": 10**12}, "hidden_size 1,000,000,000,000"),
        ({"num_layers": 10**10}, "num_layers 10,000,000,000"),
        ({"net_arch": [10**7, 10**7]}, "net_arch"),
        ({"cell": "lmu", "cell_kwargs": {"memory_size": 10**7}}, "memory"),
    ],
)
def test_a_network_beyond_memory_is_refused_before_it_is_built(policy: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=f"{expected}.*needs at least .* of memory, but only .* are free"):
        model(copies(), policy)


@pytest.mark.parametrize(
    ("policy", "copied", "expected"),
    [
        ({"num_layers": 20_000, "hidden_size": 64}, 2, "the training of num_layers 20,000 of hidden_size 64"),
        ({"cell": "plastic_gru", "hidden_size": 2048}, 32, r"the state of 32 copies \(4,196,352 numbers each\)"),
        (
            {"cell": "plastic_gru", "hidden_size": 2048, "critic": "separate"},
            16,
            r"the state of 16 copies \(8,392,704 numbers each\)",
        ),
    ],
)
def test_what_training_needs_is_counted_before_it_is_built(
    policy: dict[str, Any], copied: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "available", lambda device="cpu": 10**9)
    monkeypatch.setattr(RecurrentPolicy, "_make_memories", lambda *_: pytest.fail("it is built"))
    with pytest.raises(UserError, match=f"^{expected}.*needs at least .* of memory, but only 1 GB are free"):
        model(copies(copied), policy)


def test_the_width_of_the_observation_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "available", lambda device="cpu": 10**8)
    monkeypatch.setattr(RecurrentPolicy, "_make_memories", lambda *_: pytest.fail("it is built"))
    wide = spaces.Box(-1, 1, (50_000,), np.float32)
    with pytest.raises(UserError, match=r"^the training of num_layers 1 of hidden_size 128 .* needs at least 308 MB"):
        model(copies(space=wide), {"hidden_size": 128})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--algorithm.n_steps", "1000000000000"], "n_steps 1000000000000"),
        (["--env.num_envs", "1000000000000"], "env.num_envs 1000000000000"),
        (["--evaluation.episodes", "1000000000000000"], "evaluation.episodes 1000000000000000"),
        (["--policy.hidden_size", "1000000"], "of hidden_size 1,000,000"),
        (["--policy.num_layers", "10000000"], "the training of num_layers 10,000,000 of hidden_size 64"),
        (["--env.num_envs", "100000000000000000000"], "env.num_envs must be an integer below 2^63"),
        (["--total_steps", "9223372036854775808"], "total_steps must be an integer below 2^63"),
        (
            ["--evaluation.horizons", "[100000000000000000000]"],
            "evaluation.horizons[0] must be an integer below 2^63, not",
        ),
        (["--env.kwargs.length", "1000000000000"], "length must be an integer from 2 to 2147483647"),
    ],
)
def test_sizes_beyond_memory_or_numbers_are_one_sentence(
    options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "rl/copy_first", "--out", str(tmp_path), "--device", "cpu", *options]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--task.kwargs.length", "1000000000000"],
        ["--network.hidden_size", "1000000"],
        ["--task.kwargs.train_size", "1000000000000"],
    ],
)
def test_a_benchmark_beyond_memory_is_one_sentence(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "supervised/copy_first", "--out", str(tmp_path), "--device", "cpu", *options]) == 2
    said = capsys.readouterr().err
    assert "of memory, but only" in said
    assert options[1] in said.replace(",", "")
    assert not list(tmp_path.iterdir())


def test_a_speed_beyond_memory_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "cells", "--shapes", "1000000,1000,100,1000"]) == 2
    assert "speed: the shape 1000000,1000,100,1000 needs" in capsys.readouterr().err


def test_a_control_groups_limit_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_cgroups", lambda: [1000])
    with pytest.raises(UserError, match="this needs at least 2 KB of memory, but only 1 KB are free"):
        capacity.check_memory("this", 2000)
    capacity.check_memory("this", 1000)


# --- what is said ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["bistable_rl/Denoising-v0", "bistable_rl/DenoisingDiscrete-v0"])
def test_a_default_window_follows_the_length(env_id: str) -> None:
    assert make_env(env_id, kwargs={"length": 20}).unwrapped.batch.window == 20  # type: ignore[attr-defined]
    assert make_env(env_id, kwargs={"length": 300}).unwrapped.batch.window == 40  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"window must be at most length \(20\), not 40"):
        make_env(env_id, kwargs={"length": 20, "window": 40})


def test_an_id_of_somebody_elses_package_is_answered_with_its_own() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'MiniGrid-MemoryS\d") as raised:
        make_env("MiniGrid-MemoryS8-v0")
    assert "bistable_rl/" not in str(raised.value)


def test_a_labyrinth_without_mazelib_is_answered_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("popgym")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mazelib" else find(name))
    for name in list(gymnasium.registry):
        if "Labyrinth" in name:
            monkeypatch.delitem(gymnasium.registry, name)
    for name in ("popgym-LabyrinthEscapeEasy-v0", "popgym-LabyrinthExploreHard-v0"):
        with pytest.raises(
            ValueError, match=f"{name}.*registers its labyrinths only where the package mazelib is installed"
        ) as r:
            make_env(name)
        assert "bistable_rl/" not in str(r.value)


def test_missing_kernels_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.warn_of_missing_kernels.cache_clear()
    monkeypatch.setattr(dispatch, "_CPU", (False, "no compiler built them"))
    with pytest.warns(UserWarning, match=r"without its fast kernels \(not cpu: no compiler built them\)"):
        model(copies())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(fast|compiled) kernels")
        model(copies()).learn(8)
    devices.warn_of_missing_kernels.cache_clear()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: model(gymnasium.make_vec("CartPole-v1", 2)), "autoreset_mode must be SAME_STEP, not .*make_vec"),
        (lambda: RecurrentPPO("MlpLstm", Odd()), "choose from RecurrentPolicy, MlpRecurrentPolicy"),
        (lambda: RecurrentPPO("MlpLstmPolicy", Odd()), "is sb3-contrib's name; here it is MlpRecurrentPolicy"),
        (lambda: RecurrentPPO("MlpPolicy", Odd()), "is Stable-Baselines3's name; here it is MlpRecurrentPolicy"),
        (lambda: RecurrentPPO("CnnPolicy", Odd()), "here it is CnnRecurrentPolicy"),
        (lambda: RecurrentPPO("MultiInputLstmPolicy", Odd()), "here it is MultiInputRecurrentPolicy"),
        (
            lambda: model(Odd(), {"lstm_hidden_size": 8}),
            "lstm_hidden_size is sb3-contrib's name; here it is hidden_size",
        ),
        (lambda: model(Odd(), {"n_lstm_layers": 8}), "here it is num_layers"),
        (lambda: model(Odd), "env must be an environment or its id, got <class"),
        (
            lambda: model(Odd(), {"net_arch": {"pi": [8.5]}}),
            "net_arch must be a list of integers above 0, or such lists",
        ),
        (lambda: model(Odd(), {"net_arch": {"qf": [8]}}), r"such lists as \{pi: \[64\], vf: \[64\]\}, not .*qf"),
        (lambda: model(Odd(spaces.Dict({"a": spaces.Text(4)}))), "reads Box.*make_env leaves a Dict's texts out"),
        (lambda: model(Odd(spaces.Dict({}))), "holds nothing a policy reads"),
    ],
)
def test_what_is_refused_names_what_would_be_right(call: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        call()


def test_an_unknown_argument_of_the_policy_names_the_nearest() -> None:
    with pytest.raises(TypeError, match="unknown argument in policy_kwargs 'hiden_size'; did you mean 'hidden_size'"):
        model(Odd(), {"hiden_size": 8})


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 3], np.int32), spaces.Discrete(3, dtype=np.int32)], ids=str)
def test_an_archive_knows_its_own_discrete_spaces_again(space: spaces.Space[Any], tmp_path: Path) -> None:
    env = Odd()
    env.action_space = space
    model(env).save(tmp_path / "m.zip")
    assert RecurrentPPO.load(tmp_path / "m.zip", env=env).action_space == space


# --- processes ---------------------------------------------------------------------------------------------


class Unpicklable(Odd):
    """Cannot be sent to another process; neither can its registration."""

    reward_threshold = -1e9

    def __init__(self) -> None:
        super().__init__()
        self.spec = gymnasium.envs.registration.EnvSpec("Unpicklable-v0", entry_point=lambda: Unpicklable())  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        raise TypeError("holds what cannot be pickled")


def test_copies_in_other_processes_are_trained_and_evaluated_without_being_pickled() -> None:
    env = SubprocVecEnv([lambda: Monitor(Unpicklable())] * 2, start_method="fork")
    try:
        agent = model(env).learn(40)
        played = evaluate(agent.policy, env, 4)
    finally:
        env.close()
    assert len(played.returns) == 4
    assert played.successes is not None
    assert played.successes.all()
