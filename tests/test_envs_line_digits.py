import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import idx

from bistable_rl.data.digits import SHA256
from bistable_rl.envs.line_digits import LineDigitsEnv, LineDigitsVectorEnv

IMAGES, LABELS, *_ = SHA256


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """Forty different images of 4 lines, 3 columns; a quarter are sevens."""
    images = np.random.default_rng(0).integers(256, size=(40, 4, 3))
    return images, np.r_[np.full(10, 7), np.arange(30) % 7]


@pytest.fixture
def folder(tmp_path: Path, data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / IMAGES).write_bytes(idx(data[0]))
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(idx(data[1])))
    monkeypatch.setenv("BISTABLE_RL_DATA", str(tmp_path))
    return tmp_path


def play(env: LineDigitsVectorEnv, data: tuple[np.ndarray, np.ndarray] | None) -> tuple[float, float]:
    """Mean return and success rate of a player who knows all images and reads the lines, or says seven."""
    observations, _ = env.reset(seed=0)
    lines = []
    for _ in range(env.length):
        lines.append(observations)
        answers = np.full(env.num_envs, 7)
        if data is not None and len(lines) >= env.lines:
            seen = np.stack(lines[: env.lines], 1)
            known = (data[0] / 255 - 0.5).astype(np.float32)
            answers = data[1][(seen[:, None] == known).all((2, 3)).argmax(1)]
        observations, rewards, terminated, _, infos = env.step(answers)
    assert terminated.all()
    return float(rewards.mean()), float(infos["final_info"]["is_success"].mean())


def test_a_perfect_player_reaches_the_optimum(folder: Path, data: tuple[np.ndarray, np.ndarray]) -> None:
    assert play(LineDigitsVectorEnv(num_envs=200, length=9), data) == (1, 1)


def test_saying_the_most_frequent_digit_gets_the_memoryless_return(folder: Path) -> None:
    env = LineDigitsVectorEnv(num_envs=20_000, length=5)
    assert env.memoryless_return == pytest.approx(2 * 0.25 - 1)
    assert play(env, None)[0] == pytest.approx(env.memoryless_return, abs=0.03)


def test_a_random_player_is_right_once_in_ten(folder: Path) -> None:
    env = LineDigitsVectorEnv(num_envs=5000, length=5)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(5):
        _, rewards, *_ = env.step(env.action_space.sample())
    assert rewards.mean() == pytest.approx(-0.8, abs=0.05)


def test_lines_come_in_order_and_then_blanks(folder: Path, data: tuple[np.ndarray, np.ndarray]) -> None:
    env = LineDigitsEnv(length=7)
    observation, _ = env.reset(seed=0, options={"cue": 7})
    lines = [observation] + [env.step(0)[0] for _ in range(7)]
    assert any(np.allclose(np.stack(lines[:4]), image / 255 - 0.5) for image in data[0][:10])
    assert (np.stack(lines[4:]) == -0.5).all()


def test_a_digit_is_forced_in_each_copy(folder: Path) -> None:
    env = LineDigitsVectorEnv(num_envs=60, length=5)
    env.reset(seed=0, options={"cue": 7})
    assert (env.digits.labels[env.image] == 7).all()
    assert len(np.unique(env.image)) > 3


def test_images_are_found_in_a_folder_named_mnist(folder: Path) -> None:
    inner = folder / "mnist"
    inner.mkdir()
    for file in (IMAGES, f"{LABELS}.gz"):
        (folder / file).rename(inner / file)
    assert len(LineDigitsVectorEnv(num_envs=1, length=9).digits.labels) == 40


@pytest.mark.usefixtures("folder")
def test_all_copies_share_the_images() -> None:
    envs = [LineDigitsVectorEnv(num_envs=1, length=length) for length in (7, 9)]
    assert envs[0].digits.images is envs[1].digits.images


def test_scikit_learns_digits_serve_where_no_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BISTABLE_RL_DATA", raising=False)
    env = LineDigitsEnv(length=20)
    assert env.observation_space.shape == (8,)
    assert env.memoryless_return == pytest.approx(2 * 183 / 1797 - 1)


def break_file(content: bytes, how: str) -> bytes:
    """A file with an error in it."""
    return {"short": content[:-1], "empty": b"", "magic": b"\x01" + content[1:], "header": content[:6]}[how]


@pytest.mark.parametrize("how", ["short", "empty", "magic", "header"])
def test_a_broken_file_gets_a_sentence(folder: Path, how: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    (folder / IMAGES).write_bytes(break_file(idx(data[0]), how))
    with pytest.raises(ValueError, match=f"{IMAGES} is not a complete IDX file of bytes"):
        LineDigitsEnv()


def test_a_truncated_gzip_gets_a_sentence(folder: Path) -> None:
    file = folder / f"{LABELS}.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"labels-idx1-ubyte.gz cannot be read"):
        LineDigitsEnv()


def test_missing_files_get_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BISTABLE_RL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"neither .*train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz exists"):
        LineDigitsEnv()


def test_images_without_their_labels_get_a_sentence(folder: Path) -> None:
    (folder / f"{LABELS}.gz").write_bytes(gzip.compress(idx(np.zeros(3))))
    with pytest.raises(ValueError, match="must hold images, and a label from 0 to 9"):
        LineDigitsEnv()


@pytest.mark.parametrize(("kwargs", "message"), [({"length": 4}, "at least 5, the image's 4 lines and a blank one")])
def test_bad_arguments_get_a_sentence(folder: Path, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LineDigitsEnv(**kwargs)
