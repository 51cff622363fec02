"""POPGym's environments: their rules by hand, the declared returns, what is drawn, and the previous action."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from bistable_rl.envs import ENVIRONMENTS, make_batched_env, make_env
from bistable_rl.envs.popgym import LEVELS, TASKS
from bistable_rl.envs.popgym.battleship import PopgymBattleshipVectorEnv
from bistable_rl.envs.popgym.cartpole import PopgymPositionOnlyCartPoleVectorEnv
from bistable_rl.envs.popgym.minesweeper import PopgymMineSweeperVectorEnv
from bistable_rl.envs.popgym.pendulum import PopgymPositionOnlyPendulumVectorEnv

DECK = np.arange(52)
"""The unshuffled deck: suits 0123..., colours 0101..., four cards of each rank."""


def env_id(name: str, level: str = "Easy") -> str:
    return f"bistable_rl/Popgym{name}{level}-v0"


def play(name: str, actions: list[Any], cue: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
    """Play one copy from a hidden state: the observation, reward and ends of each step, after the first observation."""
    env = make_env(env_id(name), kwargs=kwargs).unwrapped
    observation, _ = env.reset(seed=0, options={"cue": np.array(cue)})
    return [(observation,), *(env.step(action)[:4] for action in actions)]


def seen(steps: list[tuple[Any, ...]]) -> list[list[int]]:
    return [np.flatnonzero(step[0]).tolist() for step in steps]


def test_repeat_first_asks_for_the_first_suit_at_every_step() -> None:
    steps = play("RepeatFirst", [2] * 50 + [0], np.roll(DECK, -2))  # suits 2 3 0 1 ...
    assert seen(steps) == [[(2 + t) % 4] for t in range(52)]
    assert [step[1] for step in steps[1:]] == [1 / 51] * 50 + [-1 / 51]
    assert [step[2:] for step in steps[1:]] == [(False, False)] * 50 + [(True, False)]


def test_repeat_previous_counts_the_card_in_view() -> None:
    steps = play("RepeatPrevious", [0, 0, 0, 1, 1, 2] + [0] * 45, DECK, k=3)  # suits 0 1 2 3 0 ...
    assert [step[1] for step in steps[1:7]] == [0, 0, 1 / 49, 1 / 49, -1 / 49, -1 / 49]
    assert [step[2:] for step in steps[1:]] == [(False, False)] * 50 + [(True, False)]


def test_autoencode_asks_backwards_from_the_step_of_the_last_card_on() -> None:
    steps = play("Autoencode", [0] * 51 + [3, 2, 1, 1] + [0] * 48, DECK)
    assert seen(steps)[:53] == [[1, 2 + t % 4] for t in range(51)] + [[0, 5], [0, 2]]
    assert seen(steps)[-1] == [0, 2]
    assert [step[1] for step in steps[50:56]] == [0, 0, 1 / 52, 1 / 52, 1 / 52, -1 / 52]
    assert [step[2] for step in steps[1:]] == [False] * 102 + [True]


def test_count_recall_counts_the_card_in_view_and_none_that_comes() -> None:
    # cards 0 1 0 1 ..., questions 0 0 0 ... (by colour)
    questions = np.r_[DECK[::2], DECK[1::2]]
    steps = play("CountRecall", [1, 1, 2, 2, 2] + [0] * 46, [DECK, questions])
    assert seen(steps)[:3] == [[0, 2], [1, 2], [0, 2]]
    assert seen(steps)[-1] == [1, 3]
    assert [step[1] for step in steps[1:6]] == [1 / 51, 1 / 51, 1 / 51, 1 / 51, -1 / 51]
    assert [step[2] for step in steps[1:]] == [False] * 50 + [True]


def test_higher_lower_pays_nothing_for_equal_ranks() -> None:
    deck = np.array([0, 1, 4, 8, 2, *sorted(set(range(52)) - {0, 1, 4, 8, 2})])  # ranks 0 0 1 2 0 0 1 ...
    steps = play("HigherLower", [0, 0, 1, 1, 0] + [0] * 46, deck)
    assert [step[1] for step in steps[1:6]] == [0, 1 / 52, -1 / 52, 1 / 52, 0]
    assert seen(steps)[:5] == [[0], [0], [1], [2], [0]]
    assert [step[2] for step in steps[1:]] == [False] * 50 + [True]


def test_concentration_shows_two_cards_and_keeps_pairs_up() -> None:
    steps = play("Concentration", [0, 2, 1, 4, 0, 5, 5, 7, 7], DECK)  # colours 0 1 0 1 ...
    shown = [dict(divmod(k, 3) for k in row if k % 3 != 2) for row in seen(steps)]
    assert shown == [
        {},
        {0: 0},
        {0: 0, 2: 0},  # a pair
        {0: 0, 2: 0, 1: 1},
        {0: 0, 2: 0, 1: 1, 4: 0},  # none: both lie face down again
        {0: 0, 2: 0},  # 0 is up
        {0: 0, 2: 0, 5: 1},
        {0: 0, 2: 0, 5: 1},  # the same card is no pair
        {0: 0, 2: 0, 7: 1},
        {0: 0, 2: 0, 7: 1},
    ]
    assert [step[1] for step in steps[1:]] == [0, 1 / 26, 0, -2 / 104, -1 / 104, 0, -2 / 104, 0, -2 / 104]
    rest = [0, 2, 1, 2]  # the second card is up already: it stays up, the first does not
    again = play("Concentration", [*rest, 3], DECK)
    assert [step[1] for step in again[3:]] == [0, -2 / 104, 0]
    assert dict(divmod(k, 3) for k in seen(again)[-1] if k % 3 != 2) == {0: 0, 2: 0, 3: 1}


def test_concentration_ends_with_the_last_pair_or_after_its_last_step() -> None:
    pairs = [k for start in range(0, 52, 4) for k in (start, start + 2, start + 1, start + 3)]
    steps = play("Concentration", pairs, DECK)
    assert sum(step[1] for step in steps[1:]) == pytest.approx(1)
    assert [step[2:] for step in steps[1:]] == [(False, False)] * 51 + [(True, False)]
    steps = play("Concentration", [0] * 52 + pairs, DECK)  # both at once
    assert [step[2:] for step in steps[1:]] == [(False, False)] * 103 + [(True, True)]


def test_mines_are_counted_around_a_square_and_end_the_episode() -> None:
    steps = play("MineSweeper", [[0, 1], [0, 1], [3, 3], [1, 1]], [0, 5])  # mines at (0, 0) and (1, 1)
    assert seen(steps) == [[0], [2], [2], [0], [2]]
    assert [step[1] for step in steps[1:]] == [1 / 14, -0.5 / 12, 1 / 14, -0.5 - 1 / 14]
    assert [step[2:] for step in steps[1:]] == [(False, False)] * 3 + [(True, False)]


def test_a_board_without_mines_left_to_find_is_a_success_and_a_long_episode_is_cut() -> None:
    free = [[k // 4, k % 4] for k in range(16) if k not in (0, 5)]
    steps = play("MineSweeper", free, [0, 5])
    assert sum(step[1] for step in steps[1:]) == pytest.approx(1)
    assert steps[-1][2:] == (True, False)
    assert play("MineSweeper", [[0, 1]] * 14, [0, 5])[-1][2:] == (False, True)


def test_a_ship_is_hit_once_in_every_square() -> None:
    board = np.zeros(64, int)
    board[[0, 1, 10, 11, 12, 20, 21, 22, 30, 31, 32, 33]] = 1
    steps = play("Battleship", [[0, 0], [0, 0], [0, 1], [7, 7], [1, 2]], board)
    assert seen(steps) == [[0], [1], [0], [1], [0], [1]]
    assert [step[1] for step in steps[1:]] == [1 / 12, -1 / 52, 1 / 12, -1 / 52, 1 / 12]
    hits = [[k // 8, k % 8] for k in np.flatnonzero(board)]
    assert play("Battleship", hits, board)[-1][2:] == (True, False)
    assert play("Battleship", [[0, 0]] * 64, board)[-1][2:] == (False, True)
    assert play("Battleship", [[7, 7]] * 52 + hits, board)[-1][2:] == (True, True)


def test_the_cart_falls_or_is_cut() -> None:
    steps = play("PositionOnlyCartPole", [1] * 8, [0.01, 0.02, 0.03, -0.04])
    assert steps[0][0].tolist() == pytest.approx([0.01, 0.03])
    assert steps[1][0].tolist() == pytest.approx([0.01 + 0.02 * 0.02, 0.03 - 0.02 * 0.04])  # Euler's step
    assert {step[1] for step in steps[1:]} == {1 / 200}
    assert [step[2:] for step in play("PositionOnlyCartPole", [1] * 9, [0.0] * 4)[1:]] == [(False, False)] * 8 + [
        (True, False)
    ]


def test_a_pole_that_is_held_up_is_cut_and_pays_one() -> None:
    env = PopgymPositionOnlyCartPoleVectorEnv(num_envs=50)
    mean = mean_return(env, lambda env, seen, t: (env.x @ [0.02, 0.06, 1, 0.4] > 0).astype(int))
    assert mean == pytest.approx(1)


@pytest.mark.parametrize("level", LEVELS)
def test_a_pendulum_swung_up_by_its_energy_comes_close_to_the_declared_optimum(level: str) -> None:
    env: Any = make_batched_env(env_id("PositionOnlyPendulum", level), num_envs=1000)

    def swing(env: Any, seen: np.ndarray, t: int) -> np.ndarray:
        angle, speed = env.x.T
        angle = (angle + np.pi) % (2 * np.pi) - np.pi
        missing = 15 - 15 * np.cos(angle) - speed**2 / 2
        torque = np.where(abs(angle) < 0.8, -8 * angle - 2 * speed, 2 * np.sign(speed * missing))
        return np.clip(torque / 2, -1, 1)[:, None]

    assert env.optimal_return - 0.06 < mean_return(env, swing) < env.optimal_return + 0.01


def test_the_pendulum_pays_for_being_upright_and_slow() -> None:
    steps = play("PositionOnlyPendulum", [np.zeros(1, np.float32)] * 100, [0.0, 0.0], length=100)
    assert [step[0].tolist() for step in steps] == [[1, 0]] * 101
    assert sum(step[1] for step in steps[1:]) == pytest.approx(1)
    assert [step[2:] for step in steps[1:]] == [(False, False)] * 99 + [(False, True)]
    turned = play("PositionOnlyPendulum", [np.ones(1, np.float32)], [np.pi / 2, 0.5])[1]
    speed = 0.5 + (15 + 3 * 2) * 0.05
    assert turned[1] == pytest.approx((1 - (np.pi**2 / 4 + 0.1 * 0.25 + 0.001 * 4) / 8.1368022) / 200)
    assert turned[0].tolist() == pytest.approx([np.cos(np.pi / 2 + speed * 0.05), np.sin(np.pi / 2 + speed * 0.05)])


@pytest.mark.parametrize("name", TASKS)
def test_the_previous_action_and_the_first_step_follow_but_never_the_reward(name: str) -> None:
    plain, extended = (
        make_batched_env(env_id(name), num_envs=3, kwargs={"previous_action": previous}) for previous in (False, True)
    )
    space = plain.single_action_space
    flat = {"Discrete": lambda: space.n, "MultiDiscrete": lambda: space.nvec.sum(), "Box": lambda: 1}  # type: ignore[attr-defined]
    size = int(flat[type(space).__name__]())
    width = plain.single_observation_space.shape[0]  # type: ignore[index]
    assert extended.single_observation_space.shape == (width + size + 2,)
    space.seed(0)
    first, longer = (env.reset(seed=0)[0] for env in (plain, extended))
    null = np.zeros(size)
    if type(space).__name__ != "Box":
        null[np.cumsum([0, *getattr(space, "nvec", [])])[: len(getattr(space, "nvec", [0]))]] = 1
    np.testing.assert_array_equal(longer, np.c_[first, np.tile([*null, 0, 1], (3, 1))])
    for _ in range(5):
        actions = np.stack([space.sample() for _ in range(3)])
        shown, _, terminated, truncated, _ = plain.step(actions)
        longer = extended.step(actions)[0]
        np.testing.assert_array_equal(longer[:, :width], shown)
        go_on = ~(terminated | truncated)
        assert (longer[go_on, -2:] == [1, 0]).all()
        assert (longer[~go_on, width:] == [*null, 0, 1]).all()
        if type(space).__name__ == "Box":
            np.testing.assert_allclose(longer[:, width], 2 * actions[:, 0])
        else:
            offsets = np.cumsum([0, *getattr(space, "nvec", [])])[: max(actions[0].size, 1)]
            for row, action in zip(longer[go_on], actions[go_on], strict=True):
                np.testing.assert_array_equal(np.flatnonzero(row[width:-2]), offsets + action)


# --- the declared returns ---------------------------------------------------------------------------------


def mean_return(env: Any, act: Any, seed: int = 0) -> float:
    """The mean return of one episode in each copy."""
    total, going = np.zeros(env.num_envs), np.ones(env.num_envs, bool)
    observations, _ = env.reset(seed=seed)
    for t in range(env.horizon):
        observations, rewards, terminated, truncated, _ = env.step(act(env, observations, t))
        total += rewards * going
        going &= ~(terminated | truncated)
    assert not going.any()
    return float(total.mean())


def suits_of(env: Any, index: Any) -> np.ndarray:
    return env._dealt(env.copies, "suits", index)


PERFECT: dict[str, Any] = {
    "RepeatFirst": lambda env, seen, t: suits_of(env, 0),
    "RepeatPrevious": lambda env, seen, t: suits_of(env, max(t - env.k + 1, 0)),
    "Autoencode": lambda env, seen, t: suits_of(env, 2 * env.num_cards - 2 - t),
    "CountRecall": lambda env, seen, t: env.counts[env.copies, env._asked(env.copies)],
}
MEMORYLESS: dict[str, Any] = {
    "RepeatFirst": lambda env, seen, t: seen.argmax(1),
    "RepeatPrevious": lambda env, seen, t: (seen.argmax(1) + 1) % 4,
    "Autoencode": lambda env, seen, t: seen[:, 2:].argmax(1),
    "CountRecall": lambda env, seen, t: np.full(env.num_envs, 3),
    "HigherLower": lambda env, seen, t: (seen.argmax(1) > 6).astype(int),
}
CASES = [(name, level) for name in MEMORYLESS for level in LEVELS[: 3 if name != "RepeatFirst" else 2]]


@pytest.mark.parametrize(("name", "level"), CASES)
def test_perfect_and_memoryless_players_get_what_is_declared(name: str, level: str) -> None:
    env: Any = make_batched_env(env_id(name, level), num_envs=2000)
    assert mean_return(env, MEMORYLESS[name]) == pytest.approx(env.memoryless_return, abs=0.012)
    if name in PERFECT:
        assert mean_return(env, PERFECT[name]) == pytest.approx(1)


def test_no_answer_without_memory_is_better_than_the_declared_one_in_repeat_first_and_autoencode() -> None:
    for name, other in (("RepeatFirst", 0), ("Autoencode", 2)):
        env: Any = make_batched_env(env_id(name), num_envs=4000)
        shifted = mean_return(env, lambda env, seen, t, start=other: (seen[:, start:].argmax(1) + 1) % 4)
        assert shifted < env.memoryless_return


@pytest.mark.parametrize("level", LEVELS)
def test_counting_cards_gets_what_is_declared_in_higher_lower(level: str) -> None:
    env: Any = make_batched_env(env_id("HigherLower", level), num_envs=1000)

    def count(env: Any, seen: np.ndarray, t: int) -> np.ndarray:
        left = env._dealt(env.copies[:, None], "ranks", np.arange(t + 1, env.num_cards))
        now = seen.argmax(1)[:, None]
        return ((left > now).sum(1) < (left < now).sum(1)).astype(int)

    assert mean_return(env, count) == pytest.approx(env.optimal_return, abs=0.006)
    assert env.memoryless_return < env.optimal_return - 0.012


RANDOM = [
    *(("MineSweeper", level) for level in LEVELS),
    *(("Battleship", level) for level in LEVELS),
    *(("Concentration", level) for level in LEVELS),
    ("PositionOnlyCartPole", "Easy"),
    *(("PositionOnlyPendulum", level) for level in LEVELS),
]


@pytest.mark.parametrize(("name", "level"), RANDOM)
def test_a_random_player_gets_the_memoryless_return_where_it_is_declared_so(name: str, level: str) -> None:
    env: Any = make_batched_env(env_id(name, level), num_envs=2000)
    env.action_space.seed(0)
    mean = mean_return(env, lambda env, seen, t: env.action_space.sample())
    assert mean == pytest.approx(env.memoryless_return, abs=0.015)


def test_the_registered_levels_are_popgyms() -> None:
    horizons = {
        name: [make_batched_env(env_id(name, level), num_envs=1).horizon for level in LEVELS]  # type: ignore[attr-defined]
        for name in TASKS
    }
    assert horizons == {
        "RepeatFirst": [51, 415, 831],
        "RepeatPrevious": [51, 103, 155],
        "Autoencode": [103, 207, 311],
        "CountRecall": [51, 103, 207],
        "Concentration": [104, 208, 104],
        "HigherLower": [51, 103, 155],
        "MineSweeper": [14, 30, 54],
        "Battleship": [64, 100, 144],
        "PositionOnlyCartPole": [200, 400, 600],
        "NoisyPositionOnlyCartPole": [200, 200, 200],
        "PositionOnlyPendulum": [200, 150, 100],
        "NoisyPositionOnlyPendulum": [200, 200, 200],
    }
    assert {f"{name}{level}" for name in TASKS for level in LEVELS} == {
        known.removeprefix("bistable_rl/Popgym").removesuffix("-v0") for known in ENVIRONMENTS if "Popgym" in known
    }


# --- what is drawn ------------------------------------------------------------------------------------------


def test_every_place_of_the_mines_is_as_likely() -> None:
    env = PopgymMineSweeperVectorEnv(num_envs=36_000, size=3, num_mines=2)
    env.reset(seed=0)
    pairs = {pair: k for k, pair in enumerate(combinations(range(9), 2))}
    counts = np.zeros(36)
    for row in env.board[:, env._inside] >= 128:
        counts[pairs[tuple(np.flatnonzero(row).tolist())]] += 1
    assert ((counts - 1000) ** 2 / 1000).sum() < 36 + 5 * np.sqrt(72)


def law_of_boards(size: int, ships: list[int]) -> dict[tuple[int, ...], float]:
    """The probability of each board by popgym's rule: for each ship a start, an axis and a sign, until one fits."""
    boards = {tuple([0] * size**2): 1.0}
    for ship in ships:
        after: dict[tuple[int, ...], float] = {}
        for board, p in boards.items():
            fits = []
            for y, x, dy, dx in (
                (y, x, *d) for y in range(size) for x in range(size) for d in ((0, 1), (0, -1), (1, 0), (-1, 0))
            ):
                squares = [(y + k * dy, x + k * dx) for k in range(ship)]
                inside = all(0 <= a < size and 0 <= b < size for a, b in squares)
                if inside and not any(board[a * size + b] for a, b in squares):
                    fits.append({a * size + b for a, b in squares})
            for squares_of in fits:
                new = tuple(1 if k in squares_of else taken for k, taken in enumerate(board))
                after[new] = after.get(new, 0) + p / len(fits)
        boards = after
    return boards


