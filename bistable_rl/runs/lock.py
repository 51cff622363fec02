"""The lock of a folder: who holds it is the only one that writes there. It ends with its holder, however that ends."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

from bistable_rl.errors import UserError
from bistable_rl.runs.files import inside

LOCK = ".lock"
INHERITED = "BISTABLE_RL_LOCK"
"""The environment variable that tells a process which of its open files is a lock that its parent took for it."""


_open: set[int] = set()
"""The locks' open files of this process."""


def _let_go() -> None:
    """Leave the locks to the parent: a process that an environment forks would hold them after its parent's death."""
    for descriptor in _open:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class LockedError(Exception):
    """Another process, or another thread of this one, holds the lock.

    Attributes:
        holder: " (pid N)", or nothing where it is unknown.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class Lock:
    """A lock that is held; see `take`.

    Attributes:
        folder: The folder; to be set anew when it is renamed.
        descriptor: The open file `.lock` in it.
        held: False where the file system knows no locks.
    """

    def __init__(self, folder: Path, descriptor: int, held: bool) -> None:
        self.folder = folder
        self.descriptor = descriptor
        self.held = held
        _open.add(descriptor)

    def note(self, pid: int) -> None:
        """Write down who holds the lock, for whoever meets it."""
        with contextlib.suppress(OSError):  # a full disk
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, str(pid).encode(), 0)

    def release(self) -> None:
        """Give the lock up, and remove its file."""
        with contextlib.suppress(OSError):
            if _is_at(self.descriptor, self.folder / LOCK):
                (self.folder / LOCK).unlink()
        self.hand_over()

    def hand_over(self) -> None:
        """Leave the lock to the child process that was given the open file."""
        _open.discard(self.descriptor)
        os.close(self.descriptor)


def take(folder: Path) -> Lock:
    """Take the lock of a folder, or take over the one that this process's parent took for it.

    Raises:
        LockedError: Somebody else holds it.
        FileNotFoundError: There is no such folder.
        UserError: The folder cannot be written to, or a link is in the lock's place.
    """
    path = inside(folder, LOCK)
    lock = _inherited(folder)
    while lock is None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}.") from None
        try:
            if os.fstat(descriptor).st_nlink > 1:
                raise UserError(f"{path} is another name of a file elsewhere, which would be written to; remove it.")
            held = _flock(descriptor, folder)
        except (LockedError, UserError):
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            lock = Lock(folder, descriptor, held)
        else:  # its former holder has removed it meanwhile
            os.close(descriptor)
    lock.note(os.getpid())
    return lock


def _inherited(folder: Path) -> Lock | None:
    number = os.environ.get(INHERITED, "")
    if not number.isdecimal() or not _is_at(int(number), folder / LOCK):
        return None
    del os.environ[INHERITED]
    os.set_inheritable(int(number), False)
    return Lock(folder, int(number), True)


def _flock(descriptor: int, folder: Path) -> bool:
    """Lock an open file; return False where that cannot be had."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode("ascii", "replace")
        raise LockedError(f" (pid {pid})" if pid.isdecimal() else "") from None
    except (ImportError, OSError):  # Windows; a file system without locks, such as Lustre without -o flock
        warnings.warn(f"{folder} cannot be locked here: take care that one process alone trains in it", stacklevel=4)
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False
