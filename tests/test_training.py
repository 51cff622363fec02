"""From a config to a run folder and back, through the Python functions and through the command."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from new_run import started

import bistable_rl
from bistable_rl.agents.agent import load
from bistable_rl.agents.evaluation import evaluate
from bistable_rl.agents.play import Episodes
from bistable_rl.agents.training import resume, train
from bistable_rl.agents.vec_envs import make_vec_env
from bistable_rl.cells import CELLS
from bistable_rl.cli import main
from bistable_rl.errors import RunFailedError, UserError
from bistable_rl.runs.config import read_yaml, shipped_configs
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment, load_config
from bistable_rl.runs.seeds import derived_seed


def test_a_run_folder_is_complete(trained: Path) -> None:
    assert trained.parts[-2:] == ("small", "nbrc-seed0")
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.csv", "checkpoints", "result.json"} <= names
    result = json.loads((trained / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("finished", 400)
    assert result["evaluation"]["episodes"] == 5
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__


def test_metrics_have_a_row_an_update_and_an_evaluation_when_it_is_due(trained: Path) -> None:
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["time/total_timesteps"]) for row in rows] == [80, 160, 240, 320, 400]
    assert [bool(row["eval/success_rate"]) for row in rows] == [False, True, False, True, True]
    assert all(row["train/loss"] and row["train/entropy_loss"] and row["rollout/ep_rew_mean"] for row in rows)


def test_the_last_checkpoints_are_kept(trained: Path) -> None:
    assert [folder.name for folder in Run(trained).checkpoints.all()] == ["000000000320", "000000000400"]


def test_tensorboard_holds_scalars_and_the_config(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "rollout/success_rate", "rollout/ep_len_mean", "train/loss"} <= scalars
    assert {"train/entropy_loss", "time/fps", "eval/success_rate"} <= scalars
    assert "config/text_summary" in events.Tags()["tensors"]


def test_nothing_in_a_run_folder_can_execute(trained: Path) -> None:
    suffixes = {path.suffix for path in trained.rglob("*") if path.is_file() and "tfevents" not in path.name}
    assert suffixes == {".yaml", ".json", ".csv", ".safetensors"}


def test_opening_a_run_never_unpickles(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    agent = bistable_rl.load(trained)
    assert agent.steps == 400


def test_a_reopened_agent_acts_as_the_trained_one(trained: Path) -> None:
    agent = load(trained)
    weights = safetensors.torch.load_file(Run(trained).checkpoints.latest() / "weights.safetensors")
    for name, tensor in agent.policy.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    action, state = agent.predict(np.zeros(4, np.float32))
    assert action in (0, 1)
    agent.predict(np.zeros(4, np.float32), state, np.array([False]))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    experiment: Experiment, tmp_path: Path, seed: int
) -> None:
    experiment.total_steps = 160
    first = train(experiment, tmp_path / "a")
    experiment.seed = seed
    second = train(experiment, tmp_path / "b")

    def outcome(run: Path) -> tuple[dict[str, bytes], list[str]]:
        tensors = safetensors.torch.load_file(Run(run).checkpoints.latest() / "weights.safetensors")
        with (run / "metrics.csv").open() as file:
            rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
        return {name: t.numpy().tobytes() for name, t in tensors.items()}, [str(row) for row in rows]

    assert (outcome(first) == outcome(second)) == (seed == 0)


AGENTS = [name for name in shipped_configs() if name.startswith("rl/")]
PAIRS = [(name, cell) for name in AGENTS for cell in CELLS]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        pytest.param(*pair, marks=[] if pair[1] == "nbrc" or pair[0] == "rl/copy_first" else [pytest.mark.slow])
        for pair in PAIRS
    ],
)
def test_every_shipped_config_trains_with_every_cell(name: str, cell: str, tmp_path: Path) -> None:
    overrides = ["--policy.cell", cell, "--env.num_envs", "2", "--algorithm.n_steps", "16", "--total_steps", "32"]
    overrides += ["--algorithm.batch_size", "16", "--evaluation.episodes", "1"]
    experiment = load_config(Experiment, shipped_configs()[name], overrides)
    experiment.evaluation.horizons = experiment.evaluation.horizons[
        :1
    ]  # an untrained agent walks long corridors slowly
    run = train(experiment, tmp_path)
    assert json.loads((run / "result.json").read_text())["status"] == "finished"


def test_options_of_a_slow_gate_are_left_out_for_a_cell_without_one(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment.policy.cell = "lmu"
    experiment.policy.cell_kwargs = {"c_bias": "chrono", "t_max": 5, "theta": 9.0}
    experiment.total_steps = 80
    run = train(experiment, tmp_path)
    assert "lmu has no slow gate" in capsys.readouterr().err
    assert Run.open(run).experiment().policy.cell_kwargs == {"theta": 9.0}


def test_files_of_a_run_are_as_readable_as_others(experiment: Experiment, tmp_path: Path) -> None:
    experiment.total_steps = 80
    before = os.umask(0o022)
    try:
        run = train(experiment, tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in run.rglob("*") if path.is_file()}
    assert set(modes.values()) == {"0o644"}, modes


def test_the_policy_section_reaches_the_network(experiment: Experiment, tmp_path: Path) -> None:
    experiment.policy.num_layers, experiment.policy.critic, experiment.policy.net_arch = 2, "separate", [7]
    experiment.total_steps = 80
    shapes = {name: tuple(p.shape) for name, p in load(train(experiment, tmp_path)).policy.named_parameters()}
    assert shapes["critic_memory.cells.1.weight_ih"] == (24, 8)
    assert shapes["actor_mlp.0.weight"] == (7, 8)


def test_seeds_and_purposes_share_no_episodes(experiment: Experiment) -> None:
    seeds = [derived_seed(seed, purpose) for seed in range(4) for purpose in range(3)]
    copies = experiment.env.num_envs
    streams = [seed + i for seed in seeds for i in range(copies)]
    assert len(set(streams)) == len(streams)


def test_two_evaluations_of_a_training_play_the_same_episodes(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    from bistable_rl.agents import callbacks

    def fixed(agent: Any, env: Any, episodes: int, **_: Any) -> Any:
        result = evaluate(FirstAction(), env, episodes)
        seen.append(result.returns.tolist())
        return result

    monkeypatch.setattr(callbacks, "evaluate", fixed)
    experiment.evaluation.episodes = 20
    train(experiment, tmp_path)
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


def test_the_optimizer_is_kept(trained: Path) -> None:
    tensors = safetensors.torch.load_file(Run(trained).checkpoints.latest() / "optimizer.safetensors")
    parameters = list(load(trained).policy.parameters())
    assert {name for name in tensors if name.endswith("exp_avg_sq")} == {
        f"{i}.exp_avg_sq" for i in range(len(parameters))
    }
    assert all(tensors[f"{i}.exp_avg"].shape == p.shape for i, p in enumerate(parameters))


# --- evaluation ---------------------------------------------------------------------------------------------


class FirstAction:
    """Plays action 0, whatever happens."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        return np.zeros(len(observation), dtype=int), state


