"""Search for the worst case: the distractors that make an agent forget the cue.

A sequence that a search finds proves that the agent forgets. A search that finds nothing proves nothing: the cues that
survive are an upper bound of the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.prey import Prey
from bistable_rl.cells.base import fixed_weights
from bistable_rl.checks import check_int
from bistable_rl.envs.distracted import DistractedEnv

RESTARTS = 3
"""Walks per target that sometimes take a random distractor, besides the one that never does."""

RESTART_STEPS = 300
"""The length of these walks."""

CIRCLE = 60
"""Steps after which the state is compared with the earlier one: a multiple of all periods."""

PATTERNED = 64
"""The most distractors of which all patterns of two and three are made."""

BROAD = 600
"""Steps after which only the best sequence for each cue continues."""

SAME = 1e-5
"""States that differ by less are the same: the search goes round in a circle and ends."""


@dataclass(frozen=True)
class Killed:
    """A cue that the agent forgets.

    Attributes:
        steps: The number of steps of distraction after which it answers wrongly.
        sequence: The distractors, (steps + 1,) symbols or (steps + 1, d) numbers; the last is shown at the answer.
        seed: The seed of the episode in which it failed.
    """

    steps: int
    sequence: np.ndarray
    seed: int


@dataclass(frozen=True)
class Attack:
    """The sequences of distractors that made an agent forget, by search and cue.

    Attributes:
        cues: (C,) or (C, n), the value of the option "cue" of `reset` for each cue.
        first: The fewest steps of distraction in the search.
        steps: The most steps of distraction in the search.
        searches: The result for each cue by search; None where the cue survived.
    """

    cues: np.ndarray
    first: int
    steps: int
    searches: dict[str, list[Killed | None]] = field(default_factory=dict)

    @property
    def worst(self) -> list[tuple[str, Killed] | None]:
        """The search that killed each cue in the fewest steps, with its result; None where the cue survived all."""
        kills: list[tuple[str, Killed] | None] = []
        for cue in range(len(self.cues)):
            found = [(name, kill) for name, killed in self.searches.items() if (kill := killed[cue]) is not None]
            kills.append(min(found, key=lambda one: one[1].steps, default=None))
        return kills

    def survivors(self, steps: int | None = None, search: str | None = None) -> int:
        """Return the number of cues that survive a number of steps (all by default) of one search, or of all."""
        kills = self.searches[search] if search else [found and found[1] for found in self.worst]
        most = self.steps if steps is None else steps
        return sum(killed is None or killed.steps > most for killed in kills)


def attack(policy: RecurrentPolicy, env: DistractedEnv, steps: int, first: int = 0) -> Attack:
    """Search for the distractors that make an agent forget each cue.

    An agent has forgotten if its most likely action at the answer is wrong for some admissible observation of the
    answer, after any number of steps of distraction from `first` to `steps`; or, where another action before the
    answer is wrong as well (T-maze), if it takes one. Where the observations depend on the step (MemoryLength's clock),
    only the answer after `steps` is asked.

    Every returned sequence has been played in the environment, and the agent failed there. A cue that survives proves
    nothing.

    Args:
        policy: The agent; its weights and its random state do not change.
        env: An environment with distractors and `phases`; its length and its copies are not used.
        steps: The most steps of distraction, at least 1.
        first: The fewest steps of distraction, such as those of the shortest episodes in training; an agent may need a
            few steps to settle.

    Returns:
        An `Attack`. `attack(...).worst[k]` is None if cue number k of `env.phases()` survived. Otherwise it is the name
        of the strongest search and its result: `steps`, after which the agent forgets, and `sequence`.

    Raises:
        ValueError: If the environment declares no phases or shows no distractors, its observations are not the
            agent's, or a number of steps is out of range.
    """
    check_int("steps", steps, 1)
    check_int("first", first, 0)
    if first > steps:
        raise ValueError(f"first must be at most steps ({steps}), not {first}")
    with torch.no_grad(), fixed_weights(policy):
        prey = Prey(policy, env, steps, first)
        result = Attack(prey.phases.options, prey.first, steps)
        for name, search in SEARCHES.items():
            result.searches[name] = search(prey)
        return result


class _Hunt:
    """The cues that a search has killed so far."""

    def __init__(self, prey: Prey) -> None:
        self.prey = prey
        self.killed: list[Killed | None] = [None] * prey.cues
        self.wait = np.zeros(prey.cues, np.int64)
        state = prey.start(torch.arange(prey.cues))
        margins = torch.minimum(prey.margins(state, torch.arange(prey.cues), 0), prey.after_cue)
        self.strike(0, margins, torch.arange(prey.cues), lambda _: np.zeros(0, np.int64))

    def alive(self, cues: torch.Tensor) -> torch.Tensor:
        """Return whether each of the cues (n,) is alive."""
        return torch.tensor([killed is None for killed in self.killed])[cues]

    def strike(self, t: int, margins: torch.Tensor, cues: torch.Tensor, sequence: Callable[[int], np.ndarray]) -> None:
        """Kill cues after `t` steps, where one of the margins (n,) is negative and the environment agrees.

        Args:
            t: The number of steps of distraction so far.
            margins: (n,) of the states.
            cues: (n,) of the states.
            sequence: Returns the indices of the distractors, (t,), that led to a state, by its index.
        """
        for cue in sorted(set(cues[margins < 0].tolist())):
            if self.killed[cue] or self.wait[cue] > t:
                continue
            best = int(torch.where(cues == cue, margins, torch.inf).argmin())
            played = self.prey.replay(cue, sequence(best))
            if played is None:
                self.wait[cue] = 2 * t + 1  # rounding differs in batches: do not play every step of a long tie
            else:
                sequence_shown, seed = played
                self.killed[cue] = Killed(len(sequence_shown) - 1, sequence_shown, seed)


def _periodic(prey: Prey) -> list[Killed | None]:
    """Repeat every pattern of one, two or three distractors, or a sample of them if there are many."""
    hunt = _Hunt(prey)
    patterns = _patterns(prey.distractors)
    length = torch.tensor([len(pattern) for pattern in patterns])
    table = torch.tensor([pattern + [0] * (3 - len(pattern)) for pattern in patterns])
    cue = torch.arange(prey.cues).repeat_interleave(len(patterns))
    which = torch.arange(len(patterns)).repeat(prey.cues)
    state, earlier = prey.start(cue), None
    for t in range(1, prey.steps + 1):
        state, meanwhile = prey.step(t, table[which, (t - 1) % length[which]], state)
        margins = torch.minimum(prey.margins(state, cue, t), meanwhile)
        hunt.strike(t, margins, cue, lambda k: np.resize(patterns[which[k]], t))  # noqa: B023 - called at once
        live = hunt.alive(cue)
        if t % CIRCLE == 0:
            if earlier is not None and not prey.clocked:  # a state that comes back after whole periods always will
                live &= ((earlier - state).abs() > SAME).any(2).any(0)
            earlier = state
        if t == BROAD:
            live &= _best(prey.gaps(state, cue).amin(1), cue, live)
        state, cue, which = state[:, live], cue[live], which[live]
        earlier = None if earlier is None else earlier[:, live]
        if not len(cue):
            break
    return hunt.killed


def _best(margins: torch.Tensor, cue: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
    """Return a mask (n,) of the states: for each cue, the live state with the least margin."""
    margins = torch.where(live, margins, torch.inf)
    best = torch.zeros_like(live)
    for c in set(cue.tolist()):
        best[torch.where(cue == c, margins, torch.inf).argmin()] = True
    return best


def _patterns(distractors: int) -> list[list[int]]:
    """Return the patterns of up to three distractors, without those that repeat a shorter one.

    There are at most 256 patterns of two distractors and 256 of three: a fixed sample where more exist. With more than
    `PATTERNED` distractors, the patterns are made from a sample of that many.
    """
    rng = np.random.default_rng(0)
    few = np.arange(distractors)
    if distractors > PATTERNED:
        few = np.sort(rng.choice(few, PATTERNED, replace=False))
    grid = np.indices((len(few),) * 3).reshape(3, -1).T
    one = [[k] for k in range(distractors)]
    two = [[i, j] for i in few.tolist() for j in few.tolist() if i < j]
    three = grid[(grid[:, :1] <= grid).all(1) & (grid[:, 0] != grid.max(1)) & (grid[:, 0] < grid[:, 2])]
    three = few[three].tolist()
    for patterns in (two, three):
        if len(patterns) > 256:
            patterns[:] = [patterns[k] for k in np.sort(rng.choice(len(patterns), 256, replace=False))]
    return one + two + three


def _greedy(prey: Prey) -> list[Killed | None]:
    """Show the distractor that leaves the smallest margin at the answer, step by step."""
    return _lanes(prey, torch.tensor([-1]), 0.0)


def _targeted(prey: Prey) -> list[Killed | None]:
    """Search greedily for each single wrong answer and its margin, several times, with some random distractors."""
    targets = torch.arange(prey.targets)
    return _lanes(prey, targets.repeat(1 + RESTARTS), 0.1)


def _lanes(prey: Prey, targets: torch.Tensor, noise: float) -> list[Killed | None]:
    """Walk greedily in several lanes for each cue.

    Args:
        prey: The agent.
        targets: (L,) the target of each lane, -1 for the smallest margin over all.
        noise: The probability of a random distractor. The first lane of each target takes none.
    """
    hunt, M = _Hunt(prey), prey.distractors
    generator = torch.Generator().manual_seed(0)
    random = torch.arange(len(targets)) > targets.max()
    cue, target = torch.arange(prey.cues).repeat_interleave(len(targets)), targets.repeat(prey.cues)
    chance = random.repeat(prey.cues) * noise
    lane = torch.arange(len(cue))
    history = np.zeros((prey.steps, len(cue)), np.int16)
    state, earlier = prey.start(cue), None
    for t in range(1, prey.steps + 1):
        n = len(cue)
        shown = torch.arange(M).repeat(n)
        following, meanwhile = prey.step(t, shown, state.repeat_interleave(M, 1))
        gaps = prey.gaps(following, cue.repeat_interleave(M))
        margins = torch.minimum(gaps.amin(1), meanwhile)

        def sequence(k: int, t: int = t, lane: torch.Tensor = lane) -> np.ndarray:
            return np.append(history[: t - 1, lane[k // M]], k % M)

        hunt.strike(t, margins if t >= prey.first else meanwhile, cue.repeat_interleave(M), sequence)
        column = target.repeat_interleave(M).clamp(min=0)[:, None]
        aimed = torch.minimum(gaps.gather(1, column)[:, 0], meanwhile)
        aimed = torch.where((target < 0).repeat_interleave(M) | aimed.isinf(), margins, aimed).reshape(n, M)
        stray = torch.rand(n, generator=generator) < chance
        pick = torch.where(stray, torch.randint(M, (n,), generator=generator), aimed.argmin(1))
        history[t - 1, lane] = pick
        state = following[:, torch.arange(n) * M + pick]
        live = hunt.alive(cue) & ((chance == 0) | (t < RESTART_STEPS))
        if t % CIRCLE == 0:
            if earlier is not None and not prey.clocked:
                live &= (chance > 0) | ((earlier - state).abs() > SAME).any(2).any(0)
            earlier = state
        if t == BROAD:
            live &= _best(margins.reshape(n, M)[torch.arange(n), pick], cue, live)
        state, cue, target, chance, lane = state[:, live], cue[live], target[live], chance[live], lane[live]
        earlier = None if earlier is None else earlier[:, live]
        if not len(cue):
            break
    return hunt.killed


SEARCHES: dict[str, Callable[[Prey], list[Killed | None]]] = {
    "periodic": _periodic,
    "greedy": _greedy,
    "targeted": _targeted,
}
"""The searches by name."""
