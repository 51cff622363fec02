"""Distractors: what each kind of stream shows, and that it says nothing of the cue."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from bistable_rl.envs import make_batched_env, make_env
from bistable_rl.envs.copy_first import CopyFirstVectorEnv
from bistable_rl.envs.copy_first_continuous import CopyFirstContinuousVectorEnv
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.streams import KINDS, LONGEST

DISTRACTED: dict[str, dict[str, Any]] = {
    "bistable_rl/CopyFirst-v0": {"length": 30, "num_symbols": 3},
    "bistable_rl/CopyFirstContinuous-v0": {"length": 30, "dimensions": 2},
    "bistable_rl/Denoising-v0": {"length": 30, "window": 20},
    "bistable_rl/DenoisingDiscrete-v0": {"length": 30, "window": 20, "num_symbols": 3},
    "bistable_rl/MemoryLength-v0": {"length": 30, "num_symbols": 3},
    "bistable_rl/TMaze-v0": {"length": 12, "num_symbols": 3, "previous_action_reward": True},
}
"""The environments with distractors, and arguments that make episodes of about 30 steps."""

both = pytest.mark.parametrize(
    ("env_id", "kind"), [(env_id, kind) for env_id in DISTRACTED for kind in KINDS], ids=lambda value: value[12:-3]
)


def make(env_id: str, kind: str, copies: int, **arguments: Any) -> DistractedEnv:
    env = make_batched_env(env_id, num_envs=copies, kwargs={**DISTRACTED[env_id], "distractors": kind}, **arguments)
    assert isinstance(env, DistractedEnv)
    return env


def make_known(env_id: str, kind: str, copies: int) -> DistractedEnv:
    """Make copies whose next observations are known in advance."""
    known = {"previous_action_reward": False} if "TMaze" in env_id else {}
    kwargs = {**DISTRACTED[env_id], **known, "distractors": kind}
    env = make_batched_env(env_id, num_envs=copies, kwargs=kwargs)
    assert isinstance(env, DistractedEnv)
    return env


def symbols(kind: str, copies: int, steps: int, num_symbols: int = 8, seed: int = 0) -> np.ndarray:
    """Return the cue and the distractors of copy-first, (steps, copies)."""
    env = CopyFirstVectorEnv(num_envs=copies, length=steps + 1, num_symbols=num_symbols, distractors=kind)
    env.reset(seed=seed)
    return env.look_ahead(steps)[:, :, :num_symbols].argmax(2)


def numbers(kind: str, copies: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return continuous distractors, which never repeat by chance, (steps, copies), and the L of each sticky copy."""
    env = CopyFirstContinuousVectorEnv(num_envs=copies, length=steps + 2, distractors=kind)
    env.reset(seed=0)
    assert env.stream is not None
    return env.look_ahead(steps + 1)[1:, :, 0], env.stream.state[3]


FIRST_VERSION = [
    [5, 7, 4, 7, 5, 5, 7, 1, 7, 0, 5, 0],
    [6, 1, 0, 0, 5, 5, 3, 3, 7, 4, 1, 5],
    [4, 3, 7, 0, 4, 6, 4, 1, 6, 6, 1, 3],
]
"""The symbols that version 0.1 showed with seed 5."""


def test_a_uniform_stream_is_that_of_the_first_version() -> None:
    assert symbols("uniform", 3, 12, seed=5).T.tolist() == FIRST_VERSION


def test_a_constant_stream_never_changes() -> None:
    shown = symbols("constant", 500, 60)[1:]
    assert (shown == shown[0]).all()


def test_blocks_change_at_multiples_of_one_length_only() -> None:
    shown, _ = numbers("blocks", 2000, 600)
    lengths = []
    for copy in shown.T:
        changes = np.flatnonzero(copy[1:] != copy[:-1]) + 1
        assert len(changes) >= 2
        assert (changes % changes[0] == 0).all()
        lengths.append(changes[0])
    check_log_uniform(np.array(lengths))


def test_periodic_streams_repeat_themselves() -> None:
    shown, _ = numbers("periodic", 2000, 400)
    periods = np.array([1 + int((copy[1:] == copy[0]).argmax()) for copy in shown.T])
    for copy, period in zip(shown.T, periods, strict=True):
        assert (copy[period:] == copy[:-period]).all()
        assert len(set(copy[:period])) == period
    check_log_uniform(periods)