@pytest.mark.parametrize(("size", "ships"), [(3, [1, 2]), (4, [3, 2]), (5, [2, 2])])
def test_boards_have_the_law_of_popgyms_rule(size: int, ships: list[int]) -> None:
    n = 60_000
    env = PopgymBattleshipVectorEnv(num_envs=n, size=size, ship_sizes=ships)
    env.reset(seed=0)
    law = law_of_boards(size, ships)
    counts = dict.fromkeys(law, 0)
    for row in env.board.astype(int):
        counts[tuple(row.tolist())] += 1
    chi2 = sum((counts[board] - n * p) ** 2 / (n * p) for board, p in law.items())
    assert chi2 < len(law) + 5 * np.sqrt(2 * len(law))


@pytest.mark.parametrize(
    ("env", "limit"),
    [
        (PopgymPositionOnlyCartPoleVectorEnv(num_envs=50_000), np.full(4, 0.05)),
        (PopgymPositionOnlyPendulumVectorEnv(num_envs=50_000), np.array([np.pi, 1.0])),
    ],
)
def test_starts_are_uniform_and_independent(env: Any, limit: np.ndarray) -> None:
    env.reset(seed=0)
    scaled = env.x / limit
    assert (abs(scaled) <= 1).all()
    for column in scaled.T:
        assert abs(np.histogram(column, 20, (-1, 1))[0] / len(column) - 1 / 20).max() < 0.005
    apart = np.corrcoef(scaled.T) - np.eye(len(limit))
    assert abs(apart).max() < 0.02


