"""What all environments share: gymnasium's and SB3's checkers, seeding, autoreset, state."""

import inspect
import pickle
import re
import subprocess
import sys
import warnings
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import idx
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from bistable_rl.data.digits import SHA256
from bistable_rl.envs import ENVIRONMENTS, make_batched_env, make_env
from bistable_rl.envs.base import BatchedEnv
from bistable_rl.envs.popgym import LEVELS, TASKS

SHORT: dict[str, dict[str, Any]] = {
    "bistable_rl/CopyFirst-v0": {"length": (2, 5), "num_symbols": 3},
    "bistable_rl/CopyFirstContinuous-v0": {"length": [2, 5], "dimensions": 3, "reward": "exp"},
    "bistable_rl/Denoising-v0": {"length": 11, "window": 7},
    "bistable_rl/DenoisingDiscrete-v0": {"length": 10, "window": 5, "num_symbols": 2},
    "bistable_rl/TMaze-v0": {"length": 2, "stochasticity": 0.3, "previous_action_reward": True},
    "bistable_rl/TMazeMasked-v0": {"length": 2, "stochasticity": 0.3, "previous_action_reward": True},
    "bistable_rl/TMazePassive-v0": {"length": 3},
    "bistable_rl/TMazeActive-v0": {"length": 3},
    "bistable_rl/MemoryLength-v0": {"length": 2},
    "bistable_rl/MemorySize-v0": {"length": 1, "num_bits": 4},
    "bistable_rl/RepeatPrevious-v0": {"length": 4, "k": 2},
    "bistable_rl/LineDigits-v0": {"length": 7},
    "bistable_rl/MiniGridMemory-v0": {"size": 9, "random_length": True, "num_actions": 3},
    **{
        f"bistable_rl/Popgym{name}{level}-v0": {
            task.horizon: {"num_decks": 1, "size": 4, "length": 100}[task.horizon],
            **({"k": 3} if name == "RepeatPrevious" else {}),
            **({"num_mines": 3} if name == "MineSweeper" else {}),
            **({"ship_sizes": [1, 2]} if name == "Battleship" else {}),
            "previous_action": level != "Medium",
        }
        for name, task in TASKS.items()
        for level in LEVELS
    },
}
"""Arguments that make episodes end often, at different steps."""

IDS = list(ENVIRONMENTS)


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Compare what two vector environments returned, down to dtypes."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y, where)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, where
        np.testing.assert_array_equal(a, b, err_msg=where)
    else:
        assert a == b, where


@pytest.fixture(autouse=True)
def small_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Images of 5 lines, 3 columns, a ninth of them ones, in MNIST's format."""
    labels = np.r_[np.ones(10), np.repeat([0, *range(2, 10)], 9)[:80]].astype(np.uint8)
    images = np.random.default_rng(0).integers(256, size=(90, 5, 3)).astype(np.uint8)
    for name, array in zip(list(SHA256)[:2], (images, labels), strict=True):
        (tmp_path / name).write_bytes(idx(array))
    monkeypatch.setenv("BISTABLE_RL_DATA", str(tmp_path))


def test_every_environment_has_short_arguments_for_these_tests() -> None:
    assert SHORT.keys() == ENVIRONMENTS.keys()


