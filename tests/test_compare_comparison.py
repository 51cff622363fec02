import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL

from bistable_rl.compare import ledger, report, tensorboard
from bistable_rl.compare.comparison import WRITTEN, panel, read, series
from bistable_rl.errors import UserError
from bistable_rl.runs.config import find_config, shipped_configs
from bistable_rl.runs.schema import Benchmark, Experiment

HELP = {"c_bias": "chrono", "t_max": 5}
FILE: dict[str, Any] = {
    "name": "cells",
    "base": SMALL,
    "variants": {
        "nbrc": {"policy.cell": "nbrc"},
        "gru": {"policy.cell": "gru"},
        "gru with help": {"policy.cell": "gru", "policy.cell_kwargs": HELP},
    },
    "grid": {"env.kwargs.length": [5, 6], "algorithm.gamma": [0.9]},
    "seeds": [3, 4],
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "cells.yaml"
    path.write_text(yaml.safe_dump({**FILE, **changes}, sort_keys=False))
    return path


def test_every_variant_is_run_with_every_value_and_seed(tmp_path: Path) -> None:
    comparison, jobs = read(write(tmp_path), tmp_path / "runs")
    assert comparison.metric.name == "success_rate"
    assert len(jobs) == 3 * 2 * 2
    job = jobs[-1]
    assert isinstance(job.config, Experiment)
    assert job.label == "gru with help, length 6"
    assert job.folder == tmp_path / "runs" / "cells" / "gru_with_help_length_6" / "seed4"
    assert (job.config.name, job.config.seed) == ("cells", 4)
    assert (job.config.policy.cell, job.config.policy.cell_kwargs) == ("gru", HELP)
    assert job.config.env.kwargs == {"length": 6, "num_symbols": 2}
    assert job.config.algorithm.gamma == 0.9
    assert (panel(job.keys), series(job.keys)) == ("length 6", "gru with help")
    assert isinstance(jobs[4].config, Experiment)
    assert jobs[4].config.policy.cell_kwargs == {}  # variants leave each other alone


def test_runs_are_told_apart_by_what_varies_alone(tmp_path: Path) -> None:
    grid = {"policy.cell": ["brc", "gru"], "algorithm.learning_rate": [1e-3, 1e-2], "algorithm.gamma": [0.9]}
    _, jobs = read(write(tmp_path, variants={}, grid=grid), tmp_path)
    assert [job.label for job in jobs[::2]] == [
        f"{cell}, learning_rate {rate}" for cell in ("brc", "gru") for rate in (0.001, 0.01)
    ]
    _, jobs = read(write(tmp_path, variants={}, grid={}), tmp_path)
    assert [job.label for job in jobs] == ["nbrc", "nbrc"]
    _, jobs = read(write(tmp_path, variants={}, grid={"policy.cell": ["brc"]}), tmp_path)
    assert {(job.label, job.folder.parent.name, job.config.cell) for job in jobs} == {("brc", "brc", "brc")}


def test_a_base_is_a_shipped_config_or_supervised_too(tmp_path: Path) -> None:
    path = write(tmp_path, base="rl/t_maze", grid={})
    assert read(path, tmp_path)[1][0].config.total_steps == 600_000  # type: ignore[union-attr]
    base = {"task": {"name": "copy_first"}}
    grid = {"task.kwargs.length": [5, 50], "network.cell": ["brc", "gru"]}
    _, jobs = read(write(tmp_path, base=base, variants={}, grid=grid), tmp_path)
    assert all(isinstance(job.config, Benchmark) for job in jobs)
    assert jobs[-1].label == "length 50, gru"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"base": 5}, r"cells.yaml: base must be a config's name or path, or an experiment, not 5\."),
        ({"base": "rl/t_mase"}, r"no shipped config of that name: .*did you mean 'rl/t_maze'"),
        (
            {"base": {"policy": {}}},
            r"cells.yaml must hold either base.env, .* training, or base.task, for a .* one; it holds neither\.$",
        ),
        ({"base": {**SMALL, "task": {"name": "copy_first"}}}, r"either base.env, .* or base.task, .* it holds both\.$"),
        ({"base": {**SMALL, "total_steps": -1}}, r"cells.yaml: base.total_steps must be an integer above 0, not -1\."),
        (
            {"base": {**SMALL, "algorithm": {"burn_in": 9, "bptt_length": 8}}},
            r"cells.yaml: base.algorithm.burn_in 9 is more than the longest sequence, 8 steps\.",
        ),
        ({"seeds": []}, r"cells.yaml: seeds must be a list of different seeds, not \[\]\."),
        ({"seeds": [1, 1]}, r"cells.yaml: seeds must be a list of different seeds"),
        ({"seeds": 3}, r"cells.yaml: seeds must be"),
        ({"name": "a/b"}, r"cells.yaml: name must be made of letters"),
        ({"grids": {}}, r"cells.yaml: unknown key 'grids'; did you mean 'grid'"),
        ({"grid": {"policy.cell": "gru"}}, r"cells.yaml: grid.policy.cell must be a list of values, not \"gru\"\."),
        (
            {"grid": {"policy.sell": ["gru"]}},
            r"cells.yaml, nbrc: unknown key 'policy.sell'; did you mean 'policy.cell'",
        ),
        ({"grid": {"policy": [{}]}}, r"cells.yaml, nbrc: policy is a section; set its keys: policy.cell"),
        ({"grid": {"policy.cell": ["brc"]}}, r"cells.yaml: policy.cell is set by variants.nbrc and varied by grid"),
        ({"grid": {"seed": [1, 2]}}, r"cells.yaml, nbrc, seed 1: seed cannot be varied"),
        (
            {"grid": {"total_steps": [400, -1]}},
            r"nbrc, total_steps -1: total_steps must be an integer above 0, not -1\.",
        ),
        ({"grid": {"env.kwargs.length.x": [1]}}, r"nbrc: env.kwargs.length.x cannot be set below 5"),
        ({"variants": {"gru": "gru"}}, r"cells.yaml: variants.gru must map keys to values"),
        ({"variants": {"a": {}, "b": {"policy.cell": "nbrc"}}}, r"cells.yaml: 'a, length 5' and 'b, length 5' are the"),
        ({"variants": {"a b": {}, "a_b": {"policy.cell": "gru"}}}, r"'a b, length 5' and 'a_b, length 5' need differ"),
        ({"variants": {"..": {}}}, r"cells.yaml: variants.\"..\": a variant's name must contain a letter or a digit\."),
        ({"variants": {"": {}}}, r"a variant's name must contain a letter or a digit\."),
        ({"variants": {"a" * 250: {}}}, r"a, length 5: the name of a variant must have at most 255 bytes"),
        ({"variants": {".a": {}, "_a": {"policy.cell": "gru"}}}, r"'.a, length 5' and '_a, length 5' need different"),
        ({"variants": {"report": {}}, "grid": {}}, r"every comparison writes a file named report"),
        ({"name": "a" * 256}, r"cells.yaml: name must have at most 255 bytes since it names a folder, not 256\."),
        ({"metric": {"better": "more"}}, r"cells.yaml: metric.better must be one of higher, lower, not \"more\"\."),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        read(write(tmp_path, **changes), tmp_path)
    assert re.search(sentence, str(error.value))
    assert "\n" not in str(error.value)


