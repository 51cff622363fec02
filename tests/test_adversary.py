"""Searches for the distractors that make an agent forget, on agents whose weakness is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bistable_rl.agents.adversary import Attack, _patterns, attack
from bistable_rl.agents.attack_file import patterns
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.analysis.adversary import distracted_env
from bistable_rl.cli import main
from bistable_rl.envs import make_batched_env
from bistable_rl.envs.copy_first import CopyFirstVectorEnv
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import EnvConfig

GAIN = 1.9
"""a: at this gain both states exist while the input stays below 0.463 (theorem A.1)."""


def env_of(name: str, **kwargs: Any) -> DistractedEnv:
    env = make_batched_env(f"bistable_rl/{name}-v0", num_envs=1, kwargs=kwargs)
    assert isinstance(env.unwrapped, DistractedEnv)
    return env.unwrapped


def policy_of(env: DistractedEnv, cell: str = "gru", **arguments: Any) -> RecurrentPolicy:
    torch.manual_seed(0)
    spaces = env.single_observation_space, env.single_action_space
    policy = RecurrentPolicy(*spaces, lambda _: 0.0, cell=cell, **{"hidden_size": 8, "net_arch": [], **arguments})
    policy.set_training_mode(False)
    return policy


def latch(env: DistractedEnv, weights: list[float]) -> RecurrentPolicy:
    """Return an agent of one BRC unit without memory in its gates, which answers 1 if its state is positive."""
    policy = policy_of(env, "brc", hidden_size=1)
    cell: Any = policy.memory.layers[0]
    with torch.no_grad():
        cell.weight_hh.zero_()
        cell.weight_ih.zero_()
        cell.weight_ih[2] = torch.tensor(weights)
        cell.bias.copy_(torch.tensor([np.arctanh(GAIN - 1), -100.0]))
        policy.action_net.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        policy.action_net.bias.zero_()
    return policy


def bits(weak: float) -> tuple[DistractedEnv, RecurrentPolicy]:
    """Return a task with one bit and four symbols, and a latch that symbol 2 drives with strength `weak`."""
    env = env_of("MemoryLength", distractors="uniform", num_symbols=4)
    return env, latch(env, [0.0, 0.0, 3.0, 0.1, 0.2, weak, -0.2])


def check_kills(policy: RecurrentPolicy, env: DistractedEnv, found: Attack) -> int:
    """Check by `predict` that the agent fails on every sequence; return the number of sequences."""
    played = 0
    for kills in found.searches.values():
        for cue, kill in zip(found.cues, kills, strict=True):
            if kill is None:
                continue
            assert len(kill.sequence) == kill.steps + 1
            again = env.with_distraction(kill.steps)
            options = {"cue": cue, "distractors": kill.sequence}
            observations, _ = again.reset(seed=kill.seed, options=options)
            state, over = None, np.zeros(1, np.bool_)
            for _ in range(kill.steps + 2):
                assert not over.any()
                actions, state = policy.predict(observations, state, np.array([state is None]), deterministic=True)
                observations, _, over, _, infos = again.step(actions)
            assert not (over.any() and infos["final_info"]["is_success"].all())
            played += 1
    return played


def test_a_latch_is_killed_by_the_one_symbol_that_is_too_strong_for_it() -> None:
    env, policy = bits(0.48)
    found = attack(policy, env, 300)
    assert found.survivors() == 1
    weak, strong = found.worst
    assert strong is None
    assert weak is not None
    assert weak[1].steps == 300  # the clock makes 300 steps another task than fewer
    assert (weak[1].sequence == 2).sum() > 20
    assert check_kills(policy, env, found) >= 1


def test_a_latch_whose_inputs_stay_below_the_bound_survives_every_search() -> None:
    env, policy = bits(0.45)
    found = attack(policy, env, 2000)
    assert found.survivors() == 2
    assert all(kills == [None, None] for kills in found.searches.values())


def test_a_cue_is_killed_at_the_first_step_at_which_it_can_be() -> None:
    env = env_of("CopyFirst", num_symbols=2)
    weight = 0.4
    policy = latch(env, [-weight, weight, 0.0, 0.0])
    h, steps = np.tanh(weight), -1
    while h > 0:  # the other symbol all the time is the worst: the next state increases with the state and the input
        h = np.tanh(GAIN * h - weight)
        steps += 1
    assert steps > 0
    found = attack(policy, env, 50)
    for name, kills in found.searches.items():
        for cue, kill in enumerate(kills):
            assert kill is not None, name
            assert (kill.steps, kill.sequence.tolist()) == (steps, [1 - cue] * (steps + 1))
    assert (found.survivors(steps - 1), found.survivors(steps)) == (2, 0)


def test_an_agent_is_not_asked_before_its_first_answer() -> None:
    env = env_of("CopyFirst", num_symbols=2)
    policy = latch(env, [-0.4, 0.4, 0.0, 0.0])
    found = attack(policy, env, 30, first=20)
    assert [kill and kill.steps for kill in found.searches["greedy"]] == [20, 20]
    assert check_kills(policy, env, found) == 6


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("CopyFirst", {"num_symbols": 4}),
        ("CopyFirst", {"num_symbols": 3, "flags": False, "length": (4, 9)}),
        ("CopyFirstContinuous", {}),
        ("CopyFirstContinuous", {"dimensions": 2, "distractors": "mixture"}),
        ("MemoryLength", {"distractors": "uniform", "num_symbols": 3}),
        ("MemorySize", {"distractors": "uniform", "num_symbols": 3, "num_bits": 2}),
        ("TMaze", {"distractors": "blocks", "num_symbols": 3}),
    ],
)
@pytest.mark.parametrize("arguments", [{"cell": "nbrc"}, {"cell": "lstm", "num_layers": 2, "critic": "separate"}])
def test_every_sequence_that_is_found_kills_in_the_environment(
    name: str, kwargs: dict[str, Any], arguments: dict[str, Any]
) -> None:
    env = env_of(name, **kwargs)
    policy = policy_of(env, **arguments)
    found = attack(policy, env, 12)
    assert check_kills(policy, env, found) > 0
    again = attack(policy, env, 12)
    for one, other in zip(found.searches.values(), again.searches.values(), strict=True):
        for kill, same in zip(one, other, strict=True):
            assert (kill is None) == (same is None)
            assert kill is None or (same is not None and np.array_equal(kill.sequence, same.sequence))


@pytest.mark.parametrize(
    ("name", "kwargs", "sentence"),
    [
        ("Denoising", {}, "does not declare which observations"),
        ("TMaze", {"stochasticity": 0.1, "distractors": "uniform"}, "does not declare which observations"),
        ("TMaze", {}, "shows no distractors"),
    ],
)
def test_an_environment_that_cannot_be_asked_is_refused(name: str, kwargs: dict[str, Any], sentence: str) -> None:
    env = env_of(name, **kwargs)
    with pytest.raises(ValueError, match=sentence):
        attack(policy_of(env), env, 5)


def test_an_agent_of_other_observations_and_wrong_numbers_of_steps_are_refused() -> None:
    env = env_of("CopyFirst", num_symbols=2)
    policy = policy_of(env)
    with pytest.raises(ValueError, match="the agent was trained on"):
        attack(policy, env_of("CopyFirst", num_symbols=3), 5)
    with pytest.raises(ValueError, match="steps must be"):
        attack(policy, env, 0)
    with pytest.raises(ValueError, match="first must be at most steps"):
        attack(policy, env, 5, first=6)


def test_patterns_of_very_many_distractors_are_a_sample() -> None:
    patterns = _patterns(2000)
    assert patterns[:2000] == [[k] for k in range(2000)]
    assert [len(pattern) for pattern in patterns[2000:]] == [2] * 256 + [3] * 256
    assert len(_patterns(4)) == 4 + 6 + 20


def test_more_cues_than_can_be_listed_are_one_sentence() -> None:
    config = EnvConfig(id="bistable_rl/MemorySize-v0", kwargs={"num_bits": 40})
    with pytest.raises(UserError, match="40 bits make 2\\^40 cues, too many to try each"):
        distracted_env(config)


def test_a_sequence_is_written_as_patterns() -> None:
    sequence = [5] + [1, 2, 3] * 40 + [7] * 9 + [0]
    pairs = patterns(sequence)
    assert pairs == [[[5], 1], [[1, 2, 3], 40], [[7], 9], [[0], 1]]
    assert patterns([[0.5], [0.5], [1.0]]) == [[[[0.5]], 2], [[[1.0]], 1]]


def test_the_command_prints_a_table_and_play_shows_what_it_found(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    file, figure = tmp_path / "found.json", tmp_path / "found.png"
    options = ["--steps", "40", "--json", str(file), "--figure", str(figure)]
    assert main(["evaluate", str(trained), "--adversary", *options]) == 0
    printed = capsys.readouterr().out
    data = json.loads(file.read_text())["adversary"]
    survive = data["upper_bound"]["survive"]
    assert f"{survive} of 2 cues survive 40 steps. This is an upper bound" in printed
    assert (data["first"], data["most"], len(data["cues"])) == (3, 40, 2)
    with Image.open(figure) as image:
        assert image.size[0] > 100

    for k, row in enumerate(data["cues"]):
        command = ["play", "--run", str(trained), "--sequence", str(file), "--cue", str(k)]
        if row["killed_by"] is None:
            assert main(command) == 2
            assert f"cue {k} survived" in capsys.readouterr().err
        else:
            steps = row["searches"][row["killed_by"]]["steps"]
            assert main(command) == 0
            shown = capsys.readouterr().out
            assert shown.startswith(str(k))
            assert f"in {steps + 2} steps, no success" in shown
    assert survive < 2


def test_what_cannot_be_played_is_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert main([*arguments]) == 2
        return capsys.readouterr().err

    found = {"steps": 1, "seed": 0, "sequence": [[[1], 2]]}
    row = {"cue": 0, "killed_by": "greedy", "searches": {"greedy": found}}
    data: dict[str, Any] = {"env": {"id": "bistable_rl/CopyFirst-v0"}, "adversary": {"cues": [row]}}
    file = tmp_path / "found.json"
    play = ["play", "--run", str(trained), "--sequence", str(file)]
    assert "there is no file" in refused(*play)
    file.write_text("{}")
    assert "is not a file that" in refused(*play)
    file.write_text(json.dumps(data))
    assert "holds the cues 0 to 0, not 1" in refused(*play, "--cue", "1")
    assert "leave out --episodes and --seed" in refused(*play, "--seed", "1")
    assert "--cue needs --sequence" in refused("play", "--run", str(trained), "--cue", "1")
    file.write_text(json.dumps({**data, "env": {"id": "bistable_rl/TMaze-v0"}}))
    assert "was found in bistable_rl/TMaze-v0" in refused(*play)
    found["sequence"] = [[[9], 2]]
    file.write_text(json.dumps(data))
    assert "distractors must be" in refused(*play)
    for sequence in ([[[1], 10**9]], [[[1], 10**15], [[2], 2 - 10**15]], [[[1], 3], [[2], -1]], [[[1], 0]], []):
        found["sequence"] = sequence
        file.write_text(json.dumps(data))
        assert "is not a file that" in refused(*play)
    found["sequence"] = [[[1], 2]]
    for seed in ("-1", "1e999", "1.5", '"a"', "null"):
        file.write_text(json.dumps(data).replace('"seed": 0', f'"seed": {seed}'))
        assert "is not a file that" in refused(*play)
    row["killed_by"] = None
    file.write_text(json.dumps(data))
    assert "every cue survived" in refused(*play)
    assert "--adversary" in refused("evaluate", str(trained), "--steps", "5")
    assert "--adversary takes no --episodes" in refused("evaluate", str(trained), "--adversary", "--episodes", "9")
    assert "--adversary tries every length" in refused("evaluate", str(trained), "--adversary", "--horizons", "5")
    wrapped = ["--env.wrappers", "[{name: time_limit, kwargs: {max_episode_steps: 9}}]"]
    assert "in a wrapper does not declare" in refused("evaluate", str(trained), "--adversary", *wrapped)
    assert "unknown environment id 'foo'" in refused("evaluate", str(trained), "--adversary", "--env.id", "foo")


def test_an_id_may_name_its_package() -> None:
    env = distracted_env(EnvConfig(id="bistable_rl.envs:bistable_rl/CopyFirst-v0"))
    assert isinstance(env, CopyFirstVectorEnv)
