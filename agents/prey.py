"""The adversary's view of an agent: its states under given distractors, and their distances from a wrong answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.phases import Phases

GRID = (-1.0, -0.3, -0.1, 0.1, 0.3, 1.0)
"""The candidates along one dimension of a box, as shares of its half-width."""

CORNERS = 32


class Prey:
    """A policy in an environment with distractors, in batches of states.

    The candidates of a continuous distractor are the corners of its box (a fixed sample of them if there are more than
    `CORNERS`), its centre and a grid along each dimension.

    Args:
        policy: The agent.
        env: The environment; a new one with another length is made from it.
        steps: The most steps of distraction.
        first: The fewest steps of distraction.

    Attributes:
        cues: C, the number of cues.
        distractors: M, the number of distractors to choose from at every step.
        targets: J, the number of gaps: the actions, or the directions of a continuous action.
        clocked: Whether the observations depend on the step.

    Raises:
        ValueError: If the environment declares no phases, shows no distractors or does not fit the agent.
    """

    def __init__(self, policy: RecurrentPolicy, env: DistractedEnv, steps: int, first: int) -> None:
        if env.phases() is None:
            raise ValueError("the environment does not declare which observations it can show")
        if env.stream is None:
            raise ValueError(
                "the environment shows no distractors; make it with a kind of them, such as distractors='uniform'"
            )
        self.policy, self.steps = policy, steps
        self.env = env.with_distraction(steps)
        phases, last = self.env.phases(1), self.env.phases(steps)
        assert phases is not None
        assert last is not None
        if self.env.single_observation_space != policy.observation_space:
            raise ValueError(
                f"the environment's observations are {self.env.single_observation_space}, "
                f"but the agent was trained on {policy.observation_space}"
            )
        self.phases = phases
        self.clocked = not np.array_equal(phases.low, last.low)
        self.first = steps if self.clocked else first
        observations, shown = candidates(phases.low, phases.high)
        answers, answered = candidates(phases.answer_low, phases.answer_high)
        symbols = np.arange(len(observations))
        # as `reset` takes them
        self.shown: np.ndarray = shown if shown.size else symbols
        self.answered: np.ndarray = answered if answered.size else symbols
        boxes = len(answers) // len(phases.answer_low)
        right = torch.as_tensor(phases.right.repeat(boxes, 1))
        self.right = right.float() if phases.tolerance else right
        self.low, self.high = (torch.as_tensor(getattr(policy.action_space, b, 0.0)) for b in ("low", "high"))
        self.cue, self.answers = self._features(phases.cue), self._features(answers)
        self.inputs = self._features(observations)
        self.cues, self.distractors = len(self.cue), len(self.inputs)
        actions, self.begun = self._run(self.cue, policy.initial_state(self.cues))
        self.after_cue = self._meanwhile(actions)
        self.targets = policy.action_net.out_features * (2 if phases.tolerance else 1) + bool(phases.tolerance)

    def _features(self, observations: np.ndarray) -> Tensor:
        return self.policy.extract_features(self.policy.obs_to_tensor(observations)[0])

    def _run(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        output, _, state = self.policy._advance(features.unsqueeze(0), state)
        return self.policy.action_net(self.policy.actor_mlp(output[0])), state

    def start(self, cue: Tensor) -> Tensor:
        """Return the state (K, n, S) after each of the cues (n,)."""
        return self.begun[:, cue]

    def step(self, t: int, distractors: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Show distractor number `distractors` (n,) at step `t` of an episode.

        Returns:
            The states (K, n, S), and the gap (n,) between the right action before the answer and every other action:
            negative if another action is taken, infinite if any action is right.
        """
        if self.clocked:
            phases = self.env.phases(t)
            assert phases is not None
            self.inputs = self._features(phases.low)
        actions, state = self._run(self.inputs[distractors], state)
        return state, self._meanwhile(actions)

    def _meanwhile(self, actions: Tensor) -> Tensor:
        right = self.phases.meanwhile
        if right is None:
            return actions.new_full((len(actions),), torch.inf)
        others = actions.clone()
        others[:, right] = -torch.inf
        return actions[:, right] - others.amax(1)

    def gaps(self, state: Tensor, cue: Tensor) -> Tensor:
        """Return the gaps (n, J) between the answers in each state (K, n, S) and wrong ones, over all observations.

        For discrete actions they are the logit of the right action minus that of each other one, infinite for the right
        action itself. For continuous actions they are the tolerance minus the squared error, and for each dimension and
        direction the distance to an error that is wrong by itself. A gap is negative if and only if an answer is wrong.
        """
        return self._gaps(state, cue).amin(1)

    def _gaps(self, state: Tensor, cue: Tensor) -> Tensor:
        """Return the gaps for each observation of the answer, (n, A, J)."""
        n, A = len(cue), len(self.answers)
        actions, _ = self._run(self.answers.repeat(n, 1), state.repeat_interleave(A, 1))
        actions = actions.reshape(n, A, -1)
        right = self.right[cue]
        if self.phases.tolerance is None:
            column = right[:, :, None]
            return (actions.gather(2, column) - actions).scatter(2, column, torch.inf)
        error = torch.minimum(torch.maximum(actions, self.low), self.high) - right
        reach = (self.phases.tolerance * error.shape[2]) ** 0.5
        square = self.phases.tolerance - error.square().mean(2, keepdim=True)
        return torch.cat([square, reach - error, reach + error], 2)

    def margins(self, state: Tensor, cue: Tensor, t: int) -> Tensor:
        """Return the least gap of each state, (n,); infinite before the first step at which an answer counts."""
        if t < self.first:
            return torch.full((len(cue),), torch.inf)
        return self.gaps(state, cue).amin(1)

    def replay(self, cue: int, distractors: np.ndarray) -> tuple[np.ndarray, int] | None:
        """Play distractors (t,), repeated until `first` of them are shown, and then the worst answer.

        Returns:
            The distractors with which the agent failed, (steps + 1,) symbols or (steps + 1, d) numbers, and the seed of
            that episode; None if it did not fail.
        """
        steps = max(len(distractors), self.first)
        shown = np.resize(distractors, steps) if len(distractors) else np.zeros(steps, np.int64)
        which = torch.tensor([cue])
        state = self.start(which)
        for t, k in enumerate(shown.tolist(), 1):
            state, _ = self.step(t, torch.tensor([k]), state)
        worst = int(self._gaps(state, which)[0].amin(1).argmin()) % len(self.answered)
        sequence = np.concatenate([self.shown[shown], self.answered[[worst]]])
        copies = 1 if len(self.answers) == len(self.answered) else len(self.answers)  # more if the question is drawn
        env = self.env.with_distraction(steps, copies)
        failed = failures(self.policy, env, self.phases, cue, sequence)
        return (sequence, int(failed.argmax())) if failed.any() else None


