"""The lock of a folder: only its holder writes there. The lock ends when its process ends, even if it is killed."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

from bistable_rl.errors import UserError
from bistable_rl.runs.files import inside

LOCK = ".lock"
INHERITED = "BISTABLE_RL_LOCK"
"""The environment variable with the file descriptor of a lock that the parent process has taken."""

_open: set[int] = set()
"""The open files of the locks that this process holds."""


def _let_go() -> None:
    """Close the locks in a forked process, such as an environment's; it would hold them after its parent has died."""
    for descriptor in _open:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class LockedError(Exception):
    """The lock is held by another process, or by another thread of this one.

    Attributes:
        holder: " (pid N)", or "" if it is unknown.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class Lock:
    """A lock that is held; see `take`.

    Attributes:
        folder: The folder. Code that renames the folder updates this.
        descriptor: The file descriptor of the open file `.lock` in the folder.
        held: False if the file system has no locks.
    """

    def __init__(self, folder: Path, descriptor: int, held: bool) -> None:
        self.folder = folder
        self.descriptor = descriptor
        self.held = held
        _open.add(descriptor)

    def note(self, pid: int) -> None:
        """Write the process ID of the holder into the file, for the messages of other processes."""
        with contextlib.suppress(OSError):  # a full disk
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, str(pid).encode(), 0)

    def release(self) -> None:
        """Release the lock and remove its file."""
        with contextlib.suppress(OSError):
            if _is_at(self.descriptor, self.folder / LOCK):
                (self.folder / LOCK).unlink()
        self.hand_over()

    def hand_over(self) -> None:
        """Leave the lock to the child process that has inherited the open file."""
        _open.discard(self.descriptor)
        os.close(self.descriptor)


def take(folder: Path) -> Lock:
    """Take the lock of a folder, or take over the lock that the parent process has taken for this process.

    Raises:
        LockedError: If another process or thread holds it.
        FileNotFoundError: If there is no such folder.
        UserError: If the folder cannot be written to, or `.lock` is a link.
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
                raise UserError(f"{path} is a hard link to another file, which the lock would overwrite; remove it.")
            held = _flock(descriptor, folder)
        except (LockedError, UserError):
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            lock = Lock(folder, descriptor, held)
        else:  # its former holder has just removed it
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
    """Lock an open file; return False if the system cannot."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode("ascii", "replace")
        raise LockedError(f" (pid {pid})" if pid.isdecimal() else "") from None
    except (ImportError, OSError):  # Windows; a file system without locks, such as Lustre without -o flock
        warnings.warn(
            f"{folder} cannot be locked on this file system: make sure that only one process trains in it", stacklevel=4
        )
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the file at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False
