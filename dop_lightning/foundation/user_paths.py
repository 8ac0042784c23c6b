"""Paths as users give them."""

from argparse import ArgumentTypeError
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """Return a path with ``~`` and ``~user`` expanded, unless a file has that very name or there is no such user.

    >>> user_path("~nobody-of-this-name.png")
    PosixPath('~nobody-of-this-name.png')
    """
    path = Path(text)
    if path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def out_folder(text: str) -> Path:
    """Return the folder of ``--out``, as a type of argparse.

    Raises:
        ArgumentTypeError: the name is empty, which would be the current folder.
    """
    if not text.strip():
        raise ArgumentTypeError(f"must be a folder, got {text!r}; use . for the current one")
    return Path(text)
