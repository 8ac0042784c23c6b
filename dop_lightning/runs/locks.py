"""Who works on what in a folder: parts of a file that the system frees when a process ends, however it ends."""

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
"""The struct flock of 64-bit systems: (type, whence, start, length, process); on macOS type and whence come last."""

_HELD_HERE: set[Path] = set()
"""The files of which this process holds numbers."""


def is_held(path: Path, number: int | None = None) -> bool | None:
    """Return whether a process holds a number of a file, without holding it even for a moment.

    If this process holds numbers of the file, all of them count as held: a second look at the file would free them.

    Args:
        path: the file, as in :class:`Claims`.
        number: of the file; any by default.

    Returns:
        ``None`` if it cannot be told: the system or the file system has no record locks.
    """
    if path.resolve() in _HELD_HERE:
        return True
    form = _FLOCK.get(sys.platform)
    if fcntl is None or form is None:
        return None
    start, length = (0, 0) if number is None else (number, 1)  # a length of 0 reaches to the end
    asked = (fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        with path.open("rb+") as file:
            query = struct.pack(form, *(asked if form.startswith("@hh") else (*asked[2:], *asked[:2])))
            answer = struct.unpack(form, fcntl.fcntl(file, fcntl.F_GETLK, query))
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return bool(answer[0 if form.startswith("@hh") else 3] != fcntl.F_UNLCK)


class Claims:
    """Numbers that one process at a time may hold, of all processes that name the same file.

    Each number is a byte of the file, locked by POSIX record locks: they work between machines where the file system
    has them (NFS from version 4 on), and end with the process. Where there are none, everything is granted.

    Args:
        path: the file; it is made, and stays empty. Nobody else may open it in this process, since closing it would
            free what is held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._numbers: list[int] = []

    def take(self, numbers: Iterable[int]) -> list[int]:
        """Hold numbers until :meth:`release` or the end of the process.

        Returns:
            Those that another process holds.

        Raises:
            OSError: the file cannot be made.
        """
        if fcntl is None:
            return []
        if self._descriptor is None:
            make_folder(self.path.parent)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            _HELD_HERE.add(self.path.resolve())
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
        """Take the numbers that are held in a new file if somebody has removed the file.

        Returns:
            Those that another process has taken meanwhile.

        Raises:
            OSError: the file cannot be made.
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
        """Let go of all."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _HELD_HERE.discard(self.path.resolve())
