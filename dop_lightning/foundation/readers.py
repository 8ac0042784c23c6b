"""Readers of files whose formats a higher room knows.

A lower room asks for a reader by what the file holds. :mod:`dop_lightning` registers the readers.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in dop_lightning, which imports this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    Reader = Callable[[str | Path], np.ndarray]

_READERS: dict[str, str] = {}


def register_reader(content: str, reader: str) -> None:
    """Register the function that reads files of some content.

    Args:
        content: what the files hold, such as ``image``.
        reader: the function as ``module:name``, imported at its first use. It takes a path and returns an array.
    """
    _READERS[content] = reader


def reader_of(content: str) -> Reader:
    """Return the function that reads files of some content.

    Raises:
        ValueError: no reader is registered for it.
    """
    if content not in _READERS:
        known = ", ".join(sorted(_READERS)) or "none"
        raise ValueError(f"content must be one with a registered reader ({known}), got {content!r}")
    from importlib import import_module

    module, name = _READERS[content].split(":")
    reader: Reader = getattr(import_module(module), name)
    return reader