def test_a_file_without_a_base_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nseeds: [0]\n")
    with pytest.raises(UserError, match=r"x.yaml: the key base is missing"):
        read(path, tmp_path)


COMPARISONS = [name for name in shipped_configs() if name.startswith("compare/")]
OF_THE_DEFAULT = {
    f"compare/{name}"
    for name in (
        *("acrobot", "cartpole", "cartpole_no_velocity", "cartpole_no_velocity_zoo", "pendulum_no_velocity_zoo"),
        *("mountain_car_no_velocity_zoo", "popgym", "popgym_10_epochs", "popgym_15m"),
        *("t_maze_passive", "t_maze_passive_1500", "t_maze_1000"),
        *("minigrid_s17", "minigrid_beyond", "minigrid_red_blue_doors", "cartpole_no_velocity_default"),
    )
}
OTHER_VARIANTS = {
    f"compare/{name}"
    for name in (
        *("horizons_copy_first", "minigrid_memory", "help_copy_first", "lstm_copy_first_50"),
        *("nbrc_copy_first", "nbrc_t_maze", "nbrc_minigrid_memory", "streams_copy_first", "certified_copy_first"),
        *("horizons_copy_first_300", "lstm_copy_first_50_epsilon", "default_parts", "default_copy_first"),
        *("default_t_maze_200", "default_minigrid", "popgym_cartpole", "default_pendulum", "default_mountain_car"),
        *("default_popgym_cartpole", "default_t_maze_masked", "t_maze_1000_chrono", "t_maze_passive_parts"),
    )
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_shipped_comparison_is_valid_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    comparison, jobs = read(find_config(name), tmp_path)
    assert comparison.name == name.removeprefix("compare/")
    assert jobs
    assert find_config(name).read_text().startswith("# "), "the first line tells `bistable-rl list configs` what it is"


@pytest.mark.parametrize("name", sorted(OF_THE_DEFAULT))
def test_the_default_is_compared_with_four_cells(name: str, tmp_path: Path) -> None:
    comparison, jobs = read(find_config(name), tmp_path)
    assert {job.label.split(",")[0] for job in jobs} == {"default", "nbrc", "brc", "gru", "lstm"}
    assert len(comparison.seeds) >= 3
    for job in jobs:
        assert isinstance(job.config, Experiment)
        assert job.config.cell == ("mixed" if job.label.startswith("default") else job.label.split(",")[0])


@pytest.mark.parametrize("name", sorted(set(COMPARISONS) - OTHER_VARIANTS - OF_THE_DEFAULT))
def test_a_shipped_comparison_runs_four_cells_with_help_and_without(name: str, tmp_path: Path) -> None:
    comparison, jobs = read(find_config(name), tmp_path)
    labels = {f"{cell}{help}" for cell in ("nbrc", "brc", "gru", "lstm") for help in ("", " with help")}
    assert {job.label for job in jobs} == labels
    assert len(comparison.seeds) >= 3
    for job in jobs:
        assert isinstance(job.config, Experiment)
        assert job.config.policy.cell == job.label.split()[0]
        assert (job.config.policy.cell_kwargs == {}) == (job.label == job.config.policy.cell)


def test_a_variant_s_folder_is_not_hidden_and_its_label_is_one_printable_line(tmp_path: Path) -> None:
    _, jobs = read(write(tmp_path, variants={".a\nb\x1b": {}}, grid={}), tmp_path)
    assert (jobs[0].label, jobs[0].folder.parent.name) == (".a b", "_a_b")


def test_what_a_comparison_writes_is_no_name_of_a_variant() -> None:
    files = {report.REPORT, report.PAGE, report.SUMMARY, report.CURVES, report.FINAL, report.HORIZONS}
    assert set(WRITTEN) == files | {ledger.RUNS, ledger.CURVES, tensorboard.REPORT}
