"""How fast the environments are."""

from pathlib import Path

import pytest

from bistable_rl.envs import ENVIRONMENTS
from bistable_rl.speed.envs import measure, speed_envs


def test_a_table_is_printed_and_returned(capsys: pytest.CaptureFixture[str]) -> None:
    ids = ["bistable_rl/TMaze-v0", "bistable_rl/MiniGridMemory-v0"]
    speeds = speed_envs(ids, sizes=(1, 16), seconds=0.02)
    assert [(speed.env_id, speed.num_envs) for speed in speeds] == [(env_id, n) for env_id in ids for n in (1, 16)]
    assert all(speed.batched > 0 and speed.adapter > 0 and speed.one_by_one > 0 for speed in speeds)
    assert [speed.original is None for speed in speeds] == [True, True, False, False]
    printed = capsys.readouterr().out
    assert "TMaze-v0" in printed
    assert "…" not in printed


def test_an_environment_without_its_images_is_left_out_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("BISTABLE_RL_DATA", str(tmp_path))
    monkeypatch.setattr(
        "bistable_rl.speed.envs.ENVIRONMENTS",
        {env_id: ENVIRONMENTS[env_id] for env_id in ("bistable_rl/LineDigits-v0", "bistable_rl/TMaze-v0")},
    )
    assert [speed.env_id for speed in speed_envs(sizes=(1,), seconds=0.01)] == ["bistable_rl/TMaze-v0"]
    assert "not measured: " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"neither .* nor .*\.gz exists"):
        speed_envs(["bistable_rl/LineDigits-v0"])


def test_an_unknown_environment_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="unknown environment 'TMaze'; the nearest of"):
        speed_envs(["TMaze"])


def test_a_batch_is_many_times_as_fast_as_one_by_one() -> None:
    speed = measure("bistable_rl/TMaze-v0", 256, seconds=0.1)
    assert speed.batched > 10 * speed.one_by_one


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [env_id for env_id in ENVIRONMENTS if "LineDigits" not in env_id])
def test_a_thousand_copies_make_a_million_steps_a_second(env_id: str) -> None:
    assert measure(env_id, 1024, seconds=0.2).batched > 1e6


@pytest.mark.slow
def test_the_batched_minigrid_is_twenty_times_as_fast_as_minigrids() -> None:
    speed = measure("bistable_rl/MiniGridMemory-v0", 64, seconds=0.5)
    assert speed.original is not None
    assert speed.batched > 20 * speed.original


@pytest.mark.slow
def test_time_grows_no_faster_than_the_copies() -> None:
    few, many = (measure("bistable_rl/CopyFirst-v0", n, seconds=0.3).batched for n in (1024, 8192))
    assert many > few / 2
