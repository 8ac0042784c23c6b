"""Cache of compiled kernels. A library is loaded only if it is unchanged and no other user can modify it.

Loading a library executes its code, and loading a truncated one ends the process with SIGBUS. The SHA-256 of each
library is therefore stored in a file next to it, and compared before loading.
"""

import hashlib
import os
import stat
from pathlib import Path

SUM = ".sha256"
"""Suffix of the file with the hash of a library."""


def sum_file(library: Path) -> Path:
    """Return the file with the hash of a library."""
    return library.with_name(library.name + SUM)


def seal(library: Path) -> Path:
    """Write the hash of a library next to it, and return the path of the hash file.

    Raises:
        OSError: the library cannot be read, or the hash file cannot be written.
    """
    sum_file(library).write_text(_digest(library), encoding="ascii")
    return sum_file(library)


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def is_intact(library: Path) -> bool:
    """Return whether a library exists and is unchanged since it was built."""
    try:
        return sum_file(library).read_text(encoding="ascii").strip() == _digest(library)
    except (OSError, ValueError):
        return False


def written_by_others(path: Path) -> str:
    """Return a description of who else can modify a file or folder; empty if only root and this user can."""
    if not hasattr(os, "geteuid"):  # no owners on this system
        return ""
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user"
    return f"{path} can be written by other users" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def make_private(folder: Path) -> None:
    """Create a folder for libraries, or remove the write permission of other users from it.

    Raises:
        RuntimeError: the folder belongs to another user.
        OSError: the folder cannot be created, or its mode cannot be changed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not written_by_others(folder):
        return
    mode = folder.stat().st_mode
    if folder.stat().st_uid == os.geteuid():
        folder.chmod(stat.S_IMODE(mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
    if problem := written_by_others(folder):
        raise RuntimeError(f"{problem}; remove it, or set XDG_CACHE_HOME to a folder that you own")


def is_usable(library: Path) -> bool:
    """Return whether a library can be loaded: it is intact, and no other user can modify it or its hash."""
    if not is_intact(library):
        return False
    return not any(written_by_others(path) for path in (library, sum_file(library)))
