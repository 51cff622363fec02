"""Certificates: what is proved of hand-made networks whose truth is known."""

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.certify import certify
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.phases import Phases


class LatchEnv(DistractedEnv):
    """Cue -2 or 2; then numbers in [-u, u]; the answer is the sign of the cue. Only its phases count."""

    def __init__(self, u: float, answer: float | None = None) -> None:
        super().__init__(observation_space=Box(-2, 2, (1,), np.float32), action_space=Discrete(2), num_envs=1)
        self.u, self.answer = u, u if answer is None else answer

    def phases(self, t: int | None = None) -> Phases:
        cue = np.array([[-2], [2]], np.float32)
        box = [np.full((1, 1), sign * u, np.float32) for u in (self.u, self.answer) for sign in (-1, 1)]
        return Phases(cue, *box, np.array([[0], [1]]))


def latch(a: float = 1.9, c: float = 0.1, gain: float = 1.0) -> RecurrentPolicy:
    """Return an agent of one unit with constant a and c, whose action is the sign of its state."""
    policy = RecurrentPolicy(Box(-2, 2, (1,), np.float32), Discrete(2), lambda _: 0.0, cell="brc", hidden_size=1)
    cell = policy.memory.layers[0]
    with torch.no_grad():
        cell.weight_hh.zero_()
        cell.weight_ih.copy_(torch.tensor([[0.0], [0.0], [gain]]))
        cell.bias.copy_(torch.tensor([np.arctanh(a - 1), np.log(c / (1 - c))]))
        policy.action_net.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        policy.action_net.bias.zero_()
    return policy


def test_the_latch_is_proved_below_the_threshold_and_not_above() -> None:
    assert certify(latch(), LatchEnv(0.45)).proved == 2
    assert certify(latch(), LatchEnv(0.48)).proved == 0