def check_log_uniform(lengths: np.ndarray) -> None:
    assert lengths.min() == 1
    assert 150 < lengths.max() <= LONGEST
    for quarter in (0.25, 0.5, 0.75):
        assert (lengths < (LONGEST + 1) ** quarter).mean() == pytest.approx(quarter, abs=0.05)


def test_sticky_streams_change_with_one_probability() -> None:
    """Given L, the steps between two changes are geometric with mean L: so variance L² - L."""
    shown, length = numbers("sticky", 4000, 4000)
    changes = shown[1:] != shown[:-1]
    for low, high in ((1, 1), (2, 3), (8, 12), (50, 70)):
        chosen = (length >= low) & (length <= high)
        rate = changes[:, chosen].mean() * length[chosen].mean()
        assert rate == pytest.approx(1, abs=0.06)
    ten = changes[:, (length >= 9) & (length <= 11)]
    after = ten[1:][ten[:-1]].mean()  # memoryless: as likely just after a change
    assert after == pytest.approx(ten.mean(), rel=0.05)


def test_a_mixture_has_every_kind() -> None:
    env = CopyFirstVectorEnv(num_envs=2000, length=50, distractors="mixture")
    env.reset(seed=0)
    assert env.stream is not None
    seen: list[list[np.ndarray]] = [[], []]
    for episode in seen:
        start, hold, period, stay = env.stream.state
        of_kind = [start < 2**40, (hold > 2**60) & (stay == 0), (hold < 2**60) & (period > 2**60) & (start > 2**40)]
        of_kind += [period < 2**60, stay > 0]
        episode += [kind.copy() for kind in of_kind]
        for kind in of_kind:
            assert kind.mean() == pytest.approx(0.2, abs=0.04)
        for _ in range(50):
            env.step(np.zeros(2000, np.int64))
    for before, after in zip(*seen, strict=True):  # drawn again for the next episode
        assert after[before].mean() == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_distractors_are_uniform_and_say_nothing_of_the_cue(kind: str) -> None:
    shown = symbols(kind, 30_000, 21, num_symbols=4)
    for t in (1, 2, 10, 20):
        together = np.zeros((4, 4))
        np.add.at(together, (shown[0], shown[t]), 1)
        assert together / together.sum() == pytest.approx(1 / 16, abs=0.008)


@pytest.mark.parametrize("kind", KINDS)
def test_unmarked_numbers_are_normal_and_say_nothing_of_the_marked_ones(kind: str) -> None:
    env = make("bistable_rl/Denoising-v0", kind, 20_000)
    env.reset(seed=0)
    seen = env.look_ahead(25)
    noise = np.where(seen[:, :, 1] == 1, np.nan, seen[:, :, 0])
    for t in (0, 1, 24):
        here = ~np.isnan(noise[t])
        assert np.mean(noise[t][here]) == pytest.approx(0, abs=0.04)
        assert np.std(noise[t][here]) == pytest.approx(1, abs=0.03)
        for k in range(5):
            assert np.corrcoef(noise[t][here], env.cue[here, k])[0, 1] == pytest.approx(0, abs=0.03)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_distractors_of_the_maze_say_nothing_of_its_random_steps(kind: str) -> None:
    kwargs = {"length": 2, "stochasticity": 1.0, "distractors": kind, "num_symbols": 4}
    env = make_batched_env("bistable_rl/TMaze-v0", num_envs=40_000, kwargs=kwargs)
    env.reset(seed=0)
    before, *_ = env.step(np.zeros(40_000, np.int64))
    after, *_ = env.step(np.zeros(40_000, np.int64))
    place = after[:, :4].argmax(1)
    for symbol in range(4):
        chosen = before[:, 4 + symbol] == 1
        assert chosen.mean() == pytest.approx(0.25, abs=0.01)
        here = np.bincount(place[chosen], minlength=4) / chosen.sum()
        assert here == pytest.approx(np.bincount(place, minlength=4) / 40_000, abs=0.02)


