"""A lock on a folder itself, which holds when the files in it are removed, and ends with the process."""

import errno
import os
import threading
import weakref
from pathlib import Path
from typing import Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.EACCES)
"""Errors of systems and file systems that cannot lock a folder, or where it cannot be opened."""

_HELD: dict[tuple[int, int], tuple[int, int]] = {}
"""Of each folder that this process has locked, by device and inode, the descriptor and how often it is held."""

_ACQUIRED: weakref.WeakSet["FolderLock"] = weakref.WeakSet()
"""The last lock of this process on each folder that it holds."""

_GUARD = threading.Lock()


MOVED = (
    "was moved, removed or replaced while this run was at work; move it back and start again, or start with the new "
    "folder"
)
"""What to say of such a folder, after its name."""


def in_use(folder: Path) -> str:
    """Return what to say of a folder that a process of another start holds."""
    return f"{folder}: another process is at work in this folder; wait for its end, or end it, and start again"


def held_above(path: Path) -> Path | None:
    """Return the folder that this process holds and that contains a path; the innermost if there are several.

    Args:
        path: absolute.

    Raises:
        FileNotFoundError: the folder was moved, removed or replaced.
    """
    locks = [lock for lock in list(_ACQUIRED) if path.is_relative_to(lock.path)]
    for lock in locks:
        if not lock.is_intact:
            raise FileNotFoundError(errno.ENOENT, MOVED, str(lock.folder))
    return max((lock.path for lock in locks), key=lambda folder: len(folder.parts), default=None)


class FolderLock:
    """The processes of one start hold a folder together; no process of another start gets it meanwhile.

    It is ``flock`` on the folder: on a local file system it holds for all processes of the machine, whatever is removed
    from the folder. Network file systems do not pass it on to other machines. A process may lock a folder again. If the
    system has no such locks, they are granted.

    Args:
        folder: is made if it does not exist.

    Attributes:
        path: of the folder, absolute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder.absolute()
        self._inode: tuple[int, int] | None = None

    def acquire(self, first: bool = True) -> bool:
        """Hold the folder until :meth:`release` or the end of the process.

        Args:
            first: whether this is the first process of a start, which must find the folder free.

        Returns:
            Whether it is held; ``False`` if a process of another start holds it.

        Raises:
            OSError: the folder cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _GUARD:
            state = self.folder.stat()
            inode = (state.st_dev, state.st_ino)
            if fcntl is None or self._inode == inode:
                self._set(inode)
                return True
            if inode in _HELD:
                descriptor, count = _HELD[inode]
            else:
                descriptor, count = -1, 0
                try:
                    descriptor = os.open(self.folder, os.O_RDONLY)
                    if first:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError as error:
                    if descriptor >= 0:
                        os.close(descriptor)
                    if isinstance(error, BlockingIOError):
                        return False
                    if error.errno not in NO_LOCKS:
                        raise
                    self._set(inode)
                    return True
            _HELD[inode] = descriptor, count + 1
            self._set(inode)
        return True

    def _set(self, inode: tuple[int, int]) -> None:
        self._inode = inode
        for lock in [lock for lock in _ACQUIRED if lock.path == self.path]:  # of a start that has failed
            _ACQUIRED.discard(lock)
        _ACQUIRED.add(self)

    def require(self, first: bool = True) -> None:
        """Hold the folder as :meth:`acquire` does.

        Raises:
            ValueError: a process of another start holds it.
            OSError: the folder cannot be made.
        """
        if not self.acquire(first):
            raise ValueError(in_use(self.folder))

    @property
    def is_intact(self) -> bool:
        """Whether the folder that was locked is still there by its name, neither moved nor replaced."""
        try:
            state = self.path.stat()
        except OSError:
            return False
        return (state.st_dev, state.st_ino) == self._inode

    def release(self) -> None:
        """Let go of the folder."""
        with _GUARD:
            _ACQUIRED.discard(self)
            if self._inode in _HELD:
                descriptor, count = _HELD.pop(self._inode)
                if count > 1:
                    _HELD[self._inode] = descriptor, count - 1
                else:
                    os.close(descriptor)
            self._inode = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
