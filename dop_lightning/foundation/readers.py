"""Registry of file readers, for formats that are implemented in a higher room.

A lower room requests a reader by the content of the file. :mod:`dop_lightning` registers the readers.
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
    """Register a function that reads files with a kind of content.

    Args:
        content: kind of content, such as ``image``.
        reader: function as ``module:name``, imported on first use. It takes a path and returns an array.
    """
    _READERS[content] = reader


def reader_of(content: str) -> Reader:
    """Return the function that reads files with a kind of content.

    Raises:
        ValueError: no reader is registered for this content.
    """
    if content not in _READERS:
        known = ", ".join(sorted(_READERS)) or "none"
        raise ValueError(f"content must have a registered reader ({known}), got {content!r}")
    from importlib import import_module

    module, name = _READERS[content].split(":")
    reader: Reader = getattr(import_module(module), name)
    return reader