@both
def test_looking_ahead_shows_what_stepping_shows(env_id: str, kind: str) -> None:
    stepped, ahead = make_known(env_id, kind, 40), make_known(env_id, kind, 40)
    seen, _ = stepped.reset(seed=3)
    ahead.reset(seed=3)
    steps = {"Denoising": 25, "MemoryLen": 30, "TMaze-v0": 12}.get(env_id[12:21], 29)
    assert (ahead.steps_ahead == steps).all()
    while ahead.steps_ahead.any():
        steps = min(7, ahead.steps_ahead[0])
        *passed, then = ahead.look_ahead(steps + 1)
        for observation in passed:
            np.testing.assert_array_equal(observation, seen)
            seen, *_ = stepped.step(np.zeros_like(stepped.action_space.sample()))
        np.testing.assert_array_equal(then, seen)
        ahead.go_on(np.full(40, steps))
    actions = np.ones_like(stepped.action_space.sample())
    for _ in range(12):  # into the next episode
        now, *rest = stepped.step(actions)
        then, *same = ahead.step(actions)
        np.testing.assert_array_equal(now, then)
        np.testing.assert_array_equal(rest[0], same[0])


@both
def test_each_copy_can_go_on_by_itself(env_id: str, kind: str) -> None:
    ahead, steps = make_known(env_id, kind, 25), np.arange(25) % 12
    ahead.reset(seed=3)
    ahead.step(np.zeros_like(ahead.action_space.sample()))
    going = ahead.look_ahead(12)[steps, np.arange(25)]
    ahead.go_on(steps)
    np.testing.assert_array_equal(ahead.observe(), going)
    for k in range(25):
        stepped = make_known(env_id, kind, 25)
        stepped.reset(seed=3)
        for _ in range(1 + steps[k]):
            stepped.step(np.zeros_like(stepped.action_space.sample()))
        for name, value in stepped.get_state().items():
            axis = 1 if name == "stream_state" else 0
            np.testing.assert_array_equal(ahead.get_state()[name].take(k, axis), value.take(k, axis), err_msg=name)


def test_what_is_ahead_is_unknown_where_the_next_observation_depends_on_more_than_going_right() -> None:
    for arguments in ({"stochasticity": 0.1}, {"previous_action_reward": True}):
        env = make_batched_env("bistable_rl/TMaze-v0", num_envs=3, kwargs={"length": 12, **arguments})
        env.reset(seed=0)
        assert (env.steps_ahead == 0).all()  # type: ignore[attr-defined]


def test_nothing_is_ahead_of_a_player_who_comes_too_late() -> None:
    env = make_batched_env("bistable_rl/TMaze-v0", num_envs=2, kwargs={"length": 4, "distractors": "uniform"})
    assert isinstance(env, DistractedEnv)
    env.reset(seed=0)
    for _ in range(8):  # of 11 steps
        env.step(np.array([1, 0]))
    assert env.steps_ahead.tolist() == [2, 0]  # the third step ends the episode
    env.go_on(np.array([2, 0]))
    _, _, _, truncated, _ = env.step(np.array([0, 0]))
    assert truncated.tolist() == [True, False]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@both
def test_a_batch_has_the_episodes_of_single_environments(env_id: str, kind: str, mode: AutoresetMode) -> None:
    env = make(env_id, kind, 3, autoreset_mode=mode)
    kwargs = {**DISTRACTED[env_id], "distractors": kind}
    singles = [make_env(env_id, kwargs=kwargs).unwrapped for _ in range(3)]
    seen, _ = env.reset(seed=7)
    alone = [single.reset(seed=7 + k)[0] for k, single in enumerate(singles)]
    rng = np.random.default_rng(0)
    ended = np.zeros(3, np.bool_)
    for _ in range(80):
        np.testing.assert_array_equal(seen, np.stack(alone))
        actions = np.stack([singles[0].action_space.sample() for _ in range(3)])
        if env_id == "bistable_rl/TMaze-v0":
            actions = rng.choice([0, 0, 0, 1], 3)
        if mode is AutoresetMode.DISABLED and ended.any():
            seen, _ = env.reset(options={"reset_mask": ended})
            alone = [
                single.reset()[0] if over else old for single, over, old in zip(singles, ended, alone, strict=True)
            ]
            ended = np.zeros(3, np.bool_)
            continue
        over = ended.copy()
        seen, _, terminated, truncated, _ = env.step(actions)
        ended = terminated | truncated
        for k, single in enumerate(singles):
            if mode is AutoresetMode.NEXT_STEP and over[k]:
                alone[k] = single.reset()[0]
                continue
            alone[k] = single.step(actions[k])[0]
            if mode is AutoresetMode.SAME_STEP and ended[k]:
                alone[k] = single.reset()[0]


