"""The timing that all measurements share, with a clock that the functions advance themselves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bistable_rl.speed.timing import median_seconds


class Clock:
    """A clock that stands still between the calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, name: str, *durations: float) -> Callable[[], None]:
        """Return a function that takes these seconds in turn, then the last ones again and again."""
        left = list(durations)

        def run() -> None:
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_the_candidates_take_turns_after_a_call_that_is_not_timed() -> None:
    clock = Clock()
    runs = {name: clock.takes(name, 9.0, seconds) for name, seconds in (("a", 1.0), ("b", 2.0))}
    assert median_seconds(runs, rounds=3, clock=clock) == {"a": 1.0, "b": 2.0}
    assert "".join(clock.order) == "ab" + "ab" * 3


def test_the_median_is_robust_to_a_busy_moment() -> None:
    clock = Clock()
    assert median_seconds({"a": clock.takes("a", 1.0, 1.0, 50.0, 1.0)}, rounds=3, clock=clock) == {"a": 1.0}


def test_a_fast_function_is_called_until_a_timing_is_long_enough() -> None:
    clock = Clock()
    assert median_seconds({"a": clock.takes("a", 0.25)}, rounds=2, seconds=4.0, clock=clock)["a"] == pytest.approx(0.25)
    assert len(clock.order) == 4 + 2 * 16


def test_contexts_are_entered_around_each_timing_and_not_timed() -> None:
    clock, entered = Clock(), 0

    @contextmanager
    def context() -> Iterator[None]:
        nonlocal entered
        entered += 1
        clock.now += 100.0
        yield
        clock.now += 100.0

    runs = {name: clock.takes(name, 1.0) for name in ("a", "b")}
    assert median_seconds(runs, rounds=2, clock=clock, contexts={"b": context}) == {"a": 1.0, "b": 1.0}
    assert entered == 3