def test_importing_the_environments_leaves_torch_alone() -> None:
    code = "import sys, bistable_rl.envs; print('torch' in sys.modules, 'minigrid' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_an_id_with_our_package_registers_itself() -> None:
    code = "import gymnasium; print(gymnasium.make('bistable_rl.envs:bistable_rl/TMaze-v0').spec.id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "bistable_rl/TMaze-v0"


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("kwargs", [{}, None])
def test_both_checkers_pass_without_a_warning(env_id: str, kwargs: dict[str, Any] | None) -> None:
    kwargs = SHORT[env_id] if kwargs is None else kwargs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The minimal resolution for an image is 36x36")  # SB3 on a 3x3 view
        check_env(gymnasium.make(env_id, **kwargs).unwrapped)
        sb3_check_env(gymnasium.make(env_id, **kwargs))


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_wrappers_find_nothing_wrong_in_whole_episodes(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(env_id, **SHORT[env_id])  # with PassiveEnvChecker
        env.action_space.seed(0)
        for seed in range(5):
            env.reset(seed=seed)
            done, steps, info = False, 0, dict[str, Any]()
            while not done:
                assert info == {}
                _, _, terminated, truncated, info = env.step(env.action_space.sample())
                done, steps = terminated or truncated, steps + 1
            assert isinstance(info["is_success"], bool)
            assert steps <= env.unwrapped.horizon  # type: ignore[attr-defined]


@pytest.mark.parametrize("env_id", IDS)
def test_the_environment_ends_its_episodes_itself(env_id: str) -> None:
    assert gymnasium.spec(env_id).max_episode_steps is None


@pytest.mark.parametrize("env_id", IDS)
def test_the_registered_threshold_is_the_environments_own(env_id: str) -> None:
    env = make_env(env_id).unwrapped
    assert gymnasium.spec(env_id).reward_threshold == pytest.approx(env.reward_threshold, abs=0.005)  # type: ignore[attr-defined]
    assert env.memoryless_return < env.reward_threshold < env.optimal_return  # type: ignore[attr-defined]
    assert env.normalized_score(env.optimal_return) == pytest.approx(1)  # type: ignore[attr-defined]
    assert env.normalized_score(env.memoryless_return) == pytest.approx(0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("env_id", IDS)
def test_make_vec_gives_the_batched_form(env_id: str) -> None:
    env = gymnasium.make_vec(env_id, num_envs=3, vectorization_mode="vector_entry_point")
    assert type(env) is ENVIRONMENTS[env_id].batched
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observations, infos = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    assert infos == {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", IDS)
def test_a_batch_does_what_gymnasium_does_with_single_copies(env_id: str, mode: AutoresetMode) -> None:
    n, kwargs = 4, SHORT[env_id]
    ours = gymnasium.make_vec(
        env_id, num_envs=n, vectorization_mode="vector_entry_point", autoreset_mode=mode.name, **kwargs
    )
    theirs: SyncVectorEnv = SyncVectorEnv([lambda: gymnasium.make(env_id, **kwargs)] * n, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is mode
    ours.action_space.seed(1)
    assert_equal(ours.reset(seed=7), theirs.reset(seed=7))
    ended = 0
    for _ in range(210):  # at least two episodes of each copy
        actions = ours.action_space.sample()
        step = ours.step(actions)
        assert_equal(step, theirs.step(actions))
        done = step[2] | step[3]
        ended += done.sum()
        if mode is AutoresetMode.DISABLED and done.any():
            assert_equal(ours.reset(options={"reset_mask": done}), theirs.reset(options={"reset_mask": done}))
    assert ended > n


@pytest.mark.parametrize("env_id", IDS)
def test_copies_differ_and_so_do_their_episodes(env_id: str) -> None:
    env = make_batched_env(env_id, num_envs=64, kwargs=SHORT[env_id], autoreset_mode="DISABLED")
    states: list[dict[str, np.ndarray]] = []
    for _ in range(2):
        env.reset(seed=0 if not states else None)
        states.append(env.get_state())  # type: ignore[attr-defined]
    assert len(np.unique(states[0]["keys"])) == 64
    assert not np.intersect1d(states[0]["keys"], states[1]["keys"]).size


@pytest.mark.parametrize("env_id", IDS)
def test_unseeded_environments_differ(env_id: str) -> None:
    a, b = (make_batched_env(env_id, num_envs=8) for _ in range(2))
    a.reset()
    b.reset()
    assert (a.seeds != b.seeds).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize("env_id", IDS)
def test_a_saved_state_goes_on_bit_for_bit(env_id: str) -> None:
    first, second = (make_batched_env(env_id, num_envs=5, kwargs=SHORT[env_id]) for _ in range(2))
    first.action_space.seed(2)
    first.reset(seed=3)
    for _ in range(7):
        first.step(first.action_space.sample())
    state = first.get_state()  # type: ignore[attr-defined]
    assert all(type(value) is np.ndarray and value.dtype != object for value in state.values())
    actions = [first.action_space.sample() for _ in range(30)]
    expected = [first.step(action) for action in actions]
    second.set_state(state)  # type: ignore[attr-defined]
    for action, step in zip(actions, expected, strict=True):
        assert_equal(second.step(action), step)


def test_a_state_of_other_copies_is_refused() -> None:
    env = make_batched_env("bistable_rl/TMaze-v0", num_envs=2)
    other = make_batched_env("bistable_rl/TMaze-v0", num_envs=3)
    with pytest.raises(ValueError, match=r"seeds must have shape \(2,\), not \(3,\)"):
        env.set_state(other.get_state())  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="the state must hold seeds"):
        env.set_state({})  # type: ignore[attr-defined]


@pytest.mark.parametrize("env_id", IDS)
def test_observations_are_new_arrays(env_id: str) -> None:
    env = make_batched_env(env_id, num_envs=3, kwargs=SHORT[env_id])
    env.action_space.seed(0)
    before, _ = env.reset(seed=0)
    kept = deepcopy(before)
    for _ in range(10):
        env.step(env.action_space.sample())
    assert_equal(before, kept)


def test_stepping_a_finished_episode_asks_for_a_reset() -> None:
    env = make_env("bistable_rl/CopyFirst-v0", kwargs={"length": 2}).unwrapped
    with pytest.raises(ResetNeeded, match="before the first step"):
        env.step(0)
    env.reset(seed=0)
    env.step(0)
    env.step(0)
    with pytest.raises(ResetNeeded, match="copy 0 is over"):
        env.step(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs must be an integer above 0, got 0"),
        ({"num_envs": 2.0}, "num_envs must be an integer above 0, got 2.0"),
        ({"autoreset_mode": "SAMESTEP"}, "did you mean 'SAME_STEP'"),
        ({"render_mode": "humn"}, "did you mean 'human'"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ENVIRONMENTS["bistable_rl/TMaze-v0"].batched(**arguments)


def test_bad_calls_get_a_sentence() -> None:
    env = make_batched_env("bistable_rl/TMaze-v0", num_envs=2)
    for arguments, message in [
        ({"options": {"cu": 1}}, "unknown reset option 'cu'.*did you mean 'cue'"),
        ({"options": {"cue": 2}}, "cue must be an integer from 0 to 1, got 2"),
        ({"options": {"cue": [0, 0, 0]}}, "cue must be one for all copies or one for each of 2"),
        ({"options": {"reset_mask": [True]}}, "reset_mask must be 2 booleans"),
        ({"seed": [1, 2, 3]}, "seed must be an int or 2 ints"),
        ({"seed": [1, -2]}, "seed must not be negative, got -2"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.reset(**arguments)  # type: ignore[arg-type]
    env.reset(seed=0)
    for actions, message in [
        ([0], r"actions must have shape \(2,\), not \(1,\)"),
        ([0, 4], "actions must be integers from 0 to 3"),
        ([0.0, 1.0], "actions must be integers from 0 to 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.step(np.array(actions))


def test_seeds_of_a_list_are_each_copys_own() -> None:
    env = make_batched_env("bistable_rl/CopyFirst-v0", num_envs=3)
    together, _ = env.reset(seed=[5, 9, 5])  # type: ignore[arg-type]
    for copy, seed in enumerate([5, 9, 5]):
        alone, _ = make_env("bistable_rl/CopyFirst-v0").reset(seed=seed)
        np.testing.assert_array_equal(together[copy], alone)


@pytest.mark.parametrize("env_id", IDS)
def test_a_person_can_see_what_the_player_sees_and_must_remember(
    env_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, texts, human = (
        gymnasium.make_vec(env_id, num_envs=2, render_mode=mode, **SHORT[env_id]).unwrapped
        for mode in ("rgb_array", "ansi", "human")
    )
    env: Any = texts
    assert isinstance(pictures, BatchedEnv)
    for other in (pictures, env, human):
        other.reset(seed=0)
    shape = (pictures.render() or ())[0].shape
    for t in range(12):
        frames: Any = pictures.render()
        for k, text in enumerate(env.render()):
            assert (frames[k].dtype, frames[k].shape) == (np.uint8, shape)
            assert frames[k].any()
            assert text == f"step {env.t[k]}  seen: {env.observation_text(k)}  to remember: {env.memory_text(k)}"
        assert capsys.readouterr().out == "\n".join(env.render()) + "\n", f"step {t}"
        actions = env.action_space.sample()
        for other in (pictures, env, human):
            other.step(actions)


@pytest.mark.parametrize("env_id", IDS)
def test_the_single_environment_has_the_arguments_of_the_batched_one(env_id: str) -> None:
    single, batched = ENVIRONMENTS[env_id].single, ENVIRONMENTS[env_id].batched
    own = [name for name in inspect.signature(batched).parameters if name != "options"]
    assert list(inspect.signature(single).parameters) == [*own, "render_mode"]
    assert single.__name__ == batched.__name__.replace("VectorEnv", "Env")
    assert ENVIRONMENTS[env_id].horizon in own
    with pytest.raises(TypeError, match="lenght"):
        single(lenght=3)


@pytest.mark.parametrize("env_id", IDS)
def test_a_class_describes_its_environment_under_gymnasiums_headings(env_id: str) -> None:
    described = inspect.getdoc(ENVIRONMENTS[env_id].batched) or ""
    headings = re.findall("^## (.*)$", described, re.MULTILINE)
    assert headings == [
        *("Action Space", "Observation Space", "Rewards", "Starting State", "Episode End", "Arguments"),
        "Version History",
    ]


@pytest.mark.parametrize("env_id", IDS)
def test_a_single_environment_can_be_pickled_in_the_middle_of_an_episode(env_id: str) -> None:
    env: Any = make_env(env_id, kwargs=SHORT[env_id]).unwrapped
    assert type(env) is ENVIRONMENTS[env_id].single
    env.reset(seed=0)
    env.action_space.seed(0)
    copy = pickle.loads(pickle.dumps(env))
    ended = False
    while not ended:
        action = env.action_space.sample()
        step = env.step(action)
        assert_equal(copy.step(action), step)
        ended = step[2] or step[3]
    assert_equal(copy.reset(), env.reset())


@pytest.mark.parametrize("env_id", IDS)
def test_it_can_be_pickled_in_the_middle_of_an_episode(env_id: str) -> None:
    env = make_batched_env(env_id, num_envs=3, kwargs=SHORT[env_id])
    env.action_space.seed(0)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(20):
        actions = env.action_space.sample()
        assert_equal(copy.step(actions), env.step(actions))


def test_copies_run_in_spawned_processes() -> None:
    kwargs = {"length": 2, "stochasticity": 0.5}
    make = partial(make_env, "bistable_rl/TMaze-v0", kwargs=kwargs)
    theirs: AsyncVectorEnv = AsyncVectorEnv([make] * 2, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)
    ours = make_batched_env("bistable_rl/TMaze-v0", num_envs=2, kwargs=kwargs)
    try:
        assert_equal(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
        for _ in range(20):
            actions = ours.action_space.sample()
            for mine, other in zip(ours.step(actions)[:4], theirs.step(actions)[:4], strict=True):
                assert_equal(mine, other)
    finally:
        theirs.close()


@pytest.mark.parametrize("env_id", IDS)
def test_memory_grows_with_the_copies_and_with_nothing_else(env_id: str) -> None:
    def size(env: Any) -> int:
        return sum(value.nbytes for value in env.get_state().values())

    env = make_batched_env(env_id, num_envs=100, kwargs=SHORT[env_id])
    env.reset(seed=0)
    start = size(env)
    assert size(make_batched_env(env_id, num_envs=300, kwargs=SHORT[env_id])) == 3 * start
    for _ in range(30):
        env.step(env.action_space.sample())
    assert size(env) == start
