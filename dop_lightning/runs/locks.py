"""Who works on what in a folder: parts of a file that the system frees when a process ends, however it ends."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        taken = []
        for number in numbers:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    taken.append(number)
                elif error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        return taken

    def release(self) -> None:
        """Let go of all."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
