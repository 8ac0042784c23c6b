"""Lock on a folder, which survives the removal of the files in it and is released when the process ends."""

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
"""Errors of systems and file systems on which a folder cannot be opened or locked."""

_HELD: dict[tuple[int, int], tuple[int, int]] = {}
"""Descriptor and number of holders of each folder that this process has locked, by device and inode."""

_ACQUIRED: weakref.WeakSet["FolderLock"] = weakref.WeakSet()
"""The most recent lock of this process on each folder that it has locked."""

_GUARD = threading.Lock()


MOVED = "was moved, removed or replaced during this run; move it back and start again, or start with the new folder"
"""Error message for such a folder, after its name."""


def in_use(folder: Path) -> str:
    """Return the error message for a folder that another run has locked."""
    return f"{folder}: another process is using this folder; wait until it ends, or stop it, and start again"


def held_above(path: Path) -> Path | None:
    """Return the innermost folder that contains a path and is locked by this process.

    Args:
        path: absolute path.

    Raises:
        FileNotFoundError: the folder was moved, removed or replaced.
    """
    locks = [lock for lock in list(_ACQUIRED) if path.is_relative_to(lock.path)]
    for lock in locks:
        if not lock.is_intact:
            raise FileNotFoundError(errno.ENOENT, MOVED, str(lock.folder))
    return max((lock.path for lock in locks), key=lambda folder: len(folder.parts), default=None)


class FolderLock:
    """Lock on a folder that is shared by all processes of one launch, and excludes those of other launches.

    It uses ``flock`` on the folder. On a local file system, the lock applies to all processes of the machine, whatever
    is removed from the folder. Network file systems may not share it with other machines. A process can lock a folder
    several times. On systems without such locks, every request succeeds.

    Args:
        folder: folder to lock, created if it does not exist.

    Attributes:
        path: absolute path of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder.absolute()
        self._inode: tuple[int, int] | None = None

    def acquire(self, first: bool = True) -> bool:
        """Lock the folder until :meth:`release` or the end of the process.

        Args:
            first: whether this is the first process of a launch, which requires that the folder is not locked.

        Returns:
            ``True`` if the folder is locked now, ``False`` if a process of another launch has locked it.

        Raises:
            OSError: the folder cannot be created.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _GUARD:
            state = self.folder.stat()
            inode = (state.st_dev, state.st_ino)
            if fcntl is None or self._inode == inode:
                self._register(inode)
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
                    self._register(inode)
                    return True
            _HELD[inode] = descriptor, count + 1
            self._register(inode)
        return True

    def _register(self, inode: tuple[int, int]) -> None:
        self._inode = inode
        for lock in [lock for lock in _ACQUIRED if lock.path == self.path]:  # from a failed launch
            _ACQUIRED.discard(lock)
        _ACQUIRED.add(self)

    def require(self, first: bool = True) -> None:
        """Lock the folder as :meth:`acquire` does.

        Raises:
            ValueError: a process of another launch has locked the folder.
            OSError: the folder cannot be created.
        """
        if not self.acquire(first):
            raise ValueError(in_use(self.folder))

    @property
    def is_intact(self) -> bool:
        """Whether the locked folder still exists at its path, neither moved nor replaced."""
        try:
            state = self.path.stat()
        except OSError:
            return False
        return (state.st_dev, state.st_ino) == self._inode

    def release(self) -> None:
        """Release the lock."""
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
