import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from bistable_rl.analysis.trained import cue_and_noise, read_trained
from bistable_rl.benchmarks.runner import start
from bistable_rl.cli import main
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment, NetworkConfig, TaskConfig, TrainingConfig, load_config


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of a network that was hardly trained to denoise."""
    task = TaskConfig("denoising", {"length": 30, "forgetting": 10, "train_size": 40, "test_size": 20})
    training = TrainingConfig(epochs=1, batch_size=20)
    benchmark = Benchmark("denoise", task, NetworkConfig("nbrc", hidden_size=6, num_layers=2), training, device="cpu")
    return start(benchmark, tmp_path_factory.mktemp("denoiser"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_an_agent_is_analysed_into_figures_tables_and_a_page(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(trained), "--episodes", "8", "--out", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        *("analysis.md", "episode.png", "aligned.png", "aligned.csv", "attractors.png", "attractors.csv"),
        *("survival.png", "survival.csv", "time_constants.png", "time_constants.csv"),
    }
    page = (tmp_path / "a" / "analysis.md").read_text()
    for line in out.splitlines()[:-1]:
        assert f"- {line}" in page
    assert "the cue (one of 2) is decoded correctly" in out
    steps = [int(folder.name) for folder in Run(trained).checkpoints.all()]
    assert [int(row["steps"]) for row in rows(tmp_path / "a" / "attractors.csv")] == steps
    assert all(1 <= float(row["attractors"]) <= 8 for row in rows(tmp_path / "a" / "attractors.csv"))
    assert len(rows(tmp_path / "a" / "time_constants.csv")) == 8
    cue = [row for row in rows(tmp_path / "a" / "aligned.csv") if row["event"] == "cue" and row["quantity"] == "mean c"]
    assert [row["mean"] == "nan" for row in cue] == [False] * 5 + [True] * 26  # an episode takes 5 steps


def test_the_same_run_is_analysed_to_the_same_numbers(trained: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(["analyze", str(trained), "--episodes", "4", "--out", str(tmp_path / name)]) == 0
    for path in (tmp_path / "a").glob("*.csv"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_episode_of_an_agent_has_a_picture_for_every_step(trained: Path) -> None:
    network = read_trained(trained, 4)
    assert network.frames is not None
    assert len(network.frames) == int(network.lengths[0]) == 5
    assert network.answer.tolist() == [4] * 4


def test_a_supervised_network_is_analysed_at_its_marks(
    denoiser: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = read_trained(denoiser, 6)
    assert network.marked is not None
    assert network.marked.sum(0).tolist() == [5] * 6
    assert network.answer.tolist() == [25] * 6
    assert main(["analyze", str(denoiser), "--episodes", "6", "--out", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.count("at the marks, mean c") == 2
    assert {row["event"] for row in rows(tmp_path / "a" / "aligned.csv")} == {"marked steps", "answer"}


def test_a_forced_cue_is_one_that_was_seen_and_what_follows_is_noise(denoiser: Path, trained: Path) -> None:
    network = read_trained(denoiser, 6)
    x, cues = cue_and_noise(network, 20, 3, seed=0)
    assert x.shape == (21, 6, 2)
    assert sorted(cues) == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(x[0, :, 1], 1)
    np.testing.assert_array_equal(x[0, :, 0] > 0, cues == 1)
    np.testing.assert_array_equal(x[1:, :, 1], -1)
    x, cues = cue_and_noise(read_trained(trained, 10), 20, 3, seed=0)
    np.testing.assert_array_equal(x[0, :, 2], 1)  # the flag of the first step
    np.testing.assert_array_equal(x[0, :, :2].argmax(1), 1 - cues)  # rows are sorted: symbol 1 is 0, 1, ...
    assert not x[1:, :, 2:].any()  # neither the first step nor the last


def test_what_cannot_be_analysed_is_one_sentence(
    trained: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bistable_rl.agents.training import train

    assert main(["analyze", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    stopped = Path(shutil.copytree(trained, tmp_path / "stopped"))
    shutil.rmtree(stopped / "checkpoints")
    assert main(["analyze", str(stopped)]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert not (stopped / "analysis").exists()
    lmu = train(load_config(Experiment, config, ["--policy.cell", "lmu", "--total_steps", "80"]), tmp_path)
    assert main(["analyze", str(lmu)]) == 2
    assert "lmu has no gates that can be traced" in capsys.readouterr().err
    assert main(["analyze", str(trained), "--episodes", "1"]) == 2
    assert "at least 2" in capsys.readouterr().err


def test_a_network_without_gains_is_analysed_too(config: Path, tmp_path: Path) -> None:
    from bistable_rl.agents.training import train

    run = train(load_config(Experiment, config, ["--policy.cell", "lstm", "--total_steps", "80"]), tmp_path)
    assert main(["analyze", str(run), "--episodes", "4"]) == 0
    assert {row["quantity"] for row in rows(run / "analysis" / "aligned.csv")} == {"mean f"}