@pytest.mark.parametrize("kind", [PopgymPositionOnlyCartPoleVectorEnv, PopgymPositionOnlyPendulumVectorEnv])
def test_noise_is_normal_new_at_every_step_and_clipped(kind: Any) -> None:
    noisy, plain = (kind(num_envs=20_000, noise_sigma=sigma) for sigma in (0.1, 0.0))
    for env in (noisy, plain):
        env.action_space.seed(0)
    noise = [noisy.reset(seed=0)[0] - plain.reset(seed=0)[0]]
    low, high = noisy.single_observation_space.low, noisy.single_observation_space.high
    for _ in range(4):
        shown = [env.step(env.action_space.sample())[0] for env in (noisy, plain)]
        noise.append(shown[0] - shown[1])
        assert ((shown[0] >= low) & (shown[0] <= high)).all()
    free = (
        np.stack(noise)[:, (abs(plain.x[:, 0]) < 0.4) & (abs(plain.x[:, 0]) > 0.1)]
        if "Pend" in kind.__name__
        else np.stack(noise)
    )
    sample = free[..., -1 if "Pend" in kind.__name__ else 0]
    assert sample.std() == pytest.approx(0.1, abs=0.004)
    assert sample.mean() == pytest.approx(0, abs=0.004)
    assert abs(np.corrcoef(sample) - np.eye(len(sample))).max() < 0.06


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("RepeatFirst", {"num_decks": 0}, "num_decks must be an integer from 1 to 1000, got 0"),
        ("RepeatPrevious", {"k": 1}, "k must be an integer from 2 to 51, fewer than the cards, got 1"),
        ("CountRecall", {"deck_type": "suit"}, "unknown deck_type 'suit'; did you mean 'suits'"),
        ("Concentration", {"deck_type": "suits"}, "unknown deck_type 'suits'"),
        ("MineSweeper", {"num_mines": 14}, "num_mines must be an integer from 1 to 13, three squares fewer"),
        (
            "Battleship",
            {"ship_sizes": [9]},
            "a ship's size must be an integer from 1 to 8, the size of the board, got 9",
        ),
        ("Battleship", {"ship_sizes": "23"}, "ship_sizes must be a list of at least one length"),
        ("Battleship", {"size": 4}, r"ships of \[2, 3, 3, 4\] squares may not all find a place on a board of size 4"),
        ("PositionOnlyCartPole", {"length": 99}, "length must be an integer of at least 100, got 99"),
        ("PositionOnlyPendulum", {"noise_sigma": -1}, "noise_sigma must be a finite number of at least 0, got -1"),
        ("RepeatFirst", {"previous_action": 1}, "previous_action must be True or False"),
    ],
)
def test_bad_arguments_get_a_sentence(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_env(env_id(name), kwargs=kwargs)


@pytest.mark.parametrize(
    ("name", "cue", "message"),
    [
        ("RepeatFirst", np.zeros(52, int), "cue must be the numbers from 0 to 51 in some order"),
        ("CountRecall", DECK, "cue must be two decks, one of cards and one of questions"),
        ("MineSweeper", [3, 3], "cue must be 2 different squares"),
        ("MineSweeper", [3, 16], "cue must be an integer from 0 to 15"),
        ("Battleship", np.zeros(64, int), "cue must be 64 numbers, 12 of them 1, the others 0"),
        ("PositionOnlyCartPole", [0.1, 0, 0, 0], "cue must be numbers from -0.05 to 0.05"),
        ("PositionOnlyPendulum", [0.0, 2.0], "the speed must be numbers from -1 to 1"),
    ],
)
def test_bad_hidden_states_get_a_sentence(name: str, cue: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_env(env_id(name)).reset(seed=0, options={"cue": np.array(cue)})


def test_actions_off_the_board_get_a_sentence() -> None:
    env = make_batched_env(env_id("Battleship"), num_envs=2)
    env.reset(seed=0)
    for actions in ([[0, 8], [0, 0]], [[-1, 0], [0, 0]], [[0.5, 0.0], [0.0, 0.0]]):
        with pytest.raises(ValueError, match=r"actions must be integers from 0 to \[7, 7\]"):
            env.step(np.array(actions))
