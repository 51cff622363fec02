"""The checkpoints of a run: finding, writing and removing them. See `checkpoint` for their files.

checkpoints/<steps>/        the latest ones, by environment steps or updates
            best-<steps>/   the weights with the best evaluation so far (agents)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bistable_rl.errors import UserError
from bistable_rl.runs.files import inside, remove_folder, remove_leftovers, written_folder

BEST = "best-"


def steps_of(checkpoint: Path) -> int:
    """Return the number of steps or updates in the name of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix(BEST))


class Checkpoints:
    """The checkpoints of a run folder.

    Every method raises UserError if a checkpoint, or the folder that holds them, is a link.

    Args:
        run: The run folder.
        name: The name of the folder in it.
    """

    def __init__(self, run: Path, name: str) -> None:
        self._run, self._name = run, name

    def all(self) -> list[Path]:
        """Return the checkpoints, oldest first, without the best one."""
        return self._named("[0-9]{12,}")

    def latest(self) -> Path:
        """Return the latest checkpoint.

        Raises:
            UserError: If there is none.
        """
        found = self.all()
        if not found:
            raise UserError(f"{self._run} holds no checkpoint yet; it was stopped before its first one.")
        return found[-1]

    def best(self) -> Path:
        """Return the checkpoint with the best evaluation.

        Raises:
            UserError: If there is none.
        """
        found = self._bests()
        if not found:
            raise UserError(f"{self._run} holds no best checkpoint yet; it was stopped before its first evaluation.")
        return found[-1]

    def add(self, steps: int, files: Mapping[str, bytes], *, keep: int) -> None:
        """Write a checkpoint, whole or not at all, and remove the oldest ones.

        Args:
            steps: Environment steps, or updates, so far.
            files: Its files, by name.
            keep: The number of latest checkpoints to keep.

        Raises:
            UserError: If the disk is full or cannot be written to; earlier checkpoints are intact.
        """
        self._write(f"{steps:012d}", files)
        for old in self.all()[:-keep]:
            remove_folder(old)

    def add_best(self, steps: int, files: Mapping[str, bytes]) -> None:
        """Write the checkpoint with the best evaluation, whole or not at all, and remove the earlier best ones.

        The best one up to the latest checkpoint is kept too, because a run that resumes there may not do as well again.

        Raises:
            UserError: If the disk is full or cannot be written to; the earlier best one is intact.
        """
        last = max(map(steps_of, self.all()), default=0)
        former = [best for best in self._bests() if steps_of(best) <= last][-1:] if steps > last else []
        new = self._write(f"{BEST}{steps:012d}", files)
        for old in self._bests():
            if old not in (new, *former):
                remove_folder(old)

    def forget_best(self, steps: int) -> None:
        """Remove the best checkpoints written after the step from which the run resumes."""
        for best in self._bests():
            if steps_of(best) > steps:
                remove_folder(best)

    def clean(self) -> None:
        """Remove the unfinished files of killed writers, in a run folder whose lock is held."""
        remove_leftovers(self._run / self._name)

    def _bests(self) -> list[Path]:
        return self._named(f"{BEST}[0-9]{{12,}}")

    def _named(self, pattern: str) -> list[Path]:
        found = inside(self._run, self._name).glob("*")
        return sorted(inside(self._run, self._name, path.name) for path in found if re.fullmatch(pattern, path.name))

    def _write(self, name: str, files: Mapping[str, bytes]) -> Path:
        path = inside(self._run, self._name) / name
        with written_folder(path) as temporary:
            for file, data in files.items():
                (temporary / file).write_bytes(data)
        return path