@both
def test_a_saved_state_goes_on_bit_for_bit(env_id: str, kind: str) -> None:
    env, other = make(env_id, kind, 5), make(env_id, kind, 5)
    env.reset(seed=1)
    for _ in range(13):
        env.step(np.zeros_like(env.action_space.sample()))
    other.reset(seed=99)
    other.set_state(env.get_state())
    for _ in range(60):
        actions = np.zeros_like(env.action_space.sample())
        np.testing.assert_array_equal(env.step(actions)[0], other.step(actions)[0])


@both
def test_every_observation_is_in_its_phase(env_id: str, kind: str) -> None:
    kwargs = {"previous_action_reward": False} if "TMaze" in env_id else {}
    arguments = {**DISTRACTED[env_id], **kwargs, "distractors": kind}
    env = make_batched_env(env_id, num_envs=30, kwargs=arguments)
    assert isinstance(env, DistractedEnv)
    phases = env.phases()
    if phases is None:
        assert "Denoising" in env_id
        return
    seen, _ = env.reset(seed=2)
    if "Continuous" not in env_id:
        assert all((phases.cue == observation).all(1).any() for observation in seen)
    steps = {"TMaze": 12, "MemoryLen": 30}.get(env_id[12:21].removesuffix("-v0"), 29)
    for t in range(1, steps + 1):
        seen, *_ = env.step(np.zeros_like(env.action_space.sample()))
        for exact in (phases, env.phases(t)):
            assert exact is not None
            low, high = (exact.low, exact.high) if t < steps else (exact.answer_low, exact.answer_high)
            inside = (low[None] <= seen[:, None]) & (seen[:, None] <= high[None])
            assert inside.all(2).any(1).all(), t


def test_the_right_action_of_each_phase_is_right() -> None:
    for env_id, count in (("CopyFirst", 3), ("MemoryLength", 2), ("MemorySize", 4), ("TMaze", 2)):
        kwargs: dict[str, Any] = {"num_bits": 2} if env_id == "MemorySize" else {}
        kwargs |= {"num_symbols": 3, "length": 4, "distractors": "uniform"}
        env = make_batched_env(f"bistable_rl/{env_id}-v0", num_envs=200, kwargs=kwargs)
        assert isinstance(env, DistractedEnv)
        phases = env.phases()
        assert phases is not None
        assert len(phases.cue) == count
        seen, _ = env.reset(seed=0)
        cue = (phases.cue[None] == seen[:, None]).all(2).argmax(1)
        info: dict[str, Any] = {}
        while not info:
            answers = (phases.answer_low[None] == seen[:, None]).all(2)
            at_answer = answers.any(1).all()
            meanwhile = np.full(200, phases.meanwhile or 0)
            actions = phases.right[cue, answers.argmax(1)] if at_answer else meanwhile
            seen, _, _, _, info = env.step(actions)
        assert at_answer
        assert info["final_info"]["is_success"].all(), env_id


def test_given_distractors_are_shown_and_repeated() -> None:
    env = make("bistable_rl/CopyFirst-v0", "blocks", 2)
    seen, _ = env.reset(seed=0, options={"cue": 1, "distractors": [2, 0, 0]})
    shown = []
    for _ in range(8):
        shown.append(seen[0, :3].argmax())
        seen, *_ = env.step(np.zeros(2, np.int64))
    assert shown == [1, 2, 0, 0, 2, 0, 0, 2]
    env.reset(seed=0, options={"distractors": [2]})
    assert (env.look_ahead(20)[1:, :, 2] == 1).all()
    env.reset(seed=0)
    assert (env.look_ahead(20)[1:, :, 2] == 0).any()


