"""Certificates: what is proved is true, and the truths of hand-made agents are proved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from certify_networks import (
    PhasesEnv,
    answers,
    fill,
    fill_head,
    greedy,
    is_right,
    kept_steps,
    latch,
    latch_env,
    layers,
    policy,
    symbols_env,
    t_maze,
)

from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.certify import Certificate, certify
from bistable_rl.cli import main
from bistable_rl.envs import make_batched_env
from bistable_rl.envs.phases import Phases
from bistable_rl.errors import UserError
from bistable_rl.runs.files import read_json

MAZE = {"distractors": "mixture", "length": 9}


def maze() -> Phases:
    phases = make_batched_env("bistable_rl/TMaze-v0", num_envs=1, kwargs=MAZE).phases()  # type: ignore[attr-defined]
    assert isinstance(phases, Phases)
    return phases


def proved(agent: RecurrentPolicy, env: object, steps: int = 0) -> Certificate:
    return certify(agent, env, steps)  # type: ignore[arg-type]


@pytest.mark.parametrize(("u", "count"), [(0.0, 2), (0.45, 2), (0.4625, 2), (0.464, 0), (0.48, 0)])
def test_the_latch_is_proved_below_the_threshold_and_not_above(u: float, count: int) -> None:
    assert proved(latch(), latch_env(u)).proved == count


def test_the_latch_above_the_threshold_forgets() -> None:
    env = latch_env(0.48)
    assert not is_right(latch(), env.phases(), 1, np.full((200, 1), -0.48))


@pytest.mark.parametrize("c", [0.0001, 0.5, 0.99, 0.9999, 1 - 1e-6, 1 - 1e-7, 1 - 1e-8])
def test_speed_does_not_matter_to_a_latch(c: float) -> None:
    agent = latch(c=c)
    cell = layers(agent)[0]
    cell.weight_ih.data[1] = -40.0 * np.sign(2)  # the cue 2 is written at once
    env = latch_env(0.0)
    assert proved(agent, env).cues[1].for_ever


def test_a_saturated_gate_holds_a_state_exactly_and_for_ever() -> None:
    """The flag of the cue opens c; without it c is exactly 1, and the distractors are ignored whatever they are."""
    agent = policy(3, 2)
    fill(agent, U=[[0.0] * 3, [0, 0, -60.0], [1.0, -1.0, 0]], w=[[0.0], [0.0]], b=[0.0, 30.0])
    fill_head(agent, [[1.0], [-1.0]], [0.0, 0.0])
    distractions = np.eye(2, 3)
    cue = distractions + np.array([0, 0, 1])
    x, first = distractions.astype(np.float32), cue.astype(np.float32)
    phases = Phases(first, x, x, x, x, np.arange(2), np.array([[0, 0], [1, 1]]))
    assert proved(agent, PhasesEnv(phases)).proved == 2
    layers(agent)[0].bias.data[1] = 8.0  # c = .9997: the distractors win in the end
    certificate = proved(agent, PhasesEnv(phases), 5)
    assert [(cue.for_ever, cue.steps) for cue in certificate.cues] == [(False, 5)] * 2
    assert not is_right(agent, phases, 0, np.tile(distractions[1], (20_000, 1)))


def test_a_hand_made_agent_of_the_t_maze_is_proved_and_no_adversary_breaks_it() -> None:
    phases, kept = maze(), 0
    generator = np.random.default_rng(0)
    for seed in range(5):
        agent = t_maze(seed, noise=0.1 + 0.05 * seed)
        certificate = proved(agent, make_batched_env("bistable_rl/TMaze-v0", num_envs=1, kwargs=MAZE))
        for cue, result in enumerate(certificate.cues):
            if result.for_ever:
                kept += 1
                assert is_right(agent, phases, cue, greedy(agent, phases, cue, 100))
                for _ in range(2):
                    assert is_right(agent, phases, cue, phases.low[generator.integers(8, size=50)])
    assert kept >= 4


def random_task(seed: int) -> tuple[RecurrentPolicy, Phases, object]:
    """Return a random agent, and a task of 3 symbols that it solves if the answer follows the cue at once."""
    torch.manual_seed(seed)
    kinds = [("brc", 1, []), ("nbrc", 1, []), ("brc", 2, []), ("nbrc", 2, []), ("nbrc", 1, [4]), ("brc", 1, [3, 3])]
    cell, layers, net_arch = kinds[seed % len(kinds)]
    agent = policy(3, 4, cell, 3, num_layers=layers, net_arch=net_arch, ortho_init=False)
    with torch.no_grad():
        for parameter in agent.memory.parameters():
            parameter.mul_(1.5).add_(0.3 * torch.randn(parameter.shape))
        agent.action_net.weight.mul_(2)
    inputs = np.random.default_rng(seed).normal(size=(3, 3)) * [[3], [0.5], [0.5]]
    env = symbols_env(1, inputs, np.zeros((1, 3), int))
    right = np.array([answers(agent, env.phases(), 0, [])[1]])
    env = symbols_env(1, inputs, right)
    return agent, env.phases(), env


def test_no_more_steps_are_proved_than_every_sequence_leaves() -> None:
    steps, exact, longest = 4, 0, 0
    for seed in range(36):
        agent, phases, env = random_task(seed)
        [cue] = proved(agent, env, steps).cues
        truth = kept_steps(agent, phases, 0, steps)
        assert cue.for_ever * steps <= truth
        assert cue.steps <= truth
        exact += cue.for_ever or cue.steps == truth
        longest += truth == steps
    assert 6 <= longest <= 30  # both outcomes are tested
    assert exact >= 20


def test_a_proof_for_ever_of_a_random_agent_survives_adversaries() -> None:
    kept = 0
    for seed in range(36):
        agent, phases, env = random_task(seed)
        if proved(agent, env).proved:
            kept += 1
            assert is_right(agent, phases, 0, greedy(agent, phases, 0, 100))
            for row in phases.low:
                assert is_right(agent, phases, 0, np.tile(row, (100, 1)))
    assert kept >= 3


@pytest.mark.parametrize(
    ("cell", "message"),
    [("gru", "only brc and nbrc can be certified, not gru"), ("lstm", "only brc and nbrc can be certified, not lstm")],
)
def test_other_cells_are_refused(cell: str, message: str) -> None:
    with pytest.raises(UserError, match=message + ".*evaluate --adversary"):
        proved(policy(1, 2, cell), latch_env(0.1))


def test_other_environments_are_refused() -> None:
    with pytest.raises(UserError, match="does not declare which observations"):
        proved(policy(1, 2), make_batched_env("bistable_rl/RepeatPrevious-v0", num_envs=1))
    with pytest.raises(UserError, match=r"not continuous ones.*evaluate --adversary"):
        proved(policy(3, 2), make_batched_env("bistable_rl/CopyFirstContinuous-v0", num_envs=1))


def test_the_command_prints_a_table_and_writes_json_and_a_figure(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json, figure = tmp_path / "c.json", tmp_path / "c.png"
    assert main(["certify", str(trained), "--steps", "2", "--json", str(json), "--figure", str(figure)]) == 0
    out = capsys.readouterr().out
    assert out.endswith("of 2 cues proved, for any sequence of any length\n")
    read = read_json(json)
    assert [cue["cue"] for cue in read["cues"]] == [0, 1]
    assert read["proved"] == sum(cue["for_ever"] for cue in read["cues"])
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env.id", "bistable_rl/RepeatPrevious-v0"], "env: its observation space is"),
        (["--env.kwargs.num_symbols", "3"], "env: its observation space is"),
        (["--env.wrappers", "[{name: previous_action_reward}]"], "env: its observation space is"),
        (["--steps", "0"], "'0' is not an integer above 0"),
        (["--figure", "a.jpg"], "writes a PNG"),
    ],
)
def test_a_wrong_command_is_one_sentence(
    trained: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", str(trained), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_environment_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="the agent reads 3 numbers, but the environment shows 1"):
        proved(policy(3, 2), latch_env(0.1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    agent = latch()
    layers(agent)[0].bias.data[0] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        proved(agent, latch_env(0.1))


def test_no_more_steps_are_proved_than_an_episode_with_a_clock_has() -> None:
    env = make_batched_env("bistable_rl/MemoryLength-v0", num_envs=1, kwargs={"length": 10})
    agent = policy(3, 2)
    assert len(proved(agent, env, 10).cues) == 2
    with pytest.raises(UserError, match="--steps 11 is too long for the episode, which has 10 steps after the cue"):
        proved(agent, env, 11)
