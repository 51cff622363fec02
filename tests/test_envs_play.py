"""A person plays, and a trained agent is watched."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary
from PIL import Image

from bistable_rl.agents.play import watch
from bistable_rl.envs import make_env
from bistable_rl.envs.play import observation_text, parse_action, play


def typed(*lines: str) -> Callable[[str], str]:
    """Input that gives these lines and then ends."""
    left = iter(lines)

    def ask(prompt: str) -> str:
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    return ask


def test_a_person_plays_an_episode_and_is_told_how_good_it_was() -> None:
    shown: list[str] = []
    kwargs = {"length": 2}
    returns = play("bistable_rl/TMaze-v0", kwargs=kwargs, seed=0, ask=typed("0", "0", "3"), show=shown.append)
    assert returns == [4.0]
    assert shown[1:] == [
        "the goal is down",
        "the corridor",
        "the junction",
        "reward 4",
        "return 4 in 3 steps, success (best 4, best without memory 1.95, on average)",
    ]


def test_the_cue_is_not_given_away_after_it_was_shown() -> None:
    shown: list[str] = []
    kwargs = {"length": 3, "num_symbols": 5, "flags": True}
    play("bistable_rl/CopyFirst-v0", kwargs=kwargs, seed=1, ask=typed("0", "0"), show=shown.append)
    assert shown[-1].endswith("ANSWER NOW")
    assert not any("remember" in line for line in shown)


def test_what_is_no_action_is_asked_for_again() -> None:
    shown: list[str] = []
    assert play("bistable_rl/TMaze-v0", ask=typed("9", "up", "1", "q"), show=shown.append) == []
    assert [line for line in shown if line.startswith("an action")] == [
        "an action is a number from 0 to 3, not '9'",
        "an action is a number from 0 to 3, not 'up'",
    ]
    assert "reward -0.1" in shown


def test_the_end_of_the_input_ends_the_game() -> None:
    assert play("CartPole-v1", ask=typed("0", "1"), show=lambda text: None) == []


def test_several_episodes_are_played_one_after_the_other() -> None:
    lines = ["0", "0"] * 2
    kwargs = {"length": 1}
    returns = play("bistable_rl/MemoryLength-v0", kwargs=kwargs, episodes=2, ask=typed(*lines), show=lambda text: None)
    assert len(returns) == 2
    assert set(returns) <= {-1.0, 1.0}


def test_a_film_is_saved(tmp_path: Path) -> None:
    file = tmp_path / "game.gif"
    kwargs = {"length": 6, "k": 2}
    play("bistable_rl/RepeatPrevious-v0", kwargs=kwargs, save=file, ask=typed(*"000000"), show=lambda text: None)
    with Image.open(file) as film:
        assert film.n_frames > 1
        assert film.size == (4 * 16 * 8, 4 * 16 * 8 + 48)


def test_minigrids_image_is_drawn() -> None:
    image = np.zeros((3, 3, 3), np.uint8)
    image[..., 0] = [[2, 2, 2], [1, 5, 1], [0, 6, 1]]
    env = make_env("MiniGrid-MemoryS7-v0", kwargs={"agent_view_size": 3}).unwrapped
    assert observation_text(env, {"image": image, "direction": 0}) == "# ?\n#kb\n#  "


def test_actions_are_typed_as_numbers() -> None:
    assert parse_action(Discrete(3), " 2 ") == 2
    np.testing.assert_array_equal(parse_action(Box(-1, 1, (2,)), "0.5 -1"), np.array([0.5, -1], np.float32))
    for text in ("0.5", "0.5 x", "0 2", "nan 0"):
        with pytest.raises(ValueError, match=f"an action is 2 numbers from -1 to 1, not '{text}'"):
            parse_action(Box(-1, 1, (2,)), text)


def test_what_cannot_be_played_by_typing_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Switches:
        action_space = MultiBinary(3)

    monkeypatch.setattr("bistable_rl.envs.play.make_env", lambda *args, **kwargs: Switches())
    with pytest.raises(ValueError, match=r"Switches-v0 cannot be played by typing: its actions are MultiBinary\(3\)"):
        play("Switches-v0")


def test_a_trained_agent_is_watched(trained: Path, tmp_path: Path) -> None:
    shown: list[str] = []
    file = tmp_path / "agent.gif"
    returns = watch(trained, episodes=2, seed=0, save=file, delay=0, show=shown.append)
    assert len(returns) == 2
    assert set(returns) <= {-1.0, 1.0}
    assert len(shown) == 2 * 5 + 2  # a line a step, and one an episode
    assert shown[4].startswith(("0  ANSWER NOW  action: ", "1  ANSWER NOW  action: "))
    assert shown[5].startswith(f"return {returns[0]:g} in 5 steps, ")
    with Image.open(file) as film:
        assert film.size == (4 * 16 * 8, 2 * 16 * 8 + 48)


def test_a_trained_agent_is_watched_in_a_longer_episode(trained: Path) -> None:
    shown: list[str] = []
    watch(trained, overrides=["--env.kwargs.length", "9"], delay=0, show=shown.append)
    assert len(shown) == 9 + 1


def test_watching_what_is_no_run_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run folder"):
        watch(tmp_path)