def test_given_numbers_are_shown() -> None:
    env = make("bistable_rl/CopyFirstContinuous-v0", "uniform", 2)
    env.reset(seed=0, options={"distractors": [[1.0, -2.0], [10.0, 0.5]]})
    assert env.look_ahead(4)[1:, 0, :2].tolist() == [[1, -2], [10, 0.5], [1, -2]]
    env = make("bistable_rl/Denoising-v0", "uniform", 50)
    env.reset(seed=0, options={"distractors": [3.0, -3.0]})
    seen = env.look_ahead(25)
    assert set(seen[:, :, 0][seen[:, :, 1] != 1].tolist()) == {3.0, -3.0}


@pytest.mark.parametrize(
    ("env_id", "sequence", "message"),
    [
        ("bistable_rl/CopyFirst-v0", [3], "distractors must be an integer from 0 to 2"),
        ("bistable_rl/CopyFirst-v0", [], "distractors must be a sequence of at least one symbol"),
        ("bistable_rl/CopyFirst-v0", 2, "distractors must be a sequence of at least one symbol"),
        ("bistable_rl/CopyFirst-v0", [0.5], "distractors must be an integer from 0 to 2"),
        ("bistable_rl/CopyFirstContinuous-v0", [[1, 2, 3]], "distractors must be a sequence of 2 numbers each"),
        ("bistable_rl/CopyFirstContinuous-v0", [11.0], "distractors must be numbers from -10 to 10"),
        ("bistable_rl/Denoising-v0", [float("nan")], "distractors must be numbers from -10 to 10"),
        ("bistable_rl/Denoising-v0", [[1.0]], "distractors must be a sequence of at least one number"),
    ],
)
def test_wrong_sequences_get_a_sentence(env_id: str, sequence: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(env_id, "uniform", 2).reset(options={"distractors": sequence})


def test_wrong_kinds_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"'block'.*blocks"):
        make("bistable_rl/CopyFirst-v0", "block", 2)
    env = make_batched_env("bistable_rl/TMaze-v0", num_envs=2)
    with pytest.raises(
        ValueError, match="shows no distractors; make it with a kind of them, such as distractors='uniform'"
    ):
        env.reset(options={"distractors": [1]})


@pytest.mark.parametrize("env_id", ["bistable_rl/MemoryLength-v0", "bistable_rl/TMaze-v0"])
def test_distractors_leave_the_task_as_it_is(env_id: str) -> None:
    """The task's own features, its draws and its returns are those without distractors."""
    shown = make(env_id, "mixture", 30)
    kwargs = {key: value for key, value in DISTRACTED[env_id].items() if key != "num_symbols"}
    plain = make_batched_env(env_id, num_envs=30, kwargs=kwargs)
    assert (shown.optimal_return, shown.memoryless_return) == (plain.optimal_return, plain.memoryless_return)  # type: ignore[attr-defined]
    seen, _ = shown.reset(seed=4)
    bare, _ = plain.reset(seed=4)
    assert (seen[:, -3:] == 0).all()  # none at the first step
    rng = np.random.default_rng(0)
    for _ in range(100):
        np.testing.assert_array_equal(seen[:, :-3], bare)
        actions = rng.integers(2, size=30)
        seen, reward, terminated, truncated, _ = shown.step(actions)
        bare, *same = plain.step(actions)
        np.testing.assert_array_equal(reward, same[0])
        np.testing.assert_array_equal(terminated | truncated, same[1] | same[2])


@pytest.mark.parametrize("kind", KINDS)
def test_returns_are_those_declared(kind: str) -> None:
    """A perfect and a guessing player get the optimal and the memoryless return, whatever the stream."""
    env = CopyFirstVectorEnv(num_envs=2000, length=12, num_symbols=4, distractors=kind)
    seen, _ = env.reset(seed=0)
    cue, rng = seen[:, :4].argmax(1), np.random.default_rng(0)
    for t in range(12):
        answers = np.where(np.arange(2000) < 1000, cue, rng.integers(4, size=2000))
        if t == 11:
            answers[1500:] = seen[1500:, :4].argmax(1)  # names what it sees
        seen, reward, *_ = env.step(answers)
    assert reward[:1000].mean() == env.optimal_return
    assert reward[1000:1500].mean() == pytest.approx(env.memoryless_return, abs=0.12)
    assert reward[1500:].mean() == pytest.approx(env.memoryless_return, abs=0.12)
