"""Stop a training by Ctrl-C, SIGTERM (Slurm, Kubernetes, `timeout`), SIGHUP (a closed terminal) or another thread.

The first signal stops it cleanly. Only a second Ctrl-C stops it at once, because a run of a grid gets two signals: the
job manager signals every process of its job, and the grid signals its runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def on_signals(first: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call a function at the first signal while the block runs; a second Ctrl-C raises KeyboardInterrupt.

    In a side thread, which gets no signals, this does nothing. Ignored SIGTERM and SIGHUP (`nohup`) stay ignored.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT in received
        received.append(number)
        if signal.Signals(number).name == "SIGHUP":
            _leave_terminal()
        if again:
            raise KeyboardInterrupt(number)
        if len(received) == 1:
            first(signal.Signals(number))

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            # None: a handler that Python did not set and cannot restore
            if handler is not None and (handler != signal.SIG_IGN or number == signal.SIGINT):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Raise KeyboardInterrupt with the signal's number at the first signal while the block runs."""

    def interrupt(number: signal.Signals) -> None:
        raise KeyboardInterrupt(number)

    with on_signals(interrupt):
        yield


def exit_code(number: int | None) -> int:
    """Return the exit code of a command that a signal stopped: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (number or signal.SIGINT)


def _leave_terminal() -> None:
    """Discard output to a closed terminal, where writing would raise OSError."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


class Stopper:
    """Stops one training.

    Args:
        event: An event that another thread sets to stop the training; by default a new event.

    Attributes:
        signal: The name of the signal that stopped it, such as "SIGTERM"; None if none did.
    """

    def __init__(self, event: threading.Event | None = None) -> None:
        self.event = threading.Event() if event is None else event
        self.signal: str | None = None
        self._held: Callable[[], object] | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Turn signals in the block into KeyboardInterrupt, except where they are held back."""
        with on_signals(self._receive):
            yield

    @contextlib.contextmanager
    def holding(self, say: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Set `event` at a signal in the block instead of raising; the block checks `event` itself.

        Args:
            say: Tells the user that the training is stopping.
        """
        before, self._held = self._held, say
        try:
            yield
        finally:
            self._held = before

    def _receive(self, number: signal.Signals) -> None:
        self.signal = number.name
        if self._held is None:
            raise KeyboardInterrupt(number)
        self.event.set()
        self._held()
