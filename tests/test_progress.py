"""The progress of a training in a notebook: one bar, which stays."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import gymnasium
import pytest
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

import bistable_rl
from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.progress_bar import NotebookBar
from bistable_rl.runs.progress import Progress, in_notebook


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as if in a cell of a notebook."""
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)


def shown(text: str) -> list[str]:
    """Return the lines that a notebook shows of what was written."""
    lines = []
    for line in text.split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]  # written over the line from its beginning
        if cells.strip():
            lines.append(cells.rstrip())
    return lines


def bars(lines: list[str]) -> list[str]:
    return [line for line in lines if re.search(r"\d+%\|", line)]


def learn(callbacks: list[BaseCallback]) -> RecurrentPPO:
    model = RecurrentPPO("MlpRecurrentPolicy", gymnasium.make("CartPole-v1"), n_steps=32, batch_size=32, device="cpu")
    return model.learn(64, callback=callbacks, progress_bar=True)


@pytest.mark.usefixtures("notebook")
def test_learn_shows_one_bar_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_notebook()
    seen: list[BaseCallback] = []

    class Sees(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(self)
            return True

    learn([Sees()])
    lines = shown(capsys.readouterr().err)
    assert len(bars(lines)) == 1
    assert "100%" in lines[-1]
    assert "64.0/64.0" in lines[-1]
    assert len(seen) == 64


def test_elsewhere_learn_has_sb3s_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    calls = {"ours": 0, "sb3": 0}
    for name, kind in (("ours", NotebookBar), ("sb3", ProgressBarCallback)):
        monkeypatch.setattr(
            kind, "_on_training_start", lambda self, name=name: calls.__setitem__(name, calls[name] + 1)
        )
        monkeypatch.setattr(kind, "_on_step", lambda self: True)
        monkeypatch.setattr(kind, "_on_training_end", lambda self: None)
    learn([])
    assert calls == {"ours": 0, "sb3": 1}


@pytest.mark.usefixtures("notebook")
def test_a_training_shows_its_lines_and_one_bar_that_stays(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bistable_rl.runs.progress.time.monotonic", iter(range(10**6)).__next__)  # every step is due
    bistable_rl.train(config, out=tmp_path, progress_bar=True)
    lines = shown(capsys.readouterr().err)
    assert len(bars(lines)) == 1
    assert "100%" in bars(lines)[0]
    assert bars(lines) == lines[-1:]
    assert sum("evaluation: return" in line for line in lines) == 3


def test_a_progress_that_is_not_shown_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(10, "title", shown=False)
    progress.last = -1e9
    progress.update(5, dict)
    progress.say("a line")
    progress.close()
    assert capsys.readouterr() == ("", "")
