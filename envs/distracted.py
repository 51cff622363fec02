"""The base class of the environments with distractors: their streams, given sequences, and looking ahead."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from bistable_rl.checks import check_symbols
from bistable_rl.envs import rng
from bistable_rl.envs.base import BatchedEnv, Copies
from bistable_rl.envs.phases import Phases
from bistable_rl.envs.streams import Steps, Stream


class DistractedEnv(BatchedEnv):
    """A batched environment whose observations hold distractors, as `bistable_rl.envs.streams` describes them.

    A subclass makes `stream`, calls `stream.advance` in `_advance`, and implements `_observe_at` instead of `_observe`.
    Its distractors are symbols below `num_symbols` unless it overrides `_draw` and `_check_distractors`.

    `reset(options={"distractors": sequence})` shows a given sequence in every copy until the next `reset`; after its
    end the sequence starts again.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("distractors",)
    SHORTEST: ClassVar[int]
    """The `length` of an episode without a step of distraction between cue and answer."""
    ARGUMENTS: ClassVar[tuple[str, ...]]
    """The arguments besides `length` and `distractors`, each kept as an attribute."""
    MEANWHILE: ClassVar[int | None] = None
    """The discrete action that leads on to the answer; None if any action does."""
    stream: Stream | None = None
    num_symbols: int
    given: np.ndarray | None = None

    def with_distraction(self, steps: int, num_envs: int = 1) -> Self:
        """Return a similar environment with the given steps of distraction between cue and answer, and new copies."""
        arguments = {name: getattr(self, name) for name in self.ARGUMENTS}
        kind = None if self.stream is None else self.stream.kind
        arguments |= {"length": self.SHORTEST + steps, "distractors": kind, "num_envs": num_envs}
        return type(self)(**arguments)

    def _observe_at(self, i: Copies, t: Steps, index: Steps) -> npt.NDArray[np.float32]:
        """Return the observations of the copies `i`, (N, D), at their steps `t` with distractors number `index`."""
        raise NotImplementedError

    def phases(self, t: int | None = None) -> Phases | None:
        """Return the admissible observations of step `t`, or of any step; None if the task declares none."""
        return None

    def _first_answer(self) -> npt.NDArray[np.int64] | int:
        """Return the step, (n,) or one for all, to which `MEANWHILE` leads without reward or end; 0 if unknown."""
        return 0

    def _pass(self, steps: npt.NDArray[np.int64]) -> None:
        """Update the rest of the state for a number of steps (n,) with the action `MEANWHILE`."""

    @property
    def steps_ahead(self) -> npt.NDArray[np.int64]:
        """The steps (n,) that each copy can take from now on by `MEANWHILE`, without a reward or an end."""
        return np.maximum(self._first_answer() - self.t, 0)

    def look_ahead(self, steps: int) -> npt.NDArray[np.float32]:
        """Return the observations of the current step and of later ones after `MEANWHILE`, (steps, n, D).

        The observations of a copy are right up to the step after its `steps_ahead`.
        """
        t = self.t + np.arange(steps)[:, None]
        index = t if self.stream is None else self.stream.ahead(self.keys, t)
        observations = self._observe_at(np.tile(self.copies, steps), t.ravel(), index.ravel())
        return observations.reshape(steps, self.num_envs, -1)

    def masks_ahead(self, steps: int) -> npt.NDArray[np.bool_]:
        """Return the action masks at the observations of `look_ahead`, (steps, n, A), if the task has masks."""
        raise NotImplementedError

    def go_on(self, steps: npt.NDArray[np.int64]) -> None:
        """Take the action `MEANWHILE` for a number of steps in each copy, (n,), at most `steps_ahead`."""
        if self.stream is not None:
            passed = np.minimum(np.arange(steps.max() + 1)[:, None], steps)
            self.stream.advance(self.keys, self.t + passed)
        self._pass(steps)
        self.t = self.t + steps

    def observe(self) -> npt.NDArray[np.float32]:
        """Return the observations of the current step, (n, D)."""
        observations: npt.NDArray[np.float32] = self._observe(self.copies)
        return observations

    @property
    def stream_state(self) -> npt.NDArray[np.int64]:
        """The state of the streams, (4, n); it exists only for streams that change."""
        assert self.stream is not None
        return self.stream.state

    @stream_state.setter
    def stream_state(self, state: npt.NDArray[np.int64]) -> None:
        assert self.stream is not None
        self.stream.state = state

    def _state_names(self) -> tuple[str, ...]:
        changes = self.stream is not None and self.stream.changes
        return (*super()._state_names(), *(["stream_state"] if changes else []))

    def _use_options(self, options: dict[str, Any]) -> None:
        sequence = options.get("distractors")
        if sequence is not None and self.stream is None:
            raise ValueError(
                "the environment shows no distractors; make it with a kind of them, such as distractors='uniform'"
            )
        self.given = None if sequence is None else self._check_distractors(np.asarray(sequence))

    def _check_distractors(self, sequence: np.ndarray) -> np.ndarray:
        if sequence.ndim != 1 or not len(sequence):
            raise ValueError(f"distractors must be a sequence of at least one symbol, not {sequence}")
        return check_symbols("distractors", sequence, self.num_symbols)

    def _start(self, i: Copies) -> None:
        super()._start(i)
        if self.stream is not None and self.stream.changes:
            self.stream.begin(i, self.keys[i])

    def _next_distractors(self) -> None:
        """Advance to the distractors of the next step."""
        if self.stream is not None:
            self.stream.advance(self.keys, self.t[None] + 1)

    def _observe(self, i: Copies) -> Any:
        t = self.t[i]
        return self._observe_at(i, t, t if self.stream is None else self.stream.indices(i, t))

    def _distractors(self, i: Copies, t: Steps, index: Steps) -> np.ndarray:
        """Return the distractors of the copies `i`."""
        if self.given is None or self.stream is None:
            return self._draw(i, index)
        return self.given[(t - self.stream.first) % len(self.given)]

    def _draw(self, i: Copies, index: Steps) -> np.ndarray:
        return rng.integers(self.keys[i], index, self.num_symbols)

    def _one_hot(self, i: Copies, t: Steps, index: Steps, shown: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return the distractors of the copies `i`, one-hot, (N, num_symbols); zeros where none is shown."""
        symbols = self._distractors(i, t, index)
        return (symbols[:, None] == np.arange(self.num_symbols)) & shown[:, None]

    def _distractor_text(self, k: int) -> str:
        """Return the distractor at the end of copy `k`'s observation as text, or "" if there is none."""
        symbol = self._observe(np.array([k]))[0, -self.num_symbols :] if self.stream is not None else np.zeros(1)
        return f"  distractor {symbol.argmax()}" if symbol.any() else ""
