"""The progress of a training."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from tqdm import tqdm


def say_measuring(what: str, number: int, total: int) -> None:
    """Announce measurement `number` of `total` on stderr, because a measurement prints nothing for a long time."""
    print(f"measuring {what} ({number} of {total}) ...", file=sys.stderr, flush=True)


def in_notebook() -> bool:
    """Whether this code runs in a Jupyter notebook, which overwrites the last line as a terminal does."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


NOTEBOOK_WIDTH = 100
"""The width of the bar in characters in a notebook, whose own width is unknown."""


class Progress:
    """A bar on a terminal and in a notebook, a line every few seconds elsewhere.

    A text bar stays in a saved notebook, while a bar of widgets does not. A closed terminal does not stop the training.

    Args:
        total: Steps at the end of the training.
        title: The name of the training, printed once at the start.
        start: Steps that a resumed training has done before.
        unit: The noun for steps, such as "updates".
        shown: Whether anything is shown at all.
    """

    EVERY = 10.0  # seconds between lines where there is no terminal

    def __init__(self, total: int, title: str, *, start: int = 0, unit: str = "steps", shown: bool = True) -> None:
        self.total = total
        self.shown = shown
        self.unit = unit
        self.began = self.last = time.monotonic()
        self.start = self.steps = start
        notebook = in_notebook()
        drawn = shown and (notebook or (sys.stderr is not None and sys.stderr.isatty()))
        width = NOTEBOOK_WIDTH if notebook else None
        self.bar = tqdm(total=total, initial=start, unit=f" {unit}", unit_scale=True, ncols=width) if drawn else None
        self.say(title)

    def update(self, steps: int, facts: Callable[[], dict[str, str]]) -> None:
        """Show the progress; cheap enough for every step.

        Args:
            steps: Steps done so far.
            facts: Returns further values to show, by name; called only when something is shown.
        """
        now = time.monotonic()
        if not self.shown or now - self.last < (0.5 if self.bar is not None else self.EVERY):
            return
        self.last = now
        if self.bar is not None:
            self.bar.set_postfix(facts(), refresh=False)
            with contextlib.suppress(OSError):  # the terminal is gone
                self.bar.update(min(steps, self.total) - self.steps)
            self.steps = min(steps, self.total)
        else:
            rate = (steps - self.start) / (now - self.began)
            eta = timedelta(seconds=int(max(0, self.total - steps) / rate)) if rate else "unknown"
            shown = "".join(f", {name} {value}" for name, value in facts().items())
            self.say(f"{steps:,}/{self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s, {eta} to go{shown}")

    def say(self, line: str) -> None:
        """Print a line beside the bar."""
        with contextlib.suppress(OSError):  # the terminal is gone
            if self.bar is not None:
                self.bar.write(line, file=sys.stderr)
            elif self.shown and sys.stderr is not None:
                print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            with contextlib.suppress(OSError):
                self.bar.update(self.total - self.steps if self.steps >= 0.99 * self.total else 0)
                self.bar.close()