def failures(
    policy: RecurrentPolicy, env: DistractedEnv, phases: Phases, cue: int, distractors: np.ndarray
) -> np.ndarray:
    """Return whether an agent fails in each of the copies (n,) of an environment, played step by step.

    Args:
        policy: The agent.
        env: The copies, with `len(distractors) - 1` steps of distraction; copy k is seeded with k.
        phases: The phases of the environment.
        cue: The index of the cue.
        distractors: The value of the option "distractors" of `reset`.
    """
    strays = np.zeros(env.num_envs, np.bool_)
    observations, _ = env.reset(seed=0, options={"cue": phases.options[cue], "distractors": distractors})
    state = policy.initial_state(env.num_envs)
    for t in range(len(distractors) + 1):
        actions, state = policy.step(policy.obs_to_tensor(observations)[0], state, deterministic=True)
        taken = actions.cpu().numpy()
        if t < len(distractors) and phases.meanwhile is not None:
            strays |= taken != phases.meanwhile
        observations, _, terminated, _, infos = env.step(taken)
        if strays.any():
            return strays
    right = terminated & infos["final_info"]["is_success"] if terminated.any() else terminated
    failed: np.ndarray = ~right
    return failed


def candidates(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return candidate observations from M boxes, (N, D), and the numbers that distinguish them, (N, d).

    Boxes that are points are their own candidates, and d = 0. The candidates of a proper box are its corners, its
    centre and a grid along each dimension.
    """
    free = np.flatnonzero((low < high).any(0))
    d = len(free)
    if not d:
        return low, low[:, :0]
    if 2**d <= CORNERS:
        corners = np.indices((2,) * d).reshape(d, -1).T * 2.0 - 1
    else:
        corners = np.random.default_rng(0).choice([-1.0, 1.0], (CORNERS, d))
    along = np.concatenate([share * np.eye(d) for share in GRID])
    shares = np.unique(np.concatenate([corners, np.zeros((1, d)), along]), axis=0)
    found = low.repeat(len(shares), 0)
    centre, half = (low + high)[:, None, free] / 2, (high - low)[:, None, free] / 2
    found[:, free] = (centre + half * shares).reshape(-1, d)
    return found, found[:, free]
