"""Interleaved timing: the candidates take turns (A B A B ...), so that a busy moment affects all equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch

Key = TypeVar("Key")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch run on one thread in the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def median_seconds(
    runs: Mapping[Key, Callable[[], object]],
    *,
    rounds: int,
    seconds: float = 0.0,
    clock: Callable[[], float] = time.process_time,
    wait: Callable[[], object] = lambda: None,
    contexts: Mapping[Key, Callable[[], AbstractContextManager[object]]] | None = None,
) -> dict[Key, float]:
    """Time functions in turns, after at least one untimed call of each.

    Args:
        runs: The functions to time.
        rounds: How often each function is timed.
        seconds: The least duration of a timing; a fast function is called repeatedly to reach it. 0 means one call.
        clock: Processor time, which other programs do not affect, or `time.perf_counter` for work on several threads
            or on a GPU.
        wait: A function that waits until the work started by a call is done.
        contexts: The contexts in which some of the functions run; entering and leaving them is not timed.

    Returns:
        The median seconds of a call of each function.
    """

    def time_calls(run: Callable[[], object], calls: int) -> float:
        wait()
        start = clock()
        for _ in range(calls):
            run()
        wait()
        return (clock() - start) / calls

    def context(key: Key) -> AbstractContextManager[object]:
        return (contexts or {}).get(key, nullcontext)()

    calls: dict[Key, int] = {}
    for key, run in runs.items():
        with context(key):
            once = time_calls(run, 1)
            if once < seconds:  # the first call also allocates
                once = min(time_calls(run, 1) for _ in range(3))
            calls[key] = max(1, round(seconds / once))
    times: dict[Key, list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            with context(key):
                times[key].append(time_calls(run, calls[key]))
    return {key: statistics.median(values) for key, values in times.items()}
