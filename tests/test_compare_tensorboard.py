"""What TensorBoard shows of a comparison: in its files, and in a real browser."""

import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import browser
import numpy as np
import pytest
from PIL import Image, ImageColor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from bistable_rl.cli import main
from bistable_rl.compare.jobs import Job
from bistable_rl.compare.ledger import Row
from bistable_rl.compare.tensorboard import write_tensorboard
from bistable_rl.figure_style import drawing
from bistable_rl.runs.schema import Experiment


def write(folder: Path, experiment: Experiment) -> list[Job]:
    """Write a comparison of two cells with two seeds, whose run folders are gone."""
    jobs, rows = [], []
    for cell, slope in (("nbrc", 0.1), ("gru", 0.05)):
        for seed in (0, 1):
            config = replace(experiment, policy=replace(experiment.policy, cell=cell), seed=seed)
            job = Job(cell, config, folder / cell / f"seed{seed}", {"variant": cell, "algorithm.gamma": 0.9})
            curve = [
                {"steps": 10.0 * i, "seconds": 1.0 * i, "success_rate": slope * i - 0.01 * seed} for i in range(11)
            ]
            facts = {"steps": "100", "seconds": "12", "memory_mb": "300"}
            final = {"success_rate": curve[-1]["success_rate"]}
            jobs.append(job)
            rows.append(Row(cell, seed, job.hash, facts, {}, final, tuple(curve)))
    folder.mkdir(exist_ok=True)
    with drawing(folder / "curves.png") as (_, [[axes]]):
        axes.plot([0, 1])
    write_tensorboard(folder, "GRU against nBRC", jobs, rows, [folder / "curves.png"])
    return jobs


def test_every_run_has_its_hyperparameters_and_final_metrics(experiment: Experiment, tmp_path: Path) -> None:
    job = write(tmp_path, experiment)[2]
    events = EventAccumulator(str(job.folder)).Reload()
    assert events.Scalars("final/success_rate")[0].value == pytest.approx(0.5)
    assert events.Scalars("final/memory_mb")[0].value == 300
    assert [(point.step, point.value) for point in events.Scalars("eval/success_rate")] == [
        (10 * i, pytest.approx(0.05 * i)) for i in range(11)
    ]
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["cell"].string_value == "gru"
    assert hparams["hidden_size"].number_value == 8
    assert hparams["algorithm.gamma"].number_value == 0.9


def test_a_new_report_takes_the_place_of_the_old_and_leaves_the_training_s_curves(
    experiment: Experiment, tmp_path: Path
) -> None:
    job = write(tmp_path, experiment)[0]
    own = job.folder / "events.out.tfevents.1.host.1.0"
    own.write_bytes(b"")
    write(tmp_path, experiment)
    [ours] = job.folder.glob("*tfevents*.compare")
    assert own.exists()
    events = EventAccumulator(str(ours)).Reload()
    assert events.Tags()["scalars"] == ["final/success_rate", "final/seconds", "final/memory_mb"]


def test_the_figures_and_the_layout_are_in_a_run_of_their_own(experiment: Experiment, tmp_path: Path) -> None:
    write(tmp_path, experiment)
    events = EventAccumulator(str(tmp_path / "report")).Reload()
    assert events.Images("report/curves")[0].encoded_image_string == (tmp_path / "curves.png").read_bytes()
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tensorboard", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["tensorboard", str(tmp_path)]) == 2
    assert "holds nothing for TensorBoard yet" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_runs_curves_and_the_table_of_hyperparameters(experiment: Experiment, tmp_path: Path) -> None:
    write(tmp_path / "grid", experiment)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bistable_rl.cli", "tensorboard", str(tmp_path / "grid"), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        url = found.group()
        with browser.Browser(f"{url}#timeseries", tmp_path / "profile") as page:
            page.wait_for("gru/seed0", "gru/seed1", "nbrc/seed0", "nbrc/seed1", "eval")
            pixels = {"none": 0}
            for _ in range(60):
                pixels = drawn(page, tmp_path / "runs.png")
                if min(pixels.values()) >= 100:
                    break
                time.sleep(1)
            assert min(pixels.values()) >= 100, pixels
            page.go(f"{url}?1#custom_scalars")
            page.wait_for("GRU against nBRC", "nbrc/seed1")
            page.go(f"{url}?2#hparams")
            text = page.wait_for("Trial ID", "cell", "hidden_size", "success_rate", "memory_mb", "nbrc/seed1")
            assert text.count("gru/seed0") == 1
            page.screenshot(tmp_path / "table.png")
    finally:
        server.terminate()
        server.wait()


RUN_COLOURS = ("#e52592", "#f9ab00", "#425066", "#12b5cb")
"""TensorBoard's own, of the first four runs."""


def drawn(page: browser.Browser, picture: Path) -> dict[str, int]:
    """Return how many pixels of each run's colour the first chart of a page holds."""
    where = "document.querySelector('line-chart')?.getBoundingClientRect()"
    box = page.run(f"(r => r && [r.x, r.y, r.right, r.bottom])({where})")
    if not box:
        return dict.fromkeys(RUN_COLOURS, 0)
    page.screenshot(picture)
    chart = np.array(Image.open(picture).convert("RGB").crop(box)).astype(int)
    return {colour: int((abs(chart - ImageColor.getrgb(colour)).max(-1) < 24).sum()) for colour in RUN_COLOURS}