class Pushes:
    """Pushes nothing, in an environment of one continuous action."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        return np.zeros((len(observation), 1), np.float32), state


class Counts:
    """Keeps the number of steps of its episode in its state, and checks that it gets it back."""

    def __init__(self) -> None:
        self.steps: np.ndarray | None = None

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        assert state is self.steps
        first = observation[:, -2] == 1  # the flag of an episode's first step
        np.testing.assert_array_equal(episode_start, first)
        self.steps = np.where(first, 0, 0 if state is None else state + 1)
        np.testing.assert_array_equal(observation[:, -1] == 1, self.steps == 4)
        return np.zeros(len(observation), dtype=int), self.steps


def test_evaluation_hands_the_state_back_and_says_where_episodes_start(experiment: Experiment) -> None:
    evaluate(Counts(), make_vec_env(experiment.env, 3, seed=0), 9)


@pytest.mark.parametrize(("copies", "episodes"), [(1, 3), (3, 7), (5, 2)])
def test_evaluation_counts_whole_episodes_exactly(experiment: Experiment, copies: int, episodes: int) -> None:
    result = evaluate(FirstAction(), make_vec_env(experiment.env, copies, seed=0), episodes)
    assert len(result.returns) == episodes
    assert (result.lengths == 5).all()
    assert result.successes is not None
    np.testing.assert_array_equal(np.where(result.successes, 1.0, -1.0), result.returns)


def test_evaluation_does_not_favour_short_episodes(experiment: Experiment) -> None:
    """Ten of twenty episodes, taken as they end, would be nearly all short ones."""
    experiment.env.kwargs["length"] = [2, 100]
    env = make_vec_env(experiment.env, 10, seed=0)
    lengths = evaluate(FirstAction(), env, 10).lengths
    env.seed(0)
    firsts = evaluate(FirstAction(), env, 10).lengths
    np.testing.assert_array_equal(np.sort(lengths), np.sort(firsts))
    assert lengths.mean() > 35


@pytest.mark.parametrize(("env_id", "success"), [("CartPole-v1", 0.0), ("Pendulum-v1", None)])
def test_success_is_else_the_reward_threshold_and_else_left_out(env_id: str, success: float | None) -> None:
    from bistable_rl.runs.schema import EnvConfig

    env = make_vec_env(EnvConfig(env_id), 2, seed=0)
    result = evaluate(FirstAction(), env, 2) if success is not None else evaluate(Pushes(), env, 2)
    assert result.summary()["success_rate"] == success


def test_a_return_at_the_threshold_is_a_success(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    from bistable_rl.agents import evaluation

    monkeypatch.setattr(evaluation, "reward_threshold", lambda env: 10.0)
    from bistable_rl.runs.schema import EnvConfig

    result = evaluate(FirstAction(), make_vec_env(EnvConfig("CartPole-v1"), 4, seed=0), 20)
    assert result.successes is not None
    np.testing.assert_array_equal(result.successes, result.returns >= 10.0)
    assert 0 < result.successes.mean() < 1


# --- the command --------------------------------------------------------------------------------------------


def test_the_commands_walk_from_a_config_to_an_evaluated_agent(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    assert main(["train", "--policy.cell", "gru", str(config), "--seed", "3", "--out", str(out)]) == 0
    run = out / "small" / "gru-seed3"
    assert "finished: 400 steps" in capsys.readouterr().out
    file = tmp_path / "result.json"
    assert main(["evaluate", str(run), "--episodes", "7", "--env.kwargs.length", "9", "--json", str(file)]) == 0
    assert "over 7 episodes" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert (result["episodes"], result["length_mean"], result["env"]["kwargs"]["length"]) == (7, 9.0, 9)
    assert main(["train", str(config), "--policy.cell=gru", "--seed=3", f"--out={out}"]) == 0
    assert (out / "small" / "gru-seed3-2").is_dir()
    assert main(["train", str(config), "--policy.cell=gru", "--seed=3", f"--out={out}", "--overwrite"]) == 0
    assert not (out / "small" / "gru-seed3-3").exists()


def wrong(*overrides: str) -> Callable[[Path, Path], list[str]]:
    return lambda config, _: ["train", str(config), *overrides]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (lambda *_: ["trian"], "did you mean 'train'?"),
        (lambda *_: ["train"], "CONFIG"),
        (lambda *_: ["train", "rl/tmaze"], "did you mean 'rl/t_maze'?"),
        (lambda config, _: ["train", str(config), str(config)], "unrecognized arguments"),
        (wrong("--policy.cell", "nbrd"), "nbrc"),
        (wrong("--policy.cell_kwargs.cbias", "1"), "c_bias"),
        (wrong("--policy.cell_kwargs.c_bias", "chrono"), "t_max"),
        (wrong("--env.id", "bistable_rl/TMaz-v0"), "bistable_rl/TMaze-v0"),
        (wrong("--env.id", "CartPole-v7"), "CartPole"),
        (wrong("--env.id", "no_such_package:Thing-v0"), "no_such_package"),
        (wrong("--env.kwargs.length", "1"), "length must be an integer of at least 2"),
        (wrong("--env.kwargs.lenght", "9"), "did you mean 'length'?"),
        (wrong("--env.wrappers", "[{name: minigird}]"), "did you mean 'minigrid'?"),
        (wrong("--env.id", "FrozenLake-v1", "--env.kwargs", "{map_name: bad}"), "FrozenLake-v1 cannot be built"),
        (wrong("--env.id", "MiniGrid-MemoryS7-v0", "--env.kwargs", "{size: 4}"), "env: "),
        (wrong("--env.id", "Pendulum-v1", "--env.kwargs", "{g: abc}"), "env: it fails at its first step"),
        (wrong("--policy.cell_kwargs.candidate_bias", "abc"), "candidate_bias must be True or False"),
        (wrong("--device", "cuda"), "device: cuda is not available"),
        (wrong("--device", "cuda:99"), "cuda:99 is not available"),
        (wrong("--seed", "1.5"), "seed must be an integer"),
        (lambda *_: ["evaluate", "nowhere"], "there is no folder nowhere"),
        (lambda _, folder: ["evaluate", str(folder)], "is not a run folder"),
        (lambda *_: ["evaluate", "x", "--episodes", "0"], "not an integer above 0"),
        (lambda *_: ["evaluate", "x", "--episods", "1"], "did you mean '--episodes'?"),
        (lambda *_: ["evaluate", "x", "--seed", "1"], "--env.kwargs"),
        (lambda *_: ["evaluate", "x", "--json", "no/such/folder/x.json"], "there is no folder"),
        (lambda *_: ["list", "cell"], "cells"),
        (lambda *_: ["evaluate", "x", "--env.num_envs", "1"], "unknown option '--env.num_envs'"),
        (lambda *_: ["play"], "ENV_ID"),
        (lambda *_: ["play", "CartPole-v1", "--seed", "-1"], "not an integer from 0"),
        (lambda *_: ["play", "bistable_rl/TMaz-v0"], "did you mean"),
        (lambda *_: ["play", "bistable_rl/TMaze-v0", "--env.kwargs.lenght", "3"], "length"),
        (lambda *_: ["play", "bistable_rl/TMaze-v0", "--policy.cell", "gru"], "unknown option '--policy.cell'"),
        (lambda *_: ["speed", "cell"], "cells"),
        (lambda *_: ["speed", "cells", "--shapes", "1,2,3"], "B,T,I,H"),
        (lambda *_: ["speed", "envs", "--ids", "bistable_rl/TMaz-v0"], "did you mean"),
    ],
)
def test_a_wrong_command_is_one_sentence_and_exit_code_2_and_nothing_is_written(
    command: Callable[[Path, Path], list[str]],
    expected: str,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(command(config, tmp_path)) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.startswith("bistable-rl: ")
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


def _copy(run: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run, to / "copy"))


def _truncate(run: Path) -> None:
    file = Run(run).checkpoints.latest() / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _other_architecture(run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("hidden_size: 8", "hidden_size: 9"))


def _other_cell(run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("cell: nbrc", "cell: lstm"))


def _no_checkpoint(run: Path) -> None:
    import shutil

    shutil.rmtree(run / "checkpoints")


def _broken_counters(run: Path) -> None:
    (Run(run).checkpoints.latest() / "state.json").write_text("{")


def _no_weights(run: Path) -> None:
    (Run(run).checkpoints.latest() / "weights.safetensors").unlink()


def _nan_weights(run: Path) -> None:
    file = Run(run).checkpoints.latest() / "weights.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["value_net.bias"].fill_(float("nan"))
    safetensors.torch.save_file(tensors, file)


def _a_pickle(run: Path) -> None:
    import pickle

    (Run(run).checkpoints.latest() / "weights.safetensors").write_bytes(pickle.dumps({"a": 1}))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_truncate, "truncated or broken"),
        (_a_pickle, "truncated or broken"),
        (_nan_weights, "value_net.bias holds NaN"),
        (_other_architecture, "another architecture"),
        (_other_cell, "another architecture"),
        (_no_checkpoint, "holds no checkpoint"),
        (_broken_counters, "state.json is truncated or broken"),
        (_no_weights, "weights.safetensors is missing"),
    ],
)
def test_a_damaged_run_is_one_sentence(
    damage: Callable[[Path], None],
    expected: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = _copy(trained, tmp_path)
    damage(run)
    assert main(["evaluate", str(run)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


def test_an_environment_of_other_spaces_is_one_sentence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--env.kwargs.num_symbols", "3"]) == 2
    assert "the agent was trained on" in capsys.readouterr().err


def test_a_nan_stops_the_run_says_where_and_keeps_the_last_good_checkpoint(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bistable_rl.envs.copy_first import CopyFirstVectorEnv

    advance = CopyFirstVectorEnv._advance
    count = 0

    def poisoned(self: CopyFirstVectorEnv, actions: np.ndarray) -> Any:
        nonlocal count
        reward, *rest = advance(self, actions)
        count += self.num_envs == 4 and self.single_action_space.n == 2  # type: ignore[attr-defined]
        if count == 1 + 51:  # after the step that tries the environment: the third update's eleventh
            reward[2] = np.nan
        return reward, *rest

    monkeypatch.setattr(CopyFirstVectorEnv, "_advance", poisoned)
    path = tmp_path / "poisoned.yaml"
    from bistable_rl.runs.config import to_yaml

    path.write_text(to_yaml(experiment))
    assert main(["train", str(path), "--out", str(tmp_path / "runs")]) == 1
    err = capsys.readouterr().err
    assert "rewards became nan in step 10 of environment copy 2" in err
    assert "checkpoints/000000000160" in err
    run = tmp_path / "runs" / "small" / "nbrc-seed0"
    assert json.loads((run / "result.json").read_text())["status"] == "failed"
    weights = load(run).policy.state_dict().values()
    assert all(bool(torch.isfinite(w).all()) for w in weights)


def test_a_nan_in_the_gradient_never_reaches_the_weights(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bistable_rl.agents.policy import RecurrentPolicy

    evaluate_packed = RecurrentPolicy.evaluate_packed
    calls = 0

    def poisoned(self: RecurrentPolicy, *args: Any) -> Any:
        nonlocal calls
        calls += torch.is_grad_enabled()
        values, log_prob, entropy = evaluate_packed(self, *args)
        return values * (float("nan") if calls == 6 else 1.0), log_prob, entropy

    monkeypatch.setattr(RecurrentPolicy, "evaluate_packed", poisoned)
    with pytest.raises(RunFailedError, match=r"the gradient of value_net\.weight became NaN or infinite"):
        train(experiment, tmp_path)
    assert load(tmp_path / "small" / "nbrc-seed0").steps == 80


def test_weights_that_become_infinite_are_never_saved(experiment: Experiment, tmp_path: Path) -> None:
    """With one minibatch an update no gradient is computed from them before they would be."""
    experiment.algorithm.learning_rate, experiment.algorithm.n_epochs = 1e39, 1
    experiment.algorithm.batch_size = experiment.algorithm.n_steps * experiment.env.num_envs
    experiment.checkpoint.every = 1
    with pytest.raises(RunFailedError, match=r"became NaN or infinite in the update at .* is checkpoints/0+;"):
        train(experiment, tmp_path)
    assert load(tmp_path / "small" / "nbrc-seed0").steps == 0


def test_a_full_disk_met_by_tensorboards_thread_is_one_sentence(tmp_path: Path) -> None:
    """The thread that writes the events dies of it, which Python would print as a traceback."""
    script = (
        "import errno, sys, tensorboard.summary.writer.record_writer as r\n"
        "def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "r.RecordWriter.write = full\n"
        "from bistable_rl.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "train", "rl/t_maze", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    run = tmp_path / "t_maze" / "nbrc-seed0"
    assert done.stderr.splitlines() == [str(run), f"bistable-rl: {run} cannot be written: No space left on device."]


def test_a_full_disk_met_by_tensorboard_is_one_sentence_and_a_result(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    monkeypatch.setattr(SummaryWriter, "close", full)
    with pytest.raises(UserError, match="nbrc-seed0 cannot be written: No space left on device"):
        train(experiment, tmp_path)
    run = tmp_path / "small" / "nbrc-seed0"
    assert json.loads((run / "result.json").read_text())["status"] == "failed"
    assert load(run).steps == 80


def test_a_nan_observation_stops_the_run_and_says_where(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bistable_rl.envs.copy_first import CopyFirstVectorEnv

    observe = CopyFirstVectorEnv._observe

    def poisoned(self: CopyFirstVectorEnv, i: np.ndarray) -> Any:
        observations = observe(self, i)
        if self.num_envs == 4 and len(i) == 4 and (self.episode > 9).any():
            observations[3] = np.nan
        return observations

    monkeypatch.setattr(CopyFirstVectorEnv, "_observe", poisoned)
    with pytest.raises(RunFailedError, match="the observation of environment copy 3 became NaN"):
        train(experiment, tmp_path)
    assert json.loads((tmp_path / "small" / "nbrc-seed0" / "result.json").read_text())["status"] == "failed"


def test_an_environment_that_breaks_in_training_is_a_sentence_and_a_result(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bistable_rl.envs.copy_first import CopyFirstVectorEnv

    advance = CopyFirstVectorEnv._advance

    def broken(self: CopyFirstVectorEnv, actions: np.ndarray) -> Any:
        if self.num_envs == 4 and (self.episode > 9).any():
            raise KeyError("door")
        return advance(self, actions)

    monkeypatch.setattr(CopyFirstVectorEnv, "_advance", broken)
    with pytest.raises(RunFailedError, match=r"KeyError: .door.\. The last good checkpoint is checkpoints/"):
        train(experiment, tmp_path)
    result = json.loads((tmp_path / "small" / "nbrc-seed0" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "in broken" in "".join(result["traceback"])


def test_ctrl_c_stops_cleanly_and_the_run_evaluates(config: Path, tmp_path: Path) -> None:
    process = started(config, tmp_path / "runs")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: " in out
    assert "Traceback" not in err
    run = tmp_path / "runs" / "small" / "nbrc-seed0"
    assert out.splitlines()[-3:] == [
        f"resume:   bistable-rl train --resume {run}",
        f"watch:    bistable-rl tensorboard {run.parent}",
        f"evaluate: bistable-rl evaluate {run}",
    ]
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert load(run).steps == result["steps"]


def test_ctrl_c_stops_a_long_evaluation_and_loses_no_update(config: Path, tmp_path: Path) -> None:
    options = ["--evaluation.every", "80", "--evaluation.episodes", "1000000", "--checkpoint.every", "1"]
    process = started(config, tmp_path / "runs", *options)
    time.sleep(1)  # the evaluation after the first update would take minutes
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert load(tmp_path / "runs" / "small" / "nbrc-seed0").steps >= 80


def test_a_killed_run_evaluates(config: Path, tmp_path: Path) -> None:
    process = started(config, tmp_path / "runs")
    process.kill()
    process.communicate()
    run = tmp_path / "runs" / "small" / "nbrc-seed0"
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0


def test_a_full_disk_is_a_sentence_and_leaves_the_last_checkpoint(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if len(Run(tmp_path / "small" / "nbrc-seed0").checkpoints.all()) == 2:
            write_bytes(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        train(experiment, tmp_path)
    assert load(tmp_path / "small" / "nbrc-seed0").steps == 80


def test_a_warm_up_comes_before_the_first_step_and_its_effect_is_kept(config: Path, tmp_path: Path) -> None:
    options = ["--policy.cell", "gru", "--policy.critic", "separate", "--warmup.steps", "5", "--total_steps", "80"]
    results, weights = [], []
    for name in ("a", "b"):
        run = train(load_config(Experiment, config, options), tmp_path / name)
        results.append(json.loads((run / "result.json").read_text())["warmup"])
        first = sorted((run / "checkpoints").iterdir())[0]
        assert int(first.name) == 0
        weights.append(safetensors.torch.load_file(first / "weights.safetensors"))
        assert json.loads((run / "warmup.json").read_text())["warmup"] == results[-1]
    assert results[0] == results[1]
    assert len(results[0]) == 2  # the actor's memory and the critic's
    assert all(done["steps"] == 5 and done["of"] == 32 and len(done["vaa_star"]) == 2 for done in results[0])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    cold = train(load_config(Experiment, config, [*options[:4], "--total_steps", "80"]), tmp_path / "c")
    assert json.loads((cold / "result.json").read_text())["warmup"] is None
    start = safetensors.torch.load_file(sorted((cold / "checkpoints").iterdir())[0] / "weights.safetensors")
    moved = {name for name in start if not torch.equal(start[name], weights[0][name])}
    assert moved
    assert all(name.startswith(("memory.", "critic_memory.")) for name in moved)


def test_a_warm_up_that_diverges_is_one_sentence_and_a_failed_run(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_numbers(*args: Any) -> Episodes:
        return Episodes(torch.full((5, 4, 4), float("nan")), torch.full((4,), 5), None)

    monkeypatch.setattr("bistable_rl.agents.training.record", without_numbers)
    with pytest.raises(UserError, match="warmup: the warm-up's loss became nan at step 0"):
        train(load_config(Experiment, config, ["--warmup.steps", "5"]), tmp_path)
    result = json.loads((tmp_path / "small" / "nbrc-seed0" / "result.json").read_text())
    assert result["status"] == "failed"


def test_a_run_that_is_stopped_before_its_warm_up_begins_with_it_when_it_is_resumed(
    config: Path, tmp_path: Path
) -> None:
    experiment = load_config(Experiment, config, ["--warmup.steps", "2", "--total_steps", "80"])
    stop = threading.Event()
    stop.set()
    run = train(experiment, tmp_path, stop=stop)
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"
    resume(run)
    assert json.loads((run / "result.json").read_text())["warmup"][0]["steps"] == 2


def test_a_training_reads_its_config_once_and_builds_its_policy_once(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bistable_rl.agents.policy import RecurrentPolicy

    init, counts = RecurrentPolicy.__init__, {"policies": 0, "configs": 0}

    def built(self: RecurrentPolicy, *args: Any, **kwargs: Any) -> None:
        counts["policies"] += 1
        init(self, *args, **kwargs)

    def read(path: Path) -> dict[str, Any]:
        counts["configs"] += 1
        return read_yaml(path)

    monkeypatch.setattr(RecurrentPolicy, "__init__", built)
    monkeypatch.setattr("bistable_rl.runs.run.read_yaml", read)
    run = _copy(trained, tmp_path)
    assert main(["train", "--resume", str(run), "--total_steps", "480"]) == 0
    assert counts == {"policies": 1, "configs": 1}
