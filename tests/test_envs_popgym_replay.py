"""POPGym's environments equal popgym's step for step: its own episodes, replayed from their hidden states."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces.utils import flatten, flatten_space

from bistable_rl.envs import make_env, rng
from bistable_rl.envs.popgym import LEVELS, TASKS

popgym = pytest.importorskip("popgym")
from popgym.wrappers import Antialias, PreviousAction  # noqa: E402


def dealt(env: Any) -> np.ndarray:
    return env.deck.idx[::-1]


HIDDEN: dict[str, Callable[[Any], np.ndarray]] = {
    "RepeatFirst": dealt,
    "RepeatPrevious": dealt,
    "Autoencode": dealt,
    "CountRecall": lambda env: np.stack([env.value_deck.idx[::-1], env.query_deck.idx[::-1]]),
    "Concentration": lambda env: env.deck.idx,
    "HigherLower": dealt,
    "MineSweeper": lambda env: np.flatnonzero(env.hidden_grid == 1),
    "Battleship": lambda env: env.board.ravel(),
    "PositionOnlyCartPole": lambda env: np.array(env.state),
    "PositionOnlyPendulum": lambda env: np.array(env.state),
}
"""What popgym draws at a reset, as our option "cue"."""

IDS = [f"{name}{level}" for name in HIDDEN for level in LEVELS]


class Player:
    """Acts at random, and in every other episode mostly so well that the game is won."""

    def __init__(self, env: Any, seed: int) -> None:
        self.env, self.random = env, np.random.default_rng(seed)
        env.action_space.seed(seed)
        self.careful = seed % 2 == 0

    def __call__(self) -> Any:
        env, well = self.env, self.careful and self.random.random() < 0.9
        if self.careful and hasattr(env, "hidden_grid"):  # MineSweeper
            return self.random.permutation(np.argwhere(env.hidden_grid == 0))[0]
        if well and hasattr(env, "board"):  # Battleship
            return self.random.permutation(np.argwhere((env.board == 1) & (env.guesses == 0)))[0]
        if self.careful and hasattr(env, "x_threshold"):  # CartPole
            return int(np.dot(env.state, [0.02, 0.06, 1, 0.4]) > 0)
        if well and hasattr(env, "facedown_card"):  # Concentration
            return self.pair()
        return env.action_space.sample()

    def pair(self) -> int:
        """A card that makes a pair with the one in play, or a card that lies face down."""
        deck, kinds = self.env.deck, self.env.deck_idx_type
        down = [k for k in range(deck.num_cards) if k not in deck["face_up_idx"]]
        [*waiting] = deck["in_play_idx"]
        fits = [k for k in down if waiting and k != waiting[0] and kinds[deck.idx[k]] == kinds[deck.idx[waiting[0]]]]
        return fits[0] if fits else int(self.random.choice(down))


def replay(name: str, previous_action: bool, seeds: int) -> None:
    """Play popgym's episodes in ours: the first observation and every step are equal."""
    kind = name.removesuffix("Easy").removesuffix("Medium").removesuffix("Hard")
    base = gymnasium.make(f"popgym-{name}-v0", disable_env_checker=True).unwrapped
    theirs: Any = Antialias(PreviousAction(base)) if previous_action else base
    ours: Any = make_env(f"bistable_rl/Popgym{name}-v0", kwargs={"previous_action": previous_action}).unwrapped
    ends = set()
    for seed in range(seeds):
        seen, _ = theirs.reset(seed=seed)
        shown, _ = ours.reset(seed=100 + seed, options={"cue": HIDDEN[kind](base)})
        act = Player(base, seed)
        np.testing.assert_array_equal(shown, flatten(theirs.observation_space, seen))
        ends.add(assert_equal_to_the_end(theirs, ours, act))
    if name.startswith(("MineSweeper", "PositionOnlyCartPole", "Battleship", "Concentration")):
        assert len(ends) > 1, f"only one kind of end was seen: {ends}"


def assert_equal_to_the_end(theirs: Any, ours: Any, act: Callable[[], Any]) -> tuple[bool, ...]:
    """Return whether the episode was terminated, truncated and a success."""
    torque = isinstance(ours.action_space, gymnasium.spaces.Box)  # ours is half of popgym's
    while True:
        action = act()
        seen, reward, *ends, _ = theirs.step(action)
        shown, *rest, info = ours.step(action / 2 if torque else action)
        np.testing.assert_array_equal(shown, flatten(theirs.observation_space, seen))
        # numpy squares one float32 torque by pow, an array of them by a product: now and then another last bit
        assert rest == [pytest.approx(reward, rel=0, abs=1e-12 if torque else 0), *ends]
        if any(ends):
            return (*ends, info["is_success"])


@pytest.mark.parametrize("previous_action", [False, True])
@pytest.mark.parametrize("name", IDS)
def test_an_episode_of_popgym_is_one_of_ours(name: str, previous_action: bool) -> None:
    replay(name, previous_action, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
def test_many_episodes_of_popgym_are_ours(name: str) -> None:
    replay(name, True, 50)


class Given:
    """A generator that draws what ours drew."""

    def __init__(self, env: Any) -> None:
        self.env, self.t = env.batch, 0

    def uniform(self, low: Any, high: Any, size: Any = None) -> np.ndarray:
        return self.env.x[0].copy()

    def normal(self, mean: float, sigma: np.ndarray) -> np.ndarray:
        drawn = rng.normal_pairs(self.env.keys, self.t)[0]
        self.t += 1
        return mean + sigma * drawn


@pytest.mark.parametrize("previous_action", [False, True])
@pytest.mark.parametrize(
    "name", [f"NoisyPositionOnly{what}{level}" for what in ("CartPole", "Pendulum") for level in LEVELS]
)
def test_popgym_with_our_noise_does_what_ours_does(name: str, previous_action: bool) -> None:
    base: Any = gymnasium.make(f"popgym-{name}-v0", disable_env_checker=True).unwrapped
    theirs: Any = Antialias(PreviousAction(base)) if previous_action else base
    ours: Any = make_env(f"bistable_rl/Popgym{name}-v0", kwargs={"previous_action": previous_action}).unwrapped
    for seed in range(4):
        shown, _ = ours.reset(seed=seed)
        base.np_random = Given(ours)
        seen, _ = theirs.reset()
        np.testing.assert_array_equal(shown, flatten(theirs.observation_space, seen))
        assert_equal_to_the_end(theirs, ours, Player(base, seed))


@pytest.mark.parametrize("name", [f"{name}{level}" for name in TASKS for level in LEVELS])
def test_the_spaces_are_popgyms_flat(name: str) -> None:
    theirs: Any = gymnasium.make(f"popgym-{name}-v0", disable_env_checker=True).unwrapped
    ours: Any = make_env(f"bistable_rl/Popgym{name}-v0").unwrapped
    space: Any = flatten_space(theirs.observation_space)
    np.testing.assert_array_equal(ours.observation_space.low, space.low)
    np.testing.assert_array_equal(ours.observation_space.high, space.high)
    scale = 2 if "Pendulum" in name else 1
    if scale == 1:
        assert ours.action_space == theirs.action_space
    else:
        np.testing.assert_array_equal(scale * ours.action_space.high, theirs.action_space.high)
