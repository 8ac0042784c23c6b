"""Record locks that divide the work in a folder among processes. The system frees them when a process ends."""

import errno
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from dop_lightning.foundation.atomic import make_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FLOCK = {"linux": "@hhqqi", "darwin": "@qqihh"}
"""Layout of struct flock on 64-bit systems: (type, whence, start, length, pid); on macOS type and whence are last."""

_HELD_LOCKS: set[Path] = set()
"""Files in which this process holds locks."""


def is_held(path: Path, number: int | None = None) -> bool | None:
    """Return whether a process holds the lock of a number in a file. Does not acquire the lock.

    If this process holds a lock in the file, all numbers count as held: opening and closing the file again would
    release its locks.

    Args:
        path: lock file, as in :class:`Claims`.
        number: number of the lock; any by default.

    Returns:
        ``None`` if unknown, because the system or the file system does not support record locks.
    """
    if path.resolve() in _HELD_LOCKS:
        return True
    form = _FLOCK.get(sys.platform)
    if fcntl is None or form is None:
        return None
    start, length = (0, 0) if number is None else (number, 1)  # length 0: up to the end
    fields = (fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        with path.open("rb+") as file:
            query = struct.pack(form, *(fields if form.startswith("@hh") else (*fields[2:], *fields[:2])))
            answer = struct.unpack(form, fcntl.fcntl(file, fcntl.F_GETLK, query))
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return bool(answer[0 if form.startswith("@hh") else 3] != fcntl.F_UNLCK)


class Claims:
    """Numbers in a shared file, each of which only one process can hold at a time.

    Each number is a byte of the file, locked with a POSIX record lock. Record locks work between machines if the file
    system supports them (NFS from version 4 on), and are freed when the process ends. If they are not supported, every
    claim succeeds.

    Args:
        path: lock file; it is created, and stays empty. Do not open it elsewhere in this process: closing it would
            release the locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._numbers: list[int] = []

    def take(self, numbers: Iterable[int]) -> list[int]:
        """Acquire the locks of numbers, until :meth:`release` or the end of the process.

        Returns:
            Numbers that another process holds.

        Raises:
            OSError: the file cannot be created.
        """
        if fcntl is None:
            return []
        if self._descriptor is None:
            make_folder(self.path.parent)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            _HELD_LOCKS.add(self.path.resolve())
        taken = []
        for number in numbers:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                self._numbers.append(number)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    taken.append(number)
                elif error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        return taken

    def renew(self) -> list[int]:
        """Acquire the held locks again in a new file if the lock file was removed.

        Returns:
            Numbers that another process acquired in the meantime.

        Raises:
            OSError: the file cannot be created.
        """
        if self._descriptor is None or self._is_intact():
            return []
        numbers = self._numbers
        self.release()
        self._numbers = []
        return self.take(numbers)

    def _is_intact(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor or 0))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release all locks."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _HELD_LOCKS.discard(self.path.resolve())
