"""Certificates: for each cue, a proof that no admissible sequence of observations makes the agent forget it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.certify.enclosure import (
    BALLS,
    FLOATS,
    Bounds,
    Numbers,
    images,
    margins,
    prove_images,
)
from bistable_rl.certify.network import OTHERWISE, Network, read_network
from bistable_rl.certify.search import NoIntervalError, Search
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.errors import UserError


@dataclass(frozen=True)
class Cue:
    """The result for one cue.

    Attributes:
        for_ever: Whether the agent provably answers right after any number of steps and any distractions.
        steps: Without such a proof, the number of steps after the cue up to which the answer is provably right.
        reason: The reason why there is no proof for ever, or no proof for the requested number of steps.
        boxes: For each layer a box of states, (H,), that every distraction maps into itself. With a proof for ever the
            boxes are proved, otherwise they are computed in float64; empty if none were found.
    """

    for_ever: bool
    steps: int = 0
    reason: str | None = None
    boxes: tuple[Bounds, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """The results for the cues of a task.

    Attributes:
        cues: The result for each cue.
        steps: The number of steps to prove for cues without a proof for ever; 0 if none was requested.
    """

    cues: tuple[Cue, ...]
    steps: int = 0

    @property
    def proved(self) -> int:
        """The number of cues with a proof for ever."""
        return sum(cue.for_ever for cue in self.cues)


class _Failure(Exception):  # noqa: N818 - the end of an attempt
    """An attempt at a proof has failed; the message says where it failed first."""


def certify(policy: RecurrentPolicy, env: DistractedEnv, steps: int = 0) -> Certificate:
    """Prove for each cue, if possible, that the agent's most likely action at the answer is right.

    The proof covers any number of admissible distractions between cue and answer (`env.phases`). The README of this
    folder states the theorem and its limits. A cue without a proof is not necessarily forgotten.

    Args:
        policy: The agent's network: BRC or nBRC of any number of layers, in float32, with discrete actions.
        env: The environment.
        steps: For cues without a proof for ever, prove that the answer is right up to this many steps after the cue.

    Raises:
        UserError: If the network or the environment cannot be certified.
    """
    network, task = read_network(policy), read_phases(env)
    size, shown = network.layers[0].weight_ih.shape[1], task.cues.low.shape[1]
    if size != shown:
        raise UserError(f"certify: the agent reads {size} numbers, but the environment shows {shown}.")
    clocks = read_phases(env, 1).distractions, read_phases(env, 2).distractions
    if not np.array_equal(clocks[0].low, clocks[1].low) and steps >= env.horizon:
        raise UserError(
            f"certify: --steps {steps} is too long for the episode, which has {env.horizon - 1} steps after the cue; "
            "set a greater env.kwargs.length, or fewer steps."
        )
    proofs = _Proofs(network, task)
    return Certificate(tuple(_certify(proofs, cue, env, steps) for cue in range(len(proofs.task.cues.low))), steps)


def _certify(proofs: _Proofs, cue: int, env: DistractedEnv, steps: int) -> Cue:
    boxes = list[Bounds]()
    try:
        start = proofs.after_cue(cue)
        boxes += proofs.closed(start)
        proofs.for_ever(cue, boxes, start)
        return Cue(True, boxes=tuple(boxes))
    except _Failure as failure:
        proved, reason = 0, str(failure)
    if steps:
        proved, why = proofs.for_steps(cue, steps, env)
        reason = reason if why is None else f"{proved + 1} {'steps' if proved else 'step'} after the cue, {why}"
    return Cue(False, proved, reason, tuple(boxes))


@dataclass(frozen=True)
class Task:
    """The admissible observations of a task with discrete answers, as boxes, and the right actions.

    Attributes:
        cues: (C, D), the first observations.
        distractions: (M, D), the observations between cue and answer.
        answers: (A, D), the observations at the answer.
        right: (C, A), the right action for each cue and answer.
        meanwhile: The right action before the answer; None if every action is right.
    """

    cues: Bounds
    distractions: Bounds
    answers: Bounds
    right: np.ndarray
    meanwhile: int | None


def read_phases(env: DistractedEnv, t: int | None = None) -> Task:
    """Read the observations and actions that an environment declares for its step `t`, or for any step.

    Raises:
        UserError: If it declares none, or its answers are continuous.
    """
    phases = env.phases(t) if isinstance(env, DistractedEnv) else None
    if phases is None:
        raise UserError(
            "certify: the environment does not declare which observations it can show in each phase (cue, distraction, "
            "answer), as CopyFirst does."
        )
    if phases.tolerance is not None:
        raise UserError(f"certify: only discrete answers can be certified, not continuous ones; {OTHERWISE}.")
    pairs = (phases.cue, phases.cue), (phases.low, phases.high), (phases.answer_low, phases.answer_high)
    cues, distractions, answers = (Bounds(low.astype(np.float64), high.astype(np.float64)) for low, high in pairs)
    return Task(cues, distractions, answers, phases.right, phases.meanwhile)


class _Proofs:
    """The attempts at proofs for one network and task; an attempt that fails raises `_Failure`."""

    def __init__(self, network: Network, task: Task) -> None:
        self.network = network
        self.task = task
        self.search = Search(network, task.distractions)

    def closed(self, start: list[Bounds]) -> list[Bounds]:
        """Return a box of states for each layer that contains the start and should be invariant."""
        try:
            return self.search.invariant(start)
        except NoIntervalError as error:
            unit = _unit(error.unit, error.layer, self.network)
            raise _Failure(f"no interval was found that {unit} stays in") from None

    def for_ever(self, cue: int, boxes: list[Bounds], start: list[Bounds]) -> None:
        """Prove that the boxes contain the start and are invariant, and that every answer from them is right."""
        if not all(begin.inside(box).all() for begin, box in zip(start, boxes, strict=True)):
            raise _Failure("the state after the cue lies outside the box that was found")
        self.check_answers(FLOATS, cue, boxes, start)
        found = images(self.network, self.task.distractions, boxes)
        claims = [_within(claim, box) for claim, box in zip(found, boxes, strict=True)]
        self.prove(self.task.distractions, boxes, claims)
        self.check_meanwhile(claims)
        self.check_answers(BALLS, cue, boxes, start)

    def for_steps(self, cue: int, steps: int, env: DistractedEnv) -> tuple[int, str | None]:
        """Return up to how many steps after the cue, at most `steps`, the answer is right, and why no further."""
        proved = 0
        try:
            boxes = start = self.after_cue(cue)
            self.check_answers(BALLS, cue, boxes, start)
            for proved in range(1, steps):
                x = read_phases(env, proved).distractions
                claims = images(self.network, x, boxes)
                self.prove(x, boxes, claims)
                self.check_meanwhile(claims)
                boxes = [claim.hull() for claim in claims]
                self.check_answers(BALLS, cue, boxes, start)
        except _Failure as failure:
            return proved, str(failure)
        return steps, None

    def after_cue(self, cue: int) -> list[Bounds]:
        """Return for each layer a proved box of the states after the cue."""
        x = self.task.cues.rows(slice(cue, cue + 1))
        initial = [Bounds(layer.initial, layer.initial) for layer in self.network.layers]
        claims = images(self.network, x, initial)
        self.prove(x, initial, claims)
        self.check_meanwhile(claims)
        return [claim.hull() for claim in claims]

    def prove(self, x: Bounds, boxes: list[Bounds], claims: list[Bounds]) -> None:
        failed = prove_images(self.network, x, boxes, claims)
        if failed is not None:
            layer, row, unit = failed
            raise _Failure(f"{_unit(unit, layer, self.network)} leaves its range at observation {row}")

    def check_meanwhile(self, claims: list[Bounds]) -> None:
        action = self.task.meanwhile
        if action is None:
            return
        low = margins(BALLS, self.network, claims[-1], action)
        if not (low > 0).all():
            other = low.min(0).argmin()
            raise _Failure(f"action {other} may be taken instead of {action} before the answer")

    def check_answers(self, numbers: Numbers, cue: int, boxes: list[Bounds], start: list[Bounds]) -> None:
        """Check that every state in the boxes gives the right action at every answer."""
        claims = images(self.network, self.task.answers, boxes)
        if numbers is BALLS:
            self.prove(self.task.answers, boxes, claims)
        for action in np.unique(self.task.right[cue]):
            rows = np.flatnonzero(self.task.right[cue] == action)
            output = claims[-1].rows(rows)
            low = margins(numbers, self.network, output, action)
            if not (low > 0).all():
                row, other = np.unravel_index(low.argmin(), low.shape)
                wide = f"at answer {rows[row]} action {other} may beat {action}"
                raise _Failure(f"{wide}: {self.widest(action, int(other), boxes, start)}")

    def widest(self, action: int, other: int, boxes: list[Bounds], start: list[Bounds]) -> str:
        """Name the last layer's unit whose range endangers the decision most, and the observation that widens it."""
        box, begin = boxes[-1], start[-1]
        weight = self.network.weight[action] - self.network.weight[other]
        width = box.high - box.low
        unit = int((width if self.network.hidden else np.abs(weight) * width).argmax())
        low, high = float(box.low[unit]), float(box.high[unit])
        image = images(self.network, self.task.distractions, boxes)[-1]
        down, up = float(begin.low[unit]) - image.low[:, unit], image.high[:, unit] - float(begin.high[unit])
        row = int((down if down.max() > up.max() else up).argmax())
        return (
            f"{_unit(unit, len(boxes) - 1, self.network)}, {float(begin.low[unit]):.2f} after the cue, may lie from "
            f"{low:.2f} to {high:.2f} (observation {row})"
        )


def _within(claims: Bounds, box: Bounds) -> Bounds:
    return Bounds(np.maximum(claims.low, box.low), np.minimum(claims.high, box.high))


def _unit(unit: int, layer: int, network: Network) -> str:
    return f"unit {unit}" + (f" of layer {layer + 1}" if len(network.layers) > 1 else "")
