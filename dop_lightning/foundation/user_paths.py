"""Paths in user input."""

from argparse import ArgumentTypeError
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """Expand ``~`` and ``~user`` in a path, unless a file has exactly this name or the user does not exist.

    >>> user_path("~unknown-user.png")
    PosixPath('~unknown-user.png')
    """
    path = Path(text)
    if path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def out_folder(text: str) -> Path:
    """Return the folder of ``--out``; an argparse type.

    Raises:
        ArgumentTypeError: the name is empty, which would mean the current folder.
    """
    if not text.strip():
        raise ArgumentTypeError(f"must be a folder, got {text!r}; use . for the current folder")
    return Path(text)
