"""The cache of compiled kernels: a library is loaded only if it is as it was built, and others could not change it.

To load a library runs its code, and to load one that is cut ends the process by SIGBUS. So each has a file with its
SHA-256 beside it, which is compared before.
"""

import hashlib
import os
import stat
from pathlib import Path

SUM = ".sha256"
"""What the name of the file with the hash of a library ends in."""


def sum_file(library: Path) -> Path:
    """Return the file with the hash of a library."""
    return library.with_name(library.name + SUM)


def seal(library: Path) -> Path:
    """Write the hash of a library beside it, and return that file.

    Raises:
        OSError: it cannot be read or written.
    """
    sum_file(library).write_text(_digest(library), encoding="ascii")
    return sum_file(library)


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def is_intact(library: Path) -> bool:
    """Return whether a library is there, with the contents that it was built with."""
    try:
        return sum_file(library).read_text(encoding="ascii").strip() == _digest(library)
    except (OSError, ValueError):
        return False


def written_by_others(path: Path) -> str:
    """Return who else could have changed a file or a folder, in words; empty if no one but root and its user could."""
    if not hasattr(os, "geteuid"):  # no owners on this system
        return ""
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user"
    return f"{path} can be written by other users" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def make_private(folder: Path) -> None:
    """Make a folder for libraries, or take from others the right to write to it.

    Raises:
        RuntimeError: it belongs to another user.
        OSError: it cannot be made, or its mode cannot be changed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not written_by_others(folder):
        return
    mode = folder.stat().st_mode
    if folder.stat().st_uid == os.geteuid():
        folder.chmod(stat.S_IMODE(mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
    if told := written_by_others(folder):
        raise RuntimeError(f"{told}; remove it, or set XDG_CACHE_HOME to a folder of your own")


def is_usable(library: Path) -> bool:
    """Return whether a library can be loaded: it is intact, and no one else could have changed it or its hash."""
    if not is_intact(library):
        return False
    return not any(written_by_others(path) for path in (library, sum_file(library)))
