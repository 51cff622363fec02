"""Hand-made agents and environments for the tests of certificates, whose truth is known."""

import itertools
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.phases import Phases


class PhasesEnv(DistractedEnv):
    """An environment of which only the phases count."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        size, actions = phases.cue.shape[1], int(phases.right.max()) + 1
        super().__init__(observation_space=Box(-9, 9, (size,)), action_space=Discrete(max(actions, 2)), num_envs=1)

    def phases(self, t: int | None = None) -> Phases:
        return self._phases


def latch_env(u: float, answer: float | None = None, meanwhile: int | None = None) -> PhasesEnv:
    """Return a task: name the sign of the cue, -2 or 2, after numbers in [-u, u] and one in the range of the answer."""
    sizes = (-u, u) if answer is None else (-u, u, -answer, answer)
    low, high, first, last = (np.full((1, 1), size, np.float32) for size in (sizes * 2)[:4])
    cue = np.array([[-2], [2]], np.float32)
    return PhasesEnv(Phases(cue, low, high, first, last, np.arange(2), np.array([[0], [1]]), meanwhile=meanwhile))


def symbols_env(cues: int, inputs: np.ndarray, right: np.ndarray, answers: np.ndarray | None = None) -> PhasesEnv:
    """Return a task whose first inputs (M, D) are its cues; all are its distractions and, unless given, its answers."""
    x = inputs.astype(np.float32)
    answer = x if answers is None else answers.astype(np.float32)
    return PhasesEnv(Phases(x[:cues], x, x, answer, answer, np.arange(cues), right))


def policy(inputs: int, actions: int, cell: str = "brc", size: int = 1, **kwargs: Any) -> RecurrentPolicy:
    """Return an untrained agent."""
    spaces = Box(-9, 9, (inputs,), np.float32), Discrete(actions)
    network = {"critic": "shared", "net_arch": [], **kwargs}
    return RecurrentPolicy(*spaces, lambda _: 0.0, cell=cell, hidden_size=size, **network)


def latch(a: float = 1.9, c: float = 0.1) -> RecurrentPolicy:
    """Return an agent of one unit with constant a and c, whose action is the sign of its state."""
    agent = policy(1, 2)
    fill(agent, U=[[0.0], [0.0], [1.0]], w=[[0.0], [0.0]], b=[np.arctanh(a - 1), np.log(c / (1 - c))])
    fill_head(agent, [[-1.0], [1.0]], [0.0, 0.0])
    return agent


def layers(agent: RecurrentPolicy) -> list[Any]:
    """Return the cells of an agent."""
    return list(agent.memory.layers)


@torch.no_grad()
def fill(agent: RecurrentPolicy, U: Any, w: Any, b: Any) -> None:
    """Set the weights of a single layer."""
    [cell] = layers(agent)
    for parameter, values in zip((cell.weight_ih, cell.weight_hh, cell.bias), (U, w, b), strict=True):
        parameter.copy_(torch.tensor(values))


@torch.no_grad()
def fill_head(agent: RecurrentPolicy, weight: Any, bias: Any) -> None:
    """Set the weights of the action head."""
    agent.action_net.weight.copy_(torch.tensor(weight))
    agent.action_net.bias.copy_(torch.tensor(bias))


@torch.no_grad()
def t_maze(seed: int, noise: float = 0.1) -> RecurrentPolicy:
    """Return an agent for TMaze: two latches hold the goal, one unit sees the junction; noise is on all weights.

    Its inputs are up, down, corridor, junction and the distractors; its actions right, up, left, down.
    """
    agent = policy(12, 4, size=6)
    agent.observation_space = Box(0, 1, (12,), np.float32)
    [cell], H = layers(agent), 6
    torch.manual_seed(seed)
    for parameter in cell.parameters():
        parameter.copy_(noise * torch.randn(parameter.shape))
    fast = torch.log(torch.tensor(0.1 / 0.9))
    for unit in (0, 1):
        cell.weight_ih[2 * H + unit, :2] += torch.tensor([2.0, -2.0])
        cell.bias[unit] += np.arctanh(0.9)
    cell.weight_ih[2 * H + 2, :4] += torch.tensor([-3.0, -3, -3, 3])
    cell.bias[2] -= 3
    cell.bias[H:] += fast
    head = 0.05 * noise * torch.randn(4, H)
    head[1] += torch.tensor([1.0, 1, 3, 0, 0, 0])
    head[3] += torch.tensor([-1.0, -1, 3, 0, 0, 0])
    agent.action_net.weight.copy_(head)
    agent.action_net.bias.copy_(torch.tensor([0.0, 0, -20, 0]))
    return agent


@torch.no_grad()
def answers(agent: RecurrentPolicy, phases: Phases, cue: int, sequence: Any) -> tuple[list[int], list[int]]:
    """Show a cue and a sequence of distractions (T, D); return the actions until then, and those at every answer."""
    taken, state = [], agent.initial_state(1)
    for x in (phases.cue[cue], *np.asarray(sequence, np.float32)):
        action, state = agent.step(torch.from_numpy(x)[None], state, True)
        taken.append(int(action))
    ends = torch.from_numpy(phases.answer_low)
    return taken, agent.step(ends, state.expand(-1, len(ends), -1).contiguous(), True)[0].tolist()


def is_right(agent: RecurrentPolicy, phases: Phases, cue: int, sequence: Any) -> bool:
    """Return whether the agent keeps a cue through a sequence, and does what is right meanwhile."""
    taken, last = answers(agent, phases, cue, sequence)
    return last == phases.right[cue].tolist() and (phases.meanwhile is None or set(taken) == {phases.meanwhile})


def kept_steps(agent: RecurrentPolicy, phases: Phases, cue: int, most: int) -> int:
    """Return up to how many steps after the cue every sequence of single distractions ends in a right answer."""
    for steps in range(most):
        if not all(is_right(agent, phases, cue, rows) for rows in itertools.product(phases.low, repeat=steps)):
            return steps
    return most


@torch.no_grad()
def greedy(agent: RecurrentPolicy, phases: Phases, cue: int, steps: int) -> np.ndarray:
    """Return the sequence (steps, D) of which each distraction makes the worst answer's margin the smallest."""
    state = agent.step(torch.from_numpy(phases.cue[cue : cue + 1]), agent.initial_state(1), True)[1]
    x, ends = torch.from_numpy(np.concatenate([phases.low, phases.high])), torch.from_numpy(phases.answer_low)
    right = torch.from_numpy(phases.right[cue])
    sequence = []
    for _ in range(steps):
        after = agent.step(x, state.expand(-1, len(x), -1).contiguous(), True)[1]
        M = after.shape[1]
        features = ends.repeat(M, 1)
        output = agent._advance(features[None], after.repeat_interleave(len(ends), 1))[0][0]
        logits = agent.action_net(agent.actor_mlp(output))
        chosen = logits.gather(1, right.repeat(M)[:, None]).clone()
        logits.scatter_(1, right.repeat(M)[:, None], -np.inf)
        margin = (chosen[:, 0] - logits.amax(1)).view(M, -1).amin(1)
        worst = int(margin.argmin())
        sequence.append(x[worst].numpy())
        state = after[:, worst : worst + 1].contiguous()
    return np.array(sequence)
