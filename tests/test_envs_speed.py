"""How fast the environments are, and watching a run; both go through SB3."""

import json
from pathlib import Path

import pytest

from bistable_rl.agents.speed_envs import measure, speed_envs
from bistable_rl.envs import ENVIRONMENTS


def test_a_table_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "speed.json"
    ids = ["bistable_rl/TMaze-v0", "bistable_rl/MiniGridMemory-v0"]
    speeds = speed_envs(ids, sizes=(1, 16), seconds=0.02, file=file)
    rows = json.loads(file.read_text())
    assert [(row["env_id"], row["num_envs"]) for row in rows] == [(env_id, n) for env_id in ids for n in (1, 16)]
    assert all(row["batched"] > 0 and row["adapter"] > 0 and row["one_by_one"] > 0 for row in rows)
    assert [row["original"] is None for row in rows] == [True, True, False, False]
    assert speeds[0].env_id == ids[0]
    assert "steps a second" in capsys.readouterr().out


def test_an_unknown_environment_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="unknown environment of ours 'TMaze': choose from"):
        speed_envs(["TMaze"])


def test_a_batch_is_many_times_as_fast_as_one_by_one() -> None:
    speed = measure("bistable_rl/TMaze-v0", 256, seconds=0.1)
    assert speed.batched > 10 * speed.one_by_one


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [env_id for env_id in ENVIRONMENTS if "LineDigits" not in env_id])
def test_a_thousand_copies_make_a_million_steps_a_second(env_id: str) -> None:
    assert measure(env_id, 1024, seconds=0.5).batched > 1e6


@pytest.mark.slow
def test_the_batched_minigrid_is_twenty_times_as_fast_as_minigrids() -> None:
    speed = measure("bistable_rl/MiniGridMemory-v0", 64, seconds=1.0)
    assert speed.original is not None
    assert speed.batched > 20 * speed.original


@pytest.mark.slow
def test_time_grows_no_faster_than_the_copies() -> None:
    few, many = (measure("bistable_rl/CopyFirst-v0", n, seconds=0.3).batched for n in (1024, 8192))
    assert many > few / 2
